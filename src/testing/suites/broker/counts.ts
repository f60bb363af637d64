/** `counts` and `purge`. */
import { assert, describe } from "@effect/vitest"
import { Array as Arr, Effect, type Scope } from "effect"
import * as defaults from "../../../internal/defaults.ts"
import * as Suite from "../Suite.ts"
import { envelope, type Fixture, idsOf, NO_LEASE, type Test } from "./fixture.ts"

/** Why a test of ages is skipped. */
const NO_AGES = "this driver does not know how long messages have been due"

/** Registers the tests of `oldestMillis`. */
const ages = (test: Test): void => {
  const ageTest = (
    title: string,
    body: (t: Fixture) => Effect.fn.Return<void, unknown, Scope.Scope>,
    needsLeases = false
  ) =>
    test(title, function* (t, context) {
      if ((yield* t.oldestMillis) === undefined) return yield* Suite.skip(context, NO_AGES)
      if (needsLeases && !t.hasLeases) return yield* Suite.skip(context, NO_LEASE)
      yield* Effect.gen(() => body(t))
    })
  const priorityOf = ({ driver }: Fixture, priority: number) =>
    driver.capabilities.priorities > 1 ? priority : 0
  /** Asserts an age in units of time; it may be higher by the time that the calls take. */
  const assertAge = (t: Fixture, atLeast: number, below: number) =>
    Effect.map(t.oldestMillis, (oldestMillis = -1) => {
      assert.isAtLeast(oldestMillis, t.time.units(atLeast - 0.1))
      assert.isBelow(oldestMillis, t.time.units(below))
    })

  ageTest(
    "the oldest message is the one that has been due for longest, whatever its priority",
    function* (t) {
      yield* t.publish("low", { priority: priorityOf(t, 1) })
      yield* t.time.pass(10)
      yield* t.publish("high", { priority: priorityOf(t, 200) })
      yield* t.publish("usual", { priority: priorityOf(t, defaults.priority) })
      yield* assertAge(t, 10, Infinity)
      const claimed = yield* t.claim(3)
      yield* Effect.forEach(
        claimed.filter(({ id }) => id !== "low"),
        (delivery) => t.release(delivery)
      )
      yield* assertAge(t, 0, 9)
    }
  )

  ageTest("of the messages of one priority the first is the oldest", function* (t) {
    const priority = priorityOf(t, defaults.priority)
    yield* t.publish("first", { priority })
    yield* t.time.pass(10)
    yield* t.publish("second", { priority })
    yield* assertAge(t, 10, Infinity)
  })

  ageTest("the age is 0 where no message is due", function* (t) {
    assert.strictEqual(yield* t.oldestMillis, 0)
    yield* t.publish("claimed")
    yield* t.publish("delayed", { delayMillis: t.time.long })
    yield* t.time.pass(1)
    yield* t.claimOne()
    assert.strictEqual(yield* t.oldestMillis, 0)
  })

  ageTest(
    "a delayed message grows old from when it is due, also once a claim has made it ready",
    function* (t) {
      yield* t.publish("first", { delayMillis: t.time.units(9) })
      yield* t.publish("second", { delayMillis: t.time.units(10) })
      yield* t.time.pass(12)
      yield* assertAge(t, 3, 9)
      yield* t.claimOne()
      yield* assertAge(t, 2, 9)
    }
  )

  ageTest(
    "a lapsed claim leaves the age of its message, a release ends it",
    function* (t) {
      yield* t.publish("a")
      yield* t.time.pass(10)
      yield* t.claimAndLapse
      yield* assertAge(t, 12, Infinity)
      yield* t.release(yield* t.claimOne())
      yield* assertAge(t, 0, 9)
    },
    true
  )

  ageTest("each queue has the age of its own oldest message", function* (t) {
    yield* t.publish("a", { queue: "x" })
    yield* t.time.pass(10)
    yield* t.publish("b", { queue: "y" })
    const [empty, x, y] = yield* t.driver.counts(["empty", "x", "y"])
    assert.strictEqual(empty?.oldestMillis, 0)
    assert.isAtLeast(x?.oldestMillis ?? 0, t.time.units(9.9))
    assert.isBelow(y?.oldestMillis ?? Infinity, t.time.units(9))
  })
}

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
      const counts = yield* t.countsOf(["empty", "y", "x"])
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

    ages(test)

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
      assert.deepStrictEqual(yield* t.driver.purge("empty", 100), [])
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
