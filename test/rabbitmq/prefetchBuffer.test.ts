/** Messages that the server pushes to a worker: it runs no more than its slots, and what it cannot run goes to others. */
import { assert, describe, it } from "@effect/vitest"
import { AsyncResult, type Backend, Broker, Task, Worker } from "chicory"
import { Array as Arr, Deferred, Effect, Exit, Layer, Schema, Scope, Stream } from "effect"
import * as RabbitBroker from "../../src/rabbitmq/RabbitBroker.ts"
import { eventually, type Store, startWorker, timed } from "../support/storeFixture.ts"
import { describeWithRabbit, sharedUrl } from "./server.ts"
import { openStore, countReady, sharedBackend, temporaryPrefix } from "./shared.ts"

const Work = Task.make("work", { payload: Schema.Int, success: Schema.Int })
const Parent = Task.make("parent", { payload: Schema.Int, success: Schema.Int })

const LEFT_AND_RIGHT = ["left", "right"] as const

/** A handler of `Work` whose runs wait for a gate, and counts of its runs. */
const gated = () => {
  const gate = Deferred.makeUnsafe<void>()
  const begun: Array<number> = []
  let running = 0
  let maxRunning = 0
  return {
    begun,
    maxRunning: () => maxRunning,
    open: Deferred.succeed(gate, undefined),
    untilRunning: (count: number) => eventually(Effect.sync(() => running >= count)),
    layer: Work.toLayer((n) =>
      Effect.acquireUseRelease(
        Effect.sync(() => {
          begun.push(n)
          maxRunning = Math.max(maxRunning, ++running)
        }),
        () => Effect.as(Deferred.await(gate), n),
        () => Effect.sync(() => running--)
      )
    )
  }
}

/** What the stores of a test share: a prefix, and a backend in memory. */
interface SharedStore {
  readonly prefix: string
  /** Opens a store with its own connections. */
  readonly open: Effect.Effect<Store, unknown, Scope.Scope>
}

/** Adds a test in real time, under its own prefix. */
const test = (
  name: string,
  body: (
    shared: SharedStore,
    store: Store
  ) => Effect.Effect<void, unknown, Scope.Scope | Backend.Backend | Broker.Broker>
) =>
  it.live(name, () =>
    Effect.gen(function* () {
      const prefix = yield* temporaryPrefix(["default", ...LEFT_AND_RIGHT])
      const backend = yield* sharedBackend
      const open = openStore(prefix, backend)
      const store = yield* open
      yield* Effect.provideContext(body({ prefix, open }, store), store)
    })
  )

/** The sums of a store's counts over the queues. */
const countsOf = (queues: Arr.NonEmptyReadonlyArray<string>) =>
  Effect.map(Broker.counts(queues), (counts) => ({
    ready: counts.reduce((total, { ready }) => total + ready, 0),
    claimed: counts.reduce((total, { claimed }) => total + claimed, 0)
  }))

/** Waits until the sums of a store's counts are as expected. */
const untilCounts = (
  queues: Arr.NonEmptyReadonlyArray<string>,
  expected: { readonly ready: number; readonly claimed: number }
) =>
  eventually(
    Effect.map(
      countsOf(queues),
      ({ claimed, ready }) => ready === expected.ready && claimed === expected.claimed
    )
  )

/** Enqueues `each` tasks to each of the queues. */
const fill = (each: number, queues: ReadonlyArray<string>) =>
  Effect.map(
    Effect.forEach(queues, (queue) =>
      Effect.forEach(
        Arr.range(1, each),
        // in order
        (n) => Work.delay(n, { queue })
      )
    ),
    Arr.flatten
  )

/** Counts the messages that the server has not delivered. */
const leftOf = ({ prefix }: SharedStore, queues: ReadonlyArray<string>) =>
  Effect.map(
    Effect.forEach(queues, (queue) => countReady(prefix, queue)),
    (counts) => counts.reduce((total, count) => total + count, 0)
  )

await describeWithRabbit("the prefetch of RabbitMQ", () => {
  describe.concurrent("guarantee 7: slots", () => {
    test("a worker claims no more than its slots, however many messages wait", (_, store) =>
      Effect.gen(function* () {
        const handles = yield* fill(20, LEFT_AND_RIGHT)
        const runs = gated()
        yield* startWorker(store, Work, runs.layer, { queues: LEFT_AND_RIGHT, concurrency: 3 })
        yield* runs.untilRunning(3)
        yield* untilCounts(LEFT_AND_RIGHT, { ready: 37, claimed: 3 })
        yield* runs.open
        yield* AsyncResult.all(handles)
        assert.strictEqual(runs.maxRunning(), 3)
      }))

    test("an idle worker starts a task at once", (shared) =>
      Effect.gen(function* () {
        const runs = gated()
        yield* runs.open
        yield* startWorker(yield* shared.open, Work, runs.layer)
        yield* AsyncResult.get(yield* Work.delay(0))
        const times = yield* Effect.forEach([1, 2, 3, 4, 5, 6, 7], (n) =>
          Effect.map(
            timed(Effect.flatMap(Work.delay(n), (handle) => AsyncResult.get(handle))),
            ([millis]) => millis
          )
        )
        // a worker that is not woken claims once a second
        assert.isBelow(times.toSorted((a, b) => a - b)[3]!, 100)
      }))

    test("a claim takes the messages of several queues in the order in which they became due", (shared) =>
      Effect.gen(function* () {
        const driver = yield* RabbitBroker.makeDriver({ url: sharedUrl, prefix: shared.prefix })
        const ids = Arr.map(Arr.range(1, 8), String)
        for (const [n, id] of ids.entries()) {
          const queue = LEFT_AND_RIGHT[n % 3 === 0 ? 0 : 1]
          yield* driver.publish([{ id, task: "t", queue, priority: 0, delayMillis: 0, body: "{}" }])
          // due times are whole milliseconds
          yield* Effect.sleep("2 millis")
        }
        yield* Effect.forkScoped(Stream.runDrain(driver.ready(LEFT_AND_RIGHT, 10)))
        yield* eventually(Effect.map(leftOf(shared, LEFT_AND_RIGHT), (left) => left === 0))
        yield* eventually(
          Effect.map(
            driver.counts(LEFT_AND_RIGHT),
            ([left, right]) => left!.ready === 3 && right!.ready === 5
          )
        )
        const claimed = yield* Effect.forEach(ids, () =>
          driver.claim({ queues: LEFT_AND_RIGHT, max: 1, leaseMillis: 60_000, worker: "w" })
        )
        assert.deepStrictEqual(
          claimed.flat().map(({ id }) => id),
          ids
        )
      }))

    test("a worker with 300 slots runs 300 tasks at a time", (_, store) =>
      Effect.gen(function* () {
        const runs = gated()
        yield* startWorker(store, Work, runs.layer, { concurrency: 300 })
        const handles = yield* Work.delayAll(Arr.range(1, 400))
        yield* runs.untilRunning(300)
        yield* untilCounts(["default"], { ready: 100, claimed: 300 })
        yield* runs.open
        yield* AsyncResult.all(handles)
        assert.strictEqual(runs.maxRunning(), 300)
      }))

    test("a worker with 1,500 slots, more than the largest prefetch, runs 1,500 tasks at a time", (_, store) =>
      Effect.gen(function* () {
        const runs = gated()
        yield* startWorker(store, Work, runs.layer, { concurrency: 1500 })
        const handles = yield* Work.delayAll(Arr.range(1, 1600))
        yield* runs.untilRunning(1500)
        yield* runs.open
        yield* AsyncResult.all(handles)
        assert.strictEqual(runs.maxRunning(), 1500)
      }))
  })

  describe.concurrent("a message that its worker does not run", () => {
    const busy = { queues: LEFT_AND_RIGHT, concurrency: 2 } as const

    test("goes to an idle worker of another process within seconds", (shared, store) =>
      Effect.gen(function* () {
        yield* fill(2, LEFT_AND_RIGHT)
        const [first, second] = [gated(), gated()]
        yield* startWorker(store, Work, first.layer, busy)
        yield* first.untilRunning(2)
        const [millis] = yield* timed(
          Effect.andThen(startWorker(yield* shared.open, Work, second.layer, busy), second.untilRunning(2))
        )
        assert.isBelow(millis, 2500)
        assert.deepStrictEqual(first.begun.length, 2)
      }))

    test("goes to a worker of another process that was idle before, within seconds", (shared, store) =>
      Effect.gen(function* () {
        const [first, second] = [gated(), gated()]
        yield* startWorker(store, Work, first.layer, { queues: LEFT_AND_RIGHT, concurrency: 8 })
        yield* startWorker(yield* shared.open, Work, second.layer, {
          queues: LEFT_AND_RIGHT,
          concurrency: 100
        })
        const [millis, handles] = yield* timed(
          Effect.tap(fill(54, LEFT_AND_RIGHT), () =>
            Effect.all([first.untilRunning(8), second.untilRunning(100)])
          )
        )
        assert.isBelow(millis, 4000)
        yield* first.open
        yield* second.open
        yield* AsyncResult.all(handles)
        assert.strictEqual(first.maxRunning(), 8)
      }))

    test("goes to an idle worker of the same process within seconds", (_, store) =>
      Effect.gen(function* () {
        yield* fill(2, LEFT_AND_RIGHT)
        const [first, second] = [gated(), gated()]
        yield* startWorker(store, Work, first.layer, busy)
        yield* first.untilRunning(2)
        const [millis] = yield* timed(
          Effect.andThen(startWorker(store, Work, second.layer, busy), second.untilRunning(2))
        )
        assert.isBelow(millis, 1500)
      }))

    test("returns to the server, and is consumed again once a slot is free", (shared, store) =>
      Effect.gen(function* () {
        const handles = yield* fill(3, LEFT_AND_RIGHT)
        const runs = gated()
        yield* startWorker(store, Work, runs.layer, busy)
        yield* runs.untilRunning(2)
        yield* eventually(Effect.map(leftOf(shared, LEFT_AND_RIGHT), (left) => left === 4))
        yield* runs.open
        const [millis] = yield* timed(AsyncResult.all(handles))
        assert.isBelow(millis, 1000)
      }))

    test("is ready for other workers as soon as its worker ends, while the broker stays open", (shared, store) =>
      Effect.gen(function* () {
        const handles = yield* fill(6, LEFT_AND_RIGHT)
        const runs = gated()
        const scope = yield* Scope.make()
        yield* Scope.provide(startWorker(store, Work, runs.layer, busy), scope)
        yield* runs.untilRunning(2)
        const [millis] = yield* timed(
          Effect.andThen(
            Scope.close(scope, Exit.void),
            eventually(Effect.map(leftOf(shared, LEFT_AND_RIGHT), (left) => left === 12))
          )
        )
        assert.isBelow(millis, 500)
        assert.deepStrictEqual(yield* countsOf(LEFT_AND_RIGHT), { ready: 12, claimed: 0 })
        const next = gated()
        yield* next.open
        yield* startWorker(store, Work, next.layer, busy)
        yield* AsyncResult.all(handles)
        assert.strictEqual(next.begun.length, 12)
      }))
  })

  describe.concurrent("handlers that wait for other tasks", () => {
    /** Handlers: `Parent` enqueues a task one level deeper and waits for it, down to `Work`. */
    const handlers = (store: Store) =>
      Layer.mergeAll(
        Parent.toLayer((depth) =>
          Effect.gen(function* () {
            const child = yield* depth <= 1 ? Work.delay(depth) : Parent.delay(depth - 1)
            return (yield* AsyncResult.get(child)) + 1
          }).pipe(Effect.orDie, Effect.provideContext(store))
        ),
        Work.toLayer(Effect.succeed)
      )
    const start = (store: Store, options: Worker.Options) =>
      Effect.asVoid(
        Layer.build(
          Worker.layer([Parent, Work], { drainTimeout: 0, ...options }).pipe(
            Layer.provide(handlers(store)),
            Layer.provide(Layer.succeedContext(store))
          )
        )
      )

    test("a handler in the only slot and the task that it waits for both end", (_, store) =>
      Effect.gen(function* () {
        yield* start(store, { concurrency: 1 })
        const handle = yield* Parent.delay(1)
        const [millis, value] = yield* timed(AsyncResult.get(handle))
        assert.strictEqual(value, 2)
        assert.isBelow(millis, 1000)
      }))

    test("handlers in the only slot, three levels deep, all end", (_, store) =>
      Effect.gen(function* () {
        yield* start(store, { concurrency: 1 })
        const handle = yield* Parent.delay(3)
        const [millis, value] = yield* timed(AsyncResult.get(handle))
        assert.strictEqual(value, 4)
        assert.isBelow(millis, 1500)
      }))

    test("twenty handlers in four slots, two levels deep, all end", (_, store) =>
      Effect.gen(function* () {
        yield* start(store, { concurrency: 4 })
        const handles = yield* Parent.delayAll(Arr.replicate(2, 20))
        const values = yield* AsyncResult.all(handles)
        assert.deepStrictEqual(values, Arr.replicate(3, 20))
        yield* untilCounts(["default"], { ready: 0, claimed: 0 })
      }))
  })

  describe.concurrent("priorities", () => {
    const assertUnsupported = (error: { readonly _tag: string; readonly feature?: string }) => {
      assert.strictEqual(error._tag, "Unsupported")
      assert.strictEqual(error.feature, "priorities")
    }

    test("a task with a priority is Unsupported, and nothing is enqueued", () =>
      Effect.gen(function* () {
        const Urgent = Task.make("urgent", { payload: Schema.Int, priority: 200 })
        assertUnsupported(yield* Effect.flip(Urgent.delay(1)))
        assertUnsupported(yield* Effect.flip(Urgent.send(1)))
        assert.deepStrictEqual(yield* countsOf(["default"]), { ready: 0, claimed: 0 })
      }))

    test("a call with a priority is Unsupported, and nothing is enqueued", () =>
      Effect.gen(function* () {
        assertUnsupported(yield* Effect.flip(Work.delay(1, { priority: 100 })))
        assert.deepStrictEqual(yield* countsOf(["default"]), { ready: 0, claimed: 0 })
      }))
  })
})
