import { inspect } from "node:util"
import { assert, describe, it } from "@effect/vitest"
import { AsyncResult } from "chicory"
import { Effect, Equal, Exit, HashSet, Option } from "effect"
import { handle } from "./support/asyncResults.ts"
import { reasonOf } from "./support/memoryFixture.ts"
import { test } from "./support/memoryTest.ts"

describe("cancel", () => {
  test("answers Cancelled, Requested, AlreadyDone or Unknown", function* (on) {
    assert.strictEqual(yield* AsyncResult.cancel(handle()), "Unknown")
    yield* on.create("a")
    assert.strictEqual(yield* AsyncResult.cancel(handle()), "Cancelled")
    assert.strictEqual(yield* AsyncResult.cancel(handle()), "AlreadyDone")
    yield* on.create("b")
    yield* on.start("b")
    assert.strictEqual(yield* AsyncResult.cancel(handle("b")), "Requested")
    yield* on.settle("b", {
      _tag: "Success",
      exit: `{"_tag":"Success","value":1}`,
      retentionMillis: undefined
    })
    assert.strictEqual(yield* AsyncResult.cancel(handle("b")), "AlreadyDone")
    assert.strictEqual(yield* AsyncResult.get(handle("b")), 1)
  })
})

describe("forget", () => {
  test("removes the record of an ended task", function* (on) {
    yield* on.create("a")
    yield* on.succeed("a", 42)
    yield* AsyncResult.forget(handle())
    assert.deepStrictEqual(yield* AsyncResult.poll(handle()), Option.none())
  })

  test("lets an unfinished task run on and removes its record when it ends", function* (on) {
    yield* on.create("a")
    yield* on.start("a")
    yield* AsyncResult.forget(handle())
    assert.strictEqual(yield* AsyncResult.state(handle()), "STARTED")
    yield* on.settle("a", {
      _tag: "Success",
      exit: `{"_tag":"Success","value":1}`,
      retentionMillis: undefined
    })
    assert.deepStrictEqual(yield* AsyncResult.poll(handle()), Option.none())
  })

  test("ignores an unknown id", function* () {
    yield* AsyncResult.forget(handle())
  })
})

describe("a handle", () => {
  test("decodes to the stored JSON without schemas", function* (on) {
    yield* on.create("a")
    yield* on.succeed("a", { n: [1, "two", null] })
    assert.deepStrictEqual(yield* AsyncResult.get(AsyncResult.make("a")), { n: [1, "two", null] })
    yield* on.create("b")
    yield* on.fail("b", { _tag: "DivideByZero", dividend: 6 })
    const reason = reasonOf(yield* Effect.flip(AsyncResult.get(AsyncResult.make("b"))))
    assert(reason._tag === "Failed")
    assert.deepStrictEqual(reason.error, { _tag: "DivideByZero", dividend: 6 })
  })

  it("is recognised by isAsyncResult", () => {
    assert.isTrue(AsyncResult.isAsyncResult(handle()))
    assert.isFalse(AsyncResult.isAsyncResult({ taskId: "a" }))
  })

  it("shows its id, and nothing else, as text, in a log and as JSON", () => {
    const shown = `{"_id":"chicory/AsyncResult","taskId":"a"}`
    assert.strictEqual(JSON.stringify(handle()), shown)
    assert.strictEqual(String(handle()), shown)
    assert.strictEqual(inspect(handle()), "{ _id: 'chicory/AsyncResult', taskId: 'a' }")
    assert.strictEqual(String(Exit.succeed(handle())), `Success(${shown})`)
  })

  it("equals another handle on the same task with the same schemas", () => {
    assert.isTrue(Equal.equals(handle(), handle()))
    assert.isFalse(Equal.equals(handle(), handle("b")))
    assert.strictEqual(HashSet.size(HashSet.make(handle(), handle())), 1)
  })

  it("that is missing at run time makes a defect, not a function", () => {
    const missing = undefined as unknown as AsyncResult.Any
    for (const waiting of [AsyncResult.get(missing), AsyncResult.exit(missing, { timeout: 0 })]) {
      const exit = Effect.runSyncExit(waiting as Effect.Effect<unknown>)
      assert.include(String(exit), "undefined is not a handle")
    }
  })

  it("rejects an empty id", () => {
    assert.throws(() => AsyncResult.make(""), "must be a text of 1 to 255 characters")
  })
})
