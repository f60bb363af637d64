/** Guarantee 5: a cancel ends waiting and running tasks, and completes their waiters. */
import { assert, describe } from "@effect/vitest"
import { Effect, Exit, Option, Schema } from "effect"
import * as AsyncResult from "../../../AsyncResult.ts"
import * as DeadLetters from "../../../DeadLetters.ts"
import * as RetryPolicy from "../../../RetryPolicy.ts"
import * as Task from "../../../Task.ts"
import * as Suite from "../Suite.ts"
import { Gate, type Test } from "./fixture.ts"

const Work = Task.make("work", { payload: Schema.String, success: Schema.String })
const Retried = Task.make("retried", {
  payload: Schema.Struct({ n: Schema.Int }),
  error: Schema.String,
  retry: RetryPolicy.fixed({ maxRetries: 2, delay: "10 millis" })
})

/** Registers the tests. */
export const cancel = (test: Test): void => {
  describe("guarantee 5: a cancel ends a task, and completes its waiters", () => {
    test("a cancel ends a waiting task at once", function* (t) {
      const handle = yield* Work.delay("hello")
      const waiter = yield* t.collect(AsyncResult.stream([handle]))
      assert.strictEqual(yield* AsyncResult.cancel(handle), "Cancelled")
      yield* waiter.done
      yield* t.awaitReason(handle, "Cancelled")
      let runs = 0
      yield* t.startWorker(
        [Work],
        Work.toLayer((text) => Effect.sync(() => `${text} ${++runs}`))
      )
      yield* t.untilDrained()
      assert.strictEqual(runs, 0)
    })

    test("a cancel ends a running task, and runs the handler's finalizers", function* (t) {
      const gate = new Gate()
      let finalized = 0
      yield* t.startWorker(
        [Work],
        Work.toLayer(() =>
          gate.pass.pipe(
            Effect.as("done"),
            Effect.onInterrupt(() => Effect.sync(() => finalized++))
          )
        ),
        { lease: t.duration(9) }
      )
      const handle = yield* Work.delay("hello")
      yield* t.until("it runs", () => gate.entered === 1)
      assert.strictEqual(yield* AsyncResult.cancel(handle), "Requested")
      yield* t.awaitReason(handle, "Cancelled")
      assert.strictEqual(finalized, 1)
      assert.strictEqual(yield* DeadLetters.count(), 0)
      yield* t.untilDrained()
    })

    test("a cancel reaches a running task before its next renewal, if the store gives hints", function* (t, context) {
      if (!t.drivers.backend.capabilities.hints) return yield* Suite.skip(context, "the store gives no hints")
      const gate = new Gate()
      yield* t.startWorker(
        [Work],
        Work.toLayer((text) => Effect.as(gate.pass, text))
      )
      const handle = yield* Work.delay("hello")
      yield* t.until("it runs", () => gate.entered === 1)
      assert.strictEqual(yield* AsyncResult.cancel(handle), "Requested")
      yield* t.awaitReason(handle, "Cancelled")
    })

    test("a cancel ends a task between two attempts", function* (t) {
      let runs = 0
      const Later = Task.make("later", {
        error: Schema.String,
        retry: RetryPolicy.fixed({ maxRetries: 2, delay: t.duration(20) })
      })
      yield* t.startWorker(
        [Later],
        Later.toLayer(() => Effect.suspend(() => Effect.fail(`no ${++runs}`)))
      )
      const handle = yield* Later.delay()
      yield* t.eventually(
        "it waits for its retry",
        Effect.map(AsyncResult.state(handle), (state) => state === "RETRY")
      )
      assert.strictEqual(yield* AsyncResult.cancel(handle), "Cancelled")
      yield* t.awaitReason(handle, "Cancelled")
      assert.strictEqual(runs, 1)
    })

    test("a cancel ends a task whose worker vanished", function* (t) {
      const handle = yield* Work.delay("hello")
      yield* t.startAndVanish()
      assert.strictEqual(yield* AsyncResult.cancel(handle), "Requested")
      let runs = 0
      yield* t.startWorker(
        [Work],
        Work.toLayer((text) => Effect.sync(() => `${text} ${++runs}`))
      )
      yield* t.awaitReason(handle, "Cancelled")
      assert.strictEqual(runs, 0)
    })
  })

  describe("guarantee 5: the first outcome wins", () => {
    test("a concurrent cancel and success lead to one outcome", function* (t) {
      const gate = new Gate()
      yield* t.startWorker(
        [Work],
        Work.toLayer((text) => Effect.uninterruptible(Effect.as(gate.pass, text)))
      )
      const outcomes = new Set<string>()
      for (let n = 0; n < 5; n++) {
        const handle = yield* Work.delay("hello")
        if (n === 0) yield* t.until("it runs", () => gate.entered === 1)
        gate.open()
        const answer = yield* AsyncResult.cancel(handle)
        const exit = yield* t.awaitExit(handle)
        const reason = Exit.isSuccess(exit)
          ? "success"
          : Option.getOrThrow(Exit.findErrorOption(exit)).reason._tag
        assert.include(["success", "Cancelled"], reason)
        if (answer === "Cancelled") assert.strictEqual(reason, "Cancelled")
        if (answer === "AlreadyDone") assert.strictEqual(reason, "success")
        outcomes.add(reason)
        const again = yield* t.awaitExit(handle)
        assert.strictEqual(Exit.isSuccess(again), Exit.isSuccess(exit))
      }
      assert.isNotEmpty([...outcomes])
      yield* t.untilDrained()
    })

    test("a retry under a cancel request ends as cancelled", function* (t) {
      const gate = new Gate()
      yield* t.startWorker(
        [Retried],
        Retried.toLayer(() => Effect.uninterruptible(Effect.andThen(gate.pass, Effect.fail("no"))))
      )
      const handle = yield* Retried.delay({ n: 1 })
      yield* t.until("it runs", () => gate.entered === 1)
      assert.strictEqual(yield* AsyncResult.cancel(handle), "Requested")
      gate.open()
      yield* t.awaitReason(handle, "Cancelled")
      assert.strictEqual(gate.entered, 1)
    })

    test("a shutdown under a cancel request ends the task as cancelled", function* (t) {
      const gate = new Gate()
      const worker = yield* t.startSeparateWorker(
        [Work],
        Work.toLayer((text) => Effect.as(gate.pass, text))
      )
      const handle = yield* Work.delay("hello")
      yield* t.until("it runs", () => gate.entered === 1)
      assert.strictEqual(yield* AsyncResult.cancel(handle), "Requested")
      yield* worker.stop
      yield* t.awaitReason(handle, "Cancelled")
    })
  })
}
