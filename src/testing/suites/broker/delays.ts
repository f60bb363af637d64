/** Delays: messages are claimed once they are due. */
import { assert, describe } from "@effect/vitest"
import { Effect } from "effect"
import * as Suite from "../Suite.ts"
import { NO_ORDER, type Test } from "./fixture.ts"

/** Registers the tests. */
export const delays = (test: Test): void => {
  describe("delays", () => {
    test("a message is not claimed before it is due", function* (t) {
      yield* t.publish("a", { delayMillis: t.time.long })
      yield* t.time.pass(1)
      assert.deepStrictEqual(yield* t.claim(), [])
      assert.deepStrictEqual(yield* t.counts, { ready: 0, delayed: 1, claimed: 0 })
    })

    test("a message is claimed once it is due", function* (t) {
      yield* t.publish("a", { delayMillis: t.time.units(1), body: "the body" })
      yield* t.time.pass(2)
      assert.strictEqual((yield* t.claimOne()).body, "the body")
    })

    test("messages are claimed in the order in which they became due", function* (t, context) {
      if (!t.isOrdered) return yield* Suite.skip(context, NO_ORDER)
      yield* t.publish("last", { delayMillis: t.time.units(2) })
      yield* t.publish("second", { delayMillis: t.time.units(1) })
      yield* t.publish("first")
      yield* t.time.pass(3)
      assert.deepStrictEqual(yield* t.claimIds(), ["first", "second", "last"])
    })

    test("the age of a message counts from the time at which it became due", function* (t) {
      yield* t.publish("a", { delayMillis: t.time.units(10) })
      yield* t.publish("b")
      yield* t.time.pass(11)
      const ages = new Map<string | undefined, number>()
      const claimed = Effect.map(t.claim(), (some) => {
        for (const { ageMillis, id } of some) ages.set(id, ageMillis)
        return ages.size === 2
      })
      yield* t.time.eventually("both are claimed", claimed)
      assert.isAtLeast(ages.get("b") ?? -1, t.time.units(10))
      assert.isBelow(ages.get("a") ?? Infinity, t.time.units(9))
    })

    test("a message can have the longest delay of the driver's capabilities", function* (t) {
      yield* t.publish("a", { delayMillis: t.driver.capabilities.maxDelayMillis })
      assert.deepStrictEqual(yield* t.claim(), [])
      assert.deepStrictEqual(yield* t.counts, { ready: 0, delayed: 1, claimed: 0 })
    })
  })
}
