import { assert, describe, it } from "@effect/vitest"
import { Task, TaskFailed, TaskResult } from "chicory"
import { DateTime, Effect, Exit, Option, Schema } from "effect"

class RateLimited extends Schema.TaggedError<RateLimited>()("RateLimited", { afterMillis: Schema.Number }) {}

const Report = Task.make("report.make", {
  payload: { year: Schema.Number },
  success: Schema.Struct({ at: Schema.Date, rows: Schema.BigInt }),
  error: RateLimited,
  progress: Schema.NullOr(Schema.Number)
})

type Result = TaskResult.TaskResult<{ readonly at: Date; readonly rows: bigint }, RateLimited, number | null>

const at = (millis: number) => Option.some(DateTime.makeUnsafe(millis))

const waiting: Result = {
  taskId: "a",
  taskName: "report.make",
  queue: Option.some("slow"),
  state: "RETRY",
  attempts: 1,
  dueAt: at(3_000),
  exit: Option.none(),
  history: [
    {
      attempt: 1,
      reason: "Failed",
      tag: "RateLimited",
      message: "later",
      stack: Option.some("    at f (file.js:1:1)"),
      worker: "w1",
      startedAt: DateTime.makeUnsafe(1_000),
      failedAt: DateTime.makeUnsafe(2_000)
    }
  ],
  progress: Option.some(null),
  worker: Option.some("w1"),
  enqueuedAt: at(0),
  startedAt: at(1_000),
  finishedAt: Option.none()
}

const ended: Result = { ...waiting, state: "SUCCESS", dueAt: Option.none(), finishedAt: at(5_000) }

const codec = TaskResult.schema(Report)

/** Encodes to JSON text and back. */
const roundTrip = (result: Result) =>
  Effect.flatMap(Schema.encodeEffect(codec)(result), (json) =>
    Schema.decodeUnknownEffect(codec)(JSON.parse(JSON.stringify(json)))
  )

describe("TaskResult.schema", () => {
  it.effect("encodes a task that waits, without the fields that are none", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* Schema.encodeEffect(codec)(waiting), {
        taskId: "a",
        taskName: "report.make",
        queue: "slow",
        state: "RETRY",
        attempts: 1,
        dueAt: "1970-01-01T00:00:03.000Z",
        history: [
          {
            attempt: 1,
            reason: "Failed",
            tag: "RateLimited",
            message: "later",
            stack: "    at f (file.js:1:1)",
            worker: "w1",
            startedAt: "1970-01-01T00:00:01.000Z",
            failedAt: "1970-01-01T00:00:02.000Z"
          }
        ],
        progress: null,
        worker: "w1",
        enqueuedAt: "1970-01-01T00:00:00.000Z",
        startedAt: "1970-01-01T00:00:01.000Z"
      })
    })
  )

  for (const [what, result] of [
    ["a task that waits", waiting],
    ["a task without progress", { ...waiting, progress: Option.none(), queue: Option.none(), history: [] }],
    ["a success", { ...ended, exit: Option.some(Exit.succeed({ at: new Date(7), rows: 12n })) }]
  ] as const) {
    it.effect(`decodes ${what} that it encoded`, () =>
      Effect.gen(function* () {
        assert.deepStrictEqual(yield* roundTrip(result), result)
      })
    )
  }

  it.effect("encodes a success with the schema of the task", () =>
    Effect.gen(function* () {
      const exit = Option.some(Exit.succeed({ at: new Date(7), rows: 12n }))
      const json = yield* Schema.encodeEffect(codec)({ ...ended, exit })
      assert.deepStrictEqual((json as { readonly exit: unknown }).exit, {
        _tag: "Success",
        value: { at: "1970-01-01T00:00:00.007Z", rows: "12" }
      })
    })
  )

  it.effect("decodes a failure to the class of its error", () =>
    Effect.gen(function* () {
      const error = new TaskFailed.TaskFailed<RateLimited>({
        taskId: "a",
        taskName: "report.make",
        attempts: 2,
        reason: new TaskFailed.Failed({ error: new RateLimited({ afterMillis: 10 }), retriesExhausted: true })
      })
      const { exit } = yield* roundTrip({ ...ended, state: "FAILURE", exit: Option.some(Exit.fail(error)) })
      const decoded = Option.flatMap(exit, Exit.findErrorOption)
      assert(Option.isSome(decoded))
      assert.instanceOf(decoded.value, TaskFailed.TaskFailed)
      assert.strictEqual(decoded.value.message, error.message)
      const { reason } = decoded.value
      assert(reason._tag === "Failed")
      assert.instanceOf(reason.error, RateLimited)
      assert.strictEqual(reason.error.afterMillis, 10)
    })
  )

  it.effect("encodes the outcome of a task without success, error and progress", () =>
    Effect.gen(function* () {
      const ticked = TaskResult.schema(Task.make("tick"))
      const result: TaskResult.TaskResult<void, never, never> = {
        ...ended,
        exit: Option.some(Exit.void),
        progress: Option.none()
      }
      const json = JSON.parse(JSON.stringify(yield* Schema.encodeEffect(ticked)(result)))
      const decoded = yield* Schema.decodeUnknownEffect(ticked)(json)
      assert.deepStrictEqual(decoded, result)
    })
  )

  it.effect("refuses an outcome that no task has", () =>
    Effect.gen(function* () {
      const exit = Option.some(Exit.die("no outcome") as never)
      const error = yield* Effect.flip(Schema.encodeEffect(codec)({ ...ended, exit }))
      assert.strictEqual(error._tag, "SchemaError")
    })
  )
})
