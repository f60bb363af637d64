/** The size of claims: one of large messages takes some at a time. */
import { assert, describe } from "@effect/vitest"
import { Array as Arr, Effect, Stream } from "effect"
import * as Suite from "../Suite.ts"
import { envelope, type Fixture, idsOf, NO_LEASE, type Test } from "./fixture.ts"

/** Registers the tests. */
export const answerSize = (test: Test): void => {
  describe("claims of large messages", () => {
    const ids = Arr.map(Arr.range(1, 5), (n) => `id-${n}`)

    const publishLarge = (t: Fixture) =>
      t.driver.publish(Arr.map(ids, (id) => envelope(id, { body: Suite.largeText(t.driver) })))

    test("a claim takes some of them, and the next claims take the rest", function* (t, context) {
      if (!t.hasLeases) return yield* Suite.skip(context, NO_LEASE)
      yield* publishLarge(t)
      const found: Array<string> = []
      for (;;) {
        const claimed = yield* t.claim()
        if (claimed.length === 0) break
        Suite.expectBoundedAnswer(
          t.driver,
          claimed.map(({ body }) => body.length)
        )
        found.push(...idsOf(claimed))
      }
      assert.deepStrictEqual(found.sort(), ids)
    })

    test("a consumer is woken again for those that a claim left", function* (t) {
      yield* publishLarge(t)
      const found: Array<string> = []
      yield* Stream.runForEach(t.driver.ready(["default"], 100), () =>
        Effect.map(t.claim(), (claimed) => void found.push(...idsOf(claimed)))
      ).pipe(Effect.forkScoped)
      yield* t.time.eventually(
        "all are claimed",
        Effect.sync(() => found.length === ids.length)
      )
      assert.deepStrictEqual(found.sort(), ids)
    })
  })
}
