/** Runs whose lease lapsed, and the limit of crashes. */
import { assert, describe } from "@effect/vitest"
import { Effect } from "effect"
import { retry, type Fixture, type Test } from "./fixture.ts"

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

    test("a start over a lapsed lease names the worker that was lost, and a repetition of it does not", function* (t) {
      yield* t.create("a")
      const first = yield* t.lapsedRun("a", "t1")
      assert.isUndefined(first.lostWorker)
      const { lostWorker, ...run } = yield* t.startRun("a", "t2")
      assert.strictEqual(lostWorker, "worker of t1")
      assert.deepStrictEqual(yield* t.start("a", "t2"), run)
      yield* t.settleRun("a", "t2", retry())
      const third = yield* t.startRun("a", "t3")
      assert.strictEqual(third.crashes, 1)
      assert.isUndefined(third.lostWorker)
    })

    test("a start that opens a newer generation over a lapsed lease counts no crash, and names no worker", function* (t) {
      yield* t.create("a")
      yield* t.lapsedRun("a", "t1")
      const started = yield* t.startRun("a", "t2", { generation: 1 })
      assert.strictEqual(started.crashes, 0)
      assert.isUndefined(started.lostWorker)
    })

    test("a task whose crashes reach the limit ends, with the dead letter of the lost run", function* (t) {
      yield* t.create("a")
      yield* t.lapsedRun("a", "t1", { maxCrashes: 2 })
      yield* t.lapsedRun("a", "t2", { maxCrashes: 2 })
      const last = yield* t.start("a", "t3", { maxCrashes: 2, queue: "slow", body: "the body" })
      assert.deepStrictEqual(last, {
        _tag: "Drop",
        ended: { reason: "WorkerLost", attempt: 2, crashes: 2, worker: "worker of t2" }
      })
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

    test("one start says that it ended the task, and none that is repeated or comes later", function* (t) {
      yield* t.create("a")
      yield* t.lapsedRun("a", "t1", { maxCrashes: 1 })
      const startBoth = t.driver.start([
        t.requestStart("a", "t2", { maxCrashes: 1 }),
        t.requestStart("a", "t3", { maxCrashes: 1 })
      ])
      const [first, ...later] = [...(yield* startBoth), ...(yield* startBoth)]
      assert(first?._tag === "Drop")
      assert.strictEqual(first.ended?.reason, "WorkerLost")
      assert.deepStrictEqual(
        later,
        later.map(() => ({ _tag: "Drop" }))
      )
    })

    test("one of many concurrent starts says that it ended the task", function* (t) {
      yield* t.create("a")
      yield* t.lapsedRun("a", "t0", { maxCrashes: 1 })
      const started = yield* Effect.forEach(
        Array.from({ length: 20 }, (_, n) => `t${n + 1}`),
        (token) => t.start("a", token, { maxCrashes: 1 }),
        { concurrency: "unbounded" }
      )
      const saying = started.filter((one) => one._tag === "Drop" && one.ended !== undefined)
      assert.strictEqual(saying.length, 1)
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
        Effect.map(t.start("a", "t2"), (started) =>
          assert.deepStrictEqual(started, {
            _tag: "Drop",
            ended: { reason: "Cancelled", attempt: 1, crashes: 0, worker: "worker of t1" }
          })
        ),
      "a read": () => Effect.void,
      "the sweep": (t) =>
        Effect.map(t.driver.sweep(100), (swept) => assert.deepStrictEqual(swept, { handled: 1, lost: [] }))
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
