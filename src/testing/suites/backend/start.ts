/** `start`: the atomic decision to run, drop or put back. */
import { assert, describe } from "@effect/vitest"
import { Array as Arr, Effect } from "effect"
import { record, success, failure, retry, RELEASE, type Test } from "./fixture.ts"

/** Registers the tests. */
export const start = (test: Test): void => {
  describe("start", () => {
    test("runs a waiting task", function* (t) {
      yield* t.create("a")
      const started = yield* t.startRun("a", "t1")
      assert.isTrue(Number.isSafeInteger(started.fence))
      assert.deepStrictEqual([started.attempt, started.retries, started.crashes], [1, 0, 0])
      const found = yield* t.read("a")
      assert.strictEqual(found.state, "STARTED")
      assert.strictEqual(found.attempt, 1)
      assert.strictEqual(found.worker, "worker of t1")
      assert.isNumber(found.startedAt)
      assert.isNull(found.finishedAt)
    })

    test("is not before the enqueue, although the clock was set back", function* (t) {
      yield* t.time.pass(5)
      yield* t.create("a")
      // a store with a clock of its own does not notice
      yield* t.time.pass(-3)
      yield* t.startRun("a", "t1")
      const { enqueuedAt, startedAt } = yield* t.read("a")
      assert.isAtLeast(startedAt ?? 0, enqueuedAt)
    })

    test("creates no record where there is none", function* (t) {
      assert.strictEqual((yield* t.start("a", "t1"))._tag, "NoRecord")
      assert.isUndefined(yield* t.readOptional("a"))
    })

    test("starts no task of another name, whose record has the id", function* (t) {
      yield* t.create("a")
      const before = yield* t.read("a")
      assert.deepStrictEqual(yield* t.start("a", "t1", { task: "other" }), { _tag: "Drop" })
      assert.deepStrictEqual(yield* t.read("a"), before)
    })

    test("repeated with the token of the open run, returns that run again", function* (t) {
      yield* t.create("a")
      const first = yield* t.startRun("a", "t1")
      assert.deepStrictEqual(yield* t.start("a", "t1"), first)
      assert.strictEqual((yield* t.read("a")).attempt, 1)
    })

    test("repeated with the token of the open run, renews its lease", function* (t) {
      yield* t.create("a")
      yield* t.lapsedRun("a", "t1")
      yield* t.startRun("a", "t1")
      assert.strictEqual((yield* t.start("a", "t2"))._tag, "Busy")
      assert.strictEqual((yield* t.read("a")).crashes, 0)
    })

    test("returns Busy under a live lease", function* (t) {
      yield* t.create("a")
      yield* t.startRun("a", "t1")
      const started = yield* t.start("a", "t2")
      assert(started._tag === "Busy")
      assert.isAbove(started.millis, t.time.long / 2)
      assert.isAtMost(started.millis, t.time.long)
      assert.strictEqual((yield* t.read("a")).attempt, 1)
    })

    test("returns Busy before a retry is due", function* (t) {
      yield* t.create("a")
      yield* t.startAndSettle("a", "t1", retry(t.time.long))
      const started = yield* t.start("a", "t2")
      assert(started._tag === "Busy")
      assert.isAbove(started.millis, t.time.long / 2)
      assert.isAtMost(started.millis, t.time.long)
      assert.strictEqual((yield* t.read("a")).state, "RETRY")
    })

    test("runs a retry that is due", function* (t) {
      yield* t.create("a")
      yield* t.startAndSettle("a", "t1", retry(t.time.units(1)))
      yield* t.time.pass(2)
      const started = yield* t.startRun("a", "t2")
      assert.deepStrictEqual([started.attempt, started.retries, started.crashes], [2, 1, 0])
    })

    test("drops a message whose record is final", function* (t) {
      yield* t.driver.create([record("a"), record("b")])
      yield* t.startAndSettle("a", "t1", success())
      yield* t.startAndSettle("b", "t1", failure())
      for (const id of ["a", "b"]) {
        const before = yield* t.read(id)
        assert.deepStrictEqual(yield* t.start(id, "t2"), { _tag: "Drop" })
        assert.deepStrictEqual(yield* t.start(id, "t1"), { _tag: "Drop" })
        assert.deepStrictEqual(yield* t.read(id), before)
      }
    })

    test("opens a newer generation, and drops messages of the older one", function* (t) {
      yield* t.create("a")
      yield* t.startAndSettle("a", "t1", retry())
      const started = yield* t.startRun("a", "t2", { generation: 1 })
      assert.deepStrictEqual([started.attempt, started.retries, started.crashes], [1, 0, 0])
      assert.strictEqual((yield* t.read("a")).generation, 1)
      assert.strictEqual((yield* t.start("a", "t3", { generation: 0 }))._tag, "Drop")
    })

    test("raises the fence by one with every run", function* (t) {
      yield* t.create("a")
      const first = yield* t.lapsedRun("a", "t1")
      const second = yield* t.startRun("a", "t2")
      yield* t.settleRun("a", "t2", retry())
      const third = yield* t.startRun("a", "t3")
      yield* t.settleRun("a", "t3", RELEASE)
      const fourth = yield* t.startRun("a", "t4")
      assert.deepStrictEqual(
        [second.fence, third.fence, fourth.fence],
        [first.fence + 1, first.fence + 2, first.fence + 3]
      )
    })

    test("keeps the time of the first start", function* (t) {
      yield* t.create("a")
      yield* t.startAndSettle("a", "t1", retry())
      const { startedAt } = yield* t.read("a")
      yield* t.time.pass(1)
      yield* t.startRun("a", "t2")
      assert.strictEqual((yield* t.read("a")).startedAt, startedAt)
    })

    test("answers a batch in order", function* (t) {
      yield* t.driver.create([record("a"), record("b")])
      yield* t.startRun("a", "t0")
      yield* t.startAndSettle("b", "t0", success())
      const started = yield* t.driver.start([
        t.requestStart("a", "t1"),
        t.requestStart("b", "t1"),
        t.requestStart("c", "t1")
      ])
      assert.deepStrictEqual(
        started.map(({ _tag }) => _tag),
        ["Busy", "Drop", "NoRecord"]
      )
    })

    test("applies repeated ids in a batch in order", function* (t) {
      yield* t.create("a")
      const started = yield* t.driver.start([
        t.requestStart("a", "t1"),
        t.requestStart("a", "t2"),
        t.requestStart("a", "t1")
      ])
      assert.deepStrictEqual(
        started.map(({ _tag }) => _tag),
        ["Run", "Busy", "Run"]
      )
      assert.strictEqual((yield* t.read("a")).worker, "worker of t1")
    })

    test("gives a task to one of many concurrent callers", function* (t) {
      yield* t.create("a")
      const started = yield* Effect.forEach(Arr.range(1, 50), (n) => t.start("a", `t${n}`), {
        concurrency: "unbounded"
      })
      assert.strictEqual(started.filter(({ _tag }) => _tag === "Run").length, 1)
      assert.strictEqual(started.filter(({ _tag }) => _tag === "Busy").length, 49)
    })

    test("gives a lapsed run to one of many concurrent callers", function* (t) {
      yield* t.create("a")
      yield* t.lapsedRun("a", "t0")
      const started = yield* Effect.forEach(Arr.range(1, 20), (n) => t.start("a", `t${n}`), {
        concurrency: "unbounded"
      })
      assert.strictEqual(started.filter(({ _tag }) => _tag === "Run").length, 1)
      assert.strictEqual((yield* t.read("a")).crashes, 1)
    })
  })
}
