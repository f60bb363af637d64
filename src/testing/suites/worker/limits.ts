/** Guarantee 10: payloads and results have a size cap, which is that of the stores where they take less. */
import { assert, describe } from "@effect/vitest"
import { Effect, Exit, Layer, Schema } from "effect"
import * as DeadLetters from "../../../DeadLetters.ts"
import * as Task from "../../../Task.ts"
import * as Suite from "../Suite.ts"
import type { Fixture, Test } from "./fixture.ts"

/** Bytes around the text of an error, and more. */
const ENVELOPE = 1000

/** Returns the most bytes of a result of the pairing, and of a payload. */
const limitsOf = ({ drivers: { backend, broker } }: Fixture) => {
  const result = Suite.maxBytesOf(backend)
  return { result, payload: Math.min(result, Suite.maxBytesOf(broker)) }
}

const Text = Task.make("text", { payload: Schema.String, success: Schema.String, progress: Schema.Int })
const Fields = Task.make("fields", {
  payload: { n: Schema.Int, when: Schema.Date, big: Schema.BigInt, bytes: Schema.Uint8Array },
  success: Schema.Struct({ n: Schema.Int, when: Schema.Date, big: Schema.BigInt, bytes: Schema.Uint8Array })
})
/** Returns a text of that many characters. */
const Give = Task.make("give", { payload: Schema.Int, success: Schema.String })
const Echo = Task.make("echo", { payload: Schema.String, success: Schema.String, error: Schema.String })

/** Registers the tests. */
export const limits = (test: Test): void => {
  describe("guarantee 10: payloads and results have a size cap", () => {
    test("a payload that is too large fails with PayloadTooLarge, and nothing is enqueued", function* (t) {
      const limit = limitsOf(t).payload
      const error = yield* Effect.flip(Text.delay("a".repeat(limit)))
      assert(error._tag === "PayloadTooLarge")
      assert.strictEqual(error.limit, limit)
      assert.isAbove(error.bytes, limit)
      assert.deepStrictEqual(yield* t.counts(), { ready: 0, delayed: 0, claimed: 0 })
      assert.isUndefined(yield* t.readOptional(error.taskId))
    })

    test("the size cap counts bytes, not characters", function* (t) {
      const error = yield* Effect.flip(Text.delay("é".repeat(limitsOf(t).payload / 2)))
      assert.strictEqual(error._tag, "PayloadTooLarge")
    })

    test("a payload and a result of nearly the largest size pass", function* (t) {
      yield* t.startWorker([Text], Text.toLayer(Effect.succeed))
      const payload = "a".repeat(limitsOf(t).payload - ENVELOPE)
      const value = yield* t.awaitValue(yield* Text.delay(payload))
      assert.isTrue(value === payload)
    })

    test("a payload and an error of nearly the largest size leave a dead letter, which is replayed", function* (t) {
      const limits = limitsOf(t)
      const payload = "a".repeat(limits.payload - ENVELOPE)
      const failure = "b".repeat(limits.result - ENVELOPE)
      let runs = 0
      yield* t.startWorker(
        [Echo],
        Echo.toLayer((text) =>
          Effect.suspend(() => (++runs === 1 ? Effect.fail(failure) : Effect.succeed(text)))
        )
      )
      const handle = yield* Echo.delay(payload)
      const { error } = yield* t.awaitReason(handle, "Failed")
      assert.isTrue(error === failure)
      const [letter] = yield* DeadLetters.list(Echo)
      assert(letter !== undefined, "there is a dead letter")
      yield* DeadLetters.replay(letter.id)
      assert.isTrue((yield* t.awaitValue(handle)) === payload)
      yield* t.untilDrained()
    })

    test("a result that is too large ends its task as ResultInvalid after one run, with a dead letter", function* (t) {
      const { result } = limitsOf(t)
      let runs = 0
      yield* t.startWorker(
        [Give],
        Give.toLayer((size) => Effect.sync(() => (runs++, "a".repeat(size))))
      )
      const { issue } = yield* t.awaitReason(yield* Give.delay(result), "ResultInvalid")
      assert.include(issue, `of at most ${result}`)
      assert.strictEqual(runs, 1)
      const [letter] = yield* DeadLetters.list(Give)
      assert.strictEqual(letter?.reason._tag, "ResultInvalid")
      assert.strictEqual((yield* t.awaitValue(yield* Give.delay(1))).length, 1)
      yield* t.untilDrained()
    })

    test("small tasks beside payloads and results that are too large succeed", function* (t) {
      const limits = limitsOf(t)
      let runs = 0
      yield* t.startWorker(
        [Give, Text],
        Layer.merge(
          Give.toLayer((size) => Effect.sync(() => (runs++, "a".repeat(size)))),
          Text.toLayer((text) => Effect.sync(() => (runs++, text)))
        )
      )
      const texts = ["a", "b".repeat(limits.payload), "c", "d".repeat(2 * limits.payload), "e"]
      const sent = yield* Effect.forEach(texts, (text) => Effect.exit(Text.delay(text)), {
        concurrency: "unbounded"
      })
      for (const [index, text] of texts.entries()) {
        if (text.length > 1) assert.isTrue(Exit.isFailure(sent[index]!))
        else assert.strictEqual(yield* t.awaitValue(yield* sent[index]!), text)
      }
      const given = yield* Give.delayAll([1, limits.result, 2, 2 * limits.result, 3])
      for (const [index, size] of [1, limits.result, 2, 2 * limits.result, 3].entries()) {
        if (size > 3) yield* t.awaitReason(given[index]!, "ResultInvalid")
        else assert.strictEqual((yield* t.awaitValue(given[index]!)).length, size)
      }
      assert.strictEqual(runs, 8)
      yield* t.untilDrained()
    })

    test("a payload that does not encode fails with EncodeError, and nothing is enqueued", function* (t) {
      const error = yield* Effect.flip(
        Fields.delay({ n: 1.5, when: new Date(0), big: 1n, bytes: new Uint8Array() })
      )
      assert.strictEqual(error._tag, "EncodeError")
      assert.deepStrictEqual(yield* t.counts(), { ready: 0, delayed: 0, claimed: 0 })
    })

    test("a failed bulk enqueue returns the ids that were accepted before", function* (t) {
      const error = yield* Effect.flip(Text.delayAll(["a", "b", "a".repeat(limitsOf(t).payload), "c"]))
      assert.strictEqual(error.error._tag, "PayloadTooLarge")
      assert.strictEqual(error.accepted.length, 2)
      yield* t.startWorker([Text], Text.toLayer(Effect.succeed))
      for (const id of error.accepted) assert.include(["a", "b"], yield* t.awaitValue(Text.result(id)))
      yield* t.untilDrained()
    })
  })
}
