/** Texts and bytes that stores tend to change. */
import { assert, describe } from "@effect/vitest"
import { Array as Arr } from "effect"
import type { Outcome } from "../../../BackendDriver.ts"
import * as Suite from "../Suite.ts"
import { record, success, failureWithDeadLetter, bytesOf, type Test } from "./fixture.ts"

/** Registers the tests. */
export const bodies = (test: Test): void => {
  describe("texts and bytes", () => {
    for (const [what, text] of Suite.texts) {
      test(`${what} reads back unchanged`, function* (t, context) {
        if (Buffer.byteLength(text) > Suite.maxBytesOf(t.driver))
          return yield* Suite.skip(context, "the driver takes no text of that size")
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

    test("values of the largest size fit a record, a run and a dead letter", function* (t) {
      const size = Suite.maxBytesOf(t.driver)
      const value = "a".repeat(size)
      const message = { queue: "default", body: "b".repeat(size + Suite.MESSAGE_HEAD) }
      yield* t.driver.create([record("a"), record("b"), record("c")])
      yield* t.startRun("a", "t1")
      yield* t.renew("a", "t1", value)
      yield* t.settleRun("a", "t1", success(value))
      const found = yield* t.read("a")
      assert.isTrue(found.progress === value && found.exit === value)
      const failure = failureWithDeadLetter("Failed", undefined, undefined, message)
      yield* t.startAndSettle("b", "t1", { ...failure, exit: value } as Outcome)
      const letter = yield* t.onlyDeadLetter
      assert.isTrue(letter.body === message.body && letter.exit === value)
      const reopened = yield* t.reopen(letter.id)
      assert.isTrue(reopened?.letter.body === message.body)
      yield* t.driver.removeDeadLetters([letter.id])
      yield* t.lapsedRun("c", "t1", { ...message, deliveryMode: "at-most-once" })
      yield* t.driver.read(["c"])
      assert.isTrue((yield* t.onlyDeadLetter).body === message.body)
    })

    test("a batch of two mebi characters is written", function* (t) {
      const text = "€".repeat(64 * 1024)
      const ids = Arr.makeBy(32, String)
      yield* t.driver.create(Arr.map(ids, (id) => record(id)))
      yield* t.driver.start(Arr.map(ids, (id) => t.requestStart(id, "t1")))
      yield* t.driver.renew(
        Arr.map(ids, (id) => ({ id, token: "t1", leaseMillis: t.time.long, progress: text }))
      )
      const settled = yield* t.driver.settle(
        Arr.map(ids, (id) => ({ id, token: "t1", outcome: success(text) }))
      )
      assert.isTrue(settled.every((answer) => answer === "Stored"))
      for (const found of yield* t.driver.read(ids))
        assert.isTrue(found?.progress === text && found.exit === text)
    })

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
