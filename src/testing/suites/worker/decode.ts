/** Guarantee 10: what arrives from a store is decoded. */
import { assert, describe } from "@effect/vitest"
import { Effect, Exit, Option, Schema, SchemaTransformation, Stream } from "effect"
import * as AsyncResult from "../../../AsyncResult.ts"
import * as DeadLetters from "../../../DeadLetters.ts"
import * as Task from "../../../Task.ts"
import type { TaskFailed } from "../../../TaskFailed.ts"
import * as Suite from "../Suite.ts"
import type { Test } from "./fixture.ts"

const Text = Task.make("text", { payload: Schema.String, success: Schema.String, progress: Schema.Int })
const Fields = Task.make("fields", {
  payload: { n: Schema.Int, when: Schema.Date, big: Schema.BigInt, bytes: Schema.Uint8Array },
  success: Schema.Struct({ n: Schema.Int, when: Schema.Date, big: Schema.BigInt, bytes: Schema.Uint8Array })
})

/** A text whose decoding throws, unless it is an address. */
const Address = Schema.String.pipe(
  Schema.decodeTo(
    Schema.String,
    SchemaTransformation.transform<string, string>({
      decode: (text) => new URL(text).href,
      encode: (url) => url
    })
  )
)
/** The task `text` of a later version of the program. */
const Visit = Task.make("text", { payload: Address, success: Address, progress: Address })

/** Registers the tests. */
export const decode = (test: Test): void => {
  describe("guarantee 10: data from a store is decoded", () => {
    test("values of every schema round-trip unchanged", function* (t) {
      yield* t.startWorker([Fields], Fields.toLayer(Effect.succeed))
      const payload = {
        n: 7,
        when: new Date(86_400_000),
        big: 12_345_678_901_234_567_890n,
        bytes: Uint8Array.from(Suite.bytes)
      }
      assert.deepStrictEqual(yield* t.awaitValue(yield* Fields.delay(payload)), payload)
    })

    test("unusual texts round-trip unchanged", function* (t) {
      yield* t.startWorker([Text], Text.toLayer(Effect.succeed))
      for (const [what, text] of Suite.texts) {
        assert.isTrue((yield* t.awaitValue(yield* Text.delay(text))) === text, what)
      }
    })

    test("an undecodable result fails the read with the reason ResultInvalid", function* (t) {
      for (const exit of ["}{", "null", `{"_tag":"Success","value":7}`, `{"_tag":"Failure"}`]) {
        const handle = yield* Text.delay("hello")
        const run = yield* t.startAndVanish({ lease: 20 })
        yield* run.settle({ _tag: "Success", exit, retentionMillis: t.time.long })
        yield* t.drivers.broker.ack([run.delivery.handle])
        const { issue, side } = yield* t.awaitReason(handle, "ResultInvalid")
        assert.strictEqual(side, "reader")
        assert.isNotEmpty(issue)
        const seen = Option.getOrThrow(yield* AsyncResult.poll(handle))
        assert.strictEqual(seen.state, "SUCCESS")
      }
    })

    test("a result for which a schema throws fails the read with the reason ResultInvalid, and no other", function* (t) {
      yield* t.startWorker([Text], Text.toLayer(Effect.succeed))
      const fine = yield* Text.delay("fine")
      const { taskId } = yield* Text.delay("not an address")
      yield* t.awaitValue(fine)
      yield* t.awaitValue(Text.result(taskId))
      const handle = Visit.result(taskId)
      const { cause, side } = yield* t.awaitReason(handle, "ResultInvalid")
      assert.strictEqual(side, "reader")
      assert.include(String(cause), "URL")
      const reasonOf = (exit: Exit.Exit<unknown, TaskFailed<unknown>>) =>
        Option.map(Exit.findErrorOption(exit), ({ reason }) => reason._tag)
      const { exit } = Option.getOrThrow(yield* AsyncResult.poll(handle))
      assert.deepStrictEqual(Option.flatMap(exit, reasonOf), Option.some("ResultInvalid"))
      const [last] = yield* Stream.runCollect(AsyncResult.changes(handle))
      assert.deepStrictEqual(Option.flatMap(last!.exit, reasonOf), Option.some("ResultInvalid"))
      const both = [handle, fine]
      assert.strictEqual((yield* Effect.flip(AsyncResult.all(both)))._tag, "TaskFailed")
      assert.strictEqual(yield* AsyncResult.race(both), "fine")
      const outcomes = new Map(yield* Stream.runCollect(AsyncResult.stream(both)))
      assert.deepStrictEqual(outcomes.get(fine.taskId), Exit.succeed("fine"))
      assert.deepStrictEqual(reasonOf(outcomes.get(taskId)!), Option.some("ResultInvalid"))
    })

    test("a payload for which a schema throws ends its task as PayloadInvalid, and its dead letter is listed", function* (t) {
      yield* t.startWorker([Visit], Visit.toLayer(Effect.succeed))
      const { taskId } = yield* Text.delay("not an address")
      yield* t.awaitReason(Visit.result(taskId), "PayloadInvalid")
      const [letter] = yield* DeadLetters.list(Visit)
      assert(letter !== undefined)
      assert(letter.payload._tag === "Failure")
      assert.include(String(letter.payload.failure.cause), "URL")
      assert(letter.reason._tag === "PayloadInvalid")
      assert.include(String(letter.reason.cause), "URL")
      yield* t.untilDrained()
    })

    test("undecodable progress reads as None", function* (t) {
      const handle = yield* Text.delay("hello")
      const run = yield* t.startAndVanish({ lease: 20 })
      yield* t.drivers.backend.renew([
        { id: handle.taskId, token: run.token, leaseMillis: t.time.long, progress: "}{" }
      ])
      const seen = Option.getOrThrow(yield* AsyncResult.poll(handle))
      assert.isTrue(Option.isNone(seen.progress))
    })

    test("a handle without schemas reads the stored JSON", function* (t) {
      yield* t.startWorker([Text], Text.toLayer(Effect.succeed))
      const { taskId } = yield* Text.delay("hello")
      assert.strictEqual(yield* t.awaitValue(AsyncResult.make(taskId)), "hello")
    })

    test("names and ids may contain any characters", function* (t) {
      const odd = `'"; DROP TABLE tasks; -- {x} \\ * ? 🌶️`
      const Odd = Task.make(odd, { queue: odd, success: Schema.String })
      yield* t.startWorker(
        [Odd],
        Odd.toLayer(() => Effect.succeed(odd))
      )
      const handle = yield* Odd.delay({ id: odd })
      assert.strictEqual(handle.taskId, odd)
      assert.strictEqual(yield* t.awaitValue(handle), odd)
      yield* t.untilDrained(odd)
    })
  })
}
