/** What `AsyncResult.poll` and `changes` show of a task that waits: why its attempts failed, and when the next one is due. */
import { assert, describe } from "@effect/vitest"
import { Effect, Option, type Scope, Schema, Stream } from "effect"
import * as AsyncResult from "../../../AsyncResult.ts"
import type { Backend } from "../../../Backend.ts"
import type { Broker } from "../../../Broker.ts"
import * as DeadLetters from "../../../DeadLetters.ts"
import * as RetryPolicy from "../../../RetryPolicy.ts"
import * as Task from "../../../Task.ts"
import { TaskContext } from "../../../TaskContext.ts"
import * as Suite from "../Suite.ts"
import type { Fixture, Test } from "./fixture.ts"

class RateLimited extends Schema.TaggedError<RateLimited>("chicory/testing/HistoryRateLimited")(
  "RateLimited",
  { message: Schema.String }
) {}

const soon = RetryPolicy.fixed({ maxRetries: 10, delay: "10 millis" })

const poll = <A, E, R, P>(handle: AsyncResult.AsyncResult<A, E, R, P>) =>
  Effect.map(AsyncResult.poll(handle), Option.getOrThrow)

/** Registers the tests. */
export const history = (test: Test): void => {
  /** A test that is skipped for a driver that keeps no histories. */
  const historyTest = (
    title: string,
    body: (t: Fixture) => Effect.fn.Return<void, unknown, Scope.Scope | Backend | Broker>
  ) =>
    test(title, function* (t, context) {
      if (t.drivers.backend.readHistory === undefined) {
        return yield* Suite.skip(context, "the driver keeps no histories")
      }
      yield* body(t)
    })

  describe("history", () => {
    historyTest("has the reason and the error of each attempt that was retried", function* (t) {
      const Unlucky = Task.make("unlucky", {
        success: Schema.Int,
        error: RateLimited,
        retry: soon,
        retryDefects: true,
        timeout: t.duration(2)
      })
      const worker = yield* t.startWorker(
        [Unlucky],
        Unlucky.toLayer(() =>
          Effect.gen(function* () {
            const { attempt, retry } = yield* TaskContext
            switch (attempt) {
              case 1:
                return yield* new RateLimited({ message: "too many" })
              case 2:
                return yield* Effect.die(new TypeError("a bug"))
              case 3:
                return yield* Effect.never
              case 4:
                return yield* retry()
              case 5:
                return yield* retry({ error: new RateLimited({ message: "still too many" }) })
              default:
                return attempt
            }
          })
        )
      )
      const handle = yield* Unlucky.delay()
      assert.strictEqual(yield* t.awaitValue(handle), 6)
      const { attempts, history } = yield* poll(handle)
      assert.strictEqual(attempts, 6)
      assert.deepStrictEqual(
        history.map(({ attempt, reason, tag }) => [attempt, reason, tag]),
        [
          [1, "Failed", "RateLimited"],
          [2, "Died", "TypeError"],
          [3, "TimedOut", "TimedOut"],
          [4, "RetryRequested", "RetryRequested"],
          [5, "Failed", "RateLimited"]
        ]
      )
      assert.deepStrictEqual(
        [0, 1, 4].map((n) => history[n]?.message),
        ["too many", "a bug", "still too many"]
      )
      assert.isTrue(Option.exists(history[1]!.stack, (stack) => stack.includes("    at ")))
      for (const [n, one] of history.entries()) {
        assert.strictEqual(one.worker, worker.id)
        assert.isAtMost(one.startedAt.epochMilliseconds, one.failedAt.epochMilliseconds)
        const next = history[n + 1]
        if (next !== undefined) {
          assert.isAtMost(one.failedAt.epochMilliseconds, next.startedAt.epochMilliseconds + 1)
        }
      }
    })

    historyTest(
      "is shown while the task waits for its retry, with the time of the next attempt",
      function* (t) {
        const Later = Task.make("later.history", {
          error: Schema.String,
          retry: RetryPolicy.fixed({ maxRetries: 1, delay: "1 hour" })
        })
        yield* t.startWorker(
          [Later],
          Later.toLayer(() => Effect.fail("not yet"))
        )
        const handle = yield* Later.delay()
        yield* t.eventually(
          "it waits for its retry",
          Effect.map(AsyncResult.state(handle), (state) => state === "RETRY")
        )
        const { dueAt, history, startedAt } = yield* poll(handle)
        assert.deepStrictEqual(
          history.map(({ message }) => message),
          ["not yet"]
        )
        const waits =
          Option.getOrThrow(dueAt).epochMilliseconds - Option.getOrThrow(startedAt).epochMilliseconds
        assert.approximately(waits, 3_600_000, t.time.units(10))
        const [seen] = yield* t.complete(
          "it is shown",
          Stream.runCollect(Stream.take(AsyncResult.changes(handle), 1))
        )
        assert.deepStrictEqual(seen?.history, history)
      }
    )

    historyTest("of a task that succeeds at once is empty", function* (t) {
      const Once = Task.make("once.history", { success: Schema.Int, retry: soon })
      yield* t.startWorker(
        [Once],
        Once.toLayer(() => Effect.succeed(1))
      )
      const handle = yield* Once.delay()
      yield* t.awaitValue(handle)
      const { dueAt, history } = yield* poll(handle)
      assert.deepStrictEqual([history, dueAt], [[], Option.none()])
    })

    historyTest("begins anew with a replay", function* (t) {
      const Failing = Task.make("failing.history", {
        error: Schema.String,
        retry: RetryPolicy.fixed({ maxRetries: 1, delay: "10 millis" })
      })
      let runs = 0
      yield* t.startWorker(
        [Failing],
        Failing.toLayer(() => Effect.suspend(() => Effect.fail(`no ${++runs}`)))
      )
      const handle = yield* Failing.delay()
      const messages = Effect.map(poll(handle), ({ history }) => history.map(({ message }) => message))
      assert.strictEqual((yield* t.awaitReason(handle, "Failed")).error, "no 2")
      assert.deepStrictEqual(yield* messages, ["no 1"])
      const [letter] = yield* DeadLetters.list(Failing)
      yield* DeadLetters.replay(letter!.id)
      assert.strictEqual((yield* t.awaitReason(handle, "Failed")).error, "no 4")
      assert.deepStrictEqual(yield* messages, ["no 3"])
    })

    test("a delayed task shows its queue, and when it is due", function* (t, context) {
      const Delayed = Task.make("delayed.history", { queue: "slow" })
      const handle = yield* Delayed.delay(undefined, { delay: t.duration(20), queue: "other" })
      const { dueAt, enqueuedAt, queue } = yield* poll(handle)
      if (Option.isNone(queue)) return yield* Suite.skip(context, "the driver does not keep queue")
      assert.deepStrictEqual(queue, Option.some("other"))
      const waits =
        Option.getOrThrow(dueAt).epochMilliseconds - Option.getOrThrow(enqueuedAt).epochMilliseconds
      assert.approximately(waits, t.time.units(20), t.time.units(10))
      assert.deepStrictEqual((yield* poll(yield* Delayed.delay())).queue, Option.some("slow"))
    })
  })
}
