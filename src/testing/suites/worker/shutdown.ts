/** Guarantee 7: a shutdown drains, then interrupts and puts back. */
import { assert, describe } from "@effect/vitest"
import { Effect, Fiber, Layer, Schema } from "effect"
import * as AsyncResult from "../../../AsyncResult.ts"
import * as RetryPolicy from "../../../RetryPolicy.ts"
import * as Task from "../../../Task.ts"
import { TaskContext } from "../../../TaskContext.ts"
import { type Fixture, Gate, type Test } from "./fixture.ts"

const Work = Task.make("work", { payload: Schema.Int, success: Schema.Int })
const Flaky = Task.make("flaky", {
  success: Schema.Int,
  error: Schema.String,
  retry: RetryPolicy.fixed({ maxRetries: 5, delay: "10 millis" })
})
const Child = Task.make("child", { payload: Schema.Int, success: Schema.Int, queue: "children" })
const Parent = Task.make("parent", { payload: Schema.Int, success: Schema.Int })

/** The handler of a task that returns the result of a child, which is the same one in each run. */
const parentLive = (t: Fixture, onRun: () => void) =>
  Parent.toLayer((n) =>
    Effect.gen(function* () {
      onRun()
      const { taskId } = yield* TaskContext
      return yield* AsyncResult.get(yield* Child.delay(n, { id: `child of ${taskId}` }))
    }).pipe(Effect.orDie, Effect.provideContext(t.context))
  )

/** Registers the tests. */
export const shutdown = (test: Test): void => {
  describe("guarantee 7: a shutdown drains", () => {
    test("running tasks finish within drainTimeout, with renewed leases", function* (t) {
      const gate = new Gate()
      let elsewhere = 0
      const options = { lease: t.duration(5), concurrency: 1, drainTimeout: t.duration(30) }
      const worker = yield* t.startWorker(
        [Work],
        Work.toLayer((n) => Effect.as(gate.pass, n)),
        options
      )
      const handle = yield* Work.delay(1)
      yield* t.until("it runs", () => gate.entered === 1)
      const stopping = yield* Effect.forkChild(worker.stop)
      yield* t.startWorker(
        [Work],
        Work.toLayer((n) => Effect.sync(() => n + ++elsewhere)),
        options
      )
      yield* t.time.pass(8)
      assert.strictEqual(elsewhere, 0)
      assert.isUndefined(stopping.pollUnsafe(), "it waits for the running task")
      gate.open()
      assert.strictEqual(yield* t.awaitValue(handle), 1)
      yield* t.complete("it stops", Fiber.join(stopping))
      yield* t.untilDrained()
    })

    test("a worker is live and ready, and from the begin of its drain live alone", function* (t) {
      const gate = new Gate()
      const worker = yield* t.startWorker(
        [Work],
        Work.toLayer((n) => Effect.as(gate.pass, n)),
        { drainTimeout: t.duration(30) }
      )
      const handle = yield* Work.delay(1)
      yield* t.until("it runs", () => gate.entered === 1)
      assert.deepStrictEqual(yield* worker.health, { live: true, ready: true, code: "Ready" })
      const stopping = yield* Effect.forkChild(worker.stop)
      const draining = { live: true, ready: false, code: "Draining" }
      yield* t.time.eventually(
        "it drains",
        Effect.map(worker.health, ({ ready }) => !ready)
      )
      assert.deepStrictEqual(yield* worker.health, draining)
      assert.isUndefined(stopping.pollUnsafe(), "it waits for the running task")
      gate.open()
      assert.strictEqual(yield* t.awaitValue(handle), 1)
      yield* t.complete("it stops", Fiber.join(stopping))
      assert.deepStrictEqual(yield* worker.health, draining)
    })

    test("a worker that shuts down claims nothing more", function* (t) {
      const gate = new Gate()
      const worker = yield* t.startWorker(
        [Work],
        Work.toLayer((n) => Effect.as(gate.pass, n)),
        { drainTimeout: t.duration(30) }
      )
      yield* Work.delay(1)
      yield* t.until("it runs", () => gate.entered === 1)
      const stopping = yield* Effect.forkChild(worker.stop)
      yield* t.time.pass(0.5)
      const later = yield* Work.delay(2)
      yield* t.time.pass(3)
      assert.strictEqual(gate.entered, 1)
      assert.strictEqual(yield* AsyncResult.state(later), "PENDING")
      gate.open()
      yield* t.complete("it stops", Fiber.join(stopping))
      assert.strictEqual(yield* AsyncResult.state(later), "PENDING")
    })

    test("a task that does not finish is interrupted and put back at once, with nothing counted", function* (t) {
      const gate = new Gate()
      let finalized = 0
      const attempts: Array<number> = []
      const worker = yield* t.startWorker(
        [Work],
        Work.toLayer((n) =>
          gate.pass.pipe(
            Effect.as(n),
            Effect.onInterrupt(() => Effect.sync(() => finalized++))
          )
        ),
        { drainTimeout: t.duration(1) }
      )
      const handle = yield* Work.delay(1)
      yield* t.until("it runs", () => gate.entered === 1)
      yield* t.complete("it stops", worker.stop)
      assert.strictEqual(finalized, 1)
      assert.strictEqual(yield* AsyncResult.state(handle), "PENDING")
      assert.strictEqual((yield* t.read(handle.taskId)).attempt, 0)
      assert.deepStrictEqual(yield* t.counts(), { ready: 1, delayed: 0, claimed: 0 })
      yield* t.startWorker(
        [Work],
        Work.toLayer((n) =>
          TaskContext.useSync(({ attempt }) => {
            attempts.push(attempt)
            return n
          })
        )
      )
      // the lease of the first run outlives the test
      assert.strictEqual(yield* t.awaitValue(handle), 1)
      assert.deepStrictEqual(attempts, [1])
      yield* t.untilDrained()
    })

    test("a task that only waits for another is put back at once, with nothing counted", function* (t) {
      let runs = 0
      const gate = new Gate()
      const handlers = Layer.merge(
        parentLive(t, () => runs++),
        Child.toLayer((n) => Effect.as(gate.pass, n))
      )
      const elsewhere = yield* t.startWorker([Child], handlers)
      const worker = yield* t.startWorker([Parent], handlers, { drainTimeout: t.duration(1000) })
      const handle = yield* Parent.delay(7)
      yield* t.until("its child runs", () => gate.entered === 1)
      yield* t.complete("it stops", worker.stop)
      assert.strictEqual(yield* AsyncResult.state(handle), "PENDING")
      assert.strictEqual((yield* t.read(handle.taskId)).attempt, 0)
      assert.deepStrictEqual(yield* t.counts(), { ready: 1, delayed: 0, claimed: 0 })
      assert.strictEqual((yield* elsewhere.stats).running, 1)
      yield* t.startWorker([Parent], handlers)
      yield* t.until("it runs again", () => runs === 2)
      gate.open()
      assert.strictEqual(yield* t.awaitValue(handle), 7)
      assert.strictEqual(gate.entered, 1)
      assert.strictEqual((yield* t.read(handle.taskId)).attempt, 1)
      yield* t.untilDrained()
    })

    test("a task that waits for another of its worker finishes after it", function* (t) {
      let runs = 0
      const gate = new Gate()
      const handlers = Layer.merge(
        parentLive(t, () => runs++),
        Child.toLayer((n) => Effect.as(gate.pass, n))
      )
      const worker = yield* t.startWorker([Parent, Child], handlers, { drainTimeout: t.duration(1000) })
      const handle = yield* Parent.delay(7)
      yield* t.until("its child runs", () => gate.entered === 1)
      const stopping = yield* Effect.forkChild(worker.stop)
      yield* t.time.pass(2)
      assert.isUndefined(stopping.pollUnsafe(), "it waits for the child")
      gate.open()
      yield* t.complete("it stops", Fiber.join(stopping))
      assert.strictEqual(yield* t.awaitValue(handle), 7)
      assert.strictEqual(runs, 1)
      yield* t.untilDrained()
    })

    test("a retried task is put back with its counts", function* (t) {
      const gate = new Gate()
      let runs = 0
      const handler = Flaky.toLayer(() =>
        Effect.suspend(() => (++runs === 1 ? Effect.fail("no") : Effect.as(gate.pass, runs)))
      )
      const worker = yield* t.startWorker([Flaky], handler)
      const handle = yield* Flaky.delay()
      yield* t.until("it runs again", () => gate.entered === 1)
      yield* worker.stop
      assert.strictEqual(yield* AsyncResult.state(handle), "RETRY")
      const { attempt, retries } = yield* t.read(handle.taskId)
      assert.deepStrictEqual({ attempt, retries }, { attempt: 1, retries: 1 })
      gate.open()
      yield* t.startWorker([Flaky], handler)
      assert.strictEqual(yield* t.awaitValue(handle), 3)
    })

    test("a handler that finishes during its interruption has its outcome stored", function* (t) {
      const gate = new Gate()
      const worker = yield* t.startWorker(
        [Work],
        Work.toLayer((n) =>
          gate.pass.pipe(
            Effect.as(n),
            Effect.catchCause(() => Effect.succeed(n))
          )
        )
      )
      const handle = yield* Work.delay(1)
      yield* t.until("it runs", () => gate.entered === 1)
      yield* worker.stop
      const state = yield* AsyncResult.state(handle)
      assert.include(["SUCCESS", "PENDING"], state)
      if (state === "PENDING") assert.strictEqual((yield* t.counts()).ready, 1)
    })

    test("a handler that cannot be interrupted does not hold up the end of its worker, and its run counts as a crash", function* (t) {
      const [stuck, again] = [new Gate(), new Gate()]
      const options = { lease: t.duration(2), drainTimeout: t.duration(0.5) }
      const worker = yield* t.startWorker(
        [Work],
        Work.toLayer((n) => Effect.uninterruptible(Effect.as(stuck.pass, n))),
        options
      )
      const handle = yield* Work.delay(1)
      yield* t.until("it runs", () => stuck.entered === 1)
      yield* t.complete("it stops", worker.stop)
      assert.strictEqual(yield* AsyncResult.state(handle), "STARTED")
      yield* t.startWorker(
        [Work],
        Work.toLayer((n) => Effect.as(again.pass, n + 1)),
        options
      )
      yield* t.until("it runs again", () => again.entered === 1)
      stuck.open()
      assert.isAtLeast((yield* t.read(handle.taskId)).crashes, 1)
      again.open()
      assert.strictEqual(yield* t.awaitValue(handle), 2)
      yield* t.untilDrained()
    })

    test("a worker stops although its store is away", function* (t) {
      const gate = new Gate()
      const worker = yield* t.startSeparateWorker(
        [Work],
        Work.toLayer((n) => Effect.as(gate.pass, n)),
        { lease: t.duration(2) }
      )
      const handle = yield* Work.delay(1)
      yield* t.until("it runs", () => gate.entered === 1)
      worker.faults.cut()
      yield* t.complete("it stops", worker.stop)
      gate.open()
      yield* t.startWorker([Work], Work.toLayer(Effect.succeed))
      assert.strictEqual(yield* t.awaitValue(handle), 1)
    })
  })
}
