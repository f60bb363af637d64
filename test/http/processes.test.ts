import { existsSync, readFileSync, writeFileSync } from "node:fs"
import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { AsyncResult } from "chicory"
import { SqliteStore } from "chicory/sqlite"
import { Effect, Layer, Schedule } from "effect"
import { temporaryFile } from "../sqlite/temporary.ts"
import { freePort, PORTS } from "../support/ownServers.ts"
import * as Processes from "../support/processes.ts"
import { ProbedEvent, UntilDone } from "./probedWorker.ts"
import { fail, pass, probe, send, type ProbeAnswer } from "./probing.ts"

describe("a worker process with probes", () => {
  it.live(
    "is live and no longer ready from SIGTERM until its task has ended and it exits",
    () =>
      Effect.gen(function* () {
        const filename = yield* temporaryFile
        const path = `${filename}.health`
        const port = yield* freePort(PORTS.probes)
        /** Probes until the readiness is this. */
        const untilReadiness = (answer: ProbeAnswer) =>
          Effect.repeat(Effect.option(send(port, "/ready")), {
            until: (ready) => ready._tag === "Some" && ready.value.httpStatus === answer.httpStatus,
            schedule: Schedule.spaced("20 millis")
          })
        const worker = yield* Processes.start(
          Processes.program("../http/probedWorker.ts", [filename, String(port), path]),
          ProbedEvent
        )
        yield* untilReadiness(pass())
        assert.deepStrictEqual(yield* probe(port), { live: pass(), ready: pass() })
        const store = yield* Layer.build(SqliteStore.layer({ filename }))
        const handle = yield* Effect.provideContext(UntilDone.delay(), store)
        yield* worker.until((events) => events.length === 1)
        assert.deepStrictEqual(yield* probe(port), { live: pass(), ready: pass() })

        yield* worker.signal("SIGTERM")
        yield* untilReadiness(fail("Draining"))
        for (let round = 0; round < 10; round++) {
          assert.deepStrictEqual(yield* probe(port), { live: pass("Draining"), ready: fail("Draining") })
          assert.strictEqual(yield* Effect.provideContext(AsyncResult.state(handle), store), "STARTED")
        }
        yield* Effect.repeat(
          Effect.sync(() => readFileSync(path, "utf8")),
          { until: (text) => text.includes('"ready":false'), schedule: Schedule.spaced("20 millis") }
        )
        writeFileSync(`${path}.done`, "")
        yield* Effect.provideContext(AsyncResult.get(handle), store)
        assert.isTrue(yield* worker.ended)
        assert.isFalse(existsSync(path))
        assert.include(String(yield* Effect.flip(send(port, "/live"))), "ECONNREFUSED")
      }).pipe(Effect.provide(NodeServices.layer)),
    { timeout: 60_000 }
  )
})
