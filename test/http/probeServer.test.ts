import { connect } from "node:net"
import { assert, describe, it } from "@effect/vitest"
import type { Worker } from "chicory"
import { Effect, Exit, Scope } from "effect"
import { serveProbes } from "../../src/http/probeServer.ts"
import { fail, pass, send } from "./probing.ts"

/** Starts a server on a free port, and returns the port. */
const start = (health: Effect.Effect<Worker.Health>) =>
  Effect.map(serveProbes(health, { port: 0, host: undefined }), ({ port }) => port)

const health = (live: boolean, code: Worker.HealthCode) =>
  Effect.succeed<Worker.Health>({ live, ready: code === "Ready", code })

describe("the server of probes", () => {
  it.live("answers with a status and a code", () =>
    Effect.gen(function* () {
      let now = health(true, "Ready")
      const port = yield* start(Effect.suspend(() => now))
      assert.deepStrictEqual(yield* send(port, "/live"), pass())
      assert.deepStrictEqual(yield* send(port, "/ready"), pass())
      now = health(true, "BrokerAway")
      assert.deepStrictEqual(yield* send(port, "/live"), pass("BrokerAway"))
      assert.deepStrictEqual(yield* send(port, "/ready"), fail("BrokerAway"))
      now = health(false, "Stuck")
      assert.deepStrictEqual(yield* send(port, "/live"), fail("Stuck"))
      assert.deepStrictEqual(yield* send(port, "/ready"), fail("Stuck"))
    })
  )

  it.live("answers HEAD without a body, and takes any query", () =>
    Effect.gen(function* () {
      const port = yield* start(health(true, "Draining"))
      assert.deepStrictEqual(yield* send(port, "/ready", "HEAD"), { httpStatus: 503, body: undefined })
      assert.deepStrictEqual(yield* send(port, "/ready?verbose"), fail("Draining"))
    })
  )

  it.live("refuses other paths and methods", () =>
    Effect.gen(function* () {
      const port = yield* start(health(true, "Ready"))
      for (const path of ["/", "/healthz", "/live/", "//live", "/../live", "/LIVE"]) {
        assert.strictEqual((yield* send(port, path)).httpStatus, 404, path)
      }
      for (const method of ["POST", "PUT", "DELETE", "OPTIONS"]) {
        assert.strictEqual((yield* send(port, "/live", method)).httpStatus, 405, method)
      }
    })
  )

  it.live("outlives a health that dies", () =>
    Effect.gen(function* () {
      const port = yield* start(Effect.die(new Error("postgres://user:secret@host")))
      const answer = { httpStatus: 500, body: { status: "fail", code: "Unknown" } }
      assert.deepStrictEqual(yield* send(port, "/live"), answer)
      assert.deepStrictEqual(yield* send(port, "/live"), answer)
    })
  )

  it.live("ends at once although a client holds a connection with half a request", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const port = yield* Scope.provide(start(health(true, "Ready")), scope)
      const socket = yield* Effect.acquireRelease(
        Effect.sync(() => connect(port, "127.0.0.1")),
        (socket) => Effect.sync(() => socket.destroy())
      )
      const closed = Effect.callback<void>((resume) => void socket.once("close", () => resume(Effect.void)))
      yield* Effect.callback<void>((resume) => {
        socket.on("error", () => undefined)
        socket.write("GET /live HTTP/1.1\r\nHost: x\r\n", () => resume(Effect.void))
      })
      // the server has read it by the time it answers another request
      assert.deepStrictEqual(yield* send(port, "/live"), pass())
      yield* Effect.timeout(Scope.close(scope, Exit.void), "4 seconds")
      yield* closed
      assert.include(String(yield* Effect.flip(send(port, "/live"))), "ECONNREFUSED")
    })
  )
})
