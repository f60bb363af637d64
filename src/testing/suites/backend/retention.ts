/** Retention of records, and the sweep. */
import { assert, describe } from "@effect/vitest"
import { Array as Arr, Effect } from "effect"
import * as Suite from "../Suite.ts"
import { record, parked, success, failure, RELEASE, type Test } from "./fixture.ts"

/** Registers the tests. */
export const retention = (test: Test): void => {
  describe("retention", () => {
    test("a retention starts at the end of the task", function* (t) {
      const retentionMillis = t.time.units(1)
      yield* t.create("a", { retentionMillis })
      yield* t.time.pass(2)
      assert.strictEqual((yield* t.read("a")).state, "PENDING")
      yield* t.startRun("a", "t1", { retentionMillis })
      yield* t.time.pass(2)
      assert.strictEqual(yield* t.sweepAll, 0)
      assert.strictEqual((yield* t.read("a")).state, "STARTED")
    })

    test("a record past its retention reads as missing, swept or not", function* (t) {
      const retentionMillis = t.time.units(1)
      yield* t.create("a", { key: "k", payloadHash: "h", retentionMillis })
      yield* t.startAndSettle("a", "t1", success("1", retentionMillis))
      yield* t.time.pass(2)
      assert.isUndefined(yield* t.readOptional("a"))
      assert.isUndefined(yield* Suite.only(t.driver.subscribe(["a"])))
      assert.strictEqual(yield* t.cancel("a"), "Unknown")
      assert.strictEqual(yield* t.renew("a", "t1"), "Lost")
      assert.strictEqual(yield* t.settle("a", "t1", failure()), "Lost")
      assert.strictEqual((yield* t.create("b", { key: "k", payloadHash: "other" }))._tag, "Created")
      assert.strictEqual((yield* t.create("a", { payloadHash: "other" }))._tag, "Created")
    })

    test("a record stays for its whole retention", function* (t) {
      yield* t.create("a", { retentionMillis: t.time.units(1) })
      yield* t.startAndSettle("a", "t1", success("1", t.time.long))
      yield* t.time.pass(2)
      assert.strictEqual(yield* t.sweepAll, 0)
      assert.strictEqual((yield* t.read("a")).state, "SUCCESS")
    })

    test("a record without a retention stays for ever", function* (t) {
      yield* t.create("a", { retentionMillis: t.time.units(1) })
      yield* t.startAndSettle("a", "t1", success())
      yield* t.time.pass(3)
      assert.strictEqual(yield* t.sweepAll, 0)
      assert.strictEqual((yield* t.read("a")).state, "SUCCESS")
    })

    test("a retention applies to the ends that the store decides", function* (t) {
      const retentionMillis = t.time.units(1)
      yield* t.driver.create([
        record("expired", { retentionMillis, expiresMillis: t.time.units(1) }),
        record("cancelled", { retentionMillis }),
        record("lost")
      ])
      yield* t.cancel("cancelled")
      yield* t.lapsedRun("lost", "t1", { retentionMillis, maxCrashes: 1 })
      yield* t.start("lost", "t2", { retentionMillis, maxCrashes: 1 })
      yield* t.driver.read(["expired"])
      yield* t.time.pass(2)
      assert.deepStrictEqual(yield* t.driver.read(["expired", "cancelled", "lost"]), [
        undefined,
        undefined,
        undefined
      ])
    })

    test("the sweep removes a record past its retention once", function* (t) {
      yield* t.driver.create([record("a"), record("b"), record("c")])
      yield* t.startAndSettle("a", "t1", success("1", t.time.units(1)))
      yield* t.startAndSettle("b", "t1", success("1", t.time.units(1)))
      yield* t.startAndSettle("c", "t1", success("1", t.time.long))
      yield* t.time.pass(2)
      assert.strictEqual(yield* t.sweep(100), t.driver.capabilities.expiresRecords ? 0 : 2)
      assert.strictEqual(yield* t.sweep(100), 0)
      assert.deepStrictEqual(
        (yield* t.driver.read(["a", "b", "c"])).map((found) => found?.state),
        [undefined, undefined, "SUCCESS"]
      )
    })

    test("the sweep removes a record that ended long before its expiry", function* (t) {
      const retentionMillis = t.time.units(1)
      yield* t.create("settled", { expiresMillis: t.time.long, retentionMillis })
      yield* t.create("cancelled", { expiresMillis: t.time.long, retentionMillis })
      yield* t.create("asked", { expiresMillis: t.time.long, retentionMillis })
      yield* t.time.pass(2)
      assert.strictEqual(yield* t.sweepAll, 0)
      yield* t.startAndSettle("settled", "t1", success("1", retentionMillis))
      yield* t.cancel("cancelled")
      yield* t.startRun("asked", "t1", { retentionMillis })
      yield* t.cancel("asked")
      assert.strictEqual(yield* t.settle("asked", "t1", RELEASE), "Cancelled")
      yield* t.time.pass(2)
      assert.strictEqual(yield* t.sweep(100), t.driver.capabilities.expiresRecords ? 0 : 3)
    })

    test("the sweep removes at most its limit", function* (t) {
      const ids = Arr.map(Arr.range(1, 5), (n) => `id-${n}`)
      yield* t.driver.create(Arr.map(ids, (id) => record(id)))
      yield* Effect.forEach(ids, (id) => t.startAndSettle(id, "t1", success("1", t.time.units(1))))
      yield* t.time.pass(2)
      const swept = yield* Effect.replicateEffect(t.sweep(2), 4)
      assert.deepStrictEqual(swept, t.driver.capabilities.expiresRecords ? [0, 0, 0, 0] : [2, 2, 1, 0])
      yield* t.driver.parkMessage(Arr.map(ids, (id) => parked(id, { retentionMillis: t.time.units(1) })))
      yield* t.time.pass(2)
      const sweptLetters = yield* Effect.replicateEffect(t.sweep(2), 4)
      assert.deepStrictEqual(sweptLetters, [2, 2, 1, 0])
    })

    test("the sweep of an empty store removes nothing", function* (t) {
      assert.strictEqual(yield* t.sweep(100), 0)
    })
  })
}
