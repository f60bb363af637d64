/** Hand-over to worker processes that are killed, frozen and stopped while tasks are enqueued one by one. */
import { NodeServices } from "@effect/platform-node"
import { assert, it } from "@effect/vitest"
import { AsyncResult, type Backend, type Broker, DeadLetters } from "chicory"
import { Effect, Fiber, Layer, type Scope } from "effect"
import { beganCount, drained, poll, startWorker } from "../support/processes.ts"
import { Count } from "../support/processTasks.ts"
import * as StoreLocations from "../support/storeLocations.ts"
import * as temporaryLocations from "../support/temporaryLocations.ts"
import { describeWithRedis } from "./server.ts"

/** Enqueues tasks one by one, each of which is handed over where a worker is idle, while an effect runs. Returns their handles. */
const enqueueDuring = <E, R>(effect: Effect.Effect<unknown, E, R>) =>
  Effect.gen(function* () {
    const handles: Array<AsyncResult.AsyncResult<{ readonly n: number; readonly pid: number }>> = []
    let isOver = false
    const enqueue = Effect.suspend(() => Count.delay({ n: handles.length, millis: 2 })).pipe(
      Effect.tap((handle) => Effect.sync(() => handles.push(handle))),
      Effect.andThen(Effect.sleep("10 millis"))
    )
    const enqueuing = yield* Effect.forkChild(Effect.repeat(enqueue, { until: () => isOver }))
    yield* effect
    isOver = true
    yield* Fiber.join(enqueuing)
    return handles
  })

const test = (
  name: string,
  body: (
    start: (options: Parameters<typeof startWorker>[1]) => ReturnType<typeof startWorker>
  ) => Effect.fn.Return<
    void,
    unknown,
    Scope.Scope | NodeServices.NodeServices | Backend.Backend | Broker.Broker
  >
) =>
  it.live(
    name,
    () =>
      Effect.gen(function* () {
        const location = yield* temporaryLocations.redis
        yield* Effect.provide(
          Effect.gen(() => body((options) => startWorker(location, options))),
          Layer.mergeAll(NodeServices.layer, StoreLocations.layer(location))
        )
      }),
    { timeout: 120_000 }
  )

await describeWithRedis("tasks that are handed over to processes", () => {
  test("guarantee 1: none is lost while workers are killed and frozen", function* (start) {
    const options = { lease: "3 seconds", concurrency: 8 } as const
    const [killed, frozen] = yield* Effect.all([start(options), start(options)], { concurrency: 2 })
    const handles = yield* enqueueDuring(
      Effect.gen(function* () {
        yield* killed.untilBegan(20)
        yield* killed.kill
        yield* frozen.untilBegan(20)
        yield* frozen.signal("SIGSTOP")
        const last = yield* start(options)
        yield* last.untilBegan(20)
        yield* Effect.sleep("3 seconds")
        yield* frozen.signal("SIGCONT")
      })
    )
    const values = yield* AsyncResult.all(handles)
    assert.deepStrictEqual(
      values.map(({ n }) => n),
      handles.map((_, n) => n)
    )
    const results = yield* Effect.forEach(handles, poll)
    // a worker that was lost costs no more crashes than it had slots, and outcomes on their way
    const again = results.filter(({ attempts }) => attempts > 1)
    assert.isAtMost(again.length, 2 * 2 * options.concurrency)
    assert.strictEqual(yield* DeadLetters.count(), 0)
    yield* drained
  })

  test("guarantee 7: none is left to its lease while workers are replaced", function* (start) {
    const options = { lease: "10 minutes", concurrency: 8, drainTimeout: "10 seconds" } as const
    const [first, second] = yield* Effect.all([start(options), start(options)], { concurrency: 2 })
    const workers = [first, second]
    const handles = yield* enqueueDuring(
      Effect.gen(function* () {
        for (const worker of [first, second]) {
          yield* worker.untilBegan(20)
          if (worker === second) workers.push(yield* start(options))
          yield* worker.signal("SIGTERM")
          assert.isTrue(yield* worker.ended)
        }
      })
    )
    yield* AsyncResult.all(handles)
    const results = yield* Effect.forEach(handles, poll)
    assert.isTrue(results.every(({ attempts }) => attempts === 1))
    const began = workers.reduce((sum, { events }) => sum + beganCount(events), 0)
    assert.strictEqual(began, handles.length)
    yield* drained
  })
})
