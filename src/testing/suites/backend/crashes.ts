/** Runs whose lease lapsed, and the limit of crashes. */
import { assert, describe } from "@effect/vitest"
import { Effect } from "effect"
import type { Fixture, Test } from "./fixture.ts"

/** Registers the tests. */
export const crashes = (test: Test): void => {
  describe("crashes", () => {
    test("a start over a lapsed lease counts a crash", function* (t) {
      yield* t.create("a")
      yield* t.lapsedRun("a", "t1")
      const started = yield* t.startRun("a", "t2")
      assert.deepStrictEqual([started.attempt, started.retries, started.crashes], [2, 0, 1])
      const found = yield* t.read("a")
      assert.deepStrictEqual([found.state, found.crashes, found.worker], ["STARTED", 1, "worker of t2"])
    })

    test("a task whose crashes reach the limit ends, with the dead letter of the lost run", function* (t) {
      yield* t.create("a")
      yield* t.lapsedRun("a", "t1", { maxCrashes: 2 })
      yield* t.lapsedRun("a", "t2", { maxCrashes: 2 })
      const last = yield* t.start("a", "t3", { maxCrashes: 2, queue: "slow", body: "the body" })
      assert.strictEqual(last._tag, "Drop")
      const found = yield* t.expectEndedByStore("a", "WorkerLost")
      assert.deepStrictEqual([found.crashes, found.attempt, found.worker], [2, 2, "worker of t2"])
      const { at, order, ...letter } = yield* t.onlyDeadLetter
      assert.isNumber(at)
      assert.isNumber(order)
      assert.deepStrictEqual(letter, {
        id: "a:0",
        taskId: "a",
        task: "mail",
        incarnation: "",
        generation: 0,
        queue: "slow",
        reason: "WorkerLost",
        exit: null,
        worker: "worker of t2",
        body: "the body",
        attempts: 2
      })
    })

    test("the first crash ends a task whose limit is one", function* (t) {
      yield* t.create("a")
      yield* t.lapsedRun("a", "t1", { maxCrashes: 1 })
      assert.strictEqual((yield* t.start("a", "t2", { maxCrashes: 1 }))._tag, "Drop")
      yield* t.expectEndedByStore("a", "WorkerLost")
    })

    test("a lost at-least-once run stays open until it is taken over", function* (t) {
      yield* t.create("a")
      yield* t.lapsedRun("a", "t1", { maxCrashes: 1 })
      assert.strictEqual((yield* t.read("a")).state, "STARTED")
      assert.strictEqual(yield* t.sweepAll, 0)
      assert.strictEqual((yield* t.read("a")).state, "STARTED")
    })

    for (const [what, notice] of Object.entries<(t: Fixture) => Effect.Effect<void, unknown>>({
      "the next start": (t) =>
        Effect.map(t.start("a", "t2"), (started) => assert.strictEqual(started._tag, "Drop")),
      "a read": () => Effect.void,
      "the sweep": (t) => Effect.map(t.sweepAll, (swept) => assert.strictEqual(swept, 1))
    })) {
      test(`${what} ends a lapsed run under a cancel request as cancelled, without a dead letter`, function* (t) {
        yield* t.create("a")
        yield* t.lapsedRun("a", "t1")
        assert.strictEqual(yield* t.cancel("a"), "Requested")
        yield* notice(t)
        yield* t.expectEndedByStore("a", "Cancelled")
        assert.strictEqual(yield* t.driver.countDeadLetters(undefined), 0)
      })
    }

    test("the sweep leaves a run under a cancel request open whose lease was renewed", function* (t) {
      yield* t.create("a")
      yield* t.startRun("a", "t1", { leaseMillis: t.time.units(2) })
      assert.strictEqual(yield* t.cancel("a"), "Requested")
      assert.strictEqual(yield* t.renew("a", "t1"), "CancelRequested")
      yield* t.time.pass(3)
      assert.strictEqual(yield* t.sweepAll, 0)
      assert.strictEqual((yield* t.read("a")).state, "STARTED")
    })
  })
}
