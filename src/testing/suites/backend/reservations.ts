/** Reservations: records that are created before their message is published. */
import { assert, describe } from "@effect/vitest"
import { Effect } from "effect"
import { record, RELEASE, type Test } from "./fixture.ts"

/** The record of an id that was generated for one enqueue. */
const withoutIncarnation = (id: string) => ({ id, incarnation: "", generation: 0 })

/** Registers the tests. */
export const reservations = (test: Test): void => {
  describe("reservations", () => {
    test("a reservation is unpublished until it is marked", function* (t) {
      const again = Effect.map(t.create("a"), (created) => created._tag === "Existing" && created.published)
      yield* t.create("a", { reservedMillis: t.time.long })
      assert.isFalse(yield* again)
      yield* t.driver.markPublished([withoutIncarnation("a")])
      assert.isTrue(yield* again)
    })

    test("marking is safe to repeat, and answers whether there is a record", function* (t) {
      yield* t.create("a", { reservedMillis: t.time.long })
      assert.deepStrictEqual(
        yield* t.driver.markPublished([
          withoutIncarnation("missing"),
          withoutIncarnation("a"),
          withoutIncarnation("a")
        ]),
        [false, true, true]
      )
      assert.deepStrictEqual(yield* t.driver.markPublished([withoutIncarnation("a")]), [true])
      const again = yield* t.create("a")
      assert.isTrue(again._tag === "Existing" && again.published)
      assert.isUndefined(yield* t.readOptional("missing"))
    })

    test("a mark of another incarnation leaves the reservation, and answers that there is no such record", function* (t) {
      yield* t.create("a", { reservedMillis: t.time.long, incarnation: "i2", payloadHash: "h" })
      const earlier = { id: "a", incarnation: "i1", generation: 0 }
      assert.deepStrictEqual(yield* t.driver.markPublished([earlier, withoutIncarnation("a")]), [
        false,
        false
      ])
      const again = yield* t.create("a", { payloadHash: "h" })
      assert.isTrue(again._tag === "Existing" && !again.published)
      const marks = [earlier, { id: "a", incarnation: "i2", generation: 0 }, earlier] as const
      assert.deepStrictEqual(yield* t.driver.markPublished(marks), [false, true, false])
    })

    test("a request that finds its reservation renews it, and another request does not", function* (t) {
      const asked = { reservedMillis: t.time.units(4), payloadHash: "h" }
      yield* t.driver.create([record("a", asked), record("b", asked), record("c", { ...asked, key: "k" })])
      yield* t.time.pass(1)
      const again = { reservedMillis: t.time.long, payloadHash: "h" }
      const found = yield* t.driver.create([
        record("a", again),
        record("b", { ...again, payloadHash: "other" }),
        record("d", { ...again, key: "k" })
      ])
      assert.deepStrictEqual(
        found.map((one) => one._tag === "Existing" && [one.id, one.same, one.published]),
        [
          ["a", true, false],
          ["b", false, false],
          ["c", true, false]
        ]
      )
      yield* t.driver.create([record("a", { reservedMillis: t.time.units(1), payloadHash: "h" })])
      yield* t.time.pass(4)
      yield* t.sweepAll
      assert.strictEqual((yield* t.read("a")).state, "PENDING")
      assert.isUndefined(yield* t.readOptional("b"))
      assert.strictEqual((yield* t.read("c")).state, "PENDING")
    })

    test("a run marks its reservation as published", function* (t) {
      yield* t.create("a", { reservedMillis: t.time.units(6), retentionMillis: t.time.units(1) })
      yield* t.startAndSettle("a", "t1", RELEASE, { retentionMillis: t.time.units(1) })
      const again = yield* t.create("a")
      assert.isTrue(again._tag === "Existing" && again.published)
      yield* t.time.pass(7)
      assert.strictEqual(yield* t.sweepAll, 0)
      assert.strictEqual((yield* t.read("a")).state, "PENDING")
    })

    test("the sweep removes a reservation that is not marked in its time, whatever its retention", function* (t) {
      const reservedMillis = t.time.units(6)
      yield* t.driver.create([
        record("a", { reservedMillis, key: "k" }),
        record("b", { reservedMillis }),
        record("c", { reservedMillis: t.time.long, retentionMillis: t.time.units(1) })
      ])
      yield* t.driver.markPublished([withoutIncarnation("b")])
      yield* t.time.pass(7)
      yield* t.sweepAll
      assert.isUndefined(yield* t.readOptional("a"))
      assert.strictEqual((yield* t.create("d", { key: "k" }))._tag, "Created")
      assert.strictEqual((yield* t.read("b")).state, "PENDING")
      assert.strictEqual((yield* t.read("c")).state, "PENDING")
    })

    test("marking an ended reservation as published does not extend its retention", function* (t) {
      yield* t.create("a", { reservedMillis: t.time.long, retentionMillis: t.time.units(1) })
      assert.strictEqual(yield* t.cancel("a"), "Cancelled")
      yield* t.driver.markPublished([withoutIncarnation("a")])
      yield* t.time.pass(2)
      yield* t.sweepAll
      assert.isUndefined(yield* t.readOptional("a"))
    })
  })
}
