/** Leases of claims, for drivers whose claims a lease holds. */
import { assert, describe } from "@effect/vitest"
import { Array as Arr, Effect } from "effect"
import * as Suite from "../Suite.ts"
import { NO_LEASE, type Test } from "./fixture.ts"

/** Registers the tests. */
export const leases = (test: Test): void => {
  describe("leases", () => {
    test("a lapsed claim makes its message due again, under another handle", function* (t, context) {
      if (!t.hasLeases) return yield* Suite.skip(context, NO_LEASE)
      yield* t.publish("a", { body: "the body" })
      const first = yield* t.claimAndLapse
      const second = yield* t.claimOne()
      assert.deepStrictEqual([second.id, second.task, second.body], ["a", "mail", "the body"])
      assert.notStrictEqual(second.handle, first.handle)
    })

    test("a renewal extends the lease of a claim", function* (t, context) {
      if (!t.hasLeases) return yield* Suite.skip(context, NO_LEASE)
      yield* t.publish("a")
      const claimed = yield* t.claimOne(t.time.units(5))
      assert.isTrue(yield* t.renew(claimed))
      yield* t.time.pass(6)
      assert.deepStrictEqual(yield* t.claim(), [])
      assert.isTrue(yield* t.renew(claimed))
      assert.isTrue(yield* t.ack(claimed))
    })

    test("a renewed claim lapses at the end of its lease", function* (t, context) {
      if (!t.hasLeases) return yield* Suite.skip(context, NO_LEASE)
      yield* t.publish("a")
      const claimed = yield* t.claimOne()
      assert.isTrue(yield* t.renew(claimed, t.time.units(1)))
      yield* t.time.pass(2)
      assert.strictEqual((yield* t.claimOne()).id, "a")
    })

    test("a claim that was taken over can do nothing more", function* (t, context) {
      if (!t.hasLeases) return yield* Suite.skip(context, NO_LEASE)
      yield* t.publish("a")
      const stale = yield* t.claimAndLapse
      const current = yield* t.claimOne()
      assert.isFalse(yield* t.renew(stale))
      assert.isFalse(yield* t.ack(stale))
      yield* t.release(stale, { body: "stale" })
      yield* t.driver.reject([{ handle: stale.handle, reason: "stale" }])
      assert.deepStrictEqual(yield* t.claim(), [])
      assert.isTrue(yield* t.renew(current))
      assert.isTrue(yield* t.ack(current))
    })

    test("a batch distinguishes a claim that was taken over from the claim that took over", function* (t, context) {
      if (!t.hasLeases) return yield* Suite.skip(context, NO_LEASE)
      yield* t.publish("a")
      const staleA = yield* t.claimAndLapse
      const currentA = yield* t.claimOne()
      yield* t.publish("b")
      const staleB = yield* t.claimAndLapse
      const currentB = yield* t.claimOne()
      const handles = [staleA.handle, currentA.handle, currentB.handle, staleB.handle] as const
      assert.deepStrictEqual(yield* t.driver.renew(handles, t.time.long), [false, true, true, false])
      assert.deepStrictEqual(yield* t.driver.ack(handles), [false, true, true, false])
      assert.deepStrictEqual(yield* t.counts, { ready: 0, delayed: 0, claimed: 0 })
    })

    test("a lapsed claim can be renewed until another claim takes its message", function* (t, context) {
      if (!t.hasLeases) return yield* Suite.skip(context, NO_LEASE)
      yield* t.publish("a")
      const lapsed = yield* t.claimAndLapse
      yield* t.publish("b", { priority: 255 })
      assert.strictEqual((yield* t.claimOne()).id, "b")
      assert.isTrue(yield* t.renew(lapsed))
      assert.deepStrictEqual(yield* t.claim(), [])
      assert.isTrue(yield* t.ack(lapsed))
    })

    test("of many concurrent claims, one gets a lapsed message", function* (t, context) {
      if (!t.hasLeases) return yield* Suite.skip(context, NO_LEASE)
      yield* t.publish("a")
      yield* t.claimAndLapse
      const claimed = yield* Effect.all(Arr.replicate(t.claimIds(), 20), { concurrency: "unbounded" })
      assert.deepStrictEqual(claimed.flat(), ["a"])
    })
  })
}
