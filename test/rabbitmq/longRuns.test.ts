/** Tasks that run for longer than the server's `consumer_timeout`. */
import { NodeServices } from "@effect/platform-node"
import { assert } from "@effect/vitest"
import { AsyncResult, RetryPolicy, Task, TaskContext } from "chicory"
import { Effect, Option, Schema } from "effect"
import * as Processes from "../support/processes.ts"
import * as ProcessTasks from "../support/processTasks.ts"
import { Count, countingHandler, eventually, roundTrip, startWorker, timed } from "../support/storeFixture.ts"
import { describeWithOwnRabbit } from "./ownServer.ts"
import { countsOf, untilDrained, untilEmpty, onOneServer, warningsOf } from "./storeFixture.ts"

/**
 * The server's `consumer_timeout`, which it checks every second. The broker puts a message back after half of it, so
 * the other half is what a stall of this process may last.
 */
const consumerTimeoutMillis = 10_000

/** Options of a broker that knows the server's timeout. */
const known = { consumerTimeout: consumerTimeoutMillis }

/** Succeeds with its attempt. */
const Long = Task.make("long", { payload: Schema.Number, success: Schema.Number })
const LongLive = Long.toLayer((millis) =>
  Effect.flatMap(TaskContext.TaskContext, ({ attempt }) => Effect.as(Effect.sleep(millis), attempt))
)

const FailsOnce = Task.make("failsOnce", {
  success: Schema.Number,
  error: Schema.String,
  retry: RetryPolicy.fixed({ maxRetries: 1, delay: "100 millis" })
})

describeWithOwnRabbit("tasks on RabbitMQ", () => {
  onOneServer("longer than the consumer timeout", { consumerTimeoutMillis }, (test) => {
    test("a long task runs once, and its channel stays open", (server, location) =>
      Effect.gen(function* () {
        const logged = yield* warningsOf(
          Effect.gen(function* () {
            const producer = yield* location.open(known)
            const workers = yield* location.open(known)
            yield* startWorker(workers, Long, LongLive, { lease: "2 seconds" })
            yield* Effect.gen(function* () {
              const handles = yield* Long.delayAll([15_000, 15_300, 7_000, 0])
              assert.deepStrictEqual(yield* AsyncResult.all(handles), [1, 1, 1, 1])
              const found = yield* Effect.forEach(handles, (handle) => AsyncResult.poll(handle))
              assert.deepStrictEqual(
                found.map((one) => Option.getOrThrow(one).attempts),
                [1, 1, 1, 1]
              )
              yield* untilDrained(producer, workers)
              assert.strictEqual(yield* location.crashes, 0)
              yield* untilEmpty(server, location)
            }).pipe(Effect.provideContext(producer))
          })
        )
        assert.deepStrictEqual(logged, [])
      }))

    test("a long task runs once if two workers may claim its message", (_, location) =>
      Effect.gen(function* () {
        const producer = yield* location.open(known)
        const stores = [yield* location.open(known), yield* location.open(known)]
        const runs = countingHandler()
        for (const store of stores) yield* startWorker(store, Count, runs.layer, { lease: "2 seconds" })
        yield* Effect.gen(function* () {
          const handles = yield* Count.delayAll([
            { n: 1, millis: 13_000 },
            { n: 2, millis: 13_000 },
            { n: 3, millis: 13_000 }
          ])
          assert.deepStrictEqual(yield* AsyncResult.all(handles), [1, 2, 3])
          assert.sameMembers(runs.begun, [1, 2, 3])
          assert.strictEqual(yield* location.crashes, 0)
          yield* untilDrained(...stores)
        }).pipe(Effect.provideContext(producer))
      }))

    test("a long task is retried after the delay of its policy, not when its delayed message is due", (_, location) =>
      Effect.gen(function* () {
        const producer = yield* location.open(known)
        const worker = yield* location.open(known)
        const endedAt: Array<number> = []
        const FailsOnceLive = FailsOnce.toLayer(() =>
          Effect.flatMap(TaskContext.TaskContext, ({ attempt }) => {
            const note = Effect.sync(() => void endedAt.push(performance.now()))
            return attempt > 1
              ? Effect.as(note, attempt)
              : Effect.sleep(5_200).pipe(Effect.andThen(note), Effect.andThen(Effect.fail("failed once")))
          })
        )
        // longer than the retry delay, since a message that was put back is due after a lease
        yield* startWorker(worker, FailsOnce, FailsOnceLive, { lease: "8 seconds" })
        yield* Effect.gen(function* () {
          const handle = yield* FailsOnce.delay()
          assert.strictEqual(yield* AsyncResult.get(handle), 2)
          const [failed = 0, again = 0] = endedAt
          assert.isBelow(again - failed, 3_000)
        }).pipe(Effect.provideContext(producer))
      }))

    test("another worker starts a long task whose worker is killed after its message was put back", (server, location) =>
      Effect.gen(function* () {
        const producer = yield* location.open(known)
        yield* Effect.gen(function* () {
          const rabbitmq = { url: server.url, prefix: location.prefix, ...known }
          const processLocation = {
            dialect: "sqlite",
            filename: location.filename,
            prefix: "chicory",
            rabbitmq
          } as const
          const options = { lease: "1 second" } as const
          const first = yield* Processes.startWorker(processLocation, options)
          const handle = yield* ProcessTasks.Count.delay({ n: 1, millis: 600_000 })
          yield* first.untilBegan()
          const second = yield* Processes.startWorker(processLocation, options)
          yield* eventually(Effect.map(countsOf(producer), ({ delayed }) => delayed === 1))
          yield* first.kill
          yield* second.untilBegan()
          assert.strictEqual((yield* Processes.poll(handle)).attempts, 2)
          assert.strictEqual(yield* location.crashes, 1)
          assert.strictEqual(yield* AsyncResult.cancel(handle), "Requested")
          yield* Effect.flip(AsyncResult.get(handle))
          assert.strictEqual(Processes.beganCount(first.events) + Processes.beganCount(second.events), 2)
          yield* untilEmpty(server, location)
        }).pipe(Effect.provideContext(producer), Effect.provide(NodeServices.layer))
      }))

    test("a long task runs once although the server closes the channel of a broker with a wrong timeout", (server, location) =>
      Effect.gen(function* () {
        const logged = yield* warningsOf(
          Effect.gen(function* () {
            const producer = yield* location.open()
            const workers = yield* location.open()
            const runs = countingHandler()
            yield* startWorker(workers, Count, runs.layer, { lease: "2 seconds" })
            yield* Effect.gen(function* () {
              const handle = yield* Count.delay({ n: 1, millis: 14_000 })
              yield* runs.untilBegun(1)
              assert.strictEqual(yield* roundTrip(2), 2)
              assert.strictEqual(yield* AsyncResult.get(handle), 1)
              const [millis] = yield* timed(roundTrip(3))
              assert.isBelow(millis, 1_000)
              assert.deepStrictEqual(runs.begun, [1, 2, 3])
              assert.strictEqual(yield* location.crashes, 0)
              yield* untilDrained(producer, workers)
              yield* untilEmpty(server, location)
            }).pipe(Effect.provideContext(producer))
          })
        )
        assert.isTrue(
          logged.some((line) => line.includes("PRECONDITION_FAILED")),
          logged.join("\n")
        )
      }))
  })
})
