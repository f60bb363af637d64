/** Guarantee 9: a lost connection never ends a waiter. */
import { assert, describe } from "@effect/vitest"
import { Effect, Exit, Schema } from "effect"
import * as AsyncResult from "../../../AsyncResult.ts"
import * as Task from "../../../Task.ts"
import { Gate, type Test } from "./fixture.ts"

const Work = Task.make("work", { payload: Schema.Int, success: Schema.Int, progress: Schema.Int })

/** Registers the tests. */
export const waiterOutages = (test: Test): void => {
  describe("guarantee 9: a lost connection never ends a waiter", () => {
    test("a waiter reads again once the store is back", function* (t) {
      const gate = new Gate()
      const worker = yield* t.startSeparateWorker(
        [Work],
        Work.toLayer((n) => Effect.as(gate.pass, n))
      )
      const handle = yield* Work.delay(1)
      const waiter = yield* t.collect(AsyncResult.stream([handle]))
      yield* t.until("it runs", () => gate.entered === 1)
      t.faults.cut()
      gate.open()
      yield* t.eventually(
        "it has ended",
        Effect.map(worker.stats, ({ succeeded }) => succeeded === 1)
      )
      yield* t.time.pass(3)
      assert.strictEqual(waiter.values.length, 0)
      t.faults.heal()
      yield* waiter.done
      assert.isTrue(Exit.isSuccess(waiter.values[0]![1]))
    })

    test("a waiter misses nothing while the hints are interrupted", function* (t) {
      const gate = new Gate()
      yield* t.startSeparateWorker(
        [Work],
        Work.toLayer((n) => Effect.as(gate.pass, n))
      )
      const handle = yield* Work.delay(1)
      const waiter = yield* t.collect(AsyncResult.stream([handle]))
      yield* t.until("it runs", () => gate.entered === 1)
      t.faults.interruptStreams()
      gate.open()
      yield* waiter.done
      assert.isTrue(Exit.isSuccess(waiter.values[0]![1]))
    })

    test("a waiter finds the result without any hint", function* (t) {
      t.faults.set("fails", ["backend.hints"])
      yield* t.startSeparateWorker(
        [Work],
        Work.toLayer((n) => Effect.as(Effect.sleep(t.duration(1)), n))
      )
      assert.strictEqual(yield* t.awaitValue(yield* Work.delay(1)), 1)
    })

    test("a wait with a timeout ends in time, with the last error of the store", function* (t) {
      const handle = yield* Work.delay(1)
      t.faults.cut()
      const error = yield* t.complete(
        "the wait is over",
        Effect.flip(AsyncResult.get(handle, { timeout: t.duration(3) }))
      )
      assert(error._tag === "TimeoutError")
      assert.strictEqual(error.taskId, handle.taskId)
      assert.isDefined(error.cause)
    })

    test("a permanent error fails a waiter at once", function* (t) {
      const handle = yield* Work.delay(1)
      t.faults.set("refused", ["backend.subscribe", "backend.read"])
      const error = yield* t.complete("the wait is over", Effect.flip(AsyncResult.get(handle)))
      assert(error._tag === "BackendError")
      assert.isFalse(error.retryable)
      assert.strictEqual(error.taskId, handle.taskId)
      t.faults.heal()
      yield* t.startWorker([Work], Work.toLayer(Effect.succeed))
      assert.strictEqual(yield* t.awaitValue(handle), 1)
    })

    test("a cancel request without a hint is found by the next renewal", function* (t) {
      const gate = new Gate()
      const worker = yield* t.startSeparateWorker(
        [Work],
        Work.toLayer((n) => Effect.as(gate.pass, n)),
        { lease: t.duration(9) }
      )
      const handle = yield* Work.delay(1)
      yield* t.until("it runs", () => gate.entered === 1)
      worker.faults.cut()
      assert.strictEqual(yield* AsyncResult.cancel(handle), "Requested")
      worker.faults.heal()
      yield* t.awaitReason(handle, "Cancelled")
    })
  })
}
