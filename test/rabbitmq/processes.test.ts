import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { AsyncResult, DeadLetters } from "chicory"
import { Effect, Layer, Option } from "effect"
import { beganCount, poll, startWorker } from "../support/processes.ts"
import * as ProcessSuite from "../support/processSuite.ts"
import { Count } from "../support/processTasks.ts"
import * as storeLocations from "../support/storeLocations.ts"
import * as temporaryLocations from "../support/temporaryLocations.ts"
import { describeWithRabbit } from "./server.ts"

const locations = temporaryLocations.rabbitmq(temporaryLocations.sqlite)

await describeWithRabbit("processes on RabbitMQ, with results in SQLite", () => {
  ProcessSuite.suite(locations)

  describe("guarantee 3: a frozen worker process", () => {
    it.live(
      "loses its task to another worker, writes nothing once it is thawed, and runs later tasks",
      () =>
        Effect.gen(function* () {
          const location = yield* temporaryLocations.withShortHeartbeat(locations)
          yield* Effect.gen(function* () {
            const options = { lease: "1 second", concurrency: 2 } as const
            const first = yield* startWorker(location, options)
            const handle = yield* Count.delay({ n: 1, millis: 600_000 })
            yield* first.untilBegan()
            yield* first.signal("SIGSTOP")
            const second = yield* startWorker(location, options)
            yield* second.untilBegan()
            assert.strictEqual((yield* poll(handle)).attempts, 2)
            yield* first.signal("SIGCONT")
            yield* first.until((events) => events.some(({ _tag }) => _tag === "Interrupted"))
            const polled = yield* poll(handle)
            assert.isTrue(Option.isSome(polled.worker) && polled.worker.value.includes(`-${second.pid}-`))
            assert.strictEqual(yield* AsyncResult.cancel(handle), "Requested")
            const failed = yield* Effect.flip(AsyncResult.get(handle))
            assert(failed._tag === "TaskFailed")
            assert.strictEqual(failed.reason._tag, "Cancelled")
            assert.strictEqual(beganCount(first.events) + beganCount(second.events), 2)
            yield* second.kill
            const later = yield* Count.delay({ n: 2, millis: 0 })
            assert.strictEqual((yield* AsyncResult.get(later)).pid, first.pid)
            assert.strictEqual(yield* DeadLetters.count(), 0)
          }).pipe(Effect.provide(Layer.mergeAll(NodeServices.layer, storeLocations.layer(location))))
        }),
      { timeout: 60_000 }
    )
  })
})
