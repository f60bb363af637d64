/** Texts and bytes that stores tend to change. */
import { assert, describe } from "@effect/vitest"
import type { Outcome } from "../../../BackendDriver.ts"
import * as Suite from "../Suite.ts"
import { record, success, failureWithDeadLetter, bytesOf, type Test } from "./fixture.ts"

/** Registers the tests. */
export const bodies = (test: Test): void => {
  describe("texts and bytes", () => {
    for (const [what, text] of Suite.texts) {
      test(`${what} reads back unchanged`, function* (t) {
        yield* t.driver.create([record("a"), record("b")])
        yield* t.startRun("a", "t1")
        yield* t.renew("a", "t1", text)
        yield* t.settleRun("a", "t1", success(text))
        const found = yield* t.read("a")
        assert.isTrue(found.progress === text && found.exit === text)
        yield* t.startRun("b", "t1")
        const message = { queue: "default", body: text }
        yield* t.settleRun("b", "t1", {
          ...failureWithDeadLetter("Failed", undefined, undefined, message),
          exit: text
        } as Outcome)
        const letter = yield* t.onlyDeadLetter
        assert.isTrue(letter.body === text && letter.exit === text)
      })
    }

    test("bytes read back unchanged, from a lost run too", function* (t) {
      const message = { queue: "default", body: Suite.bytes }
      yield* t.driver.create([record("a"), record("b")])
      yield* t.startAndSettle("a", "t1", failureWithDeadLetter("Failed", undefined, undefined, message))
      yield* t.lapsedRun("b", "t1")
      yield* t.start("b", "t2", { ...message, maxCrashes: 1 })
      for (const letter of yield* t.deadLetters()) {
        assert.deepStrictEqual(bytesOf(letter.body), Array.from(Suite.bytes), letter.id)
      }
      assert.strictEqual(yield* t.driver.countDeadLetters(undefined), 2)
    })
  })
}
