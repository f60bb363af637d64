/**
 * The HTTP server of probes.
 *
 * It is a server of `node:http`, so that probes need no other package, make no spans, and no connection that a client holds
 * open delays the end of the process. It reads no body, answers two paths, and says nothing but a status and a code.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http"
import type { AddressInfo } from "node:net"
import { type Context, Effect, Exit, type Scope } from "effect"
import type * as Worker from "../Worker.ts"

/** Where to listen. */
export interface ListenOptions {
  readonly port: number
  /** `undefined`: all interfaces. */
  readonly host: string | undefined
}

/** Milliseconds that a client may take to send a request. */
const REQUEST_TIMEOUT = 5000

interface Answer {
  readonly httpStatus: number
  readonly code: string
  readonly headers?: Readonly<Record<string, string>>
}

const respond = (response: ServerResponse, { code, headers, httpStatus }: Answer): void => {
  const body = `${JSON.stringify({ status: httpStatus === 200 ? "pass" : "fail", code })}\n`
  response.writeHead(httpStatus, {
    "content-type": "application/json",
    "content-length": body.length,
    "cache-control": "no-store",
    connection: "close",
    ...headers
  })
  // Node sends no body in answer to HEAD
  response.end(body)
}

/** Returns what a probe asks for, or the answer to anything else. */
const parse = ({ method, url = "" }: IncomingMessage): "live" | "ready" | Answer => {
  const path = url.split("?", 1)[0]
  if (path !== "/live" && path !== "/ready") return { httpStatus: 404, code: "NotFound" }
  return method === "GET" || method === "HEAD"
    ? path === "/live"
      ? "live"
      : "ready"
    : { httpStatus: 405, code: "MethodNotAllowed", headers: { allow: "GET, HEAD" } }
}

const answerWith =
  (context: Context.Context<never>, health: Effect.Effect<Worker.Health>) =>
  (request: IncomingMessage, response: ServerResponse): void => {
    const probe = parse(request)
    if (typeof probe === "object") return respond(response, probe)
    Effect.runForkWith(context)(health).addObserver((exit) => {
      if (Exit.isFailure(exit)) return respond(response, { httpStatus: 500, code: "Unknown" })
      const { [probe]: passes, code } = exit.value
      respond(response, { httpStatus: passes ? 200 : 503, code })
    })
  }

const listen = (server: Server, options: ListenOptions): Effect.Effect<AddressInfo, NodeJS.ErrnoException> =>
  Effect.callback((resume) => {
    const onError = (error: NodeJS.ErrnoException) => resume(Effect.fail(error))
    server.once("error", onError)
    server.listen(options, () => {
      server.off("error", onError)
      // without a listener an error of a single connection would end the process
      server.on("error", () => undefined)
      // a server that listens on a port has the address of one
      resume(Effect.succeed(server.address() as AddressInfo))
    })
  })

/** Ends the server, and with it every connection. */
const close = (server: Server): Effect.Effect<void> =>
  Effect.callback((resume) => {
    server.close(() => resume(Effect.void))
    server.closeAllConnections()
  })

/** Answers probes until the scope closes. Returns the address. */
export const serveProbes = (
  health: Effect.Effect<Worker.Health>,
  options: ListenOptions
): Effect.Effect<AddressInfo, NodeJS.ErrnoException, Scope.Scope> =>
  Effect.contextWith((context: Context.Context<never>) =>
    Effect.flatMap(
      Effect.acquireRelease(
        Effect.sync(() =>
          createServer(
            {
              requestTimeout: REQUEST_TIMEOUT,
              headersTimeout: REQUEST_TIMEOUT,
              connectionsCheckingInterval: 1000
            },
            answerWith(context, health)
          )
        ),
        close
      ),
      (server) => listen(server, options)
    )
  )
