/** The memory store while nothing happens: no fiber sleeps, so that a test passes any time in one step. */
import { assert, describe, it } from "@effect/vitest"
import { AsyncResult, Backend, Broker, MemoryStore, Task, Worker } from "chicory"
import { Clock, Duration, Effect, Fiber, Layer, Schema } from "effect"
import { TestClock } from "effect/testing"
import { advance, flush } from "../support/memoryFixture.ts"

const Echo = Task.make("echo", { payload: Schema.Int, success: Schema.Int, retention: "Infinity" })
const Slow = Task.make("slow", { payload: Schema.Int, success: Schema.Int, retention: "Infinity" })
const EchoLive = Echo.toLayer(Effect.succeed)
const SlowLive = Slow.toLayer((n) => Effect.as(Effect.sleep("1 hour"), n))

const WorkerLive = Worker.layer([Echo, Slow], { drainTimeout: 0 }).pipe(Layer.provide([EchoLive, SlowLive]))
const stores = {
  "one store": MemoryStore.layer(),
  "two stores": Layer.merge(Backend.layerMemory, Broker.layerMemory),
  "a broker alone": Layer.merge(Backend.layerNotConfigured, Broker.layerMemory)
}

/** How many fibers sleep by the clock of the test, and how many have done so; not those that sleep for no time. */
interface Sleeps {
  now: number
  total: number
}

/** Runs a test whose sleeps are counted. */
const counted = <A, E, R>(test: (sleeps: Sleeps) => Effect.Effect<A, E, R>) =>
  Clock.clockWith((clock) => {
    const sleeps: Sleeps = { now: 0, total: 0 }
    const sleep = (duration: Duration.Duration) =>
      Duration.isZero(duration)
        ? Effect.void
        : Effect.acquireUseRelease(
            Effect.sync(() => {
              sleeps.now++
              sleeps.total++
            }),
            () => clock.sleep(duration),
            () => Effect.sync(() => sleeps.now--)
          )
    const counting: Clock.Clock = Object.assign(Object.create(clock), { sleep })
    return Effect.provideService(test(sleeps), Clock.Clock, counting)
  })

describe("an idle worker on the memory store", () => {
  for (const [name, store] of Object.entries(stores)) {
    it.effect(`sleeps for nothing, over ${name}`, () =>
      counted((sleeps) =>
        Effect.gen(function* () {
          // it looks for messages that were set aside once more, a heartbeat after it started
          yield* advance("10 seconds")
          assert.strictEqual(sleeps.now, 0)
          const before = sleeps.total
          yield* TestClock.adjust("30 days")
          assert.strictEqual(sleeps.total, before)
          yield* Echo.send(7)
          yield* flush
          assert.strictEqual((yield* Effect.flatMap(Worker.Worker, ({ stats }) => stats)).succeeded, 1)
        }).pipe(Effect.provide(Layer.provideMerge(WorkerLive, store)))
      )
    )
  }

  it.effect("sleeps for nothing again after it ran a task", () =>
    counted((sleeps) =>
      Effect.gen(function* () {
        const result = yield* Slow.delay(7)
        yield* advance("1 minute")
        assert.isAbove(sleeps.now, 0)
        yield* advance("1 hour")
        assert.strictEqual(yield* AsyncResult.get(result), 7)
        yield* advance("1 minute")
        assert.strictEqual(sleeps.now, 0)
      }).pipe(Effect.provide(Layer.provideMerge(WorkerLive, MemoryStore.layer())))
    )
  )

  it.effect("sleeps until the grace of a task that it does not know is over, and for nothing then", () =>
    counted((sleeps) =>
      Effect.gen(function* () {
        yield* advance("10 seconds")
        const result = yield* Task.make("unknown").delay()
        yield* advance("1 minute")
        assert.strictEqual(sleeps.now, 1)
        const before = sleeps.total
        yield* advance("58 minutes")
        assert.strictEqual(sleeps.total, before)
        yield* advance("1 minute")
        assert.isTrue(yield* AsyncResult.failed(result))
        // its dead letter is removed
        yield* TestClock.adjust("15 days")
        assert.strictEqual(sleeps.now, 0)
      }).pipe(Effect.provide(Layer.provideMerge(WorkerLive, MemoryStore.layer())))
    )
  )

  it.effect("is listed, with the number of its runs", () =>
    Effect.gen(function* () {
      yield* flush
      const running = Effect.map(Worker.active, (workers) => workers.map((worker) => worker.running))
      assert.deepStrictEqual(yield* running, [0])
      yield* TestClock.adjust("30 days")
      assert.deepStrictEqual(yield* running, [0])
      yield* Slow.send(7)
      yield* advance("1 minute")
      assert.deepStrictEqual(yield* running, [1])
      yield* advance("2 hours")
      assert.deepStrictEqual(yield* running, [0])
    }).pipe(Effect.provide(Layer.provideMerge(WorkerLive, MemoryStore.layer())))
  )

  it.effect("is no longer listed after it stopped", () =>
    Effect.gen(function* () {
      const listed = yield* Effect.provide(Effect.andThen(flush, Worker.active), WorkerLive)
      assert.strictEqual(listed.length, 1)
      assert.deepStrictEqual(yield* Worker.active, [])
    }).pipe(Effect.provide(MemoryStore.layer()))
  )
})

describe("an idle waiter on the memory store", () => {
  it.effect("sleeps for nothing", () =>
    counted((sleeps) =>
      Effect.gen(function* () {
        const waiter = yield* Effect.forkChild(AsyncResult.get(yield* Echo.delay(7, { queue: "nobody's" })))
        yield* flush
        yield* TestClock.adjust("30 days")
        assert.strictEqual(sleeps.total, 0)
        assert.isUndefined(waiter.pollUnsafe())
      }).pipe(Effect.provide(MemoryStore.layer()))
    )
  )

  it.effect("sleeps once, until its task expires", () =>
    counted((sleeps) =>
      Effect.gen(function* () {
        const result = yield* Echo.delay(7, { queue: "nobody's", expires: "1 hour" })
        const waiter = yield* Effect.forkChild(Effect.flip(AsyncResult.get(result)))
        yield* advance("59 minutes")
        assert.strictEqual(sleeps.now, 1)
        assert.isUndefined(waiter.pollUnsafe())
        yield* advance("1 minute")
        const error = yield* Fiber.join(waiter)
        assert(error._tag === "TaskFailed")
        assert.strictEqual(error.reason._tag, "Expired")
        assert.strictEqual(sleeps.total, 1)
      }).pipe(Effect.provide(MemoryStore.layer()))
    )
  )
})
