/** `cancel`: requests, and what they do to waiting, running and final tasks. */
import { assert, describe } from "@effect/vitest"
import { record, success, failure, retry, RELEASE, type Test } from "./fixture.ts"

/** Registers the tests. */
export const cancel = (test: Test): void => {
  describe("cancel", () => {
    test("ends a waiting task at once", function* (t) {
      yield* t.create("a")
      assert.strictEqual(yield* t.cancel("a"), "Cancelled")
      yield* t.expectEndedByStore("a", "Cancelled")
      assert.strictEqual((yield* t.start("a", "t1"))._tag, "Drop")
      assert.strictEqual(yield* t.driver.countDeadLetters(undefined), 0)
    })

    test("ends a task that waits for its retry at once", function* (t) {
      yield* t.create("a")
      yield* t.startAndSettle("a", "t1", retry(t.time.long))
      assert.strictEqual(yield* t.cancel("a"), "Cancelled")
      const found = yield* t.expectEndedByStore("a", "Cancelled")
      assert.deepStrictEqual([found.attempt, found.retries], [1, 1])
    })

    test("marks a running task with a cancel request", function* (t) {
      yield* t.create("a")
      yield* t.startRun("a", "t1")
      assert.isFalse((yield* t.read("a")).cancelRequested)
      assert.strictEqual(yield* t.cancel("a"), "Requested")
      const found = yield* t.read("a")
      assert.deepStrictEqual([found.state, found.cancelRequested, found.ended], ["STARTED", true, null])
    })

    test("marks a run whose lease has lapsed with a cancel request", function* (t) {
      yield* t.create("a")
      yield* t.lapsedRun("a", "t1")
      assert.strictEqual(yield* t.cancel("a"), "Requested")
      assert.strictEqual(yield* t.renew("a", "t1"), "CancelRequested")
    })

    test("changes no final record", function* (t) {
      yield* t.create("a")
      yield* t.startAndSettle("a", "t1", success())
      const before = yield* t.read("a")
      assert.strictEqual(yield* t.cancel("a"), "AlreadyDone")
      assert.deepStrictEqual(yield* t.read("a"), before)
    })

    test("returns Unknown for an id that was never enqueued", function* (t) {
      assert.strictEqual(yield* t.cancel("a"), "Unknown")
      assert.isUndefined(yield* t.readOptional("a"))
    })

    test("is safe to repeat", function* (t) {
      yield* t.driver.create([record("a"), record("b")])
      yield* t.startRun("b", "t1")
      assert.deepStrictEqual(yield* t.driver.cancel(["a", "b"]), ["Cancelled", "Requested"])
      const before = yield* t.driver.read(["a", "b"])
      yield* t.time.pass(1)
      yield* t.driver.cancel(["a", "b"])
      assert.deepStrictEqual(yield* t.driver.read(["a", "b"]), before)
    })

    test("answers a batch in order, and applies repeated ids in order", function* (t) {
      yield* t.driver.create([record("a"), record("b"), record("c")])
      yield* t.startRun("b", "t1")
      yield* t.startAndSettle("c", "t1", success())
      assert.deepStrictEqual(yield* t.driver.cancel(["missing", "c", "b", "a", "a"]), [
        "Unknown",
        "AlreadyDone",
        "Requested",
        "Cancelled",
        "AlreadyDone"
      ])
    })

    test("a run that settles under a cancel request keeps its outcome", function* (t) {
      yield* t.driver.create([record("a"), record("b")])
      for (const id of ["a", "b"]) {
        yield* t.startRun(id, "t1")
        yield* t.cancel(id)
      }
      yield* t.settleRun("a", "t1", success("done"))
      yield* t.settleRun("b", "t1", failure("failed"))
      const [a, b] = yield* t.driver.read(["a", "b"])
      assert.deepStrictEqual([a?.state, a?.exit, a?.ended], ["SUCCESS", "done", null])
      assert.deepStrictEqual([b?.state, b?.exit, b?.ended], ["FAILURE", "failed", null])
    })

    for (const [what, outcome] of [
      ["retry", retry()],
      ["release", RELEASE]
    ] as const) {
      test(`a ${what} under a cancel request ends the task as cancelled`, function* (t) {
        yield* t.create("a")
        yield* t.startRun("a", "t1")
        yield* t.cancel("a")
        assert.strictEqual(yield* t.settle("a", "t1", outcome), "Cancelled")
        const before = yield* t.expectEndedByStore("a", "Cancelled")
        assert.strictEqual(yield* t.settle("a", "t1", outcome), "Cancelled")
        assert.deepStrictEqual(yield* t.read("a"), before)
        assert.strictEqual((yield* t.start("a", "t2"))._tag, "Drop")
        assert.strictEqual(yield* t.driver.countDeadLetters(undefined), 0)
      })
    }
  })
}
