/** `ack`, `release` and `reject`: how a claim ends. */
import { assert, describe } from "@effect/vitest"
import { Array as Arr, Effect } from "effect"
import type { Delivery } from "../../../BrokerDriver.ts"
import * as Suite from "../Suite.ts"
import { envelope, idsOf, NO_ORDER, type Test } from "./fixture.ts"

/** Registers the tests. */
export const release = (test: Test): void => {
  describe("ack, release and reject", () => {
    test("an ack removes a message for good", function* (t) {
      yield* t.publish("a")
      const claimed = yield* t.claimOne(t.time.units(5))
      assert.isTrue(yield* t.ack(claimed))
      yield* t.time.pass(6)
      assert.deepStrictEqual(yield* t.claim(), [])
      assert.deepStrictEqual(yield* t.counts, { ready: 0, delayed: 0, claimed: 0 })
    })

    test("a repeated ack returns false", function* (t) {
      yield* t.publish("a")
      const claimed = yield* t.claimOne()
      assert.isTrue(yield* t.ack(claimed))
      assert.isFalse(yield* t.ack(claimed))
      assert.isFalse(yield* t.renew(claimed))
    })

    test("a released message is claimed again, under another handle", function* (t) {
      yield* t.publish("a", { body: "the body" })
      const first = yield* t.claimOne()
      yield* t.release(first)
      const second = yield* t.claimOne()
      assert.deepStrictEqual([second.id, second.task, second.body], ["a", "mail", "the body"])
      assert.notStrictEqual(second.handle, first.handle)
      assert.isFalse(yield* t.ack(first))
      assert.isTrue(yield* t.ack(second))
    })

    test("a released claim is no longer held", function* (t) {
      yield* t.publish("a")
      const claimed = yield* t.claimOne()
      yield* t.release(claimed)
      assert.isFalse(yield* t.renew(claimed))
      assert.isFalse(yield* t.ack(claimed))
      assert.deepStrictEqual(yield* t.claimIds(), ["a"])
    })

    test("a repeated release puts a message back once", function* (t) {
      yield* t.publish("a")
      const { handle } = yield* t.claimOne()
      const release = { handle, afterMillis: 0 }
      yield* t.driver.release([release, release])
      yield* t.driver.release([release])
      assert.deepStrictEqual(yield* t.claimIds(), ["a"])
      yield* t.driver.release([release])
      assert.deepStrictEqual(yield* t.claim(), [])
    })

    test("a message that is released with a delay is not claimed before it is due", function* (t) {
      yield* t.publish("a")
      yield* t.release(yield* t.claimOne(), { afterMillis: t.time.long })
      yield* t.time.pass(1)
      assert.deepStrictEqual(yield* t.claim(), [])
      assert.deepStrictEqual(yield* t.counts, { ready: 0, delayed: 1, claimed: 0 })
    })

    test("a message that is released with a delay is claimed once it is due", function* (t) {
      yield* t.publish("a")
      yield* t.release(yield* t.claimOne(), { afterMillis: t.time.units(1) })
      yield* t.time.pass(2)
      assert.strictEqual((yield* t.claimOne()).id, "a")
    })

    test("a released message is due from its release on", function* (t) {
      yield* t.publish("a")
      yield* t.time.pass(10)
      yield* t.release(yield* t.claimOne())
      assert.isBelow((yield* t.claimOne()).ageMillis, t.time.units(9))
    })

    test("a release that preserves the due time keeps the age, and delays the message", function* (t) {
      yield* t.publish("a")
      yield* t.time.pass(3)
      yield* t.release(yield* t.claimOne(), { afterMillis: t.time.units(5), preserveDueTime: true })
      assert.deepStrictEqual(yield* t.claim(), [])
      yield* t.time.pass(6)
      const again = yield* t.claimOne()
      assert.isAtLeast(again.ageMillis, t.time.units(8))
      yield* t.release(again, { preserveDueTime: true })
      assert.isAtLeast((yield* t.claimOne()).ageMillis, t.time.units(8))
    })

    test("a release that preserves the due time adds up the time for which the message was put back", function* (t) {
      const claimed = Effect.map(t.claimOne(), (delivery) => ({
        delivery,
        waited: delivery.waitedMillis ?? delivery.ageMillis
      }))
      yield* t.publish("a")
      for (const times of [0, 1, 2]) {
        const { delivery, waited } = yield* claimed
        assert.isAtLeast(waited, times * t.time.units(2))
        yield* t.release(delivery, { afterMillis: t.time.units(2), preserveDueTime: true })
        yield* t.time.pass(3)
      }
    })

    test("a message that is released with its due time is claimed after those that became due meanwhile", function* (t, context) {
      if (!t.isOrdered) return yield* Suite.skip(context, NO_ORDER)
      yield* t.publish("old")
      yield* t.time.pass(3)
      yield* t.release(yield* t.claimOne(), { afterMillis: t.time.units(2), preserveDueTime: true })
      yield* t.publish("new")
      yield* t.publish("urgent", { priority: t.driver.capabilities.priorities < 2 ? 0 : 255 })
      yield* t.time.pass(3)
      yield* t.publish("last")
      const claimed = yield* t.claim()
      assert.sameMembers(idsOf(claimed), ["new", "urgent", "old", "last"])
      assert.deepStrictEqual(
        idsOf(claimed).filter((id) => id !== "urgent"),
        ["new", "old", "last"]
      )
      assert.isAtLeast(claimed.find(({ id }) => id === "old")!.ageMillis, t.time.units(5))
    })

    test("messages that are put back again and again do not hold up another one", function* (t, context) {
      if (!t.isOrdered) return yield* Suite.skip(context, NO_ORDER)
      for (const id of ["a", "b", "c", "known"]) yield* t.publish(id)
      const order: Array<string> = []
      while (!order.includes("known") && order.length < 8) {
        const claimed = yield* t.claimOne()
        order.push(...idsOf([claimed]))
        yield* t.time.pass(1)
        yield* t.release(claimed, { preserveDueTime: true })
      }
      assert.deepStrictEqual(order, ["a", "b", "c", "known"])
    })

    test("a message that is released with its due time keeps its priority", function* (t, context) {
      if (!t.isOrdered) return yield* Suite.skip(context, NO_ORDER)
      if (t.driver.capabilities.priorities < 2) return yield* Suite.skip(context, "there is one priority")
      yield* t.publish("high", { priority: 255 })
      yield* t.release(yield* t.claimOne(), { afterMillis: t.time.units(1), preserveDueTime: true })
      yield* t.publish("low")
      yield* t.time.pass(2)
      assert.deepStrictEqual(yield* t.claimIds(), ["high", "low"])
    })

    test("a release can replace the body", function* (t) {
      yield* t.publish("a", { body: "first" })
      yield* t.release(yield* t.claimOne(), { body: "second" })
      const second = yield* t.claimOne()
      assert.deepStrictEqual([second.id, second.body], ["a", "second"])
      yield* t.release(second)
      assert.strictEqual((yield* t.claimOne()).body, "second")
    })

    test("a released message keeps its priority", function* (t, context) {
      if (!t.isOrdered) return yield* Suite.skip(context, NO_ORDER)
      if (t.driver.capabilities.priorities < 2) return yield* Suite.skip(context, "there is one priority")
      yield* t.publish("high", { priority: 255 })
      yield* t.publish("low")
      yield* t.release(yield* t.claimOne())
      assert.deepStrictEqual(yield* t.claimIds(), ["high", "low"])
    })

    test("a rejected message is not claimed again", function* (t) {
      yield* t.driver.publish([envelope("a"), envelope("b")])
      const claimed = yield* t.claim(100, t.time.units(5))
      const rejections = Arr.map(claimed, ({ handle, id }) => ({ handle, reason: `no ${id}` }))
      assert(Arr.isReadonlyArrayNonEmpty(rejections))
      yield* t.driver.reject(rejections)
      yield* t.driver.reject(rejections)
      yield* t.time.pass(6)
      assert.deepStrictEqual(yield* t.claim(), [])
    })

    test("a rejected message that is counted as parked is purged", function* (t, context) {
      yield* t.driver.publish([envelope("a"), envelope("b"), envelope("c")])
      const [first, second] = yield* t.claim(2)
      assert(first !== undefined && second !== undefined)
      yield* t.driver.reject([
        { handle: first.handle, reason: "no" },
        { handle: second.handle, reason: "no" }
      ])
      const { parked, ...others } = yield* t.counts
      assert.deepStrictEqual(others, { ready: 1, delayed: 0, claimed: 0 })
      if (parked === undefined)
        return yield* Suite.skip(context, "the driver keeps parked messages elsewhere")
      assert.strictEqual(parked, 2)
      const purged = [yield* t.driver.purge("default", 2), yield* t.driver.purge("default", 2)]
      assert.deepStrictEqual(
        purged.map(({ length }) => length),
        [2, 1]
      )
      assert.sameMembers(
        purged.flat().map(({ id }) => id),
        ["a", "b", "c"]
      )
      assert.deepStrictEqual(yield* t.counts, { ready: 0, delayed: 0, claimed: 0 })
    })

    test("a batch of handles is answered in order", function* (t) {
      yield* t.driver.publish([envelope("a"), envelope("b")])
      const [first, second] = yield* t.claim()
      assert(first !== undefined && second !== undefined)
      assert.isTrue(yield* t.ack(first))
      const handles = [first.handle, second.handle, second.handle] as const
      assert.deepStrictEqual(yield* t.driver.renew(handles, t.time.long), [false, true, true])
      assert.deepStrictEqual(yield* t.driver.ack(handles), [false, true, false])
    })

    test("an unknown handle is not held", function* (t) {
      const madeUp: Delivery = {
        handle: "made up",
        id: "a",
        task: "mail",
        queue: "default",
        ageMillis: 0,
        body: ""
      }
      assert.isFalse(yield* t.ack(madeUp))
      assert.isFalse(yield* t.renew(madeUp))
      yield* t.release(madeUp)
      yield* t.driver.reject([{ handle: madeUp.handle, reason: "no" }])
      assert.deepStrictEqual(yield* t.claim(), [])
    })
  })
}
