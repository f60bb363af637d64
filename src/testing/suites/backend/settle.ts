/** `settle`: outcomes of runs, stored once and fenced. */
import { assert, describe } from "@effect/vitest"
import { Array as Arr, Effect } from "effect"
import type { Settled, Settlement } from "../../../BackendDriver.ts"
import type { Batch } from "../../../BrokerDriver.ts"
import { record, success, failure, failureWithDeadLetter, retry, RELEASE, type Test } from "./fixture.ts"

/** Registers the tests. */
export const settle = (test: Test): void => {
  describe("settle", () => {
    test("stores a success", function* (t) {
      yield* t.create("a")
      yield* t.startAndSettle("a", "t1", success(`{"value":42}`))
      const found = yield* t.read("a")
      assert.deepStrictEqual(
        [found.state, found.exit, found.ended, found.worker, found.attempt],
        ["SUCCESS", `{"value":42}`, null, "worker of t1", 1]
      )
      assert(found.enqueuedAt !== null && found.startedAt !== null && found.finishedAt !== null)
      assert.isTrue(found.enqueuedAt <= found.startedAt && found.startedAt <= found.finishedAt)
    })

    test("stores a failure", function* (t) {
      yield* t.create("a")
      yield* t.startAndSettle("a", "t1", failure(`{"error":"no"}`))
      const found = yield* t.read("a")
      assert.deepStrictEqual([found.state, found.exit, found.ended], ["FAILURE", `{"error":"no"}`, null])
      assert.isNumber(found.finishedAt)
      assert.strictEqual(yield* t.driver.countDeadLetters(undefined), 0)
    })

    test("stores a failure with its dead letter", function* (t) {
      yield* t.create("a")
      yield* t.startAndSettle("a", "t1", retry())
      yield* t.startAndSettle(
        "a",
        "t2",
        failureWithDeadLetter("Died", undefined, undefined, { queue: "slow", body: "the body" })
      )
      assert.strictEqual((yield* t.read("a")).exit, `{"failure":"Died"}`)
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
        reason: "Died",
        exit: `{"failure":"Died"}`,
        worker: "worker of t2",
        body: "the body",
        attempts: 2
      })
    })

    test("puts a retry back, and counts it", function* (t) {
      yield* t.create("a")
      yield* t.startAndSettle("a", "t1", retry())
      const found = yield* t.read("a")
      assert.deepStrictEqual(
        [found.state, found.attempt, found.retries, found.crashes, found.exit],
        ["RETRY", 1, 1, 0, null]
      )
      assert.isNull(found.finishedAt)
      const started = yield* t.startRun("a", "t2")
      assert.deepStrictEqual([started.attempt, started.retries], [2, 1])
    })

    test("puts a released run back, and counts nothing", function* (t) {
      yield* t.create("a")
      yield* t.startAndSettle("a", "t1", RELEASE)
      const found = yield* t.read("a")
      assert.deepStrictEqual([found.state, found.attempt, found.retries, found.crashes], ["PENDING", 0, 0, 0])
      const started = yield* t.startRun("a", "t2")
      assert.deepStrictEqual([started.attempt, started.retries, started.crashes], [1, 0, 0])
    })

    test("puts a released retry back as a retry that is due at once", function* (t) {
      yield* t.create("a")
      yield* t.startAndSettle("a", "t1", retry(t.time.units(1)))
      yield* t.time.pass(2)
      yield* t.startAndSettle("a", "t2", RELEASE)
      const found = yield* t.read("a")
      assert.deepStrictEqual([found.state, found.attempt, found.retries], ["RETRY", 1, 1])
      assert.strictEqual((yield* t.startRun("a", "t3")).attempt, 2)
    })

    test("keeps the crashes of a released run", function* (t) {
      yield* t.create("a")
      yield* t.lapsedRun("a", "t1")
      yield* t.startAndSettle("a", "t2", RELEASE)
      const found = yield* t.read("a")
      assert.deepStrictEqual([found.state, found.attempt, found.crashes], ["PENDING", 1, 1])
    })

    for (const [what, outcome] of [
      ["success", success()],
      ["failure", failureWithDeadLetter()],
      ["retry", retry()],
      ["release", RELEASE]
    ] as const) {
      test(`a repeated ${what} is stored once`, function* (t) {
        yield* t.create("a")
        yield* t.startAndSettle("a", "t1", outcome)
        const before = yield* t.read("a")
        yield* t.time.pass(1)
        assert.strictEqual(yield* t.settle("a", "t1", outcome), "Stored")
        assert.deepStrictEqual(yield* t.read("a"), before)
        assert.strictEqual(yield* t.driver.countDeadLetters(undefined), what === "failure" ? 1 : 0)
      })

      test(`a ${what} of a run that was taken over writes nothing`, function* (t) {
        yield* t.create("a")
        yield* t.lapsedRun("a", "t1")
        yield* t.startRun("a", "t2")
        const before = yield* t.read("a")
        assert.strictEqual(yield* t.settle("a", "t1", outcome), "Lost")
        assert.deepStrictEqual(yield* t.read("a"), before)
        assert.strictEqual(yield* t.driver.countDeadLetters(undefined), 0)
        yield* t.settleRun("a", "t2", success())
      })

      test(`a ${what} never changes a final record`, function* (t) {
        yield* t.driver.create([record("a"), record("b")])
        yield* t.startAndSettle("a", "t1", success("first"))
        yield* t.startAndSettle("b", "t1", failure("first"))
        for (const id of ["a", "b"]) {
          const before = yield* t.read(id)
          assert.strictEqual(yield* t.settle(id, "t2", outcome), "Lost")
          yield* t.settle(id, "t1", outcome)
          assert.deepStrictEqual(yield* t.read(id), before)
        }
        assert.strictEqual(yield* t.driver.countDeadLetters(undefined), 0)
      })

      test(`a ${what} of an unknown task writes nothing`, function* (t) {
        assert.strictEqual(yield* t.settle("a", "t1", outcome), "Lost")
        assert.isUndefined(yield* t.readOptional("a"))
        assert.strictEqual(yield* t.driver.countDeadLetters(undefined), 0)
      })

      test(`a ${what} of a lapsed run that was not taken over is stored`, function* (t) {
        yield* t.create("a")
        yield* t.lapsedRun("a", "t1")
        yield* t.settleRun("a", "t1", outcome)
        assert.notStrictEqual((yield* t.read("a")).state, "STARTED")
      })
    }

    test("a settlement that is repeated after the next start returns Lost", function* (t) {
      yield* t.create("a")
      yield* t.startAndSettle("a", "t1", retry())
      yield* t.startRun("a", "t2")
      const before = yield* t.read("a")
      assert.strictEqual(yield* t.settle("a", "t1", retry()), "Lost")
      assert.deepStrictEqual(yield* t.read("a"), before)
    })

    test("a run that was put back can settle nothing more", function* (t) {
      yield* t.driver.create([record("a"), record("b")])
      yield* t.startAndSettle("a", "t1", retry())
      yield* t.startAndSettle("b", "t1", RELEASE)
      for (const id of ["a", "b"]) {
        assert.strictEqual(yield* t.settle(id, "t1", success()), "Lost")
        assert.isNull((yield* t.read(id)).finishedAt)
      }
    })

    test("stores one of many concurrent outcomes", function* (t) {
      const outcomes = [success("s"), failure("f"), retry(), RELEASE]
      const states = ["SUCCESS", "FAILURE", "RETRY", "PENDING"]
      for (const [round, rotated] of outcomes
        .map((_, n) => [...outcomes.slice(n), ...outcomes.slice(0, n)])
        .entries()) {
        const id = `id-${round}`
        yield* t.create(id)
        yield* t.startRun(id, "t1")
        const settled = yield* Effect.forEach(rotated, (outcome) => t.settle(id, "t1", outcome), {
          concurrency: "unbounded"
        })
        assert.strictEqual(settled.filter((answer) => answer === "Stored").length, 1)
        const winner = rotated[settled.indexOf("Stored")]
        const expected = states[outcomes.findIndex((outcome) => outcome === winner)]
        assert.strictEqual((yield* t.read(id)).state, expected)
      }
    })

    test("answers a batch in order, and applies repeated ids in order", function* (t) {
      yield* t.driver.create([record("a"), record("b"), record("c")])
      yield* t.startRun("a", "t1")
      yield* t.startRun("b", "t1")
      const batch: Batch<Settlement> = [
        { id: "missing", token: "t1", outcome: success() },
        { id: "a", token: "t1", outcome: retry() },
        { id: "b", token: "t1", outcome: success() },
        { id: "a", token: "t1", outcome: success() },
        { id: "b", token: "t1", outcome: success() },
        { id: "c", token: "t1", outcome: success() }
      ]
      const expected: Array<Settled> = ["Lost", "Stored", "Stored", "Lost", "Stored", "Lost"]
      assert.deepStrictEqual(yield* t.driver.settle(batch), expected)
      const states = Effect.map(
        t.driver.read(["a", "b", "c"]),
        Arr.map((found) => found?.state)
      )
      assert.deepStrictEqual(yield* states, ["RETRY", "SUCCESS", "PENDING"])
    })
  })
}
