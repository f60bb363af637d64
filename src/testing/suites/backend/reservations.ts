/** Reservations: records that are created before their message is published. */
import { assert, describe } from "@effect/vitest"
import { Effect } from "effect"
import { record, RELEASE, type Test } from "./fixture.ts"

/** Registers the tests. */
export const reservations = (test: Test): void => {
  describe("reservations", () => {
    test("a reservation is unpublished until it is marked", function* (t) {
      const again = Effect.map(t.create("a"), (created) => created._tag === "Existing" && created.published)
      yield* t.create("a", { reservedMillis: t.time.long })
      assert.isFalse(yield* again)
      yield* t.driver.markPublished(["a"])
      assert.isTrue(yield* again)
    })

    test("marking is safe to repeat, and answers whether there is a record", function* (t) {
      yield* t.create("a", { reservedMillis: t.time.long })
      assert.deepStrictEqual(yield* t.driver.markPublished(["nobody", "a", "a"]), [false, true, true])
      assert.deepStrictEqual(yield* t.driver.markPublished(["a"]), [true])
      const again = yield* t.create("a")
      assert.isTrue(again._tag === "Existing" && again.published)
      assert.isUndefined(yield* t.readOptional("nobody"))
    })

    test("a run marks its reservation as published", function* (t) {
      yield* t.create("a", { reservedMillis: t.time.units(1), retentionMillis: t.time.units(1) })
      yield* t.startAndSettle("a", "t1", RELEASE, { retentionMillis: t.time.units(1) })
      const again = yield* t.create("a")
      assert.isTrue(again._tag === "Existing" && again.published)
      yield* t.time.pass(2)
      assert.strictEqual(yield* t.sweepAll, 0)
      assert.strictEqual((yield* t.read("a")).state, "PENDING")
    })

    test("the sweep removes a reservation that is not marked in its time, whatever its retention", function* (t) {
      const reservedMillis = t.time.units(1)
      yield* t.driver.create([
        record("a", { reservedMillis, key: "k" }),
        record("b", { reservedMillis }),
        record("c", { reservedMillis: t.time.long, retentionMillis: t.time.units(1) })
      ])
      yield* t.driver.markPublished(["b"])
      yield* t.time.pass(2)
      yield* t.sweepAll
      assert.isUndefined(yield* t.readOptional("a"))
      assert.strictEqual((yield* t.create("d", { key: "k" }))._tag, "Created")
      assert.strictEqual((yield* t.read("b")).state, "PENDING")
      assert.strictEqual((yield* t.read("c")).state, "PENDING")
    })

    test("marking an ended reservation as published does not extend its retention", function* (t) {
      yield* t.create("a", { reservedMillis: t.time.long, retentionMillis: t.time.units(1) })
      assert.strictEqual(yield* t.cancel("a"), "Cancelled")
      yield* t.driver.markPublished(["a"])
      yield* t.time.pass(2)
      yield* t.sweepAll
      assert.isUndefined(yield* t.readOptional("a"))
    })
  })
}
