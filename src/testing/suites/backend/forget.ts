/** `forget`: records and keys that are removed at once or at the end of the task. */
import { assert, describe } from "@effect/vitest"
import { record, success, failure, retry, RELEASE, type Test } from "./fixture.ts"

/** Registers the tests. */
export const forget = (test: Test): void => {
  describe("forget", () => {
    test("removes a final record, and frees its key", function* (t) {
      yield* t.create("a", { key: "k", payloadHash: "h" })
      yield* t.startAndSettle("a", "t1", success())
      yield* t.driver.forget(["a"])
      assert.isUndefined(yield* t.readOptional("a"))
      assert.strictEqual((yield* t.create("b", { key: "k", payloadHash: "other" }))._tag, "Created")
    })

    test("the key of a removed record does not lead to a later task of the same id", function* (t) {
      yield* t.create("a", { key: "k", payloadHash: "h" })
      yield* t.startAndSettle("a", "t1", success())
      yield* t.driver.forget(["a"])
      yield* t.create("a", { payloadHash: "h" })
      assert.strictEqual((yield* t.create("b", { key: "k", payloadHash: "h" }))._tag, "Created")
    })

    test("marks an unfinished record, and frees its key", function* (t) {
      yield* t.create("a", { key: "k", payloadHash: "h" })
      yield* t.driver.forget(["a"])
      const found = yield* t.read("a")
      assert.deepStrictEqual([found.state, found.ended, found.finishedAt], ["PENDING", "Forgotten", null])
      assert.strictEqual((yield* t.create("b", { key: "k", payloadHash: "other" }))._tag, "Created")
    })

    test("the end of a forgotten task does not free a key that another task has taken", function* (t) {
      yield* t.create("a", { key: "k", payloadHash: "h" })
      yield* t.driver.forget(["a"])
      yield* t.create("b", { key: "k", payloadHash: "h" })
      yield* t.startAndSettle("a", "t1", success())
      const again = yield* t.create("c", { key: "k", payloadHash: "h" })
      assert.strictEqual(again._tag === "Existing" ? again.id : again._tag, "b")
    })

    test("lets a running task continue, and removes its record when it ends", function* (t) {
      yield* t.driver.create([record("a"), record("b")])
      yield* t.startAndSettle("a", "t1", retry())
      yield* t.driver.forget(["a", "b"])
      yield* t.startRun("a", "t2")
      assert.strictEqual(yield* t.renew("a", "t2", "1"), "Held")
      const found = yield* t.read("a")
      assert.deepStrictEqual([found.state, found.ended, found.attempt], ["STARTED", "Forgotten", 2])
      yield* t.settleRun("a", "t2", retry())
      assert.strictEqual((yield* t.read("a")).ended, "Forgotten")
      yield* t.startAndSettle("a", "t3", success())
      yield* t.startAndSettle("b", "t1", failure())
      assert.deepStrictEqual(yield* t.driver.read(["a", "b"]), [undefined, undefined])
    })

    test("the ends that the store decides remove a forgotten record too", function* (t) {
      yield* t.driver.create([
        record("expired", { expiresMillis: t.time.units(1) }),
        record("cancelled"),
        record("asked"),
        record("lost")
      ])
      yield* t.startRun("asked", "t1")
      yield* t.startRun("lost", "t1", { leaseMillis: t.time.units(1), maxCrashes: 1 })
      yield* t.driver.forget(["expired", "cancelled", "asked", "lost"])
      assert.deepStrictEqual(yield* t.driver.cancel(["cancelled", "asked"]), ["Cancelled", "Requested"])
      assert.strictEqual(yield* t.settle("asked", "t1", RELEASE), "Cancelled")
      yield* t.time.pass(2)
      assert.strictEqual((yield* t.start("lost", "t2", { maxCrashes: 1 }))._tag, "Drop")
      const found = yield* t.driver.read(["expired", "cancelled", "asked", "lost"])
      assert.deepStrictEqual(found, [undefined, undefined, undefined, undefined])
    })

    test("is safe to repeat, and skips unknown ids", function* (t) {
      yield* t.driver.create([record("a"), record("b")])
      yield* t.startAndSettle("a", "t1", success())
      yield* t.driver.forget(["nobody", "a", "a", "b", "b"])
      yield* t.driver.forget(["a", "b"])
      assert.isUndefined(yield* t.readOptional("nobody"))
      assert.isUndefined(yield* t.readOptional("a"))
      assert.strictEqual((yield* t.read("b")).ended, "Forgotten")
    })
  })
}
