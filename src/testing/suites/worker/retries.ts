/** Retries: a retry is durable, and its delay is kept by the broker. */
import { assert, describe } from "@effect/vitest"
import { Duration, Effect, Layer, Option, Schedule, Schema } from "effect"
import * as AsyncResult from "../../../AsyncResult.ts"
import * as DeadLetters from "../../../DeadLetters.ts"
import * as RetryPolicy from "../../../RetryPolicy.ts"
import * as Task from "../../../Task.ts"
import { TaskContext } from "../../../TaskContext.ts"
import type { Test } from "./fixture.ts"

class RateLimited extends Schema.TaggedError<RateLimited>("chicory/testing/RateLimited")("RateLimited", {
  afterMillis: Schema.Int
}) {}
class Declined extends Schema.TaggedError<Declined>("chicory/testing/CardDeclined")("Declined", {}) {}

const soon = RetryPolicy.fixed({ maxRetries: 3, delay: "10 millis" })
const Flaky = Task.make("flaky", { success: Schema.Int, error: Schema.String, retry: soon })
const Buggy = Task.make("buggy", { success: Schema.Int, retry: soon })
const BuggyRetried = Task.make("buggy.retried", { success: Schema.Int, retry: soon, retryDefects: true })
const Payment = Task.make("payment", {
  success: Schema.Int,
  error: Schema.Union([RateLimited, Declined]),
  retry: {
    ...RetryPolicy.fixed({ maxRetries: 3, delay: "1 hour" }),
    byTag: { RateLimited: ({ afterMillis }) => Duration.millis(afterMillis), Declined: "never" }
  }
})

/** Registers the tests. */
export const retries = (test: Test): void => {
  describe("retries", () => {
    test("a failed task is retried, and each attempt knows its number", function* (t) {
      const seen: Array<object> = []
      yield* t.startWorker(
        [Flaky],
        Flaky.toLayer(() =>
          TaskContext.use(({ attempt, fence, isLastRetry, maxRetries, remainingRetries, retries }) => {
            seen.push({ attempt, fence, isLastRetry, maxRetries, remainingRetries, retries })
            return attempt === 4 ? Effect.succeed(attempt) : Effect.fail(`no ${attempt}`)
          })
        )
      )
      const handle = yield* Flaky.delay()
      assert.strictEqual(yield* t.awaitValue(handle), 4)
      assert.deepStrictEqual(
        seen,
        [1, 2, 3, 4].map((attempt) => ({
          attempt,
          fence: attempt,
          isLastRetry: attempt === 4,
          maxRetries: 3,
          remainingRetries: 4 - attempt,
          retries: attempt - 1
        }))
      )
      assert.strictEqual(yield* DeadLetters.count(), 0)
      yield* t.untilDrained()
    })

    test("an attempt is the last one where the policy's schedule ends", function* (t) {
      const Ending = Task.make("ending", {
        error: Schema.String,
        retry: RetryPolicy.fromSchedule(Schedule.recurs(2))
      })
      const seen: Array<readonly [isLastRetry: boolean, remainingRetries: number]> = []
      yield* t.startWorker(
        [Ending],
        Ending.toLayer(() =>
          TaskContext.use(({ isLastRetry, remainingRetries }) => {
            seen.push([isLastRetry, remainingRetries])
            return Effect.fail("no")
          })
        )
      )
      const failed = yield* t.awaitReason(yield* Ending.delay(), "Failed")
      assert.isTrue(failed.retriesExhausted)
      assert.deepStrictEqual(seen, [
        [false, 2],
        [false, 1],
        [true, 0]
      ])
    })

    test("an attempt is the last one where a deploy has lowered maxRetries below its retries", function* (t) {
      const make = (maxRetries: number) =>
        Task.make("lowered", {
          error: Schema.String,
          retry: RetryPolicy.fixed({ maxRetries, delay: t.duration(1) })
        })
      const seen: Array<readonly [retries: number, isLastRetry: boolean, remainingRetries: number]> = []
      const start = (task: ReturnType<typeof make>) =>
        t.startWorker(
          [task],
          task.toLayer(() =>
            TaskContext.use(({ isLastRetry, remainingRetries, retries }) => {
              seen.push([retries, isLastRetry, remainingRetries])
              return Effect.fail("no")
            })
          )
        )
      const before = make(5)
      const worker = yield* start(before)
      const handle = yield* before.delay()
      yield* t.until("it was retried twice", () => seen.length === 3)
      yield* worker.stop
      yield* start(make(1))
      const failed = yield* t.awaitReason(handle, "Failed")
      assert.isTrue(failed.retriesExhausted)
      const [retries, isLastRetry, remainingRetries] = seen.at(-1)!
      assert.isAtLeast(retries, 3)
      assert.deepStrictEqual([isLastRetry, remainingRetries], [true, 0])
      assert.deepStrictEqual(
        seen.slice(0, 3).map(([, last]) => last),
        [false, false, false]
      )
    })

    test("the delay of a retry outlives its worker", function* (t) {
      const Later = Task.make("later", {
        success: Schema.Int,
        error: Schema.String,
        retry: RetryPolicy.fixed({ maxRetries: 1, delay: t.duration(4) })
      })
      let runs = 0
      const handler = Later.toLayer(() =>
        Effect.suspend(() => (++runs === 1 ? Effect.fail("no") : Effect.succeed(runs)))
      )
      const worker = yield* t.startWorker([Later], handler)
      const handle = yield* Later.delay()
      yield* t.eventually(
        "it waits for its retry",
        Effect.map(AsyncResult.state(handle), (state) => state === "RETRY")
      )
      yield* t.eventually(
        "its message has the delay",
        Effect.map(t.counts(), ({ delayed }) => delayed === 1)
      )
      yield* worker.stop
      yield* t.startWorker([Later], handler)
      yield* t.time.pass(2)
      assert.strictEqual(runs, 1)
      assert.strictEqual(yield* t.awaitValue(handle), 2)
    })

    test("a schedule is replayed from its first step", function* (t) {
      const Scheduled = Task.make("scheduled", {
        success: Schema.Int,
        error: Schema.String,
        retry: RetryPolicy.fromSchedule(Schedule.max([Schedule.spaced("10 millis"), Schedule.recurs(2)]))
      })
      let runs = 0
      yield* t.startWorker(
        [Scheduled],
        Scheduled.toLayer(() => Effect.suspend(() => Effect.fail(`no ${++runs}`)))
      )
      const failed = yield* t.awaitReason(yield* Scheduled.delay(), "Failed")
      assert.deepStrictEqual([failed.error, failed.retriesExhausted], ["no 3", true])
    })

    test("a tag of the error can refuse a retry, or set its delay", function* (t) {
      const seen: Array<number> = []
      yield* t.startWorker(
        [Payment],
        Payment.toLayer(() =>
          TaskContext.use(({ attempt }) => {
            seen.push(attempt)
            return Effect.fail(attempt === 1 ? new RateLimited({ afterMillis: 10 }) : new Declined())
          })
        )
      )
      const failed = yield* t.awaitReason(yield* Payment.delay(), "Failed")
      assert.instanceOf(failed.error, Declined)
      assert.isFalse(failed.retriesExhausted)
      assert.deepStrictEqual(seen, [1, 2])
    })

    test("a defect is not retried", function* (t) {
      let runs = 0
      yield* t.startWorker(
        [Buggy],
        Buggy.toLayer(() => Effect.suspend(() => Effect.die(`a bug ${++runs}`)))
      )
      yield* t.awaitReason(yield* Buggy.delay(), "Died")
      assert.strictEqual(runs, 1)
    })

    test("a defect is retried if the task has retryDefects", function* (t) {
      let runs = 0
      yield* t.startWorker(
        [BuggyRetried],
        BuggyRetried.toLayer(() =>
          Effect.suspend(() => (++runs < 3 ? Effect.die(`a bug ${runs}`) : Effect.succeed(runs)))
        )
      )
      assert.strictEqual(yield* t.awaitValue(yield* BuggyRetried.delay()), 3)
    })

    test("a handler that interrupts itself is retried if the task has retryDefects", function* (t) {
      let runs = 0
      yield* t.startWorker(
        [BuggyRetried],
        BuggyRetried.toLayer(() =>
          Effect.suspend(() => (++runs < 3 ? Effect.interrupt : Effect.succeed(runs)))
        )
      )
      assert.strictEqual(yield* t.awaitValue(yield* BuggyRetried.delay()), 3)
    })

    test("a value in place of an effect is retried if the task has retryDefects", function* (t) {
      let runs = 0
      yield* t.startWorker(
        [BuggyRetried],
        BuggyRetried.toLayer(() =>
          ++runs < 3 ? (undefined as unknown as Effect.Effect<number>) : Effect.succeed(runs)
        )
      )
      assert.strictEqual(yield* t.awaitValue(yield* BuggyRetried.delay()), 3)
    })

    test("an attempt that timed out is retried", function* (t) {
      const Timed = Task.make("timed", { success: Schema.Int, timeout: t.duration(0.5), retry: soon })
      let runs = 0
      yield* t.startWorker(
        [Timed],
        Timed.toLayer(() => Effect.suspend(() => (++runs < 3 ? Effect.never : Effect.succeed(runs))))
      )
      const handle = yield* Timed.delay()
      assert.strictEqual(yield* t.awaitValue(handle), 3)
      assert.strictEqual((yield* t.read(handle.taskId)).retries, 2)
    })

    test("a policy that throws ends the task", function* (t) {
      const Broken = Task.make("broken", {
        error: Schema.String,
        retry: {
          ...soon,
          while: () => {
            throw new TypeError("a policy with a bug")
          }
        }
      })
      yield* t.startWorker(
        [Broken],
        Broken.toLayer(() => Effect.fail("no"))
      )
      const { defect } = yield* t.awaitReason(yield* Broken.delay(), "Died")
      assert.include(String(defect), "a policy with a bug")
    })

    test("a schedule that fails or throws ends the task with its own error", function* (t) {
      let runs = 0
      const make = <const Name extends string>(name: Name, schedule: RetryPolicy.RetryPolicy["schedule"]) =>
        Task.make(name, { error: Schema.String, retry: RetryPolicy.fromSchedule(schedule) })
      const Failing = make("schedule.failing", Schedule.cron("once in a while"))
      const Throwing = make(
        "schedule.throwing",
        Schedule.modifyDelay(Schedule.forever, () => {
          throw new TypeError("a schedule with a bug")
        })
      )
      const fail = () => Effect.suspend(() => Effect.fail(`no ${++runs}`))
      yield* t.startWorker([Failing, Throwing], Layer.merge(Failing.toLayer(fail), Throwing.toLayer(fail)))
      const failed = yield* t.awaitReason(yield* Failing.delay(), "Died")
      assert.include(String(failed.defect), "CronParseError")
      const threw = yield* t.awaitReason(yield* Throwing.delay(), "Died")
      assert.include(String(threw.defect), "a schedule with a bug")
      assert.strictEqual(runs, 2)
    })

    test("a schedule without an error gets a timeout, a defect and a requested retry", function* (t) {
      const inputs: Array<unknown> = []
      const retry = RetryPolicy.fromSchedule<string>(
        Schedule.recurs(1).pipe(
          Schedule.setInputType<string | undefined>(),
          Schedule.modifyDelay(({ input }) => {
            inputs.push(input)
            return Effect.succeed("10 millis")
          })
        )
      )
      const Slow = Task.make("ends.slow", { error: Schema.String, timeout: t.duration(0.5), retry })
      const Dies = Task.make("ends.dies", { error: Schema.String, retryDefects: true, retry })
      const Asks = Task.make("ends.asks", { error: Schema.String, retry })
      const Fails = Task.make("ends.fails", { error: Schema.String, retry })
      yield* t.startWorker(
        [Slow, Dies, Asks, Fails],
        Layer.mergeAll(
          Slow.toLayer(() => Effect.never),
          Dies.toLayer(() => Effect.die("a bug")),
          Asks.toLayer(() => TaskContext.use(({ retry }) => retry())),
          Fails.toLayer(() => Effect.fail("no"))
        )
      )
      yield* t.awaitReason(yield* Slow.delay(), "TimedOut")
      yield* t.awaitReason(yield* Dies.delay(), "Died")
      yield* t.awaitReason(yield* Asks.delay(), "RetriesExhausted")
      assert.isTrue(inputs.length > 0 && inputs.every((input) => input === undefined))
      yield* t.awaitReason(yield* Fails.delay(), "Failed")
      assert.strictEqual(inputs.at(-1), "no")
    })

    test("a delay that is computed below zero is no delay", function* (t) {
      const Late = Task.make("late", {
        payload: Schema.Literals(["byTag", "countdown"]),
        success: Schema.Int,
        error: RateLimited,
        retry: {
          ...RetryPolicy.fixed({ maxRetries: 1, delay: "1 hour" }),
          byTag: { RateLimited: ({ afterMillis }) => Duration.millis(afterMillis) }
        }
      })
      yield* t.startWorker(
        [Late],
        Late.toLayer((how) =>
          TaskContext.use(({ retries, retry }) => {
            if (retries > 0) return Effect.succeed(retries)
            if (how === "byTag") return Effect.fail(new RateLimited({ afterMillis: -3 }))
            return retry({ countdown: Duration.negativeInfinity })
          })
        )
      )
      for (const how of ["byTag", "countdown"] as const) {
        assert.strictEqual(yield* t.awaitValue(yield* Late.delay(how, { delay: -3 })), 1)
      }
    })

    test("a handler can request a retry, with a countdown and an error", function* (t) {
      const seen: Array<number> = []
      yield* t.startWorker(
        [Flaky],
        Flaky.toLayer(() =>
          TaskContext.use(({ attempt, retry }) => {
            seen.push(attempt)
            return retry({ countdown: "10 millis", error: `gave up ${attempt}` })
          })
        )
      )
      const handle = yield* Flaky.delay()
      const failed = yield* t.awaitReason(handle, "Failed")
      assert.deepStrictEqual([failed.error, failed.retriesExhausted], ["gave up 4", true])
      assert.deepStrictEqual(seen, [1, 2, 3, 4])
    })

    test("the countdown that a handler requests is kept", function* (t) {
      let runs = 0
      yield* t.startWorker(
        [Flaky],
        Flaky.toLayer(() =>
          TaskContext.use(({ retry }) =>
            ++runs === 1 ? retry({ countdown: t.duration(4) }) : Effect.succeed(runs)
          )
        )
      )
      const handle = yield* Flaky.delay()
      yield* t.until("it ran once", () => runs === 1)
      yield* t.time.pass(2)
      assert.strictEqual(runs, 1)
      assert.strictEqual(yield* AsyncResult.state(handle), "RETRY")
      assert.strictEqual(yield* t.awaitValue(handle), 2)
    })

    test("a task without a policy cannot be retried", function* (t) {
      const Single = Task.make("single", { success: Schema.Int })
      yield* t.startWorker(
        [Single],
        Single.toLayer(() => TaskContext.use(({ retry }) => retry({ countdown: 0 })))
      )
      yield* t.awaitReason(yield* Single.delay(), "RetriesExhausted")
    })

    test("a task that waits for its retry can expire", function* (t) {
      const Expiring = Task.make("expiring", {
        error: Schema.String,
        expires: t.duration(2),
        retry: RetryPolicy.fixed({ maxRetries: 1, delay: t.duration(20) })
      })
      yield* t.startWorker(
        [Expiring],
        Expiring.toLayer(() => Effect.fail("no"))
      )
      const handle = yield* Expiring.delay()
      yield* t.awaitReason(handle, "Expired")
      assert.strictEqual(Option.getOrThrow(yield* AsyncResult.poll(handle)).attempts, 1)
    })
  })
}
