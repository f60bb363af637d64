/** What becomes of runs whose worker is gone. */
import { assert, describe } from "@effect/vitest"
import { Effect } from "effect"
import * as Suite from "../Suite.ts"
import { success, type Subject, type Test } from "./fixture.ts"

/** Registers these tests. */
export const crashes = (test: Test): void => {
  describe("crashes", () => {
    test("a run over a lease that ran out counts a crash", function* (on) {
      yield* on.create("a")
      yield* on.crash("a", "t1")
      const started = yield* on.run("a", "t2")
      assert.deepStrictEqual([started.attempt, started.retries, started.crashes], [2, 0, 1])
      const found = yield* on.read("a")
      assert.deepStrictEqual([found.state, found.crashes, found.worker], ["STARTED", 1, "worker of t2"])
    })

    test("a task whose crashes reach the limit ends, with the dead letter of the lost run", function* (on) {
      yield* on.create("a")
      yield* on.crash("a", "t1", { maxCrashes: 2 })
      yield* on.crash("a", "t2", { maxCrashes: 2 })
      const last = yield* on.start("a", "t3", { maxCrashes: 2, queue: "slow", body: "the body" })
      assert.strictEqual(last._tag, "Drop")
      const found = yield* on.expectEnd("a", "WorkerLost")
      assert.deepStrictEqual([found.crashes, found.attempt, found.worker], [2, 2, "worker of t2"])
      const { at, ...letter } = yield* on.letter
      assert.isNumber(at)
      assert.deepStrictEqual(letter, {
        id: "a:0",
        taskId: "a",
        task: "mail",
        generation: 0,
        queue: "slow",
        reason: "WorkerLost",
        exit: null,
        worker: "worker of t2",
        body: "the body",
        attempts: 2
      })
    })

    test("with a limit of one, the first crash ends the task", function* (on) {
      yield* on.create("a")
      yield* on.crash("a", "t1", { maxCrashes: 1 })
      assert.strictEqual((yield* on.start("a", "t2", { maxCrashes: 1 }))._tag, "Drop")
      yield* on.expectEnd("a", "WorkerLost")
    })

    test("an at-least-once run that is lost stays open until it is taken over", function* (on) {
      yield* on.create("a")
      yield* on.crash("a", "t1", { maxCrashes: 1 })
      assert.strictEqual((yield* on.read("a")).state, "STARTED")
      assert.strictEqual(yield* on.sweepAll, 0)
      assert.strictEqual((yield* on.read("a")).state, "STARTED")
    })

    test("a lapse under a cancel request ends as cancelled, and leaves no dead letter", function* (on) {
      yield* on.create("a")
      yield* on.crash("a", "t1")
      assert.strictEqual(yield* on.cancel("a"), "Requested")
      assert.strictEqual((yield* on.start("a", "t2"))._tag, "Drop")
      yield* on.expectEnd("a", "Cancelled")
      assert.strictEqual(yield* on.driver.countDeadLetters(undefined), 0)
    })
  })

  describe("at-most-once", () => {
    const once = { deliveryMode: "at-most-once" as const, queue: "slow", body: "the body" }
    const expectLost = Effect.fnUntraced(function* (on: Subject, id: string) {
      yield* on.expectEnd(id, "WorkerLost")
      const letter = yield* on.letter
      assert.deepStrictEqual(
        [letter.id, letter.reason, letter.exit, letter.queue, letter.body, letter.worker, letter.attempts],
        [`${id}:0`, "WorkerLost", null, "slow", "the body", "worker of t1", 1]
      )
    })

    test("a redelivery ends a lost run, and does not repeat it", function* (on) {
      yield* on.create("a")
      yield* on.crash("a", "t1", once)
      const another = { ...once, queue: "other", body: "another message of it" }
      assert.strictEqual((yield* on.start("a", "t2", another))._tag, "Drop")
      yield* expectLost(on, "a")
    })

    test("a read ends a lost run", function* (on) {
      yield* on.create("a")
      yield* on.crash("a", "t1", once)
      yield* expectLost(on, "a")
      assert.strictEqual((yield* on.start("a", "t2", once))._tag, "Drop")
    })

    test("a watch ends a lost run", function* (on) {
      yield* on.create("a")
      yield* on.crash("a", "t1", once)
      const found = yield* Suite.only(on.driver.subscribe(["a"]))
      assert.strictEqual(found?.ended, "WorkerLost")
    })

    test("the sweep ends a lost run", function* (on) {
      yield* on.create("a")
      yield* on.crash("a", "t1", once)
      assert.strictEqual(yield* on.sweepAll, 1)
      assert.strictEqual(yield* on.driver.countDeadLetters("mail"), 1)
      yield* expectLost(on, "a")
    })

    test("a run that holds its lease is left alone", function* (on) {
      yield* on.create("a")
      yield* on.run("a", "t1", once)
      assert.strictEqual((yield* on.start("a", "t2", once))._tag, "Busy")
      assert.strictEqual(yield* on.sweepAll, 0)
      assert.strictEqual((yield* on.read("a")).state, "STARTED")
    })

    test("a renewal keeps the run from being ended", function* (on) {
      yield* on.create("a")
      yield* on.run("a", "t1", { ...once, leaseMillis: on.time.units(1) })
      assert.strictEqual(yield* on.renew("a", "t1"), "Held")
      yield* on.time.pass(2)
      assert.strictEqual(yield* on.sweepAll, 0)
      assert.strictEqual((yield* on.read("a")).state, "STARTED")
    })

    test("a lapse that nobody noticed can still be settled", function* (on) {
      yield* on.create("a")
      yield* on.crash("a", "t1", once)
      yield* on.end("a", "t1", success())
      assert.strictEqual((yield* on.read("a")).state, "SUCCESS")
    })
  })
}
