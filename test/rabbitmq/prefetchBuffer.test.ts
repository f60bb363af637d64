/** What the server pushes to a worker: no more is run than there are slots, and nothing stays where nobody runs it. */
import { assert, describe, it } from "@effect/vitest"
import { AsyncResult, type Backend, Broker, Task, Worker } from "chicory"
import { Array as Arr, Deferred, Effect, Exit, Layer, Schema, Scope, Stream } from "effect"
import * as RabbitBroker from "../../src/rabbitmq/RabbitBroker.ts"
import { eventually, type Store, startWorker, timed } from "../support/storeFixture.ts"
import { describeWithRabbit, sharedUrl } from "./server.ts"
import { openStore, readyOn, sharedBackend, temporaryPrefix } from "./shared.ts"

const Work = Task.make("work", { payload: Schema.Int, success: Schema.Int })
const Parent = Task.make("parent", { payload: Schema.Int, success: Schema.Int })

const LEFT_AND_RIGHT = ["left", "right"] as const

/** Runs of `Work` that wait until they are let on, and how many of them there are. */
const gated = () => {
  const gate = Deferred.makeUnsafe<void>()
  const begun: Array<number> = []
  let running = 0
  let most = 0
  return {
    begun,
    most: () => most,
    open: Deferred.succeed(gate, undefined),
    untilRunning: (count: number) => eventually(Effect.sync(() => running >= count)),
    layer: Work.toLayer((n) =>
      Effect.acquireUseRelease(
        Effect.sync(() => {
          begun.push(n)
          most = Math.max(most, ++running)
        }),
        () => Effect.as(Deferred.await(gate), n),
        () => Effect.sync(() => running--)
      )
    )
  }
}

/** What the parts of a test share: a prefix, and results in memory. */
interface Place {
  readonly prefix: string
  /** A store with connections of its own. */
  readonly open: Effect.Effect<Store, unknown, Scope.Scope>
}

/** A test in real time, under a prefix of its own. */
const test = (
  name: string,
  body: (
    place: Place,
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

/** Messages of queues, as a store knows them. */
const countsOf = (queues: Arr.NonEmptyReadonlyArray<string>) =>
  Effect.map(Broker.counts(queues), (counts) => ({
    ready: counts.reduce((total, { ready }) => total + ready, 0),
    claimed: counts.reduce((total, { claimed }) => total + claimed, 0)
  }))

/** Waits until a store knows of so many messages. */
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

/** Enqueues so many to each of the queues. */
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

/** How many messages the server has left to give out. */
const leftOf = ({ prefix }: Place, queues: ReadonlyArray<string>) =>
  Effect.map(
    Effect.forEach(queues, (queue) => readyOn(prefix, queue)),
    (counts) => counts.reduce((total, count) => total + count, 0)
  )

await describeWithRabbit("what RabbitMQ pushes", () => {
  describe.concurrent("to a worker", () => {
    test("never is more claimed than there are slots, whatever waits in its queues", (_, store) =>
      Effect.gen(function* () {
        const handles = yield* fill(20, LEFT_AND_RIGHT)
        const runs = gated()
        yield* startWorker(store, Work, runs.layer, { queues: LEFT_AND_RIGHT, concurrency: 3 })
        yield* runs.untilRunning(3)
        yield* untilCounts(LEFT_AND_RIGHT, { ready: 37, claimed: 3 })
        yield* runs.open
        yield* AsyncResult.all(handles, { timeout: "20 seconds" })
        assert.strictEqual(runs.most(), 3)
      }))

    test("a task that comes while it is idle starts at once", (place) =>
      Effect.gen(function* () {
        const runs = gated()
        yield* runs.open
        yield* startWorker(yield* place.open, Work, runs.layer)
        yield* AsyncResult.get(yield* Work.delay(0), { timeout: "10 seconds" })
        const times = yield* Effect.forEach([1, 2, 3, 4, 5, 6, 7], (n) =>
          Effect.map(
            timed(
              Effect.flatMap(Work.delay(n), (handle) => AsyncResult.get(handle, { timeout: "10 seconds" }))
            ),
            ([millis]) => millis
          )
        )
        // it looks once a second by itself
        assert.isBelow(times.toSorted((a, b) => a - b)[3]!, 100)
      }))

    test("of several queues, what became due first is claimed first", (place) =>
      Effect.gen(function* () {
        const driver = yield* RabbitBroker.makeDriver({ url: sharedUrl, prefix: place.prefix })
        const ids = Arr.map(Arr.range(1, 8), String)
        for (const [n, id] of ids.entries()) {
          const queue = LEFT_AND_RIGHT[n % 3 === 0 ? 0 : 1]
          yield* driver.publish([{ id, task: "t", queue, priority: 0, delayMillis: 0, body: "{}" }])
          // the time at which one is due counts whole milliseconds
          yield* Effect.sleep("2 millis")
        }
        yield* Effect.forkScoped(Stream.runDrain(driver.ready(LEFT_AND_RIGHT, 10)))
        yield* eventually(Effect.map(leftOf(place, LEFT_AND_RIGHT), (left) => left === 0))
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

    test("with 300 slots it runs 300 tasks at a time", (_, store) =>
      Effect.gen(function* () {
        const runs = gated()
        yield* startWorker(store, Work, runs.layer, { concurrency: 300 })
        const handles = yield* Work.delayAll(Arr.range(1, 400))
        yield* runs.untilRunning(300)
        yield* untilCounts(["default"], { ready: 100, claimed: 300 })
        yield* runs.open
        yield* AsyncResult.all(handles, { timeout: "20 seconds" })
        assert.strictEqual(runs.most(), 300)
      }))

    test("with 1,500 slots, more than the server pushes at once, it runs 1,500 tasks at a time", (_, store) =>
      Effect.gen(function* () {
        const runs = gated()
        yield* startWorker(store, Work, runs.layer, { concurrency: 1500 })
        const handles = yield* Work.delayAll(Arr.range(1, 1600))
        yield* runs.untilRunning(1500)
        yield* runs.open
        yield* AsyncResult.all(handles, { timeout: "20 seconds" })
        assert.strictEqual(runs.most(), 1500)
      }))
  })

  describe.concurrent("and it does not run", () => {
    const busy = { queues: LEFT_AND_RIGHT, concurrency: 2 } as const

    test("goes to an idle worker of another process, soon", (place, store) =>
      Effect.gen(function* () {
        yield* fill(2, LEFT_AND_RIGHT)
        const [first, second] = [gated(), gated()]
        yield* startWorker(store, Work, first.layer, busy)
        yield* first.untilRunning(2)
        const [millis] = yield* timed(
          Effect.andThen(startWorker(yield* place.open, Work, second.layer, busy), second.untilRunning(2))
        )
        assert.isBelow(millis, 2500)
        assert.deepStrictEqual(first.begun.length, 2)
      }))

    test("goes to a worker of another process that was idle when it came, soon", (place, store) =>
      Effect.gen(function* () {
        const [first, second] = [gated(), gated()]
        yield* startWorker(store, Work, first.layer, { queues: LEFT_AND_RIGHT, concurrency: 8 })
        yield* startWorker(yield* place.open, Work, second.layer, {
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
        yield* AsyncResult.all(handles, { timeout: "10 seconds" })
        assert.strictEqual(first.most(), 8)
      }))

    test("goes to an idle worker of the same process, soon", (_, store) =>
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

    test("goes back to the server, and is asked for when a slot is free", (place, store) =>
      Effect.gen(function* () {
        const handles = yield* fill(3, LEFT_AND_RIGHT)
        const runs = gated()
        yield* startWorker(store, Work, runs.layer, busy)
        yield* runs.untilRunning(2)
        yield* eventually(Effect.map(leftOf(place, LEFT_AND_RIGHT), (left) => left === 4))
        yield* runs.open
        const [millis] = yield* timed(AsyncResult.all(handles, { timeout: "10 seconds" }))
        assert.isBelow(millis, 1000)
      }))

    test("is ready for others at once when the worker ends, while its broker lives on", (place, store) =>
      Effect.gen(function* () {
        const handles = yield* fill(6, LEFT_AND_RIGHT)
        const runs = gated()
        const scope = yield* Scope.make()
        yield* Scope.provide(startWorker(store, Work, runs.layer, busy), scope)
        yield* runs.untilRunning(2)
        const [millis] = yield* timed(
          Effect.andThen(
            Scope.close(scope, Exit.void),
            eventually(Effect.map(leftOf(place, LEFT_AND_RIGHT), (left) => left === 12))
          )
        )
        assert.isBelow(millis, 500)
        assert.deepStrictEqual(yield* countsOf(LEFT_AND_RIGHT), { ready: 12, claimed: 0 })
        const next = gated()
        yield* next.open
        yield* startWorker(store, Work, next.layer, busy)
        yield* AsyncResult.all(handles, { timeout: "10 seconds" })
        assert.strictEqual(next.begun.length, 12)
      }))
  })

  describe.concurrent("while handlers wait for other tasks", () => {
    /** Tasks that start others and wait for them, until none is left to start. */
    const family = (store: Store) =>
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
            Layer.provide(family(store)),
            Layer.provide(Layer.succeedContext(store))
          )
        )
      )

    test("in one slot, they and what they wait for end", (_, store) =>
      Effect.gen(function* () {
        yield* start(store, { concurrency: 1 })
        const handle = yield* Parent.delay(1)
        const [millis, value] = yield* timed(AsyncResult.get(handle, { timeout: "10 seconds" }))
        assert.strictEqual(value, 2)
        assert.isBelow(millis, 1000)
      }))

    test("in one slot, three levels deep, all end", (_, store) =>
      Effect.gen(function* () {
        yield* start(store, { concurrency: 1 })
        const handle = yield* Parent.delay(3)
        const [millis, value] = yield* timed(AsyncResult.get(handle, { timeout: "10 seconds" }))
        assert.strictEqual(value, 4)
        assert.isBelow(millis, 1500)
      }))

    test("twenty of them in four slots, two levels deep, all end", (_, store) =>
      Effect.gen(function* () {
        yield* start(store, { concurrency: 4 })
        const handles = yield* Parent.delayAll(Arr.replicate(2, 20))
        const values = yield* AsyncResult.all(handles, { timeout: "20 seconds" })
        assert.deepStrictEqual(values, Arr.replicate(3, 20))
        yield* untilCounts(["default"], { ready: 0, claimed: 0 })
      }))
  })

  describe.concurrent("has no order but that of its queues:", () => {
    const unsupported = (error: { readonly _tag: string; readonly feature?: string }) => {
      assert.strictEqual(error._tag, "Unsupported")
      assert.strictEqual(error.feature, "priorities")
    }

    test("a priority of a task is refused, and nothing is enqueued", () =>
      Effect.gen(function* () {
        const Urgent = Task.make("urgent", { payload: Schema.Int, priority: 200 })
        unsupported(yield* Effect.flip(Urgent.delay(1)))
        unsupported(yield* Effect.flip(Urgent.send(1)))
        assert.deepStrictEqual(yield* countsOf(["default"]), { ready: 0, claimed: 0 })
      }))

    test("a priority of a call is refused, and nothing is enqueued", () =>
      Effect.gen(function* () {
        unsupported(yield* Effect.flip(Work.delay(1, { priority: 100 })))
        assert.deepStrictEqual(yield* countsOf(["default"]), { ready: 0, claimed: 0 })
      }))
  })
})
