/** Guarantee 9: a call whose outcome is unknown is safe to repeat. */
import { assert, describe } from "@effect/vitest"
import { Effect, Exit, Schema } from "effect"
import * as Task from "../../../Task.ts"
import type { Test } from "./fixture.ts"

const Work = Task.make("work", { payload: Schema.Int, success: Schema.Int, progress: Schema.Int })

/** Registers the tests. */
export const unknownOutcomes = (test: Test): void => {
  describe("guarantee 9: a call whose outcome is unknown is safe to repeat", () => {
    test("an enqueue with a given id can be repeated", function* (t) {
      let runs = 0
      t.faults.set("answer lost", ["backend.create", "broker.publish", "backend.markPublished"], 3)
      const id = "a given id"
      let failures = 0
      const send = Effect.tapError(Work.delay(1, { id }), () => Effect.sync(() => failures++))
      const handle = yield* t.complete("it is accepted", Effect.eventually(send))
      assert.isAbove(failures, 0)
      yield* t.startWorker(
        [Work],
        Work.toLayer(() => Effect.sync(() => ++runs))
      )
      assert.strictEqual(yield* t.awaitValue(handle), 1)
      yield* t.time.pass(1)
      yield* t.untilDrained()
      assert.strictEqual(runs, 1)
    })

    test("an enqueue that fails between its steps strands neither the key nor the task", function* (t) {
      const Keyed = Task.make("keyed", {
        payload: Schema.Int,
        success: Schema.Int,
        idempotencyKey: (n) => `key ${n}`
      })
      t.faults.set("fails", ["broker.publish", "backend.create"], 1)
      assert.isTrue(Exit.isFailure(yield* Effect.exit(Keyed.delay(1))))
      const handle = yield* Keyed.delay(1)
      yield* t.startWorker([Keyed], Keyed.toLayer(Effect.succeed))
      assert.strictEqual(yield* t.awaitValue(handle), 1)
      assert.strictEqual((yield* Keyed.delay(1)).taskId, handle.taskId)
      yield* t.untilDrained()
    })

    test("a message without a record runs its task", function* (t) {
      t.faults.set("fails", ["backend.create"], 1)
      const sent = yield* Effect.exit(Work.delay(1))
      yield* t.startWorker([Work], Work.toLayer(Effect.succeed))
      yield* t.untilDrained()
      assert.isTrue(Exit.isFailure(sent))
    })
  })
}
