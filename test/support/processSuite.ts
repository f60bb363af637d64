/** The guarantees with real processes on one store, which are killed, stopped, or interrupted between two steps. */
import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { AsyncResult, type Backend, type Broker, DeadLetters } from "chicory"
import { Effect, Exit, Fiber, Layer, Option, type Scope } from "effect"
import { beganCount, drained, poll, program, startWorker } from "./processes.ts"
import { Count, Keyed, Order, OutOfStock } from "./processTasks.ts"
import * as StoreLocations from "./storeLocations.ts"

/** Registers the tests, each in its own location, with this process as the producer. */
export const suite = <P extends StoreLocations.StoreLocation>(
  temporaryLocation: Effect.Effect<P, unknown, Scope.Scope>,
  layerOf: (location: P) => Layer.Layer<Backend.Backend | Broker.Broker, unknown> = StoreLocations.layer
): void => {
  const test = (
    name: string,
    body: (
      location: P
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
          const location = yield* temporaryLocation
          yield* Effect.provide(body(location), Layer.mergeAll(NodeServices.layer, layerOf(location)))
        }),
      { timeout: 60_000 }
    )

  describe("killed worker processes", () => {
    test("guarantee 1: a running task is taken over after its lease and has one outcome", (location) =>
      Effect.gen(function* () {
        const options = { lease: "1 second" } as const
        const first = yield* startWorker(location, options)
        const handle = yield* Count.delay({ n: 1, millis: 600_000 })
        yield* first.untilBegan()
        const second = yield* startWorker(location, options)
        yield* first.kill
        yield* second.untilBegan()
        const seen = yield* poll(handle)
        assert.strictEqual(seen.attempts, 2)
        assert.strictEqual(seen.state, "STARTED")
        assert.isTrue(Option.isSome(seen.worker) && seen.worker.value.includes(`-${second.pid}-`))
        assert.strictEqual(yield* AsyncResult.cancel(handle), "Requested")
        const failed = yield* Effect.flip(AsyncResult.get(handle))
        assert(failed._tag === "TaskFailed")
        assert.strictEqual(failed.reason._tag, "Cancelled")
        assert.strictEqual(beganCount(first.events) + beganCount(second.events), 2)
      }))

    test("guarantee 1: no task of many is lost or has two outcomes", (location) =>
      Effect.gen(function* () {
        const options = { lease: "3 seconds", concurrency: 8 } as const
        const workers = yield* Effect.all([startWorker(location, options), startWorker(location, options)], {
          concurrency: 2
        })
        const [first, second] = workers
        const payloads = Array.from({ length: 200 }, (_, n) => ({ n, millis: 20 }))
        const handles = yield* Count.delayAll(payloads)
        yield* first.untilBegan(20)
        yield* first.kill
        const values = yield* AsyncResult.all(handles)
        assert.deepStrictEqual(
          values.map(({ n }) => n),
          payloads.map(({ n }) => n)
        )
        assert.isFalse(yield* first.ended)
        const results = yield* Effect.forEach(handles, poll)
        assert.isTrue(results.every(({ state }) => state === "SUCCESS"))
        const again = results.filter(({ attempts }) => attempts > 1)
        // beside its handlers, a worker holds up to as many ended runs whose outcomes are on their way
        assert.isAtMost(again.length, 2 * options.concurrency)
        assert.isTrue(again.every(({ attempts }) => attempts === 2))
        // every start is one of an ended task or of a run that the killed worker held
        assert.isAtMost(beganCount(first.events) + beganCount(second.events), 200 + again.length)
        assert.isAtLeast(beganCount(first.events) + beganCount(second.events), 200)
        assert.isTrue(again.every(({ exit }) => Option.isSome(exit)))
        assert.strictEqual(yield* DeadLetters.count(), 0)
        yield* drained
      }))

    test("guarantee 8: a task that kills its process repeatedly ends as WorkerLost", (location) =>
      Effect.gen(function* () {
        const options = { lease: "500 millis" } as const
        const handle = yield* Count.delay({ n: 1, millis: 600_000 })
        for (let crash = 0; crash < 3; crash++) {
          const worker = yield* startWorker(location, options)
          yield* worker.untilBegan()
          yield* worker.kill
        }
        const last = yield* startWorker(location, options)
        const failed = yield* Effect.flip(AsyncResult.get(handle))
        assert(failed._tag === "TaskFailed")
        assert.strictEqual(failed.reason._tag, "WorkerLost")
        assert.strictEqual(failed.attempts, 3)
        assert.strictEqual(beganCount(last.events), 0)
        const [letter] = yield* DeadLetters.list(Count)
        assert.strictEqual(letter?.reason._tag, "WorkerLost")
      }))

    test("guarantee 9: a waiter in another process continues while workers come and go", (location) =>
      Effect.gen(function* () {
        const handle = yield* Count.delay({ n: 1, millis: 0 })
        const waiter = yield* Effect.forkChild(AsyncResult.get(handle))
        const worker = yield* startWorker(location)
        assert.strictEqual((yield* Fiber.join(waiter)).pid, worker.pid)
      }))
  })

  describe("stopped worker processes", () => {
    test("guarantee 7: a running task finishes within the drain timeout, and the process ends by itself", (location) =>
      Effect.gen(function* () {
        const options = { drainTimeout: "30 seconds", lease: "1 second", concurrency: 2 } as const
        const worker = yield* startWorker(location, options)
        const handle = yield* Count.delay({ n: 1, millis: 2000 })
        yield* worker.untilBegan()
        yield* worker.signal("SIGTERM")
        yield* worker.until((events) => events.some(({ _tag }) => _tag === "Stopping"))
        // a claim in flight may bring one more
        yield* Count.delay({ n: 2, millis: 0 })
        const later = yield* Count.delay({ n: 3, millis: 0 })
        const value = yield* AsyncResult.get(handle)
        assert.deepStrictEqual(value, { n: 1, pid: worker.pid })
        assert.isTrue(yield* worker.ended)
        assert.strictEqual((yield* poll(handle)).attempts, 1)
        assert.strictEqual(yield* AsyncResult.state(later), "PENDING", "it claimed nothing more")
        assert.isAtMost(beganCount(worker.events), 2)
      }))

    test("guarantee 7: an unfinished task is released at once, uncounted, and runs elsewhere long before its lease ends", (location) =>
      Effect.gen(function* () {
        const options = { drainTimeout: "200 millis", lease: "10 minutes" } as const
        const first = yield* startWorker(location, options)
        const handle = yield* Count.delay({ n: 1, millis: 600_000 })
        yield* first.untilBegan()
        const second = yield* startWorker(location, options)
        yield* first.signal("SIGTERM")
        assert.isTrue(yield* first.ended)
        assert.isTrue(first.events.some(({ _tag }) => _tag === "Interrupted"))
        yield* second.untilBegan()
        const seen = yield* poll(handle)
        assert.strictEqual(seen.attempts, 1)
        assert.isTrue(Option.isSome(seen.worker) && seen.worker.value.includes(`-${second.pid}-`))
      }))

    test("guarantee 7: an idle worker ends at once", (location) =>
      Effect.gen(function* () {
        const worker = yield* startWorker(location)
        yield* worker.signal("SIGTERM")
        assert.isTrue(yield* Effect.timeout(worker.ended, "10 seconds"))
      }))
  })

  describe("errors across processes", () => {
    test("guarantee 5: a typed error is decoded to the same class", (location) =>
      Effect.gen(function* () {
        yield* startWorker(location)
        const handle = yield* Order.delay("chili")
        const error = yield* AsyncResult.get(handle).pipe(
          Effect.andThen(Effect.die("the task fails")),
          Effect.catchReason("TaskFailed", "Failed", (reason) => Effect.succeed(reason.error))
        )
        assert.instanceOf(error, OutOfStock)
        assert.strictEqual(error.item, "chili")
        assert.strictEqual(error.since.getTime(), 0)
      }))
  })

  describe("producer processes killed between the steps of an enqueue", () => {
    const killed = (location: P, step: string, id: "given" | "generated") =>
      Effect.gen(function* () {
        const child = yield* program("processProducer.ts", [StoreLocations.encode(location), step, id])
        const exit = yield* Effect.exit(child.exitCode)
        assert.isTrue(Exit.isFailure(exit), "it ended by a signal")
      })

    for (const step of ["publish", "markPublished"]) {
      test(`guarantee 1: before ${step}, the key stays usable and the task runs once`, (location) =>
        Effect.gen(function* () {
          yield* killed(location, step, "given")
          const handle = yield* Keyed.delay(7)
          const worker = yield* startWorker(location, { lease: "1 second" })
          assert.strictEqual(yield* AsyncResult.get(handle), 7)
          assert.strictEqual((yield* Keyed.delay(7)).taskId, handle.taskId)
          yield* drained
          assert.strictEqual(beganCount(worker.events), 1)
        }))
    }

    test("guarantee 1: between its message and the mark, a task with a generated id runs once", (location) =>
      Effect.gen(function* () {
        yield* killed(location, "markPublished", "generated")
        const worker = yield* startWorker(location)
        yield* worker.untilBegan()
        yield* drained
        assert.strictEqual(beganCount(worker.events), 1)
      }))
  })
}
