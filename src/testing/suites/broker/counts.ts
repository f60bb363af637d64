/** `counts` and `purge`. */
import { assert, describe } from "@effect/vitest"
import { Array as Arr, Effect } from "effect"
import * as defaults from "../../../internal/defaults.ts"
import * as Suite from "../Suite.ts"
import { envelope, idsOf, NO_LEASE, type Test } from "./fixture.ts"

/** Registers the tests. */
export const counts = (test: Test): void => {
  describe("counts and purge", () => {
    test("messages are counted as ready, delayed and claimed", function* (t) {
      yield* t.driver.publish(Arr.map(Arr.range(1, 6), (n) => envelope(`id-${n}`)))
      yield* t.publish("later", { delayMillis: t.time.long })
      const [first] = yield* t.claim(3)
      assert.deepStrictEqual(yield* t.counts, { ready: 3, delayed: 1, claimed: 3 })
      assert(first !== undefined)
      yield* t.release(first)
      assert.deepStrictEqual(yield* t.counts, { ready: 4, delayed: 1, claimed: 2 })
    })

    test("counts answers the queues in order", function* (t) {
      yield* t.publish("a", { queue: "x" })
      yield* t.publish("b", { queue: "y", delayMillis: t.time.long })
      const counts = yield* t.driver.counts(["nobody", "y", "x"])
      assert.deepStrictEqual(counts, [
        { ready: 0, delayed: 0, claimed: 0 },
        { ready: 0, delayed: 1, claimed: 0 },
        { ready: 1, delayed: 0, claimed: 0 }
      ])
    })

    test("a delayed message counts as ready once it is due", function* (t) {
      yield* t.publish("a", { delayMillis: t.time.units(1) })
      yield* t.time.pass(2)
      assert.deepStrictEqual(yield* t.counts, { ready: 1, delayed: 0, claimed: 0 })
    })

    test("a message whose claim has lapsed counts as ready", function* (t, context) {
      if (!t.hasLeases) return yield* Suite.skip(context, NO_LEASE)
      yield* t.publish("a")
      yield* t.claimAndLapse
      assert.deepStrictEqual(yield* t.counts, { ready: 1, delayed: 0, claimed: 0 })
    })

    test("a purge removes unclaimed messages, and returns them", function* (t) {
      yield* t.publish("claimed")
      const claimed = yield* t.claimOne()
      yield* t.publish("ready", { incarnation: "x1", generation: 2 })
      yield* t.publish("delayed", { delayMillis: t.time.long })
      yield* t.publish("other", { queue: "other" })
      const purged = yield* t.driver.purge("default", 100)
      assert.deepStrictEqual(
        purged.toSorted((one, other) => (one.id < other.id ? -1 : 1)),
        [
          { id: "delayed", incarnation: "", generation: 0 },
          { id: "ready", incarnation: "x1", generation: 2 }
        ]
      )
      assert.deepStrictEqual(yield* t.counts, { ready: 0, delayed: 0, claimed: 1 })
      assert.deepStrictEqual(yield* t.driver.purge("default", 100), [])
      assert.deepStrictEqual(yield* t.driver.purge("nobody", 100), [])
      assert.deepStrictEqual(idsOf(yield* t.claim(1, t.time.long, ["other"])), ["other"])
      assert.isTrue(yield* t.ack(claimed))
    })

    test("a purge removes messages of the default priority", function* (t) {
      for (const id of ["a", "b", "c"]) yield* t.publish(id, { priority: defaults.priority })
      const [first, second] = [yield* t.driver.purge("default", 2), yield* t.driver.purge("default", 2)]
      assert.deepStrictEqual([first.length, second.length], [2, 1])
      assert.sameMembers(
        [...first, ...second].map(({ id }) => id),
        ["a", "b", "c"]
      )
      assert.deepStrictEqual(yield* t.claim(), [])
    })

    test("a purge removes at most its limit", function* (t) {
      yield* t.driver.publish([
        ...Arr.map(Arr.range(1, 3), (n) => envelope(`id-${n}`)),
        ...Arr.map(Arr.range(4, 5), (n) => envelope(`id-${n}`, { delayMillis: t.time.long }))
      ])
      const purged = yield* Effect.replicateEffect(t.driver.purge("default", 2), 4)
      assert.deepStrictEqual(
        purged.map((ids) => ids.length),
        [2, 2, 1, 0]
      )
      assert.strictEqual(new Set(purged.flat().map(({ id }) => id)).size, 5)
    })
  })
}
