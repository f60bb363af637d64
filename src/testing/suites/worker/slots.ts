/** Guarantee 7: no more runs than slots; a shutdown drains, and puts back the rest. */
import { assert, describe } from "@effect/vitest"
import { Effect, Fiber, Layer, Schema } from "effect"
import * as AsyncResult from "../../../AsyncResult.ts"
import * as RetryPolicy from "../../../RetryPolicy.ts"
import * as Task from "../../../Task.ts"
import { TaskContext } from "../../../TaskContext.ts"
import * as Worker from "../../../Worker.ts"
import { Gate, type Test } from "./fixture.ts"

const Work = Task.make("work", { payload: Schema.Int, success: Schema.Int })
const Parent = Task.make("parent", { payload: Schema.Int, success: Schema.Int })
const Flaky = Task.make("flaky", {
  success: Schema.Int,
  error: Schema.String,
  retry: RetryPolicy.fixed({ maxRetries: 5, delay: "10 millis" })
})

/** Registers the tests. */
export const slots = (test: Test): void => {
  describe("7: a worker claims no more than its free slots", () => {
    test("never do more tasks run than it has slots", function* (on) {
      let running = 0
      let most = 0
      yield* on.work(
        [Work],
        Work.toLayer((n) =>
          Effect.acquireUseRelease(
            Effect.sync(() => (most = Math.max(most, ++running))),
            () => Effect.as(Effect.sleep(on.duration(0.02)), n),
            () => Effect.sync(() => running--)
          )
        ),
        { concurrency: 3 }
      )
      const handles = yield* Work.delayAll(Array.from({ length: 40 }, (_, n) => n))
      yield* on.within("they end", AsyncResult.all(handles))
      assert.strictEqual(most, 3)
    })

    test("what it cannot run is left for others", function* (on) {
      const [first, second] = [new Gate(), new Gate()]
      yield* on.work(
        [Work],
        Work.toLayer((n) => Effect.as(first.pass, n)),
        { concurrency: 2 }
      )
      const handles = yield* Work.delayAll([1, 2, 3, 4])
      yield* on.until("two run", () => first.entered === 2)
      yield* on.time.pass(1)
      assert.deepStrictEqual(yield* on.counts(), { ready: 2, delayed: 0, claimed: 2 })
      yield* on.work(
        [Work],
        Work.toLayer((n) => Effect.as(second.pass, n)),
        { concurrency: 2 }
      )
      yield* on.until("the others run too", () => second.entered === 2)
      first.open()
      second.open()
      yield* on.within("they end", AsyncResult.all(handles))
    })

    test("two workers of one queue share its tasks", function* (on) {
      const ran = new Map<string, number>()
      const handler = (name: string) =>
        Work.toLayer((n) =>
          Effect.as(
            Effect.andThen(
              Effect.sync(() => ran.set(name, (ran.get(name) ?? 0) + 1)),
              Effect.sleep(on.duration(0.1))
            ),
            n
          )
        )
      yield* on.work([Work], handler("a"), { concurrency: 2 })
      yield* on.work([Work], handler("b"), { concurrency: 2 })
      const handles = yield* Work.delayAll(Array.from({ length: 24 }, (_, n) => n))
      const values = yield* on.within("they end", AsyncResult.all(handles))
      assert.deepStrictEqual(
        values,
        Array.from({ length: 24 }, (_, n) => n)
      )
      assert.isAbove(ran.get("a") ?? 0, 0)
      assert.isAbove(ran.get("b") ?? 0, 0)
      assert.strictEqual((ran.get("a") ?? 0) + (ran.get("b") ?? 0), 24)
    })

    test("a task that awaits another frees its slot meanwhile", function* (on) {
      yield* on.work(
        [Parent, Work],
        Layer.mergeAll(
          Work.toLayer((n) => Effect.succeed(n * 2)),
          Parent.toLayer((n) =>
            Effect.gen(function* () {
              const child = yield* Work.delay(n)
              return (yield* AsyncResult.get(child)) + 1
            }).pipe(Effect.orDie, Effect.provideContext(on.context))
          )
        ),
        { concurrency: 1 }
      )
      assert.strictEqual(yield* on.value(yield* Parent.delay(20)), 41)
      yield* on.drained()
    })

    test("a retry that waits holds no slot", function* (on) {
      let runs = 0
      const Patient = Task.make("patient", {
        success: Schema.Int,
        error: Schema.String,
        retry: RetryPolicy.fixed({ maxRetries: 1, delay: on.duration(3) })
      })
      yield* on.work(
        [Patient, Work],
        Layer.mergeAll(
          Work.toLayer(Effect.succeed),
          Patient.toLayer(() =>
            Effect.suspend(() => (++runs === 1 ? Effect.fail("no") : Effect.succeed(runs)))
          )
        ),
        { concurrency: 1 }
      )
      const patient = yield* Patient.delay()
      yield* on.until("it failed once", () => runs === 1)
      assert.strictEqual(yield* on.value(yield* Work.delay(5)), 5)
      assert.strictEqual(yield* AsyncResult.state(patient), "RETRY")
      yield* on.eventually(
        "its message waits",
        Effect.map(on.counts(), ({ delayed }) => delayed === 1)
      )
      assert.strictEqual(yield* on.value(patient), 2)
    })

    test("it works on when its slots were all taken", function* (on) {
      const gate = new Gate()
      yield* on.work(
        [Work],
        Work.toLayer((n) => Effect.as(gate.pass, n)),
        { concurrency: 1 }
      )
      const handles = yield* Work.delayAll([1, 2, 3])
      yield* on.until("one runs", () => gate.entered === 1)
      yield* on.time.pass(3)
      gate.open()
      yield* on.within("they end", AsyncResult.all(handles))
    })
  })

  describe("7: a shutdown drains", () => {
    test("running tasks finish within the time for it, with their leases renewed", function* (on) {
      const gate = new Gate()
      let elsewhere = 0
      const options = { lease: on.duration(2), concurrency: 1, drainTimeout: on.duration(30) }
      const worker = yield* on.work(
        [Work],
        Work.toLayer((n) => Effect.as(gate.pass, n)),
        options
      )
      const handle = yield* Work.delay(1)
      yield* on.until("it runs", () => gate.entered === 1)
      const stopping = yield* Effect.forkChild(worker.stop)
      yield* on.work(
        [Work],
        Work.toLayer((n) => Effect.sync(() => n + ++elsewhere)),
        options
      )
      yield* on.time.pass(6)
      assert.strictEqual(elsewhere, 0)
      assert.isUndefined(stopping.pollUnsafe(), "it waits for what runs")
      gate.open()
      assert.strictEqual(yield* on.value(handle), 1)
      yield* on.within("it stops", Fiber.join(stopping))
      yield* on.drained()
    })

    test("it claims nothing more", function* (on) {
      const gate = new Gate()
      const worker = yield* on.work(
        [Work],
        Work.toLayer((n) => Effect.as(gate.pass, n)),
        { drainTimeout: on.duration(30) }
      )
      yield* Work.delay(1)
      yield* on.until("it runs", () => gate.entered === 1)
      const stopping = yield* Effect.forkChild(worker.stop)
      yield* on.time.pass(0.5)
      const later = yield* Work.delay(2)
      yield* on.time.pass(3)
      assert.strictEqual(gate.entered, 1)
      assert.strictEqual(yield* AsyncResult.state(later), "PENDING")
      gate.open()
      yield* on.within("it stops", Fiber.join(stopping))
      assert.strictEqual(yield* AsyncResult.state(later), "PENDING")
    })

    test("what does not finish is interrupted and put back at once, nothing counted", function* (on) {
      const gate = new Gate()
      let finalized = 0
      const attempts: Array<number> = []
      const worker = yield* on.work(
        [Work],
        Work.toLayer((n) =>
          gate.pass.pipe(
            Effect.as(n),
            Effect.onInterrupt(() => Effect.sync(() => finalized++))
          )
        ),
        { drainTimeout: on.duration(1) }
      )
      const handle = yield* Work.delay(1)
      yield* on.until("it runs", () => gate.entered === 1)
      yield* on.within("it stops", worker.stop)
      assert.strictEqual(finalized, 1)
      assert.strictEqual(yield* AsyncResult.state(handle), "PENDING")
      assert.strictEqual((yield* on.read(handle.taskId)).attempt, 0)
      assert.deepStrictEqual(yield* on.counts(), { ready: 1, delayed: 0, claimed: 0 })
      yield* on.work(
        [Work],
        Work.toLayer((n) =>
          TaskContext.useSync(({ attempt }) => {
            attempts.push(attempt)
            return n
          })
        )
      )
      // the lease of the first run is longer than any test
      assert.strictEqual(yield* on.value(handle), 1)
      assert.deepStrictEqual(attempts, [1])
      yield* on.drained()
    })

    test("a retried task is put back as such", function* (on) {
      const gate = new Gate()
      let runs = 0
      const handler = Flaky.toLayer(() =>
        Effect.suspend(() => (++runs === 1 ? Effect.fail("no") : Effect.as(gate.pass, runs)))
      )
      const worker = yield* on.work([Flaky], handler)
      const handle = yield* Flaky.delay()
      yield* on.until("it runs again", () => gate.entered === 1)
      yield* worker.stop
      assert.strictEqual(yield* AsyncResult.state(handle), "RETRY")
      const { attempt, retries } = yield* on.read(handle.taskId)
      assert.deepStrictEqual({ attempt, retries }, { attempt: 1, retries: 1 })
      gate.open()
      yield* on.work([Flaky], handler)
      assert.strictEqual(yield* on.value(handle), 3)
    })

    test("a handler that finishes as it is interrupted has its outcome stored", function* (on) {
      const gate = new Gate()
      const worker = yield* on.work(
        [Work],
        Work.toLayer((n) =>
          gate.pass.pipe(
            Effect.as(n),
            Effect.catchCause(() => Effect.succeed(n))
          )
        )
      )
      const handle = yield* Work.delay(1)
      yield* on.until("it runs", () => gate.entered === 1)
      yield* worker.stop
      const state = yield* AsyncResult.state(handle)
      assert.include(["SUCCESS", "PENDING"], state)
      if (state === "PENDING") assert.strictEqual((yield* on.counts()).ready, 1)
    })

    test("a worker that stops is taken off the list", function* (on) {
      const worker = yield* on.work([Work], Work.toLayer(Effect.succeed))
      yield* on.eventually(
        "it is on the list",
        Effect.map(Worker.active, (workers) => workers.some(({ id }) => id === worker.id))
      )
      yield* worker.stop
      assert.isFalse((yield* Worker.active).some(({ id }) => id === worker.id))
    })

    test("a store that is away does not keep it from stopping", function* (on) {
      const gate = new Gate()
      const worker = yield* on.workApart(
        [Work],
        Work.toLayer((n) => Effect.as(gate.pass, n)),
        { lease: on.duration(2) }
      )
      const handle = yield* Work.delay(1)
      yield* on.until("it runs", () => gate.entered === 1)
      worker.faults.cut()
      yield* on.within("it stops", worker.stop)
      gate.open()
      yield* on.work([Work], Work.toLayer(Effect.succeed))
      assert.strictEqual(yield* on.value(handle), 1)
    })
  })
}
