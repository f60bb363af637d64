/** Guarantee 4: the outcome is stored in one write, then the message is acked; work that is done is not done again. */
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
export const settling = (test: Test): void => {
  describe("4: what a run came to is stored, then its message is acked", () => {
    test("a crash between the two leads to a redelivery that only acks", function* (on) {
      let runs = 0
      const handle = yield* Work.delay()
      const crashed = yield* on.abandon()
      const exit = JSON.stringify({ _tag: "Success", value: 7 })
      assert.strictEqual(
        yield* crashed.settle({ _tag: "Success", exit, retentionMillis: on.time.long }),
        "Stored"
      )
      yield* on.work(
        [Work],
        Work.toLayer(() => Effect.sync(() => ++runs))
      )
      yield* on.drained()
      assert.strictEqual(yield* on.value(handle), 7)
      assert.strictEqual(runs, 0)
    })

    test("an ack that keeps failing leads to a redelivery that only acks", function* (on) {
      let runs = 0
      on.faults.set("fails", ["broker.ack"], 8)
      yield* on.work(
        [Work],
        Work.toLayer(() => Effect.sync(() => ++runs)),
        { lease: on.duration(1) }
      )
      const handle = yield* Work.delay()
      assert.strictEqual(yield* on.value(handle), 1)
      yield* on.drained()
      assert.strictEqual(runs, 1)
      assert.strictEqual((yield* on.read(handle.taskId)).attempt, 1)
    })

    test("storing that fails after the work is tried again under the lease, and the work is not", function* (on) {
      let runs = 0
      yield* on.work(
        [Work],
        Work.toLayer(() => Effect.sync(() => ++runs)),
        { lease: on.duration(4) }
      )
      let failing = true
      on.faults.of = (operation) => (failing && operation === "backend.settle" ? "fails" : "passes")
      const handle = yield* Work.delay()
      yield* on.time.pass(10)
      assert.strictEqual(yield* AsyncResult.state(handle), "STARTED")
      failing = false
      assert.strictEqual(yield* on.value(handle), 1)
      yield* on.drained()
      assert.strictEqual(runs, 1)
      assert.isAtLeast(on.faults.count("backend.settle"), 3)
      assert.strictEqual((yield* on.read(handle.taskId)).crashes, 0)
    })

    test("an outcome whose answer was lost is stored once", function* (on) {
      let runs = 0
      on.faults.set("answer lost", ["backend.settle"], 2)
      yield* on.work(
        [Work],
        Work.toLayer(() => Effect.suspend(() => Effect.fail(`no ${++runs}`)))
      )
      const handle = yield* Work.delay()
      assert.strictEqual((yield* on.reason(handle, "Failed")).error, "no 1")
      yield* on.drained()
      assert.strictEqual(yield* DeadLetters.count(), 1)
      assert.strictEqual(runs, 1)
    })

    test("a renewal that finds the outcome stored does not keep its message from being acked", function* (on) {
      on.faults.set("answer lost", ["backend.settle"])
      yield* on.work(
        [Work],
        Work.toLayer(() => Effect.succeed(1)),
        { lease: on.duration(9) }
      )
      const handle = yield* Work.delay()
      yield* on.until("it was stored", () => on.faults.count("backend.settle") > 0)
      const renewals = on.faults.count("backend.renew")
      yield* on.until("it was renewed", () => on.faults.count("backend.renew") > renewals)
      on.faults.heal()
      assert.strictEqual(yield* on.value(handle), 1)
      yield* on.drained()
    })

    test("a start whose answer was lost is no second attempt", function* (on) {
      let runs = 0
      on.faults.set("answer lost", ["backend.start"], 2)
      yield* on.work(
        [Work],
        Work.toLayer(() => Effect.sync(() => ++runs))
      )
      const handle = yield* Work.delay()
      assert.strictEqual(yield* on.value(handle), 1)
      const { attempt, crashes } = yield* on.read(handle.taskId)
      assert.deepStrictEqual({ attempt, crashes }, { attempt: 1, crashes: 0 })
    })

    test("a retry whose answer was lost is counted once", function* (on) {
      let runs = 0
      on.faults.set("answer lost", ["backend.settle"], 2)
      yield* on.work(
        [Stubborn],
        Stubborn.toLayer(() =>
          Effect.suspend(() => (++runs === 1 ? Effect.fail("no") : Effect.succeed(runs)))
        )
      )
      const handle = yield* Stubborn.delay()
      assert.strictEqual(yield* on.value(handle), 2)
      const { attempt, retries } = yield* on.read(handle.taskId)
      assert.deepStrictEqual({ attempt, retries }, { attempt: 2, retries: 1 })
      yield* on.drained()
    })

    test("a crash between a retry and its message neither loses nor doubles it", function* (on) {
      let runs = 0
      const handle = yield* Stubborn.delay()
      const crashed = yield* on.abandon()
      assert.strictEqual(yield* crashed.settle({ _tag: "Retry", afterMillis: on.time.units(3) }), "Stored")
      assert.strictEqual(yield* AsyncResult.state(handle), "RETRY")
      yield* on.work(
        [Stubborn],
        Stubborn.toLayer(() => Effect.sync(() => ++runs))
      )
      yield* on.time.pass(2)
      assert.strictEqual(runs, 0, "the retry is not due yet")
      assert.strictEqual(yield* on.value(handle), 1)
      const { attempt, crashes, retries } = yield* on.read(handle.taskId)
      assert.deepStrictEqual({ attempt, crashes, retries }, { attempt: 2, crashes: 0, retries: 1 })
      yield* on.drained()
    })

    test("whoever sees a failure finds its dead letter", function* (on) {
      yield* on.work(
        [Work],
        Work.toLayer(() => Effect.fail("no"))
      )
      for (let n = 1; n <= 10; n++) {
        yield* on.reason(yield* Work.delay(), "Failed")
        assert.strictEqual(yield* DeadLetters.count(Work), n)
      }
    })

    test("a success that the store refuses for good ends the task, and the work is not done again", function* (on) {
      let runs = 0
      on.faults.set("refused", ["backend.settle"], 1)
      yield* on.work(
        [Work],
        Work.toLayer(() => Effect.sync(() => ++runs))
      )
      const handle = yield* Work.delay()
      assert.strictEqual((yield* on.reason(handle, "ResultInvalid")).side, "worker")
      yield* on.drained()
      assert.strictEqual(runs, 1)
    })

    test("an error that the store refuses for good ends the task too", function* (on) {
      let runs = 0
      on.faults.set("refused", ["backend.settle"], 1)
      yield* on.work(
        [Work],
        Work.toLayer(() => Effect.suspend(() => Effect.fail(`no ${++runs}`)))
      )
      const handle = yield* Work.delay()
      assert.strictEqual((yield* on.reason(handle, "ResultInvalid")).side, "worker")
      yield* on.drained()
      assert.strictEqual(runs, 1)
    })
  })
}
