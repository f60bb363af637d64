/** Guarantee 10: payloads and results have a size cap. */
import { assert, describe } from "@effect/vitest"
import { Effect, Schema } from "effect"
import * as Task from "../../../Task.ts"
import type { Test } from "./fixture.ts"

const LIMIT = 4 * 1024 * 1024
const Text = Task.make("text", { payload: Schema.String, success: Schema.String, progress: Schema.Int })
const Fields = Task.make("fields", {
  payload: { n: Schema.Int, when: Schema.Date, big: Schema.BigInt, bytes: Schema.Uint8Array },
  success: Schema.Struct({ n: Schema.Int, when: Schema.Date, big: Schema.BigInt, bytes: Schema.Uint8Array })
})

/** Registers the tests. */
export const limits = (test: Test): void => {
  describe("guarantee 10: payloads and results have a size cap", () => {
    test("a payload that is too large fails with PayloadTooLarge, and nothing is enqueued", function* (t) {
      const error = yield* Effect.flip(Text.delay("a".repeat(LIMIT)))
      assert(error._tag === "PayloadTooLarge")
      assert.strictEqual(error.limit, LIMIT)
      assert.isAbove(error.bytes, LIMIT)
      assert.deepStrictEqual(yield* t.counts(), { ready: 0, delayed: 0, claimed: 0 })
      assert.isUndefined(yield* t.readOptional(error.taskId))
    })

    test("the size cap counts bytes, not characters", function* () {
      const error = yield* Effect.flip(Text.delay("é".repeat(LIMIT / 2)))
      assert.strictEqual(error._tag, "PayloadTooLarge")
    })

    test("a payload and a result of nearly the largest size pass", function* (t) {
      yield* t.startWorker([Text], Text.toLayer(Effect.succeed))
      const payload = "a".repeat(LIMIT - 1000)
      const value = yield* t.awaitValue(yield* Text.delay(payload))
      assert.isTrue(value === payload)
    })

    test("a payload that does not encode fails with EncodeError, and nothing is enqueued", function* (t) {
      const error = yield* Effect.flip(
        Fields.delay({ n: 1.5, when: new Date(0), big: 1n, bytes: new Uint8Array() })
      )
      assert.strictEqual(error._tag, "EncodeError")
      assert.deepStrictEqual(yield* t.counts(), { ready: 0, delayed: 0, claimed: 0 })
    })

    test("a failed bulk enqueue returns the ids that were accepted before", function* (t) {
      const error = yield* Effect.flip(Text.delayAll(["a", "b", "a".repeat(LIMIT), "c"]))
      assert.strictEqual(error.error._tag, "PayloadTooLarge")
      assert.strictEqual(error.accepted.length, 2)
      yield* t.startWorker([Text], Text.toLayer(Effect.succeed))
      for (const id of error.accepted) assert.include(["a", "b"], yield* t.awaitValue(Text.result(id)))
      yield* t.untilDrained()
    })
  })
}
