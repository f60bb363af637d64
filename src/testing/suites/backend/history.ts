/** `readHistory`: the failures of attempts that were retried. A driver may leave it out. */
import { assert, describe, type TestContext } from "@effect/vitest"
import type { Effect, Scope } from "effect"
import { maxHistorySize } from "../../../internal/defaults.ts"
import * as Suite from "../Suite.ts"
import {
  failureWithDeadLetter,
  type Fixture,
  record,
  RELEASE,
  retry,
  startRequest,
  success,
  type Test
} from "./fixture.ts"

/** Makes the text of a failure, of that many characters. */
const failureOf = (what: string, size = what.length + 3): string =>
  `${what} ${"x".repeat(size - what.length - 2)}\n`

const retryAfter = (failure: string, afterMillis = 0) => ({ ...retry(afterMillis), failure }) as const

/** Registers the tests. */
export const history = (test: Test): void => {
  /** A test that is skipped for a driver without `readHistory`. */
  const historyTest = (
    title: string,
    body: (
      t: Fixture,
      read: (id: string) => Effect.Effect<string | undefined, unknown>
    ) => Effect.fn.Return<void, unknown, Scope.Scope>
  ) =>
    test(title, function* (t, context: TestContext) {
      const { readHistory } = t.driver
      if (readHistory === undefined) return yield* Suite.skip(context, "the driver keeps no histories")
      yield* body(t, (id) => Suite.only(readHistory([id])))
    })

  describe("history", () => {
    historyTest("of a task that was not retried is none", function* (t, read) {
      assert.isUndefined(yield* read("a"))
      yield* t.create("a")
      assert.isUndefined(yield* read("a"))
      yield* t.startAndSettle("a", "t1", RELEASE)
      assert.isUndefined(yield* read("a"))
      yield* t.startAndSettle("a", "t2", success())
      assert.isUndefined(yield* read("a"))
    })

    historyTest("has the failure of every retry, in order", function* (t, read) {
      yield* t.create("a")
      yield* t.startAndSettle("a", "t1", retryAfter("first\n"))
      assert.strictEqual(yield* read("a"), "first\n")
      yield* t.startAndSettle("a", "t2", RELEASE)
      yield* t.startAndSettle("a", "t3", retryAfter("second\n"))
      // of a worker that says nothing
      yield* t.startAndSettle("a", "t4", retry())
      yield* t.startRun("a", "t5")
      assert.strictEqual(yield* read("a"), "first\nsecond\n")
    })

    historyTest("stays after the end", function* (t, read) {
      for (const [id, outcome] of [
        ["a", success()],
        ["b", failureWithDeadLetter()]
      ] as const) {
        yield* t.create(id)
        yield* t.startAndSettle(id, "t1", retryAfter("first\n"))
        yield* t.startAndSettle(id, "t2", outcome)
        assert.strictEqual(yield* read(id), "first\n")
      }
    })

    historyTest("keeps its last characters", function* (t, read) {
      yield* t.create("a")
      let all = ""
      for (let n = 1; n <= 40; n++) {
        const failure = failureOf(`attempt ${n}`, 1000)
        all += failure
        yield* t.startAndSettle("a", `t${n}`, retryAfter(failure))
        assert.strictEqual(yield* read("a"), all.slice(-maxHistorySize))
      }
    })

    historyTest("keeps any ASCII text", function* (t, read) {
      const failure = `{"message":"\\u0000 'single' \\"double\\" \\\\ -- $1 ? %s","stack":"    at f (C:\\\\a.js:1:2)\\n"}\n`
      yield* t.create("a")
      yield* t.startAndSettle("a", "t1", retryAfter(failure))
      yield* t.startAndSettle("a", "t2", retryAfter(failure))
      assert.strictEqual(yield* read("a"), failure + failure)
    })

    historyTest("has a failure once whose settlement is repeated", function* (t, read) {
      yield* t.create("a")
      yield* t.startAndSettle("a", "t1", retryAfter("first\n"))
      yield* t.settleRun("a", "t1", retryAfter("first\n"))
      assert.strictEqual(yield* read("a"), "first\n")
    })

    historyTest(
      "has no failure of a run that was superseded, or whose task was cancelled",
      function* (t, read) {
        yield* t.create("a")
        yield* t.startAndSettle("a", "t1", retryAfter("first\n"))
        yield* t.lapsedRun("a", "t2")
        yield* t.startRun("a", "t3")
        assert.strictEqual(yield* t.settle("a", "t2", retryAfter("superseded\n")), "Lost")
        yield* t.cancel("a")
        assert.strictEqual(yield* t.settle("a", "t3", retryAfter("cancelled\n")), "Cancelled")
        assert.strictEqual(yield* read("a"), "first\n")
      }
    )

    historyTest("of a task that a replay opens is none", function* (t, read) {
      yield* t.create("a")
      yield* t.startAndSettle("a", "t1", retryAfter("first\n"))
      yield* t.startAndSettle("a", "t2", failureWithDeadLetter())
      yield* t.reopen("a:0")
      assert.isUndefined(yield* read("a"))
      yield* t.startAndSettle("a", "t3", retryAfter("of the replay\n"), { generation: 1 })
      assert.strictEqual(yield* read("a"), "of the replay\n")
    })

    historyTest("of a task that a message of a newer generation opens is none", function* (t, read) {
      yield* t.create("a")
      yield* t.startAndSettle("a", "t1", retryAfter("first\n"))
      yield* t.startRun("a", "t2", { generation: 1 })
      assert.isUndefined(yield* read("a"))
      yield* t.settleRun("a", "t2", retryAfter("of the newer one\n"))
      assert.strictEqual(yield* read("a"), "of the newer one\n")
    })

    historyTest("goes with the record", function* (t, read) {
      const forget = (id: string) => t.driver.forget([id])
      yield* t.create("forgotten")
      yield* t.startAndSettle("forgotten", "t1", retryAfter("first\n"))
      yield* t.startAndSettle("forgotten", "t2", success())
      yield* forget("forgotten")
      yield* t.create("outlived")
      yield* t.startAndSettle("outlived", "t1", retryAfter("first\n"))
      yield* t.startAndSettle("outlived", "t2", success(undefined, t.time.units(1)))
      yield* t.create("cancelled", { retentionMillis: t.time.units(1) })
      yield* t.startAndSettle("cancelled", "t1", retryAfter("first\n"), { retentionMillis: t.time.units(1) })
      yield* t.cancel("cancelled")
      yield* t.time.pass(2)
      for (const id of ["forgotten", "outlived", "cancelled"]) {
        assert.isUndefined(yield* read(id))
        yield* t.create(id)
        yield* t.startAndSettle(id, "t3", retryAfter("of a later task\n"))
        assert.strictEqual(yield* read(id), "of a later task\n")
      }
    })

    historyTest("answers a batch in order", function* (t) {
      yield* t.driver.create([record("a"), record("b"), record("c")])
      const leaseMillis = t.time.long
      yield* t.driver.start([
        startRequest("a", "t1", { leaseMillis }),
        startRequest("b", "t1", { leaseMillis }),
        startRequest("c", "t1", { leaseMillis })
      ])
      yield* t.driver.settle([
        { id: "a", token: "t1", outcome: retryAfter("of a\n") },
        { id: "b", token: "t1", outcome: RELEASE },
        { id: "c", token: "t1", outcome: retryAfter("of c\n") }
      ])
      assert.deepStrictEqual(yield* t.driver.readHistory!(["c", "missing", "b", "a", "c"]), [
        "of c\n",
        undefined,
        undefined,
        "of a\n",
        "of c\n"
      ])
    })
  })
}
