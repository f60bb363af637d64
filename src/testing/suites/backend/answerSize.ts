/** The size of answers: calls that read return some at a time, and the rest with the next call. */
import { assert, describe } from "@effect/vitest"
import { Array as Arr, Effect } from "effect"
import type { DeadLetter, DeadLetterPosition, TaskRecord } from "../../../BackendDriver.ts"
import * as Suite from "../Suite.ts"
import { failureWithDeadLetter, type Fixture, parked, success, type Test } from "./fixture.ts"

/** Registers the tests. */
export const answerSize = (test: Test): void => {
  describe("answers", () => {
    const ids = Arr.map(Arr.range(1, 5), (n) => `task-${n}`)

    const readAll = Effect.fnUntraced(function* (t: Fixture, read: Fixture["driver"]["read"]) {
      const found: Array<TaskRecord | undefined> = []
      let rest: ReadonlyArray<string> = ids
      while (Arr.isReadonlyArrayNonEmpty(rest)) {
        const some = yield* read(rest)
        assert.isAtLeast(some.length, 1, "a read returns one record at least")
        Suite.expectBoundedAnswer(
          t.driver,
          Arr.map(some, (record) => record?.exit?.length ?? 0)
        )
        found.push(...some)
        rest = rest.slice(some.length)
      }
      return found.map((record) => record?.id)
    })

    const createLarge = (t: Fixture) =>
      Effect.forEach(ids, (id, n) =>
        Effect.andThen(
          t.create(id),
          t.startAndSettle(id, `t${n}`, success(Suite.largeText(t.driver), t.time.long))
        )
      )

    test("a read of large records returns some of them, and the rest with the next calls", function* (t) {
      yield* createLarge(t)
      assert.deepStrictEqual(yield* readAll(t, t.driver.read), ids)
    })

    test("a subscription to large records returns some of them, and the rest with the next calls", function* (t) {
      yield* createLarge(t)
      assert.deepStrictEqual(yield* readAll(t, t.driver.subscribe), ids)
    })

    test("a page of large dead letters has some of them, and the next pages have the rest", function* (t) {
      yield* t.driver.parkMessage(Arr.map(ids, (id) => parked(id, { body: Suite.largeText(t.driver) })))
      const found: Array<DeadLetter> = []
      let after: DeadLetterPosition | undefined
      do {
        const page: ReadonlyArray<DeadLetter> = yield* t.deadLetterPage(100, after)
        Suite.expectBoundedAnswer(
          t.driver,
          page.map(({ body }) => body.length)
        )
        found.push(...page)
        after = page.at(-1)
      } while (after !== undefined)
      assert.deepStrictEqual(found.map(({ id }) => id).sort(), ids)
    })

    test("a list of the ids of dead letters has those of a page", function* (t) {
      for (const id of ["a", "b", "c"]) {
        yield* t.create(id, { task: id === "b" ? "other" : "mail" })
        yield* t.startAndSettle(id, `t-${id}`, failureWithDeadLetter("Failed", t.time.long), {
          task: id === "b" ? "other" : "mail"
        })
      }
      yield* t.driver.parkMessage([parked("p")])
      const positionsOf = (letters: ReadonlyArray<DeadLetterPosition & { readonly id: string }>) =>
        letters.map(({ at, id, order }) => ({ at, id, order }))
      for (const task of [undefined, "mail", "other", "nobody"]) {
        const all = yield* t.deadLetters(task)
        const listed = yield* t.driver.listDeadLetterIds({ limit: 100, task })
        assert.deepStrictEqual(positionsOf(listed), positionsOf(all))
      }
      const [first, second] = yield* t.driver.listDeadLetterIds({ limit: 2 })
      const rest = yield* t.driver.listDeadLetterIds({ limit: 100, after: second })
      assert.deepStrictEqual(positionsOf([first!, second!, ...rest]), positionsOf(yield* t.deadLetters()))
    })
  })
}
