/** Failures: what a handler failed with is found where its task is read. */
import { assert, describe } from "@effect/vitest"
import { Cause, Data, Effect, Exit, Schema } from "effect"
import * as DeadLetters from "../../../DeadLetters.ts"
import * as RetryPolicy from "../../../RetryPolicy.ts"
import * as Task from "../../../Task.ts"
import { TaskContext } from "../../../TaskContext.ts"
import type { Test } from "./fixture.ts"

class Declined extends Schema.TaggedError<Declined>("chicory/testing/failures/Declined")("Declined", {
  amount: Schema.Int,
  cause: Schema.optionalKey(Schema.Defect())
}) {}
class Unknown extends Data.TaggedError("Unknown")<{ readonly message: string }> {}

class NoWords extends Schema.TaggedError<NoWords>("chicory/testing/failures/NoWords")("NoWords", {}) {
  override get message(): string {
    throw new Error("no words")
  }
}
const Wordless = Task.make("wordless", { error: NoWords })

const Charge = Task.make("charge", { payload: Schema.Int, error: Declined })
const Discarding = Task.make("discarding", {
  payload: Schema.Int,
  error: Declined,
  retry: {
    ...RetryPolicy.fixed({ maxRetries: 3, delay: "10 millis" }),
    byTag: { Declined: ({ amount }) => (amount > 1 ? "discard" : "10 millis") }
  }
})
const Buggy = Task.make("buggy", { payload: Schema.Int })

const chargeCard = (): never => {
  throw new TypeError("no card", { cause: readCard() })
}
const readCard = (): Error => new RangeError("no row")
const decline = (): Declined => new Declined({ amount: 3, cause: readCard() })
const failOutside = (): Declined => new Unknown({ message: "insufficient funds" }) as never

/** Checks that a text names each place in turn, and nothing of the decoder. */
const assertShows = (text: string, ...places: ReadonlyArray<string>) => {
  let from = 0
  for (const place of places) {
    const at = text.indexOf(place, from)
    assert.isAtLeast(at, 0, `${place} in ${text}`)
    from = at
  }
  assert.notMatch(text, /decodeRecord|decodeDefect|decodeJsonError|decodeExit|SchemaParser/)
}

/** Registers the tests. */
export const failures = (test: Test): void => {
  describe("failures", () => {
    test("a defect keeps its message, its stack in the handler and its causes", function* (t) {
      yield* t.startWorker(
        [Buggy],
        Buggy.toLayer(() => Effect.sync(chargeCard))
      )
      const failed = yield* t.awaitFailure(yield* Buggy.delay(1))
      assert.notInclude(failed.message, "no card")
      const shown = ["TypeError: no card", "at chargeCard", "RangeError: no row", "at readCard"]
      assertShows(Cause.pretty(Cause.fail(failed)), "the handler died: TypeError", ...shown)
      for (const [letter] of [yield* DeadLetters.list(Buggy), yield* DeadLetters.list()]) {
        assert(letter?.reason._tag === "Died")
        assertShows(Cause.pretty(Cause.die(letter.reason.defect)), ...shown)
        assertShows(letter.reason.stack ?? "", "at chargeCard")
      }
    })

    test("a typed error keeps its stack in the handler, and that of its cause", function* (t) {
      yield* t.startWorker(
        [Charge],
        Charge.toLayer(() => Effect.fail(decline()))
      )
      const failed = yield* t.awaitFailure(yield* Charge.delay(1))
      assertShows(
        Cause.pretty(Cause.fail(failed)),
        "the handler failed with Declined",
        "[cause]: chicory/testing/failures/Declined",
        "at decline",
        "RangeError: no row",
        "at readCard"
      )
      const [letter] = yield* DeadLetters.list(Charge)
      assert(letter?.reason._tag === "Failed")
      assert.instanceOf(letter.reason.error, Declined)
      assert.strictEqual(letter.reason.error.amount, 3)
      assertShows(letter.reason.error.stack ?? "", "at decline")
      const [untyped] = yield* DeadLetters.list()
      assertShows(untyped?.reason.stack ?? "", "at decline")
    })

    test("an error whose message throws reaches its reader", function* (t) {
      yield* t.startWorker(
        [Wordless],
        Wordless.toLayer(() => Effect.fail(new NoWords({})))
      )
      const { error } = yield* t.awaitReason(yield* Wordless.delay(), "Failed")
      assert.instanceOf(error, NoWords)
    })

    test("an error that the task's schema does not know ends the task as ResultInvalid, and is kept", function* (t) {
      yield* t.startWorker(
        [Charge],
        Charge.toLayer(() => Effect.fail(failOutside()))
      )
      const handle = yield* Charge.delay(1)
      const failed = yield* t.awaitFailure(handle)
      assert(failed.reason._tag === "ResultInvalid")
      assert.strictEqual(failed.reason.side, "worker")
      assert.include(failed.reason.issue, "the error is Unknown: Expected ")
      assert.notInclude(failed.message, "insufficient funds")
      assertShows(Cause.pretty(Cause.fail(failed)), "Unknown: insufficient funds", "at failOutside")
      const [letter] = yield* DeadLetters.list(Charge)
      assert(letter?.reason._tag === "ResultInvalid")
      assertShows(
        Cause.pretty(Cause.die(letter.reason.cause)),
        "Unknown: insufficient funds",
        "at failOutside"
      )
    })

    test("a defect that is no error stays readable", function* (t) {
      const defects: ReadonlyArray<readonly [defect: unknown, kept: unknown, shown: string]> = [
        [{ field: "email" }, { field: "email" }, `{"field":"email"}`],
        ["no card", "no card", "no card"],
        [undefined, "undefined", "undefined"],
        [7n, "7n", "7n"]
      ]
      yield* t.startWorker(
        [Buggy],
        Buggy.toLayer((index) => Effect.die(defects[index]![0]))
      )
      for (const [index, [, kept, shown]] of defects.entries()) {
        const failed = yield* t.awaitFailure(yield* Buggy.delay(index))
        assert(failed.reason._tag === "Died")
        assert.deepStrictEqual(failed.reason.defect, kept)
        assert.include(Cause.pretty(Cause.fail(failed)), shown)
        assert.notInclude(Exit.fail(failed).toString(), "[object Object]")
      }
    })

    test("an error whose rule is discard ends its task at once, and leaves no dead letter", function* (t) {
      let runs = 0
      yield* t.startWorker(
        [Discarding],
        Discarding.toLayer((amount) => Effect.fail(new Declined({ amount: amount + runs++ })))
      )
      // retried once, then discarded by the function
      const twice = yield* t.awaitReason(yield* Discarding.delay(1), "Failed")
      assert.deepStrictEqual([twice.error.amount, twice.retriesExhausted, runs], [2, false, 2])
      assert.strictEqual(yield* DeadLetters.count(), 0)
      yield* t.untilDrained()
    })

    test("a rule of discard holds for a task without retries", function* (t) {
      const Once = Task.make("once", {
        error: Declined,
        retry: { ...RetryPolicy.never, while: () => false, byTag: { Declined: "discard" } }
      })
      yield* t.startWorker(
        [Once],
        Once.toLayer(() => Effect.fail(decline()))
      )
      const handle = yield* Once.delay()
      assert.strictEqual((yield* t.awaitReason(handle, "Failed")).error.amount, 3)
      assert.strictEqual((yield* t.read(handle.taskId)).state, "FAILURE")
      assert.strictEqual(yield* DeadLetters.count(), 0)
    })

    test("a task with deadLetter discard leaves none for its errors, and one for its other failures", function* (t) {
      const Ping = Task.make("ping", {
        payload: Schema.String,
        error: Declined,
        deadLetter: "discard",
        timeout: t.duration(0.5)
      })
      const handlers: { readonly [how: string]: Effect.Effect<void, Declined, TaskContext> } = {
        fails: Effect.suspend(() => Effect.fail(decline())),
        asks: TaskContext.use(({ retry }) => retry()),
        dies: Effect.die("a bug"),
        hangs: Effect.never,
        outside: Effect.suspend(() => Effect.fail(failOutside()))
      }
      yield* t.startWorker(
        [Ping],
        Ping.toLayer((how) => handlers[how]!)
      )
      for (const [how, reason, letters] of [
        ["fails", "Failed", 0],
        ["asks", "RetriesExhausted", 0],
        ["dies", "Died", 1],
        ["hangs", "TimedOut", 2],
        ["outside", "ResultInvalid", 3]
      ] as const) {
        yield* t.awaitReason(yield* Ping.delay(how), reason)
        assert.strictEqual(yield* DeadLetters.count(Ping), letters, how)
      }
    })

    test("a defect that is too large keeps its message and its stack as far as they fit", function* (t) {
      const throwLarge = (): never => {
        throw new Error(`large ${"x".repeat(5_000_000)}`)
      }
      yield* t.startWorker(
        [Buggy],
        Buggy.toLayer(() => Effect.sync(throwLarge))
      )
      const { defect } = yield* t.awaitReason(yield* Buggy.delay(1), "Died")
      assert.instanceOf(defect, Error)
      assert.isTrue(defect.message.startsWith("large x"))
      assert.isAtMost(defect.message.length, 8 * 1024)
      assertShows(defect.stack?.slice(defect.message.length) ?? "", "at throwLarge")
    })
  })
}
