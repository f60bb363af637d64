/** Guarantee 10: nothing that arrives from a store is trusted; payloads and results have a size. */
import { assert, describe } from "@effect/vitest"
import { Effect, Option, Schema } from "effect"
import * as AsyncResult from "../../../AsyncResult.ts"
import * as Task from "../../../Task.ts"
import * as Suite from "../Suite.ts"
import type { Test } from "./fixture.ts"

const LIMIT = 4 * 1024 * 1024
const Text = Task.make("text", { payload: Schema.String, success: Schema.String, progress: Schema.Int })
const Fields = Task.make("fields", {
  payload: { n: Schema.Int, when: Schema.Date, big: Schema.BigInt, bytes: Schema.Uint8Array },
  success: Schema.Struct({ n: Schema.Int, when: Schema.Date, big: Schema.BigInt, bytes: Schema.Uint8Array })
})

/** Registers the tests. */
export const limits = (test: Test): void => {
  describe("10: payloads and results have a size", () => {
    test("a payload that is too large is refused, and nothing is enqueued", function* (on) {
      const error = yield* Effect.flip(Text.delay("a".repeat(LIMIT)))
      assert(error._tag === "PayloadTooLarge")
      assert.strictEqual(error.limit, LIMIT)
      assert.isAbove(error.bytes, LIMIT)
      assert.deepStrictEqual(yield* on.counts(), { ready: 0, delayed: 0, claimed: 0 })
      assert.isUndefined(yield* on.find(error.taskId))
    })

    test("bytes are counted, and not characters", function* () {
      const error = yield* Effect.flip(Text.delay("é".repeat(LIMIT / 2)))
      assert.strictEqual(error._tag, "PayloadTooLarge")
    })

    test("a payload and a result of the largest size pass", function* (on) {
      yield* on.work([Text], Text.toLayer(Effect.succeed))
      const payload = "a".repeat(LIMIT - 1000)
      const value = yield* on.value(yield* Text.delay(payload))
      assert.isTrue(value === payload)
    })

    test("a payload that does not encode is refused, and nothing is enqueued", function* (on) {
      const error = yield* Effect.flip(
        Fields.delay({ n: 1.5, when: new Date(0), big: 1n, bytes: new Uint8Array() })
      )
      assert.strictEqual(error._tag, "EncodeError")
      assert.deepStrictEqual(yield* on.counts(), { ready: 0, delayed: 0, claimed: 0 })
    })

    test("in bulk the ids are told that were accepted before", function* (on) {
      const error = yield* Effect.flip(Text.delayAll(["a", "b", "a".repeat(LIMIT), "c"]))
      assert.strictEqual(error.error._tag, "PayloadTooLarge")
      assert.strictEqual(error.accepted.length, 2)
      yield* on.work([Text], Text.toLayer(Effect.succeed))
      for (const id of error.accepted) assert.include(["a", "b"], yield* on.value(Text.result(id)))
      yield* on.drained()
    })
  })

  describe("10: what arrives from a store is decoded", () => {
    test("what a schema can tell comes back as it was", function* (on) {
      yield* on.work([Fields], Fields.toLayer(Effect.succeed))
      const payload = {
        n: 7,
        when: new Date(86_400_000),
        big: 12_345_678_901_234_567_890n,
        bytes: Uint8Array.from(Suite.bytes)
      }
      assert.deepStrictEqual(yield* on.value(yield* Fields.delay(payload)), payload)
    })

    test("texts that stores stumble over come back as they were", function* (on) {
      yield* on.work([Text], Text.toLayer(Effect.succeed))
      for (const [what, text] of Suite.texts) {
        assert.isTrue((yield* on.value(yield* Text.delay(text))) === text, what)
      }
    })

    test("a result that is none fails the read, and says so", function* (on) {
      for (const exit of ["}{", "null", `{"_tag":"Success","value":7}`, `{"_tag":"Failure"}`]) {
        const handle = yield* Text.delay("hello")
        const run = yield* on.abandon({ lease: 20 })
        yield* run.settle({ _tag: "Success", exit, retentionMillis: on.time.long })
        yield* on.drivers.broker.ack([run.delivery.handle])
        const { issue, side } = yield* on.reason(handle, "ResultInvalid")
        assert.strictEqual(side, "reader")
        assert.isNotEmpty(issue)
        const seen = Option.getOrThrow(yield* AsyncResult.poll(handle))
        assert.strictEqual(seen.state, "SUCCESS")
      }
    })

    test("progress that is none is none", function* (on) {
      const handle = yield* Text.delay("hello")
      const run = yield* on.abandon({ lease: 20 })
      yield* on.drivers.backend.renew([
        { id: handle.taskId, token: run.token, leaseMillis: on.time.long, progress: "}{" }
      ])
      const seen = Option.getOrThrow(yield* AsyncResult.poll(handle))
      assert.isTrue(Option.isNone(seen.progress))
    })

    test("a handle without schemas sees the JSON that is stored", function* (on) {
      yield* on.work([Text], Text.toLayer(Effect.succeed))
      const { taskId } = yield* Text.delay("hello")
      assert.strictEqual(yield* on.value(AsyncResult.make(taskId)), "hello")
    })

    test("names and ids are values, whatever is in them", function* (on) {
      const odd = `'"; DROP TABLE tasks; -- {x} \\ * ? 🌶️`
      const Odd = Task.make(odd, { queue: odd, success: Schema.String })
      yield* on.work(
        [Odd],
        Odd.toLayer(() => Effect.succeed(odd))
      )
      const handle = yield* Odd.delay(undefined, { id: odd })
      assert.strictEqual(handle.taskId, odd)
      assert.strictEqual(yield* on.value(handle), odd)
      yield* on.drained(odd)
    })
  })
}
