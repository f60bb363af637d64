/** Probes as a kubelet sends them: each over a new connection. */
import { request } from "node:http"
import { Effect } from "effect"

/** The status and the parsed body of an answer. */
export interface ProbeAnswer {
  readonly httpStatus: number | undefined
  readonly body: unknown
}

/** Sends one request; fails where nobody listens. */
export const send = (port: number, path: string, method = "GET"): Effect.Effect<ProbeAnswer, Error> =>
  Effect.callback((resume) => {
    const sent = request({ host: "127.0.0.1", port, path, method, agent: false }, (response) => {
      let text = ""
      response.setEncoding("utf8")
      response.on("data", (chunk: string) => (text += chunk))
      response.on("end", () => {
        const body: unknown = text === "" ? undefined : JSON.parse(text)
        resume(Effect.succeed({ httpStatus: response.statusCode, body }))
      })
    })
    sent.on("error", (error) => resume(Effect.fail(error)))
    sent.end()
  })

/** The answers to both probes. */
export const probe = (port: number) => Effect.all({ live: send(port, "/live"), ready: send(port, "/ready") })

export const pass = (code = "Ready"): ProbeAnswer => ({ httpStatus: 200, body: { status: "pass", code } })
export const fail = (code: string): ProbeAnswer => ({ httpStatus: 503, body: { status: "fail", code } })
