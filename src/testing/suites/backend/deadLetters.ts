/** Dead letters: listing, counting, removal, retention and parked messages. */
import { assert, describe } from "@effect/vitest"
import { Array as Arr, Effect } from "effect"
import type { DeadLetter } from "../../../BackendDriver.ts"
import * as Suite from "../Suite.ts"
import { record, failureWithDeadLetter, parked, bytesOf, type Fixture, type Test } from "./fixture.ts"

/** Registers the tests. */
export const deadLetters = (test: Test): void => {
  describe("dead letters", () => {
    const fill = (t: Fixture) =>
      Effect.forEach(["a", "b", "c", "d", "e"], (id) =>
        Effect.andThen(
          t.startAndSettle(id, "t1", failureWithDeadLetter(), { task: id < "c" ? "mail" : "other" }),
          t.time.pass(0.1)
        )
      )

    test("are listed newest first, page by page", function* (t) {
      yield* fill(t)
      const ids = (letters: ReadonlyArray<DeadLetter>) => letters.map(({ id }) => id)
      assert.deepStrictEqual(ids(yield* t.deadLetters()), ["e:0", "d:0", "c:0", "b:0", "a:0"])
      assert.deepStrictEqual(ids(yield* t.deadLetterPage(2)), ["e:0", "d:0"])
      assert.deepStrictEqual(ids(yield* t.deadLetterPage(2, "d:0")), ["c:0", "b:0"])
      assert.deepStrictEqual(ids(yield* t.deadLetterPage(2, "b:0")), ["a:0"])
      assert.deepStrictEqual(ids(yield* t.deadLetterPage(2, "a:0")), [])
    })

    test("are listed and counted by task", function* (t) {
      yield* fill(t)
      yield* t.driver.parkMessage([parked("p")])
      const ids = (letters: ReadonlyArray<DeadLetter>) => letters.map(({ id }) => id)
      assert.deepStrictEqual(ids(yield* t.deadLetters("other")), ["e:0", "d:0", "c:0"])
      assert.deepStrictEqual(ids(yield* t.deadLetterPage(1, "e:0", "other")), ["d:0"])
      assert.deepStrictEqual(ids(yield* t.deadLetters("nobody")), [])
      assert.strictEqual(yield* t.driver.countDeadLetters("other"), 3)
      assert.strictEqual(yield* t.driver.countDeadLetters("mail"), 2)
      assert.strictEqual(yield* t.driver.countDeadLetters("nobody"), 0)
      assert.strictEqual(yield* t.driver.countDeadLetters(undefined), 6)
    })

    test("are read by id without being opened", function* (t) {
      yield* t.create("a")
      yield* t.startAndSettle("a", "t1", failureWithDeadLetter())
      yield* t.driver.parkMessage([parked("p"), parked("gone", { retentionMillis: t.time.units(1) })])
      yield* t.time.pass(2)
      const found = yield* t.driver.getDeadLetters(["p", "nobody", "a:0", "gone", "a:0"])
      const [newer, older] = yield* t.deadLetters()
      assert.deepStrictEqual(found, [newer, undefined, older, undefined, older])
      const { generation, state } = yield* t.read("a")
      assert.deepStrictEqual([state, generation], ["FAILURE", 0])
    })

    test("a page after a removed dead letter misses none", function* (t) {
      yield* fill(t)
      yield* t.driver.removeDeadLetters(["d:0"])
      const rest = (yield* t.deadLetterPage(100, "d:0")).map(({ id }) => id)
      assert.deepStrictEqual(rest.slice(-3), ["c:0", "b:0", "a:0"])
    })

    test("those of the same moment are listed once each, over several pages", function* (t) {
      const ids = Arr.map(Arr.range(1, 7), (n) => `p${n}`)
      yield* t.driver.parkMessage(Arr.map(ids, (id) => parked(id)))
      const seen: Array<string> = []
      for (let last: string | undefined; ;) {
        const letters = yield* t.deadLetterPage(3, last)
        if (letters.length === 0) break
        seen.push(...letters.map(({ id }) => id))
        last = seen.at(-1)
      }
      assert.deepStrictEqual(seen.toSorted(), ids)
    })

    test("are removed by id, and removing is safe to repeat", function* (t) {
      yield* fill(t)
      const removed = yield* t.driver.removeDeadLetters(["a:0", "nobody", "b:0", "a:0"])
      assert.deepStrictEqual(removed, [true, false, true, false])
      assert.deepStrictEqual(yield* t.driver.removeDeadLetters(["b:0"]), [false])
      assert.strictEqual(yield* t.driver.countDeadLetters(undefined), 3)
      assert.isUndefined(yield* t.reopen("a:0"))
      assert.strictEqual((yield* t.read("a")).state, "FAILURE")
    })

    test("have their own retention, which the record may outlive", function* (t) {
      yield* t.driver.create([record("a"), record("b"), record("c")])
      yield* t.startAndSettle("a", "t1", failureWithDeadLetter("Failed", t.time.units(1)))
      yield* t.startAndSettle("b", "t1", failureWithDeadLetter("Failed", t.time.long))
      yield* t.startAndSettle("c", "t1", failureWithDeadLetter())
      yield* t.driver.parkMessage([parked("p", { retentionMillis: t.time.units(1) })])
      yield* t.time.pass(2)
      assert.deepStrictEqual((yield* t.deadLetters()).map(({ id }) => id).toSorted(), ["b:0", "c:0"])
      assert.strictEqual(yield* t.driver.countDeadLetters(undefined), 2)
      assert.deepStrictEqual(yield* t.driver.reopen(["a:0", "p"]), [undefined, undefined])
      yield* t.sweepAll
      assert.strictEqual(yield* t.driver.countDeadLetters(undefined), 2)
      assert.strictEqual((yield* t.read("a")).state, "FAILURE")
    })

    test("are removed by the sweep after their retention", function* (t) {
      yield* t.driver.parkMessage([parked("p", { retentionMillis: t.time.units(1) }), parked("q")])
      yield* t.time.pass(2)
      assert.strictEqual(yield* t.sweepAll, 1)
      assert.strictEqual((yield* t.onlyDeadLetter).id, "q")
    })

    test("may outlive their record", function* (t) {
      yield* t.create("a")
      yield* t.startAndSettle("a", "t1", failureWithDeadLetter("Failed", t.time.long, t.time.units(1)))
      yield* t.time.pass(2)
      yield* t.sweepAll
      assert.isUndefined(yield* t.readOptional("a"))
      assert.strictEqual((yield* t.onlyDeadLetter).id, "a:0")
    })

    test("of a lost run have the retention that its start gave", function* (t) {
      const lost = { maxCrashes: 1, deadLetterRetentionMillis: t.time.units(1) }
      yield* t.lapsedRun("a", "t1", lost)
      yield* t.start("a", "t2", { maxCrashes: 1 })
      assert.strictEqual(yield* t.driver.countDeadLetters(undefined), 1)
      yield* t.time.pass(2)
      assert.strictEqual(yield* t.driver.countDeadLetters(undefined), 0)
    })

    test("are created for parked messages, once each", function* (t) {
      yield* t.driver.parkMessage([parked("p", { body: Suite.bytes, queue: "slow" }), parked("p")])
      yield* t.driver.parkMessage([parked("p")])
      const { at, body, ...letter } = yield* t.onlyDeadLetter
      assert.isNumber(at)
      assert.deepStrictEqual(bytesOf(body), Array.from(Suite.bytes))
      assert.deepStrictEqual(letter, {
        id: "p",
        taskId: null,
        task: null,
        generation: 0,
        queue: "slow",
        reason: "PayloadInvalid",
        exit: `{"failure":"undecodable"}`,
        worker: null,
        attempts: 0
      })
    })
  })
}
