import { assert, describe, it } from "@effect/vitest"
import { RetryPolicy, Task, TaskFailed } from "chicory"
import { Duration, Effect, Exit, Schedule, Schema } from "effect"
import { formatError as describeValue } from "../../src/internal/formatError.ts"
import * as attemptHistory from "../../src/internal/task/attemptHistory.ts"
import * as TaskCodec from "../../src/internal/task/TaskCodec.ts"
import { definitionOf } from "../../src/internal/task/TaskDefinition.ts"
import { classifyExit, type RunOutcome } from "../../src/internal/worker/runOutcome.ts"
import { elementOf, anything, oneOf } from "./randomValues.ts"

/** Values that throw or never end when they are inspected. */
const hostileValues = (): ReadonlyArray<unknown> => {
  const circular: Record<string, unknown> = Object.create(null) as Record<string, unknown>
  circular["self"] = circular
  const refuse = (): never => {
    throw new Error("not this way")
  }
  return [
    circular,
    { toJSON: refuse, toString: refuse },
    Object.defineProperty(new Error("one"), "message", { get: refuse }),
    Object.assign(new Error("one"), {
      cause: {
        get message(): string {
          return refuse()
        }
      }
    }),
    Object.assign(new Error("round"), { cause: circular }),
    new Proxy({}, { get: refuse, ownKeys: refuse, getPrototypeOf: refuse }),
    JSON.parse(`${"[".repeat(100_000)}${"]".repeat(100_000)}`),
    { [Symbol.toPrimitive]: refuse },
    Object.create(null),
    Symbol("s"),
    new Error("x".repeat(10_000_000))
  ]
}

class Busy extends Schema.TaggedError<Busy>()("Busy", { after: Schema.Number }) {}

const declared = Task.make("declared", { payload: {}, success: Schema.Unknown, error: Busy })
const narrow = Task.make("narrow", { payload: {}, success: Schema.Number })

const retried = Task.make("retried", {
  error: Schema.Unknown,
  retry: RetryPolicy.fixed({ maxRetries: 1, delay: "1 second" }),
  retryDefects: true
})

const outcomeOf = (task: Task.Any, exit: Exit.Exit<unknown, unknown>, retries = 0) =>
  classifyExit(
    {
      definition: definitionOf(task),
      maxBytes: 4 * 1024 * 1024,
      retries,
      attempt: retries + 1,
      begunAt: 0n,
      interruptReason: undefined,
      worker: "w"
    },
    exit
  ) as Effect.Effect<RunOutcome>

describe("runOutcome", () => {
  it.effect.prop(
    "classifies every result, error and defect of a handler",
    { value: oneOf(anything, elementOf(hostileValues())) },
    ({ value }) =>
      Effect.gen(function* () {
        for (const task of [declared, narrow]) {
          for (const exit of [Exit.succeed(value), Exit.fail(value), Exit.die(value)]) {
            const outcome = yield* outcomeOf(task, exit)
            assert.include(["Success", "Failure"], outcome._tag)
            if (outcome._tag !== "Success" && outcome._tag !== "Failure") continue
            const decoded = yield* (
              outcome._tag === "Success" ? definitionOf(task).result : TaskCodec.json
            ).decodeExit(outcome.exit) as Effect.Effect<
              TaskCodec.TaskExit<unknown, unknown>,
              Schema.SchemaError
            >
            assert.strictEqual(decoded._tag, outcome._tag)
            if (decoded._tag === "Failure") assert.isAbove(decoded.reason.message.length, 0)
          }
        }
      }),
    { arbitrary: { runs: 100 } }
  )

  for (const [n, value] of hostileValues().entries()) {
    it.effect(`classifies a hostile value (${n}) and formats its errors`, () =>
      Effect.gen(function* () {
        assert.isAbove(describeValue(value).length, 0)
        assert.isAbove(new TaskFailed.Died({ defect: value }).message.length, 0)
        for (const exit of [Exit.succeed(value), Exit.die(value)]) {
          const outcome = yield* outcomeOf(declared, exit)
          assert.include(["Success", "Failure"], outcome._tag)
        }
      })
    )
  }

  it.effect.prop(
    "keeps what every error and defect of a retried attempt says, in a bounded line",
    { value: oneOf(anything, elementOf(hostileValues())) },
    ({ value }) =>
      Effect.gen(function* () {
        for (const exit of [Exit.fail(value), Exit.die(value)]) {
          const outcome = yield* outcomeOf(retried, exit)
          // one whose tag cannot be read is not retried
          if (outcome._tag !== "Retry") continue
          const line = attemptHistory.encode(outcome.failure, { generation: 2, worker: "w" })
          assert.match(line, /^[\x20-\x7e]{1,8191}\n$/)
          const [kept] = attemptHistory.decode(`cut line}\n${line}`, { attempt: 1, generation: 2 })
          assert(kept !== undefined)
          assert.strictEqual(kept.worker, "w")
          assert.isAbove(kept.tag.length, 0)
        }
      }),
    { arbitrary: { runs: 100 } }
  )

  const infinite = RetryPolicy.fromSchedule(
    Schedule.modifyDelay(Schedule.forever, () => Effect.succeed(Duration.infinity))
  )
  const policies = {
    "an infinite schedule": infinite,
    "an exponential growth to infinity": RetryPolicy.exponential({ maxRetries: 10_000, delay: "1 second" }),
    "an infinite delay of an error": {
      ...RetryPolicy.fixed({ maxRetries: 10_000, delay: "1 second" }),
      byTag: { Busy: ({ after }: Busy) => Duration.seconds(after) }
    }
  } satisfies Record<string, RetryPolicy.RetryPolicy<Busy>>
  for (const [policy, retry] of Object.entries<RetryPolicy.RetryPolicy<Busy>>(policies)) {
    it.effect(`keeps the retry delay a safe integer for ${policy}`, () =>
      Effect.gen(function* () {
        const task = Task.make("busy", { payload: {}, error: Busy, retry })
        for (const after of [1e300, Infinity, NaN, -1]) {
          const outcome = yield* outcomeOf(task, Exit.fail(new Busy({ after })), 2000)
          if (outcome._tag !== "Retry") continue
          assert.isTrue(Number.isSafeInteger(outcome.afterMillis), `${outcome.afterMillis}`)
          assert.isAtLeast(outcome.afterMillis, 0)
        }
      })
    )
  }
})
