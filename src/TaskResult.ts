/**
 * A task as one read shows it, and its codec.
 *
 * **Example** (Showing why a task waits for a retry)
 *
 * ```ts
 * import { AsyncResult, RetryPolicy, Task } from "chicory"
 * import { Effect, Option } from "effect"
 *
 * const Mail = Task.make("mail.send", { retry: RetryPolicy.fixed({ maxRetries: 5, delay: "1 minute" }) })
 *
 * export const program = Effect.fn(function* (taskId: string) {
 *   const result = yield* AsyncResult.poll(Mail.result(taskId))
 *   if (Option.isNone(result)) return "unknown"
 *   const { dueAt, history, state } = result.value
 *   const last = history.at(-1)
 *   if (state !== "RETRY" || last === undefined) return state
 *   return `attempt ${last.attempt} failed with ${last.tag}: ${last.message}; next at ${String(Option.getOrUndefined(dueAt))}`
 * })
 * ```
 *
 * @since 0.1.0
 * @module
 */
import { type DateTime, Exit, Option, Schema, SchemaTransformation } from "effect"
import * as TaskFailed from "./TaskFailed.ts"
import { TaskState } from "./TaskState.ts"

/**
 * Schema of an attempt that failed and was retried.
 *
 * @category schemas
 * @since 0.1.0
 */
export const FailedAttempt = Schema.Struct({
  /** The number of the attempt: 1 for the first of the task's generation. */
  attempt: Schema.Int,
  /**
   * Why it was retried: the handler failed with the task's error (`Failed`), died (`Died`), took longer than the task's
   * `timeout` (`TimedOut`), or asked for a retry without an error (`RetryRequested`).
   */
  reason: Schema.Literals(["Failed", "Died", "TimedOut", "RetryRequested"]),
  /** The `_tag` of the error, or else its name or its class; without an error the reason. */
  tag: Schema.String,
  /** The message of the error, up to 1 KiB. */
  message: Schema.String,
  /** The frames of the error's stack, up to 2 KiB; `None`: it has none. */
  stack: Schema.OptionFromOptionalKey(Schema.String),
  /** The id of the worker. */
  worker: Schema.String,
  /** When the worker asked for the run, by its own clock. */
  startedAt: Schema.DateTimeUtc,
  /** When the attempt failed, by the clock of the worker. */
  failedAt: Schema.DateTimeUtc
})

/**
 * An attempt that failed and was retried.
 *
 * @see {@link TaskResult} for where it is shown
 *
 * @category models
 * @since 0.1.0
 */
export interface FailedAttempt extends Schema.Schema.Type<typeof FailedAttempt> {}

/**
 * A task as one read shows it. `A`, `E` and `P` are the task's success, error and progress. Times are those of the
 * store's clock.
 *
 * @see `AsyncResult.poll` and `AsyncResult.changes`
 * @see {@link schema} to send it over HTTP
 *
 * @category models
 * @since 0.1.0
 */
export interface TaskResult<out A, out E = never, out P = unknown> {
  readonly taskId: string
  readonly taskName: string
  /** The queue that the task was enqueued in; `None` where the store does not keep it. */
  readonly queue: Option.Option<string>
  readonly state: TaskState
  /** Starts of the task's current generation, without those that were released. */
  readonly attempts: number
  /**
   * When the task is to run, while it waits: when its retry is due, or the delay with which it was enqueued ends. `None`
   * where it waits for no time, and where the store does not keep it. A time in the past stays until a worker starts the
   * task.
   */
  readonly dueAt: Option.Option<DateTime.Utc>
  /** The outcome: `Some` exactly in `SUCCESS` and `FAILURE`. */
  readonly exit: Option.Option<Exit.Exit<A, TaskFailed.TaskFailed<E>>>
  /**
   * What made the attempts fail that were retried, the oldest first: at most the last 20, and 16 KiB. It stays after the
   * end, and begins anew when a dead letter of the task is replayed. The failure that ended the task is in `exit`.
   */
  readonly history: ReadonlyArray<FailedAttempt>
  /** The last progress that the handler wrote; `None` also where it does not decode. */
  readonly progress: Option.Option<P>
  /** The id of the worker of the last run. */
  readonly worker: Option.Option<string>
  readonly enqueuedAt: Option.Option<DateTime.Utc>
  /** When the task started for the first time, whatever became of that run. Not before `enqueuedAt`. */
  readonly startedAt: Option.Option<DateTime.Utc>
  readonly finishedAt: Option.Option<DateTime.Utc>
}

type Ended<A, E> = Exit.Exit<A, TaskFailed.TaskFailed<E>>
type EncodedExit<A, E> =
  | { readonly _tag: "Success"; readonly value: A }
  | { readonly _tag: "Failure"; readonly error: TaskFailed.TaskFailed<E> }

/** Whether a value is a success, or a failure with a `TaskFailed`. */
const isEnded = (u: unknown): u is Ended<unknown, unknown> =>
  Exit.isExit(u) &&
  (Exit.isSuccess(u) ||
    Option.exists(Exit.findErrorOption(u), (error) => error instanceof TaskFailed.TaskFailed))

/** Returns the schema of the outcome of a task. */
const exitSchema = <A extends Schema.Constraint, E extends Schema.Constraint>(success: A, error: E) => {
  const encoded = Schema.Union([
    Schema.TaggedStruct("Success", { value: success }),
    Schema.TaggedStruct("Failure", { error: TaskFailed.schema(error) })
  ]) as unknown as Schema.Codec<
    EncodedExit<A["Type"], E["Type"]>,
    unknown,
    A["DecodingServices"] | E["DecodingServices"],
    A["EncodingServices"] | E["EncodingServices"]
  >
  return encoded.pipe(
    Schema.decodeTo(
      Schema.declare(isEnded),
      SchemaTransformation.transform<Ended<A["Type"], E["Type"]>, EncodedExit<A["Type"], E["Type"]>>({
        decode: (exit) => (exit._tag === "Success" ? Exit.succeed(exit.value) : Exit.fail(exit.error)),
        encode: (exit) =>
          Exit.isSuccess(exit)
            ? { _tag: "Success", value: exit.value }
            : { _tag: "Failure", error: Option.getOrThrow(Exit.findErrorOption(exit)) }
      })
    )
  )
}

/**
 * Returns a codec between the `TaskResult` of a task and JSON.
 *
 * **When to use**
 *
 * Use to send what `AsyncResult.poll` and `AsyncResult.changes` return to other programs: as the body of an HTTP response, or
 * as the data of a server-sent event.
 *
 * **Details**
 *
 * A field that is `None` is left out of the JSON. Times are ISO texts in UTC. The outcome is
 * `{ "_tag": "Success", "value": … }` or `{ "_tag": "Failure", "error": … }`, whose error is encoded by `TaskFailed.schema`.
 * Values are encoded by the schemas of the task.
 *
 * **Gotchas**
 *
 * The JSON has messages and stacks of the handler's errors.
 *
 * **Example** (Server-sent events)
 *
 * ```ts
 * import { AsyncResult, Task, TaskResult } from "chicory"
 * import { Schema, Stream } from "effect"
 *
 * const Double = Task.make("math.double", { payload: { n: Schema.Number }, success: Schema.Number })
 *
 * const encode = Schema.encodeEffect(TaskResult.schema(Double))
 *
 * export const events = (taskId: string) =>
 *   AsyncResult.changes(Double.result(taskId)).pipe(
 *     Stream.mapEffect((result) => encode(result)),
 *     Stream.map((json) => `data: ${JSON.stringify(json)}\n\n`)
 *   )
 * ```
 *
 * @category schemas
 * @since 0.1.0
 */
export const schema = <
  A extends Schema.Constraint,
  E extends Schema.Constraint,
  P extends Schema.Constraint
>(task: {
  readonly successSchema: A
  readonly errorSchema: E
  readonly progressSchema: P
}): Schema.Codec<
  TaskResult<A["Type"], E["Type"], P["Type"]>,
  Schema.Json,
  A["DecodingServices"] | E["DecodingServices"] | P["DecodingServices"],
  A["EncodingServices"] | E["EncodingServices"] | P["EncodingServices"]
> => {
  const date = Schema.OptionFromOptionalKey(Schema.DateTimeUtc)
  const text = Schema.OptionFromOptionalKey(Schema.String)
  return Schema.toCodecJson(
    Schema.Struct({
      taskId: Schema.String,
      taskName: Schema.String,
      queue: text,
      state: TaskState,
      attempts: Schema.Int,
      dueAt: date,
      exit: Schema.OptionFromOptionalKey(exitSchema(task.successSchema, task.errorSchema)),
      history: Schema.Array(FailedAttempt),
      progress: Schema.OptionFromOptionalKey(task.progressSchema),
      worker: text,
      enqueuedAt: date,
      startedAt: date,
      finishedAt: date
    })
  )
}
