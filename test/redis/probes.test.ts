import { assert } from "@effect/vitest"
import { Task, Worker } from "chicory"
import { WorkerHealth } from "chicory/http"
import { Effect, Layer, Schedule } from "effect"
import { fail, pass, probe, send, type ProbeAnswer } from "../http/probing.ts"
import { freePort, PORTS } from "../support/ownServers.ts"
import { describeWithServers } from "./server.ts"
import { openStore, testWithServer as test } from "./storeFixture.ts"

const Nothing = Task.make("nothing")

describeWithServers("the probes of a worker on Redis", () => {
  test(
    "say that the server is away, and that it is back; the worker stays live",
    { persistent: true },
    (server) =>
      Effect.gen(function* () {
        const port = yield* freePort(PORTS.probes)
        /** Probes until `/ready` gives this answer. `/live` passes each time. */
        const untilReadiness = (answer: ProbeAnswer) =>
          Effect.repeat(
            Effect.tap(probe(port), ({ live }) =>
              Effect.sync(() => assert.strictEqual(live.httpStatus, 200))
            ),
            {
              until: ({ ready }) => ready.httpStatus === answer.httpStatus,
              schedule: Schedule.spaced("100 millis")
            }
          )
        yield* Layer.build(
          Worker.layer([Nothing], { heartbeat: "1 second" }).pipe(
            WorkerHealth.layer({ port }),
            Layer.provide(Nothing.toLayer(() => Effect.void)),
            Layer.provide(Layer.succeedContext(yield* openStore(server, { callTimeout: "1 second" })))
          )
        )
        yield* untilReadiness(pass())
        yield* server.kill
        yield* untilReadiness(fail("BrokerAway"))
        assert.deepStrictEqual(yield* send(port, "/ready"), fail("BrokerAway"))
        yield* server.start
        yield* untilReadiness(pass())
        assert.deepStrictEqual(yield* send(port, "/ready"), pass())
      })
  )
})
