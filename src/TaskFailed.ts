/**
 * Describes why a task ended without a success.
 *
 * `AsyncResult.get` fails with a `TaskFailed<E>`, which wraps a `reason`. The reasons are a tagged union, so that
 * `Effect.catchReason` handles one of them.
 *
 * **Example** (Handling one reason)
 *
 * ```ts
 * import { AsyncResult, Task } from "chicory"
 * import { Effect, Schema } from "effect"
 *
 * class DivideByZero extends Schema.TaggedError<DivideByZero>()("DivideByZero", { dividend: Schema.Number }) {}
 *
 * const Divide = Task.make("math.divide", {
 *   payload: { dividend: Schema.Number, divisor: Schema.Number },
 *   success: Schema.Number,
 *   error: DivideByZero
 * })
 *
 * const program = Effect.gen(function* () {
 *   const result = yield* Divide.delay({ dividend: 6, divisor: 0 })
 *   return yield* AsyncResult.get(result).pipe(
 *     Effect.catchReason("TaskFailed", "Failed", (reason) => Effect.succeed(reason.error.dividend))
 *   )
 * })
 * ```
 *
 * @since 0.1.0
 * @module
 */
import { Data, Effect, Schema, SchemaTransformation } from "effect"
import { Defect, DEFECT_LIMITS, restoreStacks, setStack, stacksOf } from "./internal/defectCodec.ts"
import { errorStack, nameOf } from "./internal/errorText.ts"

/**
 * Reason of a task whose handler failed with the task's typed error, and was not retried, or not retried any more.
 *
 * **Details**
 *
 * `message` names the error by its tag or class, and has none of its fields. `cause` is the error itself, so that
 * `Cause.pretty` prints it. An error that is an `Error` has the stack that it had in the handler, up to 8 KiB, and so have
 * the errors in its `cause`.
 *
 * @category reasons
 * @since 0.1.0
 */
export class Failed<out E> extends Data.TaggedError("Failed")<{
  /** The handler's error: the same class, with its fields, in every process that reads it. */
  readonly error: E
  /** Whether the task's policy allowed a retry of this error, and none was left. */
  readonly retriesExhausted: boolean
}> {
  override get message(): string {
    return `the handler failed with ${nameOf(this.error)}${this.retriesExhausted ? "; no retries are left" : ""}`
  }

  /** The handler's error. */
  override get cause(): unknown {
    return this.error
  }
}

/**
 * Reason of a task whose handler died: a bug, not an error that the task declares.
 *
 * **Details**
 *
 * A handler that interrupts itself has died, and so has one that gives a value in place of an effect.
 *
 * A defect that is an `Error` comes out of the store as an `Error` with its name, its message (up to 8 KiB; its fields as
 * JSON, if it has no message), its stack in the handler (up to 8 KiB) and its causes, up to 32 KiB in all. Its class and
 * its other fields are lost. A defect of another kind comes out as JSON, or as text.
 *
 * `message` names the defect by its tag, its class or its type. `cause` is the defect itself, so that `Cause.pretty` prints
 * it with the stack of the handler.
 *
 * **Gotchas**
 *
 * Effect ends a fiber at once where it finds a value in place of an effect: finalizers of the handler may not run then.
 *
 * @category reasons
 * @since 0.1.0
 */
export class Died extends Schema.TaggedError<Died>("chicory/Died")("Died", {
  /** What the handler died of. */
  defect: Defect
}) {
  override get message(): string {
    return `the handler died: ${nameOf(this.defect)}`
  }

  /** The defect. */
  override get cause(): unknown {
    return this.defect
  }
}

/**
 * Reason of a task one of whose attempts took longer than the task's `timeout`, with no retry left.
 *
 * @category reasons
 * @since 0.1.0
 */
export class TimedOut extends Schema.TaggedError<TimedOut>("chicory/TimedOut")("TimedOut", {
  /** The task's `timeout`. */
  timeout: Schema.DurationFromMillis
}) {
  override get message(): string {
    return `an attempt took longer than the task's timeout of ${String(this.timeout)}`
  }
}

/**
 * Reason of a task that was cancelled.
 *
 * @category reasons
 * @since 0.1.0
 */
export class Cancelled extends Schema.TaggedError<Cancelled>("chicory/Cancelled")("Cancelled", {}) {
  override get message(): string {
    return "the task was cancelled"
  }
}

/**
 * Reason of a task that waited longer than its `expires`.
 *
 * @category reasons
 * @since 0.1.0
 */
export class Expired extends Schema.TaggedError<Expired>("chicory/Expired")("Expired", {
  /** When it expired, by the store's clock. */
  expiredAt: Schema.DateTimeUtc
}) {
  override get message(): string {
    return "the task expired before it could run"
  }
}

/**
 * Reason of a task whose workers vanished while they ran it (killed, or cut off from the store), as often as the task's
 * `maxCrashes` allows; of an at-most-once task, once.
 *
 * @category reasons
 * @since 0.1.0
 */
export class WorkerLost extends Schema.TaggedError<WorkerLost>("chicory/WorkerLost")("WorkerLost", {
  /** The id of the last worker; `unknown` where the store does not have it. */
  worker: Schema.String
}) {
  override get message(): string {
    return `worker ${this.worker} was lost while it ran the task`
  }
}

/**
 * Reason of a task whose message waited for a worker's `unknownTaskGrace`, and whose name no live worker of its queue knew
 * then.
 *
 * @see `Worker.Options` for the grace
 *
 * @category reasons
 * @since 0.1.0
 */
export class UnknownTask extends Schema.TaggedError<UnknownTask>("chicory/UnknownTask")("UnknownTask", {
  /**
   * The ids of the workers that listened to the queue without knowing the task, which begin with their host's name: 10 of
   * them at most, in order. Empty in a record that does not have them.
   */
  workers: Schema.Array(Schema.String).pipe(Schema.withDecodingDefaultTypeKey(Effect.succeed([])))
}) {
  override get message(): string {
    const { workers } = this
    const listened = workers.length === 0 ? "" : `; these workers listen to it: ${workers.join(", ")}`
    return `no worker of the queue knows this task: add it to the worker's list of tasks${listened}`
  }
}

/**
 * Reason of a task whose payload does not decode with the worker's schema. It is never retried.
 *
 * @category reasons
 * @since 0.1.0
 */
export class PayloadInvalid extends Schema.TaggedError<PayloadInvalid>("chicory/PayloadInvalid")(
  "PayloadInvalid",
  {
    /** What the schema expects, and where. It has no value of the payload. */
    issue: Schema.String,
    /** What the code of the schema threw, if it did. */
    cause: Schema.optionalKey(Defect)
  }
) {
  override get message(): string {
    return `the payload does not decode: ${this.issue}`
  }
}

/**
 * Reason of a task whose result does not encode or decode.
 *
 * **Details**
 *
 * - Side `worker`: what the handler succeeded or failed with does not encode, or is larger than 4 MiB or than the store takes.
 *   The task has ended and is never run again for it. An error of the handler that does not encode, such as one that the
 *   task's schema does not know, is kept in `cause`.
 * - Side `reader`: the stored result does not decode with the schemas of this handle, or the code of a schema throws for
 *   it. The record is unchanged, and a handle with the right schemas reads it.
 *
 * @category reasons
 * @since 0.1.0
 */
export class ResultInvalid extends Schema.TaggedError<ResultInvalid>("chicory/ResultInvalid")(
  "ResultInvalid",
  {
    side: Schema.Literals(["worker", "reader"]),
    /** What the schema expects, and where; or the size. It has no value of the result. */
    issue: Schema.String,
    /**
     * The error that the handler failed with, on the side `worker`, as `Died` keeps a defect: an `Error` with its name, its
     * message, its stack in the handler and its causes; or JSON, or text. Otherwise what the code of the schema threw, if it
     * did.
     */
    cause: Schema.optionalKey(Defect)
  }
) {
  override get message(): string {
    return this.side === "worker"
      ? `the handler's result cannot be stored: ${this.issue}`
      : `the stored result does not decode with the schemas of this handle: ${this.issue}`
  }
}

/**
 * Reason of a task whose handler called `TaskContext.retry` without an error when no retry was left.
 *
 * @category reasons
 * @since 0.1.0
 */
export class RetriesExhausted extends Schema.TaggedError<RetriesExhausted>("chicory/RetriesExhausted")(
  "RetriesExhausted",
  {}
) {
  override get message(): string {
    return "the handler asked for a retry, and none was left"
  }
}

/**
 * Reason of a waiter whose task's record was forgotten, or whose retention ran out, while it waited.
 *
 * @see `AsyncResult.forget`
 *
 * @category reasons
 * @since 0.1.0
 */
export class Forgotten extends Schema.TaggedError<Forgotten>("chicory/Forgotten")("Forgotten", {}) {
  override get message(): string {
    return "the task's record was forgotten, or its retention ran out"
  }
}

/**
 * The reasons for which a task ends without a success. `E` is the task's typed error.
 *
 * @category models
 * @since 0.1.0
 */
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

/**
 * Error of a task that ended without a success. `E` is the task's typed error.
 *
 * **When to use**
 *
 * Use `Effect.catchReason("TaskFailed", tag, f)` to handle one reason, `Effect.catchReasons` to handle several, and
 * `Effect.catchTag("TaskFailed", f)` to handle all of them.
 *
 * @see {@link Reason} for the reasons
 * @see {@link schema} for a codec
 *
 * @category errors
 * @since 0.1.0
 */
export class TaskFailed<out E> extends Data.TaggedError("TaskFailed")<{
  readonly taskId: string
  readonly taskName: string
  /** Starts of the task's last generation, without those that were released. */
  readonly attempts: number
  readonly reason: Reason<E>
}> {
  override get message(): string {
    return `task ${this.taskName} (${this.taskId}) ended after ${this.attempts} attempt${
      this.attempts === 1 ? "" : "s"
    }: ${this.reason.message}`
  }

  /** The error or the defect of the handler, if the reason has one. */
  override get cause(): unknown {
    return this.reason.cause
  }
}

/**
 * Makes the failure of a stored record. Its stack is empty: it would be that of the decoder.
 *
 * @internal
 */
export const make = <E>(fields: {
  readonly taskId: string
  readonly taskName: string
  readonly attempts: number
  readonly reason: Reason<E>
}): TaskFailed<E> => {
  const failed = new TaskFailed<E>(fields)
  setStack(failed, undefined)
  return failed
}

/** Returns a schema of a class's instances over another schema. */
const instancesOf = <A extends object, S extends Schema.Constraint>(
  isInstance: (u: unknown) => u is A,
  from: S,
  transformation: {
    readonly decode: (from: S["Type"]) => A
    readonly encode: (instance: A) => S["Type"]
  }
): Schema.Codec<A, unknown, S["DecodingServices"], S["EncodingServices"]> =>
  (from as unknown as Schema.Codec<S["Type"], unknown, S["DecodingServices"], S["EncodingServices"]>).pipe(
    Schema.decodeTo(Schema.declare(isInstance), SchemaTransformation.transform(transformation))
  )

const failedSchema = <E extends Schema.Constraint>(error: E) => {
  const isFailed = (u: unknown): u is Failed<E["Type"]> => u instanceof Failed
  return instancesOf(
    isFailed,
    Schema.TaggedStruct("Failed", {
      error,
      retriesExhausted: Schema.Boolean,
      /** The frames of the error, and of the errors that it wraps. */
      stacks: Schema.optionalKey(Schema.Array(Schema.String))
    }) as unknown as Schema.Codec<
      {
        readonly error: E["Type"]
        readonly retriesExhausted: boolean
        readonly stacks?: ReadonlyArray<string>
      },
      unknown,
      E["DecodingServices"],
      E["EncodingServices"]
    >,
    {
      decode: ({ error, retriesExhausted, stacks = [] }) => {
        const failed = new Failed({ error, retriesExhausted })
        restoreStacks(error, stacks)
        setStack(failed, stacks[0])
        return failed
      },
      encode: ({ error, retriesExhausted }) => {
        const stacks = stacksOf(error)
        return { _tag: "Failed", error, retriesExhausted, ...(stacks.some(Boolean) ? { stacks } : {}) }
      }
    }
  )
}

const reasons = [
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
] as const

const isReason = (u: unknown): u is Reason<never> =>
  u instanceof Failed || reasons.some((reason) => u instanceof reason)

/** Gives a decoded reason the stack of the handler in place of the decoder's; none, if no handler caused it. */
const withStack = <R extends Reason<unknown>>(reason: R): R => {
  if (!(reason instanceof Failed)) setStack(reason, errorStack(reason.cause, DEFECT_LIMITS.stack))
  return reason
}

/**
 * Returns the schema of a reason, over the schema of the task's error.
 *
 * @internal
 */
export const reasonSchema = <E extends Schema.Constraint>(
  error: E
): Schema.Codec<Reason<E["Type"]>, unknown, E["DecodingServices"], E["EncodingServices"]> =>
  instancesOf(
    isReason as (u: unknown) => u is Reason<E["Type"]>,
    Schema.Union([failedSchema(error), ...reasons]) as Schema.Codec<
      Reason<E["Type"]>,
      unknown,
      E["DecodingServices"],
      E["EncodingServices"]
    >,
    { decode: withStack, encode: (reason) => reason }
  )

/**
 * Returns a codec between `TaskFailed<E>` and JSON, over the schema of the task's error.
 *
 * **When to use**
 *
 * Use to send a `TaskFailed` where this library does not: through RPC, HTTP, or to a log.
 *
 * **Example** (Encoding a failure)
 *
 * ```ts
 * import { TaskFailed } from "chicory"
 * import { Schema } from "effect"
 *
 * class DivideByZero extends Schema.TaggedError<DivideByZero>()("DivideByZero", { dividend: Schema.Number }) {}
 *
 * const codec = TaskFailed.schema(DivideByZero)
 * const encode = Schema.encodeEffect(codec)
 * ```
 *
 * @category schemas
 * @since 0.1.0
 */
export const schema = <E extends Schema.Constraint>(
  error: E
): Schema.Codec<TaskFailed<E["Type"]>, Schema.Json, E["DecodingServices"], E["EncodingServices"]> =>
  Schema.toCodecJson(
    instancesOf(
      (u): u is TaskFailed<E["Type"]> => u instanceof TaskFailed,
      Schema.TaggedStruct("TaskFailed", {
        taskId: Schema.String,
        taskName: Schema.String,
        attempts: Schema.Int,
        reason: reasonSchema(error)
      }),
      { decode: make, encode: (failed) => failed }
    )
  )
