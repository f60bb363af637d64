/** Guarantee 4: the outcome is stored in one write, then the message is acked, and a finished handler does not run again. */
import { assert, describe } from "@effect/vitest"
import { Effect, Schema } from "effect"
import * as AsyncResult from "../../../AsyncResult.ts"
import * as DeadLetters from "../../../DeadLetters.ts"
import * as RetryPolicy from "../../../RetryPolicy.ts"
import * as Task from "../../../Task.ts"
import type { Test } from "./fixture.ts"

const Work = Task.make("work", { success: Schema.Int, error: Schema.String })
const Stubborn = Task.make("stubborn", {
  success: Schema.Int,
  error: Schema.String,
  retry: RetryPolicy.fixed({ maxRetries: 3, delay: "10 millis" })
})

/** Registers the tests. */
export const settle = (test: Test): void => {
  describe("guarantee 4: the outcome is stored, then the message is acked", () => {
    test("a crash between settlement and ack leads to a redelivery that only acks", function* (t) {
      let runs = 0
      const handle = yield* Work.delay()
      const crashed = yield* t.startAndVanish()
      const exit = JSON.stringify({ _tag: "Success", value: 7 })
      assert.strictEqual(
        yield* crashed.settle({ _tag: "Success", exit, retentionMillis: t.time.long }),
        "Stored"
      )
      yield* t.startWorker(
        [Work],
        Work.toLayer(() => Effect.sync(() => ++runs))
      )
      yield* t.untilDrained()
      assert.strictEqual(yield* t.awaitValue(handle), 7)
      assert.strictEqual(runs, 0)
    })

    test("an ack that keeps failing leads to a redelivery that only acks", function* (t) {
      let runs = 0
      t.faults.set("fails", ["broker.ack"], 8)
      yield* t.startWorker(
        [Work],
        Work.toLayer(() => Effect.sync(() => ++runs)),
        { lease: t.duration(1) }
      )
      const handle = yield* Work.delay()
      assert.strictEqual(yield* t.awaitValue(handle), 1)
      yield* t.untilDrained()
      assert.strictEqual(runs, 1)
      assert.strictEqual((yield* t.read(handle.taskId)).attempt, 1)
    })

    test("a settlement that fails is retried under the lease, and the handler does not run again", function* (t) {
      let runs = 0
      yield* t.startWorker(
        [Work],
        Work.toLayer(() => Effect.sync(() => ++runs)),
        { lease: t.duration(4) }
      )
      let failing = true
      t.faults.modeOf = (operation) => (failing && operation === "backend.settle" ? "fails" : "passes")
      const handle = yield* Work.delay()
      yield* t.time.pass(10)
      assert.strictEqual(yield* AsyncResult.state(handle), "STARTED")
      failing = false
      assert.strictEqual(yield* t.awaitValue(handle), 1)
      yield* t.untilDrained()
      assert.strictEqual(runs, 1)
      assert.isAtLeast(t.faults.count("backend.settle"), 3)
      assert.strictEqual((yield* t.read(handle.taskId)).crashes, 0)
    })

    test("a settlement whose answer was lost is stored once", function* (t) {
      let runs = 0
      t.faults.set("answer lost", ["backend.settle"], 2)
      yield* t.startWorker(
        [Work],
        Work.toLayer(() => Effect.suspend(() => Effect.fail(`no ${++runs}`)))
      )
      const handle = yield* Work.delay()
      assert.strictEqual((yield* t.awaitReason(handle, "Failed")).error, "no 1")
      yield* t.untilDrained()
      assert.strictEqual(yield* DeadLetters.count(), 1)
      assert.strictEqual(runs, 1)
    })

    test("a renewal that finds a stored outcome does not prevent the ack", function* (t) {
      t.faults.set("answer lost", ["backend.settle"])
      yield* t.startWorker(
        [Work],
        Work.toLayer(() => Effect.succeed(1)),
        { lease: t.duration(9) }
      )
      const handle = yield* Work.delay()
      yield* t.until("it was stored", () => t.faults.count("backend.settle") > 0)
      const renewals = t.faults.count("backend.renew")
      yield* t.until("it was renewed", () => t.faults.count("backend.renew") > renewals)
      t.faults.heal()
      assert.strictEqual(yield* t.awaitValue(handle), 1)
      yield* t.untilDrained()
    })

    test("a start whose answer was lost counts one attempt", function* (t) {
      let runs = 0
      t.faults.set("answer lost", ["backend.start"], 2)
      yield* t.startWorker(
        [Work],
        Work.toLayer(() => Effect.sync(() => ++runs))
      )
      const handle = yield* Work.delay()
      assert.strictEqual(yield* t.awaitValue(handle), 1)
      const { attempt, crashes } = yield* t.read(handle.taskId)
      assert.deepStrictEqual({ attempt, crashes }, { attempt: 1, crashes: 0 })
    })

    test("a retry whose answer was lost is counted once", function* (t) {
      let runs = 0
      t.faults.set("answer lost", ["backend.settle"], 2)
      yield* t.startWorker(
        [Stubborn],
        Stubborn.toLayer(() =>
          Effect.suspend(() => (++runs === 1 ? Effect.fail("no") : Effect.succeed(runs)))
        )
      )
      const handle = yield* Stubborn.delay()
      assert.strictEqual(yield* t.awaitValue(handle), 2)
      const { attempt, retries } = yield* t.read(handle.taskId)
      assert.deepStrictEqual({ attempt, retries }, { attempt: 2, retries: 1 })
      yield* t.untilDrained()
    })

    test("a crash between a stored retry and its message neither loses nor doubles the task", function* (t) {
      let runs = 0
      const handle = yield* Stubborn.delay()
      const crashed = yield* t.startAndVanish()
      assert.strictEqual(yield* crashed.settle({ _tag: "Retry", afterMillis: t.time.units(3) }), "Stored")
      assert.strictEqual(yield* AsyncResult.state(handle), "RETRY")
      yield* t.startWorker(
        [Stubborn],
        Stubborn.toLayer(() => Effect.sync(() => ++runs))
      )
      yield* t.time.pass(2)
      assert.strictEqual(runs, 0, "the retry is not due yet")
      assert.strictEqual(yield* t.awaitValue(handle), 1)
      const { attempt, crashes, retries } = yield* t.read(handle.taskId)
      assert.deepStrictEqual({ attempt, crashes, retries }, { attempt: 2, crashes: 0, retries: 1 })
      yield* t.untilDrained()
    })

    test("a failure is visible together with its dead letter", function* (t) {
      yield* t.startWorker(
        [Work],
        Work.toLayer(() => Effect.fail("no"))
      )
      for (let n = 1; n <= 10; n++) {
        yield* t.awaitReason(yield* Work.delay(), "Failed")
        assert.strictEqual(yield* DeadLetters.count(Work), n)
      }
    })

    test("a success that the store refuses permanently ends the task, and the handler does not run again", function* (t) {
      let runs = 0
      t.faults.set("refused", ["backend.settle"], 1)
      yield* t.startWorker(
        [Work],
        Work.toLayer(() => Effect.sync(() => ++runs))
      )
      const handle = yield* Work.delay()
      assert.strictEqual((yield* t.awaitReason(handle, "ResultInvalid")).side, "worker")
      yield* t.untilDrained()
      assert.strictEqual(runs, 1)
    })

    test("a failure that the store refuses permanently ends the task", function* (t) {
      let runs = 0
      t.faults.set("refused", ["backend.settle"], 1)
      yield* t.startWorker(
        [Work],
        Work.toLayer(() => Effect.suspend(() => Effect.fail(`no ${++runs}`)))
      )
      const handle = yield* Work.delay()
      assert.strictEqual((yield* t.awaitReason(handle, "ResultInvalid")).side, "worker")
      yield* t.untilDrained()
      assert.strictEqual(runs, 1)
    })
  })
}
