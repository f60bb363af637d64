/** The guarantees with real processes on one store: killed, told to stop, cut off between two steps. */
import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { AsyncResult, type Backend, type Broker, DeadLetters } from "chicory"
import { Effect, Exit, Fiber, Layer, Option, type Scope } from "effect"
import { began, drained, poll, program, startWorker } from "./processes.ts"
import { Count, Keyed, Order, OutOfStock } from "./processTasks.ts"
import * as Places from "./storeLocations.ts"

/** Registers the tests: each in a place of its own, with this process as the producer. */
export const suite = <P extends Places.Place>(
  temporaryPlace: Effect.Effect<P, unknown, Scope.Scope>,
  layerOf: (place: P) => Layer.Layer<Backend.Backend | Broker.Broker, unknown> = Places.layer
): void => {
  const test = (
    name: string,
    body: (
      place: P
    ) => Effect.Effect<
      void,
      unknown,
      Scope.Scope | NodeServices.NodeServices | Backend.Backend | Broker.Broker
    >
  ) =>
    it.live(
      name,
      () =>
        Effect.gen(function* () {
          const place = yield* temporaryPlace
          yield* Effect.provide(body(place), Layer.mergeAll(NodeServices.layer, layerOf(place)))
        }),
      { timeout: 60_000 }
    )

  describe("processes that are killed", () => {
    test("1: a task in mid-run is taken over after its lease, and has one outcome", (place) =>
      Effect.gen(function* () {
        const options = { lease: "1 second" } as const
        const first = yield* startWorker(place, options)
        const handle = yield* Count.delay({ n: 1, millis: 600_000 })
        yield* first.began()
        const second = yield* startWorker(place, options)
        yield* first.kill
        yield* second.began()
        const seen = yield* poll(handle)
        assert.strictEqual(seen.attempts, 2)
        assert.strictEqual(seen.state, "STARTED")
        assert.isTrue(Option.isSome(seen.worker) && seen.worker.value.includes(`-${second.pid}-`))
        assert.strictEqual(yield* AsyncResult.cancel(handle), "Requested")
        const failed = yield* Effect.flip(AsyncResult.get(handle, { timeout: "10 seconds" }))
        assert(failed._tag === "TaskFailed")
        assert.strictEqual(failed.reason._tag, "Cancelled")
        assert.strictEqual(began(first.told) + began(second.told), 2)
      }))

    test("1: of many tasks none is lost and none has two outcomes", (place) =>
      Effect.gen(function* () {
        const options = { lease: "1 second", concurrency: 8 } as const
        const workers = yield* Effect.all([startWorker(place, options), startWorker(place, options)], {
          concurrency: 2
        })
        const [first, second] = workers
        const payloads = Array.from({ length: 200 }, (_, n) => ({ n, millis: 20 }))
        const handles = yield* Count.delayAll(payloads)
        yield* first.began(20)
        yield* first.kill
        const values = yield* AsyncResult.all(handles, { timeout: "40 seconds" })
        assert.deepStrictEqual(
          values.map(({ n }) => n),
          payloads.map(({ n }) => n)
        )
        assert.isFalse(yield* first.ended)
        const results = yield* Effect.forEach(handles, poll)
        assert.isTrue(results.every(({ state }) => state === "SUCCESS"))
        const again = results.filter(({ attempts }) => attempts > 1)
        assert.isAtMost(again.length, options.concurrency)
        assert.isTrue(again.every(({ attempts }) => attempts === 2))
        // what was started is what ended, and what was in the hands of the one that was killed
        assert.isAtMost(began(first.told) + began(second.told), 200 + again.length)
        assert.isAtLeast(began(first.told) + began(second.told), 200)
        assert.isTrue(again.every(({ exit }) => Option.isSome(exit)))
        assert.strictEqual(yield* DeadLetters.count(), 0)
        yield* drained
      }))

    test("8: a task that kills its process again and again ends as WorkerLost", (place) =>
      Effect.gen(function* () {
        const options = { lease: "500 millis" } as const
        const handle = yield* Count.delay({ n: 1, millis: 600_000 })
        for (let crash = 0; crash < 3; crash++) {
          const worker = yield* startWorker(place, options)
          yield* worker.began()
          yield* worker.kill
        }
        const last = yield* startWorker(place, options)
        const failed = yield* Effect.flip(AsyncResult.get(handle, { timeout: "10 seconds" }))
        assert(failed._tag === "TaskFailed")
        assert.strictEqual(failed.reason._tag, "WorkerLost")
        assert.strictEqual(failed.attempts, 3)
        assert.strictEqual(began(last.told), 0)
        const [letter] = yield* DeadLetters.list(Count)
        assert.strictEqual(letter?.reason._tag, "WorkerLost")
      }))

    test("9: a waiter of another process goes on when workers come and go", (place) =>
      Effect.gen(function* () {
        const handle = yield* Count.delay({ n: 1, millis: 0 })
        const waiter = yield* Effect.forkChild(AsyncResult.get(handle, { timeout: "30 seconds" }))
        const worker = yield* startWorker(place)
        assert.strictEqual((yield* Fiber.join(waiter)).pid, worker.pid)
      }))
  })

  describe("processes that are told to stop", () => {
    test("7: what runs finishes within the time for it, and the process ends by itself", (place) =>
      Effect.gen(function* () {
        const options = { drainTimeout: "30 seconds", lease: "1 second", concurrency: 2 } as const
        const worker = yield* startWorker(place, options)
        const handle = yield* Count.delay({ n: 1, millis: 2000 })
        yield* worker.began()
        yield* worker.signal("SIGTERM")
        yield* worker.until((told) => told.some(({ _tag }) => _tag === "Stopping"))
        // a claim that was on its way then may bring one more
        yield* Count.delay({ n: 2, millis: 0 })
        const later = yield* Count.delay({ n: 3, millis: 0 })
        const value = yield* AsyncResult.get(handle, { timeout: "20 seconds" })
        assert.deepStrictEqual(value, { n: 1, pid: worker.pid })
        assert.isTrue(yield* worker.ended)
        assert.strictEqual((yield* poll(handle)).attempts, 1)
        assert.strictEqual(yield* AsyncResult.state(later), "PENDING", "it claimed nothing more")
        assert.isAtMost(began(worker.told), 2)
      }))

    test("7: what does not is put back at once, nothing counted, and run elsewhere long before the lease is over", (place) =>
      Effect.gen(function* () {
        const options = { drainTimeout: "200 millis", lease: "10 minutes" } as const
        const first = yield* startWorker(place, options)
        const handle = yield* Count.delay({ n: 1, millis: 600_000 })
        yield* first.began()
        const second = yield* startWorker(place, options)
        yield* first.signal("SIGTERM")
        assert.isTrue(yield* first.ended)
        assert.isTrue(first.told.some(({ _tag }) => _tag === "Interrupted"))
        yield* second.began()
        const seen = yield* poll(handle)
        assert.strictEqual(seen.attempts, 1)
        assert.isTrue(Option.isSome(seen.worker) && seen.worker.value.includes(`-${second.pid}-`))
      }))

    test("7: an idle worker ends at once", (place) =>
      Effect.gen(function* () {
        const worker = yield* startWorker(place)
        yield* worker.signal("SIGTERM")
        assert.isTrue(yield* Effect.timeout(worker.ended, "10 seconds"))
      }))
  })

  describe("errors", () => {
    test("5: a typed error crosses the border of the process as the same class", (place) =>
      Effect.gen(function* () {
        yield* startWorker(place)
        const handle = yield* Order.delay("chili")
        const error = yield* AsyncResult.get(handle, { timeout: "20 seconds" }).pipe(
          Effect.andThen(Effect.die("the task fails")),
          Effect.catchReason("TaskFailed", "Failed", (reason) => Effect.succeed(reason.error))
        )
        assert.instanceOf(error, OutOfStock)
        assert.strictEqual(error.item, "chili")
        assert.strictEqual(error.since.getTime(), 0)
      }))
  })

  describe("producers that are killed between the steps of an enqueue", () => {
    const killed = (place: P, step: string) =>
      Effect.gen(function* () {
        const child = yield* program("processProducer.ts", [Places.encode(place), step])
        const exit = yield* Effect.exit(child.exitCode)
        assert.isTrue(Exit.isFailure(exit), "it ended by a signal")
      })

    for (const step of ["publish", "markPublished"]) {
      test(`1: before ${step}: the key is not stranded, and the task runs once`, (place) =>
        Effect.gen(function* () {
          yield* killed(place, step)
          const handle = yield* Keyed.delay(7)
          const worker = yield* startWorker(place, { lease: "1 second" })
          assert.strictEqual(yield* AsyncResult.get(handle, { timeout: "20 seconds" }), 7)
          assert.strictEqual((yield* Keyed.delay(7)).taskId, handle.taskId)
          yield* drained
          assert.strictEqual(began(worker.told), 1)
        }))
    }

    test("1: between a message and its record: the task runs", (place) =>
      Effect.gen(function* () {
        yield* killed(place, "create")
        const worker = yield* startWorker(place)
        yield* worker.began()
        assert.strictEqual(began(worker.told), 1)
      }))
  })
}
