import { assert, describe, it } from "@effect/vitest"
import { TaskFailed } from "chicory"
import { Arbitrary, Cause, Effect, Exit, Schema } from "effect"
import type { TaskRecord } from "../../src/BackendDriver.ts"
import { decodeExit, toTaskResult } from "../../src/internal/results/decodeRecord.ts"
import * as TaskCodec from "../../src/internal/task/TaskCodec.ts"
import { fromTraceparent } from "../../src/internal/task/traceContext.ts"
import { elementOf, anything, assertAnswers, json, oneOf, manyRuns, text, textLike } from "./randomValues.ts"

class Refused extends Schema.TaggedError<Refused>()("Refused", { why: Schema.String, code: Schema.Number }) {}

const Rich = Schema.Struct({
  text: Schema.String,
  number: Schema.Number,
  date: Schema.Date,
  big: Schema.BigInt,
  bytes: Schema.Uint8Array,
  maybe: Schema.optionalKey(Schema.Boolean),
  json: Schema.Json,
  tuple: Schema.Tuple([Schema.Finite, Schema.NullOr(Schema.String)]),
  record: Schema.Record(Schema.String, Schema.Int)
})
const isRich = Schema.is(Rich)
const isRefused = Schema.is(Refused)
const payload = TaskCodec.payload(Rich)
const result = TaskCodec.result({ success: Rich, error: Refused, progress: Rich })

/**
 * Whether no key needs an escape in JSON. `JSON.parse` of V8 13.6 (Node 24) may confuse such a key with one that it
 * has read before in the same place: `"\b"` with `"\\"`.
 */
const hasPlainKeys = (value: unknown): boolean =>
  typeof value !== "object" ||
  value === null ||
  Object.entries(value).every(([key, inner]) => JSON.stringify(key) === `"${key}"` && hasPlainKeys(inner))

/** Values with unusual texts in the fields that take any text. */
const rich = Arbitrary.flatMap(Arbitrary.all([Arbitrary.schema(Rich), text, json]), ([made, odd, any]) =>
  oneOf(Arbitrary.Constant(made), Arbitrary.Constant({ ...made, text: odd, json: any, record: { [odd]: 1 } }))
).pipe(Arbitrary.filter(({ json, record }) => hasPlainKeys(json) && hasPlainKeys(record)))

const encoded = {
  text: "a",
  number: 1,
  date: "2026-01-01T00:00:00.000Z",
  big: "7",
  bytes: "AQI=",
  json: {},
  tuple: [1, null],
  record: { a: 1 }
}

const reasons: ReadonlyArray<Readonly<Record<string, unknown>>> = [
  { _tag: "Failed", error: { _tag: "Refused", why: "", code: 1 }, retriesExhausted: true },
  { _tag: "Died", defect: { name: "Error", message: "m" } },
  { _tag: "TimedOut", timeout: 1 },
  { _tag: "Expired", expiredAt: "2026-01-01T00:00:00.000Z" },
  { _tag: "WorkerLost", worker: "w" },
  { _tag: "ResultInvalid", side: "reader", issue: "i" },
  { _tag: "Cancelled" }
]

/** Texts of exits with damage outside or inside of the reason. */
const exitText = oneOf(
  textLike({ _tag: "Success", value: encoded }),
  Arbitrary.flatMap(elementOf(reasons), (reason) => textLike({ _tag: "Failure", reason })),
  Arbitrary.flatMap(Arbitrary.flatMap(elementOf(reasons), textLike), (reason) =>
    Arbitrary.Constant(`{"_tag":"Failure","reason":${reason}}`)
  )
)

/** Whether a reason is an instance of its class and has a message. */
const isReason = (reason: TaskFailed.Reason<unknown>): boolean =>
  reason instanceof TaskFailed[reason._tag] && reason.message.length > 0

const jsonText = (value: unknown) => JSON.parse(JSON.stringify(value)) as unknown

describe("guarantee 10: TaskCodec", () => {
  it.effect.prop(
    "a payload round-trips",
    { value: rich },
    ({ value }) =>
      Effect.gen(function* () {
        const { json } = yield* payload.encode(value)
        const decoded = yield* payload.decode(jsonText(json))
        assert.isTrue(isRich(decoded))
        assert.deepStrictEqual(jsonText((yield* payload.encode(decoded)).json), jsonText(json))
        assert.strictEqual(decoded.text, value.text)
        assert.deepStrictEqual(decoded.bytes, value.bytes)
        assert.strictEqual(decoded.big, value.big)
        // JSON has no negative zero, and the codec uses words for infinities and NaN
        assert.isTrue(Object.is(decoded.number, value.number) || value.number === 0)
        assert.deepStrictEqual(Object.keys(decoded.record), Object.keys(value.record))
      }),
    manyRuns
  )

  it.effect.prop(
    "a success, a failure and progress round-trip",
    { value: rich, why: text, exhausted: Schema.Boolean },
    ({ exhausted, value, why }) =>
      Effect.gen(function* () {
        const success = yield* result.encodeExit({ _tag: "Success", value })
        const decoded = yield* result.decodeExit(success)
        assert(decoded._tag === "Success")
        assert.strictEqual(yield* result.encodeExit(decoded), success)
        const error = new Refused({ why, code: value.number })
        const failure = yield* result.encodeExit({
          _tag: "Failure",
          reason: new TaskFailed.Failed({ error, retriesExhausted: exhausted })
        })
        const failed = yield* result.decodeExit(failure)
        assert(failed._tag === "Failure" && failed.reason._tag === "Failed")
        assert.instanceOf(failed.reason.error, Refused)
        assert.strictEqual(failed.reason.error.why, why)
        const progress = yield* result.encodeProgress(value)
        assert.strictEqual(yield* result.encodeProgress(yield* result.decodeProgress(progress)), progress)
      }),
    manyRuns
  )

  it.effect.prop(
    "any stored exit decodes or fails with a readable error",
    { stored: exitText },
    ({ stored }) =>
      Effect.gen(function* () {
        assertAnswers(yield* Effect.exit(result.decodeExit(stored)), (outcome) =>
          outcome._tag === "Success"
            ? isRich(outcome.value)
            : isReason(outcome.reason) &&
              (outcome.reason._tag !== "Failed" || isRefused(outcome.reason.error))
        )
        const isAny = (outcome: TaskCodec.TaskExit<unknown, unknown>) =>
          outcome._tag === "Success" || isReason(outcome.reason)
        assertAnswers(yield* Effect.exit(TaskCodec.json.decodeExit(stored)), isAny)
        assertAnswers(yield* Effect.exit(TaskCodec.untyped.decodeExit(stored)), isAny)
      }),
    manyRuns
  )

  it.effect.prop(
    "any stored progress or sent payload decodes or fails with a readable error",
    { stored: textLike(encoded), value: anything },
    ({ stored, value }) =>
      Effect.gen(function* () {
        assertAnswers(yield* Effect.exit(result.decodeProgress(stored)), isRich)
        assertAnswers(yield* Effect.exit(TaskCodec.json.decodeProgress(stored)), Schema.is(Schema.Json))
        assertAnswers(yield* Effect.exit(payload.decode(value)), isRich)
        assertAnswers(yield* Effect.exit(payload.encode(value)), ({ value }) => isRich(value))
        assertAnswers(yield* Effect.exit(payload.encode({ ...encoded, json: value })), ({ value }) =>
          isRich(value)
        )
      }),
    manyRuns
  )

  const millis = elementOf([null, 0, -1, 1.8e12, 8.64e15, 8.7e15, -8.7e15, Number.MAX_SAFE_INTEGER])
  const record: Arbitrary.Arbitrary<TaskRecord> = Arbitrary.all({
    id: text,
    task: text,
    state: elementOf(["PENDING", "STARTED", "RETRY", "SUCCESS", "FAILURE"] as const),
    incarnation: text,
    generation: elementOf([0, -1, Number.MAX_SAFE_INTEGER]),
    attempt: elementOf([0, 1, -1]),
    retries: elementOf([0, -1]),
    crashes: elementOf([0, -1]),
    exit: oneOf<string | null>(exitText, Arbitrary.Constant(null)),
    progress: oneOf<string | null>(text, Arbitrary.Constant(null)),
    worker: oneOf<string | null>(text, Arbitrary.Constant(null)),
    cancelRequested: Arbitrary.schema(Schema.Boolean),
    ended: elementOf([null, "Expired", "WorkerLost", "Cancelled", "Forgotten"] as const),
    enqueuedAt: elementOf([0, -1, 1.8e12, 8.64e15, 8.7e15, -8.7e15, Number.MAX_SAFE_INTEGER]),
    startedAt: millis,
    finishedAt: millis,
    expiresAt: millis,
    dueAt: millis,
    queue: oneOf<string | undefined>(text, Arbitrary.Constant(undefined))
  })
  const history = textLike({
    attempt: 1,
    reason: "Died",
    tag: "Error",
    message: "no",
    worker: "w",
    startedAt: "1970-01-01T00:00:01.000Z",
    failedAt: "1970-01-01T00:00:02.000Z",
    generation: 0
  })

  it.effect.prop(
    "any record decodes to an exit and a snapshot",
    { record, history },
    ({ history, record }) =>
      Effect.gen(function* () {
        for (const forgotten of [false, true]) {
          const outcome = yield* decodeExit(result, { record, forgotten })
          if (Exit.isSuccess(outcome)) continue
          assert.isFalse(Cause.hasDies(outcome.cause), String(outcome))
          const error = Cause.squash(outcome.cause)
          assert.instanceOf(error, TaskFailed.TaskFailed)
          assert.isAbove((error as Error).message.length, 0)
        }
        const polled = yield* toTaskResult(result, { record, history: `${history}\n` })
        assert.strictEqual(polled.taskId, record.id)
        assert.isAtMost(polled.history.length, 1)
      }),
    manyRuns
  )

  it.effect.prop(
    "any traceparent decodes to a span or to none",
    {
      trace: oneOf(
        text,
        Arbitrary.map(text, (odd) => `00-${odd}-${odd}-01`)
      )
    },
    ({ trace }) => Effect.sync(() => fromTraceparent(trace)),
    manyRuns
  )
})
