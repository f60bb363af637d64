/** Guarantee 5, where somebody asks for the end: cancels, of what waits and of what runs. */
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
export const cancelling = (test: Test): void => {
  describe("5: a cancel ends a task, and completes its waiters", () => {
    test("while it waits, at once", function* (on) {
      const handle = yield* Work.delay("hello")
      const waiter = yield* on.follow(AsyncResult.stream([handle]))
      assert.strictEqual(yield* AsyncResult.cancel(handle), "Cancelled")
      yield* waiter.done
      yield* on.reason(handle, "Cancelled")
      let runs = 0
      yield* on.work(
        [Work],
        Work.toLayer((text) => Effect.sync(() => `${text} ${++runs}`))
      )
      yield* on.drained()
      assert.strictEqual(runs, 0)
    })

    test("while it runs, with the handler's finalizers run", function* (on) {
      const gate = new Gate()
      let finalized = 0
      yield* on.work(
        [Work],
        Work.toLayer(() =>
          gate.pass.pipe(
            Effect.as("done"),
            Effect.onInterrupt(() => Effect.sync(() => finalized++))
          )
        ),
        { lease: on.duration(9) }
      )
      const handle = yield* Work.delay("hello")
      yield* on.until("it runs", () => gate.entered === 1)
      assert.strictEqual(yield* AsyncResult.cancel(handle), "Requested")
      yield* on.reason(handle, "Cancelled")
      assert.strictEqual(finalized, 1)
      assert.strictEqual(yield* DeadLetters.count(), 0)
      yield* on.drained()
    })

    test("while it runs, long before the next renewal, where the store can push", function* (on, context) {
      if (!on.drivers.backend.capabilities.hints)
        return yield* Suite.skip(context, "the store gives no hints")
      const gate = new Gate()
      yield* on.work(
        [Work],
        Work.toLayer((text) => Effect.as(gate.pass, text))
      )
      const handle = yield* Work.delay("hello")
      yield* on.until("it runs", () => gate.entered === 1)
      assert.strictEqual(yield* AsyncResult.cancel(handle), "Requested")
      yield* on.reason(handle, "Cancelled")
    })

    test("between two attempts", function* (on) {
      let runs = 0
      const Later = Task.make("later", {
        error: Schema.String,
        retry: RetryPolicy.fixed({ maxRetries: 2, delay: on.duration(20) })
      })
      yield* on.work(
        [Later],
        Later.toLayer(() => Effect.suspend(() => Effect.fail(`no ${++runs}`)))
      )
      const handle = yield* Later.delay()
      yield* on.eventually(
        "it waits for its retry",
        Effect.map(AsyncResult.state(handle), (state) => state === "RETRY")
      )
      assert.strictEqual(yield* AsyncResult.cancel(handle), "Cancelled")
      yield* on.reason(handle, "Cancelled")
      assert.strictEqual(runs, 1)
    })

    test("of a run whose worker vanished", function* (on) {
      const handle = yield* Work.delay("hello")
      yield* on.abandon()
      assert.strictEqual(yield* AsyncResult.cancel(handle), "Requested")
      let runs = 0
      yield* on.work(
        [Work],
        Work.toLayer((text) => Effect.sync(() => `${text} ${++runs}`))
      )
      yield* on.reason(handle, "Cancelled")
      assert.strictEqual(runs, 0)
    })
  })

  describe("5: the first end wins", () => {
    test("a cancel that comes with the success", function* (on) {
      const gate = new Gate()
      yield* on.work(
        [Work],
        Work.toLayer((text) => Effect.uninterruptible(Effect.as(gate.pass, text)))
      )
      const outcomes = new Set<string>()
      for (let n = 0; n < 5; n++) {
        const handle = yield* Work.delay("hello")
        if (n === 0) yield* on.until("it runs", () => gate.entered === 1)
        gate.open()
        const answer = yield* AsyncResult.cancel(handle)
        const exit = yield* on.outcome(handle)
        const reason = Exit.isSuccess(exit)
          ? "success"
          : Option.getOrThrow(Exit.findErrorOption(exit)).reason._tag
        assert.include(["success", "Cancelled"], reason)
        if (answer === "Cancelled") assert.strictEqual(reason, "Cancelled")
        if (answer === "AlreadyDone") assert.strictEqual(reason, "success")
        outcomes.add(reason)
        const again = yield* on.outcome(handle)
        assert.strictEqual(Exit.isSuccess(again), Exit.isSuccess(exit))
      }
      assert.isNotEmpty([...outcomes])
      yield* on.drained()
    })

    test("a retry under a cancel request ends as cancelled", function* (on) {
      const gate = new Gate()
      yield* on.work(
        [Retried],
        Retried.toLayer(() => Effect.uninterruptible(Effect.andThen(gate.pass, Effect.fail("no"))))
      )
      const handle = yield* Retried.delay({ n: 1 })
      yield* on.until("it runs", () => gate.entered === 1)
      assert.strictEqual(yield* AsyncResult.cancel(handle), "Requested")
      gate.open()
      yield* on.reason(handle, "Cancelled")
      assert.strictEqual(gate.entered, 1)
    })

    test("a shutdown under a cancel request ends the task as cancelled", function* (on) {
      const gate = new Gate()
      const worker = yield* on.workApart(
        [Work],
        Work.toLayer((text) => Effect.as(gate.pass, text))
      )
      const handle = yield* Work.delay("hello")
      yield* on.until("it runs", () => gate.entered === 1)
      assert.strictEqual(yield* AsyncResult.cancel(handle), "Requested")
      yield* worker.stop
      yield* on.reason(handle, "Cancelled")
    })
  })
}
