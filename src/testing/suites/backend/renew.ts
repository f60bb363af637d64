/** `renew`: leases, progress and cancel requests of open runs. */
import { assert, describe } from "@effect/vitest"
import { Effect } from "effect"
import { record, success, retry, type Test } from "./fixture.ts"

/** Registers the tests. */
export const renew = (test: Test): void => {
  describe("renew", () => {
    test("extends the lease", function* (t) {
      yield* t.create("a")
      yield* t.startRun("a", "t1", { leaseMillis: t.time.units(1) })
      assert.strictEqual(yield* t.renew("a", "t1"), "Held")
      yield* t.time.pass(2)
      assert.strictEqual((yield* t.start("a", "t2"))._tag, "Busy")
    })

    test("holds a run whose lease has lapsed, until it is taken over", function* (t) {
      yield* t.create("a")
      yield* t.lapsedRun("a", "t1")
      assert.strictEqual(yield* t.renew("a", "t1"), "Held")
      assert.strictEqual((yield* t.start("a", "t2"))._tag, "Busy")
    })

    test("returns Lost for a run that was taken over", function* (t) {
      yield* t.create("a")
      yield* t.lapsedRun("a", "t1")
      yield* t.startRun("a", "t2")
      assert.strictEqual(yield* t.renew("a", "t1", "stale"), "Lost")
      assert.isNull((yield* t.read("a")).progress)
      assert.strictEqual(yield* t.renew("a", "t2"), "Held")
    })

    test("returns Lost where no run is open", function* (t) {
      yield* t.driver.create([record("waiting"), record("retry"), record("final")])
      yield* t.startAndSettle("retry", "t1", retry())
      yield* t.startAndSettle("final", "t1", success())
      for (const id of ["waiting", "retry", "final", "missing"]) {
        assert.strictEqual(yield* t.renew(id, "t1", "progress"), "Lost", id)
      }
      assert.isUndefined(yield* t.readOptional("missing"))
      assert.isNull((yield* t.read("final")).progress)
    })

    test("writes progress, and keeps it where none is given", function* (t) {
      const progress = Effect.map(t.read("a"), (found) => found.progress)
      yield* t.create("a")
      yield* t.startRun("a", "t1")
      yield* t.renew("a", "t1", `{"done":1}`)
      assert.strictEqual(yield* progress, `{"done":1}`)
      yield* t.renew("a", "t1", `{"done":2}`)
      yield* t.renew("a", "t1")
      assert.strictEqual(yield* progress, `{"done":2}`)
      yield* t.settleRun("a", "t1", success())
      assert.strictEqual(yield* progress, `{"done":2}`)
    })

    test("reports a cancel request, and renews the lease", function* (t) {
      yield* t.create("a")
      yield* t.startRun("a", "t1", { leaseMillis: t.time.units(1) })
      yield* t.cancel("a")
      assert.strictEqual(yield* t.renew("a", "t1"), "CancelRequested")
      yield* t.time.pass(2)
      assert.strictEqual((yield* t.start("a", "t2"))._tag, "Busy")
      assert.strictEqual(yield* t.renew("a", "t1"), "CancelRequested")
    })

    test("answers a batch in order, and applies repeated ids in order", function* (t) {
      const leaseMillis = t.time.long
      yield* t.driver.create([record("a"), record("b")])
      yield* t.startRun("a", "t1")
      const renewed = yield* t.driver.renew([
        { id: "missing", token: "t1", leaseMillis },
        { id: "a", token: "t1", leaseMillis, progress: "1" },
        { id: "b", token: "t1", leaseMillis },
        { id: "a", token: "t1", leaseMillis, progress: "2" }
      ])
      assert.deepStrictEqual(renewed, ["Lost", "Held", "Lost", "Held"])
      assert.strictEqual((yield* t.read("a")).progress, "2")
    })
  })
}
