/** Lost runs of at-most-once tasks. */
import { assert, describe } from "@effect/vitest"
import { Effect } from "effect"
import * as Suite from "../Suite.ts"
import { success, type Fixture, type Test } from "./fixture.ts"

/** Registers the tests. */
export const atMostOnce = (test: Test): void => {
  describe("at-most-once", () => {
    const once = { deliveryMode: "at-most-once" as const, queue: "slow", body: "the body" }
    const expectLost = Effect.fnUntraced(function* (t: Fixture, id: string) {
      yield* t.expectEndedByStore(id, "WorkerLost")
      const letter = yield* t.onlyDeadLetter
      assert.deepStrictEqual(
        [letter.id, letter.reason, letter.exit, letter.queue, letter.body, letter.worker, letter.attempts],
        [`${id}:0`, "WorkerLost", null, "slow", "the body", "worker of t1", 1]
      )
    })

    test("a redelivery ends a lost run, and does not start it again", function* (t) {
      yield* t.create("a")
      yield* t.lapsedRun("a", "t1", once)
      const another = { ...once, queue: "other", body: "another message of it" }
      assert.deepStrictEqual(yield* t.start("a", "t2", another), {
        _tag: "Drop",
        ended: { reason: "WorkerLost", attempt: 1, crashes: 0, worker: "worker of t1" }
      })
      yield* expectLost(t, "a")
    })

    test("a read ends a lost run", function* (t) {
      yield* t.create("a")
      yield* t.lapsedRun("a", "t1", once)
      yield* expectLost(t, "a")
      assert.deepStrictEqual(yield* t.start("a", "t2", once), { _tag: "Drop" })
    })

    test("a subscription ends a lost run", function* (t) {
      yield* t.create("a")
      yield* t.lapsedRun("a", "t1", once)
      const found = yield* Suite.only(t.driver.subscribe(["a"]))
      assert.strictEqual(found?.ended, "WorkerLost")
    })

    test("the sweep ends a lost run, and names its task", function* (t) {
      yield* t.create("a")
      yield* t.lapsedRun("a", "t1", once)
      assert.deepStrictEqual(yield* t.driver.sweep(100), { handled: 1, lost: ["mail"] })
      assert.deepStrictEqual(yield* t.driver.sweep(100), { handled: 0, lost: [] })
      assert.strictEqual(yield* t.driver.countDeadLetters("mail"), 1)
      yield* expectLost(t, "a")
    })

    test("a run under a live lease stays open", function* (t) {
      yield* t.create("a")
      yield* t.startRun("a", "t1", once)
      assert.strictEqual((yield* t.start("a", "t2", once))._tag, "Busy")
      assert.strictEqual(yield* t.sweepAll, 0)
      assert.strictEqual((yield* t.read("a")).state, "STARTED")
    })

    test("a renewal keeps a run open", function* (t) {
      yield* t.create("a")
      yield* t.startRun("a", "t1", { ...once, leaseMillis: t.time.units(1) })
      assert.strictEqual(yield* t.renew("a", "t1"), "Held")
      yield* t.time.pass(2)
      assert.strictEqual(yield* t.sweepAll, 0)
      assert.strictEqual((yield* t.read("a")).state, "STARTED")
    })

    test("a lapsed run can be settled before its lapse is noticed", function* (t) {
      yield* t.create("a")
      yield* t.lapsedRun("a", "t1", once)
      yield* t.settleRun("a", "t1", success())
      assert.strictEqual((yield* t.read("a")).state, "SUCCESS")
    })
  })
}
