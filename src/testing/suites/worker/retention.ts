/** Guarantee 11: retention is finite by default, per task, and starts at the terminal write. */
import { assert, describe } from "@effect/vitest"
import { Duration, Effect, Layer, Option, Schema } from "effect"
import * as AsyncResult from "../../../AsyncResult.ts"
import * as Task from "../../../Task.ts"
import { Gate, type Test } from "./fixture.ts"

const Forever = Task.make("forever", { success: Schema.Int, retention: Duration.infinity })
const Usual = Task.make("usual", { success: Schema.Int })

/** Units for which a brief result is kept: it is read within one of them, and a busy machine may pause for some more. */
const BRIEF = 6

/** Registers the tests. */
export const retention = (test: Test): void => {
  describe("guarantee 11: retention starts at the terminal write", () => {
    test("a result is kept for the retention of its task", function* (t) {
      const Brief = Task.make("brief", { success: Schema.Int, retention: t.duration(BRIEF) })
      yield* t.startWorker(
        [Brief],
        Brief.toLayer(() => Effect.succeed(7))
      )
      const handle = yield* Brief.delay()
      assert.strictEqual(yield* t.awaitValue(handle), 7)
      yield* t.time.pass(1)
      assert.strictEqual(yield* t.awaitValue(handle), 7)
      yield* t.time.pass(BRIEF)
      assert.isTrue(Option.isNone(yield* AsyncResult.poll(handle)))
      assert.strictEqual(yield* AsyncResult.state(handle), "PENDING")
    })

    test("a record of a waiting or running task outlives the retention", function* (t) {
      const gate = new Gate()
      const Brief = Task.make("brief", { success: Schema.Int, retention: t.duration(BRIEF) })
      const handle = yield* Brief.delay()
      yield* t.time.pass(BRIEF + 1)
      assert.isTrue(Option.isSome(yield* AsyncResult.poll(handle)))
      yield* t.startWorker(
        [Brief],
        Brief.toLayer(() => Effect.as(gate.pass, 7))
      )
      yield* t.until("it runs", () => gate.entered === 1)
      yield* t.time.pass(BRIEF + 1)
      assert.strictEqual(yield* AsyncResult.state(handle), "STARTED")
      gate.open()
      assert.strictEqual(yield* t.awaitValue(handle), 7)
    })

    test("failures and the ends that the store decides are kept for the retention", function* (t) {
      const Brief = Task.make("brief", { error: Schema.String, retention: t.duration(BRIEF) })
      const cancelled = yield* Brief.delay()
      yield* AsyncResult.cancel(cancelled)
      yield* t.startWorker(
        [Brief],
        Brief.toLayer(() => Effect.fail("no"))
      )
      const failed = yield* Brief.delay()
      yield* t.awaitReason(failed, "Failed")
      assert.isTrue(Option.isSome(yield* AsyncResult.poll(failed)))
      yield* t.time.pass(BRIEF + 1)
      assert.isTrue(Option.isNone(yield* AsyncResult.poll(cancelled)))
      assert.isTrue(Option.isNone(yield* AsyncResult.poll(failed)))
    })

    test("each task has its own retention", function* (t) {
      const Brief = Task.make("brief", { success: Schema.Int, retention: t.duration(BRIEF) })
      yield* t.startWorker(
        [Brief, Usual, Forever],
        Layer.mergeAll(
          Brief.toLayer(() => Effect.succeed(1)),
          Usual.toLayer(() => Effect.succeed(2)),
          Forever.toLayer(() => Effect.succeed(3))
        )
      )
      const brief = yield* Brief.delay()
      const usual = yield* Usual.delay()
      const forever = yield* Forever.delay()
      yield* t.complete("they end", AsyncResult.all([brief, usual, forever]))
      yield* t.time.pass(BRIEF + 1)
      assert.isTrue(Option.isNone(yield* AsyncResult.poll(brief)))
      assert.strictEqual(yield* t.awaitValue(usual), 2)
      assert.strictEqual(yield* t.awaitValue(forever), 3)
    })

    test("a worker's sweep removes records past their retention", function* (t) {
      const Brief = Task.make("brief", { success: Schema.Int, retention: t.duration(BRIEF) })
      yield* t.startWorker(
        [Brief],
        Brief.toLayer(() => Effect.succeed(1))
      )
      const handle = yield* Brief.delay()
      yield* t.awaitValue(handle)
      yield* t.time.pass(BRIEF + 1)
      const before = t.faults.count("backend.sweep")
      yield* t.until("it sweeps", () => t.faults.count("backend.sweep") > before + 1)
      assert.strictEqual((yield* t.drivers.backend.sweep(100)).handled, 0)
      assert.isUndefined(yield* t.readOptional(handle.taskId))
    })

    test("a task whose retention is over is an unknown id for later waiters", function* (t) {
      const Brief = Task.make("brief", { success: Schema.Int, retention: t.duration(BRIEF) })
      yield* t.startWorker(
        [Brief],
        Brief.toLayer(() => Effect.succeed(1))
      )
      const handle = yield* Brief.delay()
      yield* t.awaitValue(handle)
      yield* t.eventually(
        "its record is gone",
        Effect.map(t.readOptional(handle.taskId), (record) => record === undefined)
      )
      const error = yield* t.complete(
        "the wait is over",
        Effect.flip(AsyncResult.get(handle, { timeout: t.duration(1) }))
      )
      assert.strictEqual(error._tag, "TimeoutError")
    })

    test("a key is free again after the retention of its task", function* (t) {
      const Keyed = Task.make("keyed", {
        payload: Schema.Int,
        success: Schema.Int,
        retention: t.duration(BRIEF),
        idempotencyKey: (n) => `${n}`
      })
      yield* t.startWorker([Keyed], Keyed.toLayer(Effect.succeed))
      const first = yield* Keyed.delay(1)
      yield* t.awaitValue(first)
      assert.strictEqual((yield* Keyed.delay(1)).taskId, first.taskId)
      yield* t.time.pass(BRIEF + 1)
      const second = yield* Keyed.delay(1)
      assert.notStrictEqual(second.taskId, first.taskId)
      assert.strictEqual(yield* t.awaitValue(second), 1)
    })
  })
}
