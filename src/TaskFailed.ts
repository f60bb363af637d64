/**
 * Why a task ended without a success.
 *
 * `TaskFailed<E>` wraps a `reason`, a tagged union, so that one reason is handled with `Effect.catchReason`:
 *
 * ```ts
 * AsyncResult.get(result).pipe(
 *   Effect.catchReason("TaskFailed", "Failed", (reason) => Effect.succeed(reason.error.dividend))
 * )
 * ```
 */
import { Data, Schema, SchemaTransformation } from "effect"
import { describe } from "./internal/formatError.ts"

/** The handler failed with its typed error, and was not (or no longer) retried. */
export class Failed<out E> extends Data.TaggedError("Failed")<{
  /** What the handler failed with: the same class, with its fields, in whatever process it is read. */
  readonly error: E
  /** True only if the task's policy allowed a retry of this error and none was left. */
  readonly retriesExhausted: boolean
}> {
  override get message(): string {
    return `the handler failed with ${describe(this.error)}${this.retriesExhausted ? "; no retries are left" : ""}`
  }
}

/** The handler died: a bug, not an error that the task declares. */
export class Died extends Schema.TaggedError<Died>("chicory/Died")("Died", { defect: Schema.Defect() }) {
  override get message(): string {
    return `the handler died: ${describe(this.defect)}`
  }
}

/** One attempt took longer than the task's `timeout`. */
export class TimedOut extends Schema.TaggedError<TimedOut>("chicory/TimedOut")("TimedOut", {
  timeout: Schema.DurationFromMillis
}) {
  override get message(): string {
    return `an attempt took longer than the task's timeout of ${String(this.timeout)}`
  }
}

/** Somebody cancelled the task. */
export class Cancelled extends Schema.TaggedError<Cancelled>("chicory/Cancelled")("Cancelled", {}) {
  override get message(): string {
    return "the task was cancelled"
  }
}

/** The task waited longer than its `expires`. */
export class Expired extends Schema.TaggedError<Expired>("chicory/Expired")("Expired", {
  expiredAt: Schema.DateTimeUtc
}) {
  override get message(): string {
    return "the task expired before it could run"
  }
}

/** The workers that ran it vanished (killed, cut off), as often as the task's `maxCrashes` allows. */
export class WorkerLost extends Schema.TaggedError<WorkerLost>("chicory/WorkerLost")("WorkerLost", {
  worker: Schema.String
}) {
  override get message(): string {
    return `worker ${this.worker} was lost while it ran the task`
  }
}

/** No worker of the queue knew the task's name within its `unknownTaskGrace`. */
export class UnknownTask extends Schema.TaggedError<UnknownTask>("chicory/UnknownTask")("UnknownTask", {}) {
  override get message(): string {
    return "no worker of the queue knows this task: add it to the worker's list of tasks"
  }
}

/** What arrived at the worker does not decode with its payload schema. No retry was spent. */
export class PayloadInvalid extends Schema.TaggedError<PayloadInvalid>("chicory/PayloadInvalid")(
  "PayloadInvalid",
  {
    issue: Schema.String
  }
) {
  override get message(): string {
    return `the payload does not decode: ${this.issue}`
  }
}

/**
 * The result could not be carried over. Side `worker`: what the handler gave does not encode, or is too large; the
 * work is not run again. Side `reader`: what is stored does not decode with the schemas of this handle.
 */
export class ResultInvalid extends Schema.TaggedError<ResultInvalid>("chicory/ResultInvalid")(
  "ResultInvalid",
  {
    side: Schema.Literals(["worker", "reader"]),
    issue: Schema.String
  }
) {
  override get message(): string {
    return this.side === "worker"
      ? `what the handler gave could not be stored: ${this.issue}`
      : `what is stored does not decode with the schemas of this handle: ${this.issue}`
  }
}

/** `TaskContext.retry` was asked for without an error, and no retries were left. */
export class RetriesExhausted extends Schema.TaggedError<RetriesExhausted>("chicory/RetriesExhausted")(
  "RetriesExhausted",
  {}
) {
  override get message(): string {
    return "the handler asked for a retry, and none was left"
  }
}

/** The record was forgotten, or its retention ran out, while somebody who knew of it waited. */
export class Forgotten extends Schema.TaggedError<Forgotten>("chicory/Forgotten")("Forgotten", {}) {
  override get message(): string {
    return "the task's record was forgotten, or its retention ran out"
  }
}

/** Every way in which a task ends without a success. */
export type Reason<E> =
  | Failed<E>
  | RetriesExhausted
  | Forgotten
  | Died
  | TimedOut
  | Cancelled
  | Expired
  | WorkerLost
  | UnknownTask
  | PayloadInvalid
  | ResultInvalid

/** The task ended without a success. */
export class TaskFailed<out E> extends Data.TaggedError("TaskFailed")<{
  readonly taskId: string
  readonly taskName: string
  /** Starts that were not released. */
  readonly attempts: number
  readonly reason: Reason<E>
}> {
  override get message(): string {
    return `task ${this.taskName} (${this.taskId}) ended after ${this.attempts} attempt${
      this.attempts === 1 ? "" : "s"
    }: ${this.reason.message}`
  }
}

/** The struct of a class's fields, as a schema of its instances. An instance is read like any object. */
const instances = <A extends object, S extends Schema.Constraint>(
  isInstance: (u: unknown) => u is A,
  make: (fields: A) => A,
  fields: S
): Schema.Codec<A, unknown, S["DecodingServices"], S["EncodingServices"]> => {
  const plain = fields as unknown as Schema.Codec<A, unknown, S["DecodingServices"], S["EncodingServices"]>
  return plain.pipe(
    Schema.decodeTo(
      Schema.declare(isInstance),
      SchemaTransformation.transform<A, A>({ decode: make, encode: (instance) => instance })
    )
  )
}

/** @internal Schema of a reason, over the schema of the task's error. */
export const reasonSchema = <E extends Schema.Constraint>(
  error: E
): Schema.Codec<Reason<E["Type"]>, unknown, E["DecodingServices"], E["EncodingServices"]> =>
  Schema.Union([
    instances(
      (u): u is Failed<E["Type"]> => u instanceof Failed,
      (fields) => new Failed(fields),
      Schema.TaggedStruct("Failed", { error, retriesExhausted: Schema.Boolean })
    ),
    RetriesExhausted,
    Forgotten,
    Died,
    TimedOut,
    Cancelled,
    Expired,
    WorkerLost,
    UnknownTask,
    PayloadInvalid,
    ResultInvalid
  ])

/**
 * Codec of a `TaskFailed` to JSON, for borders of one's own: RPC, HTTP, a log.
 *
 * **Example**
 *
 * ```ts
 * const codec = TaskFailed.schema(DivideByZero)
 * const encode = Schema.encodeEffect(codec)
 * ```
 */
export const schema = <E extends Schema.Constraint>(
  error: E
): Schema.Codec<TaskFailed<E["Type"]>, Schema.Json, E["DecodingServices"], E["EncodingServices"]> =>
  Schema.toCodecJson(
    instances(
      (u): u is TaskFailed<E["Type"]> => u instanceof TaskFailed,
      (fields) => new TaskFailed(fields),
      Schema.TaggedStruct("TaskFailed", {
        taskId: Schema.String,
        taskName: Schema.String,
        attempts: Schema.Int,
        reason: reasonSchema(error)
      })
    )
  )
