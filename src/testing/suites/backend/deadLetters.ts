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
          t.create(id, { task: id < "c" ? "mail" : "other" }),
          Effect.andThen(
            t.startAndSettle(id, "t1", failureWithDeadLetter(), { task: id < "c" ? "mail" : "other" }),
            t.time.pass(0.1)
          )
        )
      )

    test("are listed newest first, page by page", function* (t) {
      yield* fill(t)
      const ids = (letters: ReadonlyArray<DeadLetter>) => letters.map(({ id }) => id)
      assert.deepStrictEqual(ids(yield* t.deadLetters()), ["e:0", "d:0", "c:0", "b:0", "a:0"])
      const first = yield* t.deadLetterPage(2)
      assert.deepStrictEqual(ids(first), ["e:0", "d:0"])
      const second = yield* t.deadLetterPage(2, first[1])
      assert.deepStrictEqual(ids(second), ["c:0", "b:0"])
      const third = yield* t.deadLetterPage(2, second[1])
      assert.deepStrictEqual(ids(third), ["a:0"])
      assert.deepStrictEqual(ids(yield* t.deadLetterPage(2, third[0])), [])
    })

    test("are listed and counted by task", function* (t) {
      yield* fill(t)
      yield* t.driver.parkMessage([parked("p")])
      const ids = (letters: ReadonlyArray<DeadLetter>) => letters.map(({ id }) => id)
      const others = yield* t.deadLetters("other")
      assert.deepStrictEqual(ids(others), ["e:0", "d:0", "c:0"])
      assert.deepStrictEqual(ids(yield* t.deadLetterPage(1, others[0], "other")), ["d:0"])
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

    test("a page goes on after a letter that was removed", function* (t) {
      yield* fill(t)
      const page = yield* t.deadLetterPage(2)
      yield* t.driver.removeDeadLetters(["e:0", "d:0"])
      const rest = yield* t.deadLetterPage(100, page[1])
      assert.deepStrictEqual(
        rest.map(({ id }) => id),
        ["c:0", "b:0", "a:0"]
      )
    })

    /** Lists all letters page by page, and does something after each page. Returns the ids that were seen. */
    const walk = Effect.fnUntraced(function* (
      t: Fixture,
      afterPage: (page: Arr.NonEmptyReadonlyArray<DeadLetter>) => Effect.Effect<unknown, unknown>,
      task?: string
    ) {
      const seen: Array<string> = []
      for (let last: DeadLetter | undefined; ;) {
        const page = yield* t.deadLetterPage(3, last, task)
        if (!Arr.isReadonlyArrayNonEmpty(page)) return seen
        seen.push(...page.map(({ id }) => id))
        assert.isAtMost(seen.length, 20, "the walk ends")
        last = Arr.lastNonEmpty(page)
        yield* afterPage(page)
      }
    })

    test("those of the same moment are listed once each, over several pages", function* (t) {
      const ids = Arr.map(Arr.range(1, 7), (n) => `p${n}`)
      yield* t.driver.parkMessage(Arr.map(ids, (id) => parked(id)))
      const seen = yield* walk(t, () => Effect.void)
      assert.deepStrictEqual(seen.toSorted(), ids)
    })

    test("a walk sees each letter once while the last of each page is removed", function* (t) {
      const ids = Arr.map(Arr.range(1, 7), (n) => `p${n}`)
      yield* t.driver.parkMessage(Arr.map(ids, (id) => parked(id)))
      const seen = yield* walk(t, (page) => t.driver.removeDeadLetters([Arr.lastNonEmpty(page).id]))
      assert.deepStrictEqual(seen.toSorted(), ids)
    })

    for (const task of [undefined, "mail"]) {
      test(`a walk through the letters of ${task ?? "all tasks"} sees each once while they are replayed and fail again`, function* (t) {
        const ids = Arr.map(Arr.range(1, 7), (n) => `x${n}`)
        yield* t.driver.create(Arr.map(ids, (id) => record(id)))
        yield* Effect.forEach(ids, (id) => t.startAndSettle(id, `0 of ${id}`, failureWithDeadLetter()))
        const replayAndFail = ({ generation, id, taskId }: DeadLetter) =>
          t.driver.reopen([id], t.time.long).pipe(
            Effect.andThen(t.driver.removeDeadLetters([id])),
            Effect.andThen(
              t.startAndSettle(taskId!, `${generation + 1} of ${taskId}`, failureWithDeadLetter(), {
                generation: generation + 1
              })
            )
          )
        const seen = yield* walk(t, Effect.forEach(replayAndFail), task)
        assert.deepStrictEqual(
          seen.toSorted(),
          ids.map((id) => `${id}:0`)
        )
        const now = yield* t.deadLetters()
        assert.deepStrictEqual(
          now.map(({ id }) => id).toSorted(),
          ids.map((id) => `${id}:1`)
        )
      })
    }

    test("a letter that is written after the newest was removed is before all positions", function* (t) {
      yield* t.driver.parkMessage([parked("p1")])
      yield* t.driver.parkMessage([parked("p2")])
      const [newest] = yield* t.deadLetters()
      yield* t.driver.removeDeadLetters(["p2", "p1"])
      // a store of several parts orders what all of them have by time, in milliseconds
      yield* t.time.pass(0.1)
      yield* t.driver.parkMessage([parked("p3")])
      assert.deepStrictEqual(yield* t.deadLetterPage(10, newest), [])
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
      assert.deepStrictEqual(yield* t.driver.reopen(["a:0", "p"], t.time.long), [undefined, undefined])
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
      yield* t.create("a")
      yield* t.lapsedRun("a", "t1", lost)
      yield* t.start("a", "t2", { maxCrashes: 1 })
      assert.strictEqual(yield* t.driver.countDeadLetters(undefined), 1)
      yield* t.time.pass(2)
      assert.strictEqual(yield* t.driver.countDeadLetters(undefined), 0)
    })

    test("are created for parked messages, once each", function* (t) {
      yield* t.driver.parkMessage([parked("p", { body: Suite.bytes, queue: "slow" }), parked("p")])
      yield* t.driver.parkMessage([parked("p")])
      const { at, body, order, ...letter } = yield* t.onlyDeadLetter
      assert.isNumber(at)
      assert.isNumber(order)
      assert.deepStrictEqual(bytesOf(body), Array.from(Suite.bytes))
      assert.deepStrictEqual(letter, {
        id: "p",
        taskId: null,
        task: null,
        incarnation: "",
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
