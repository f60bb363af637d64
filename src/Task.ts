/**
 * Defines tasks, enqueues them, and provides their handlers.
 *
 * A task is a value: a name, with schemas for its payload, its success and its error. A producer enqueues it and gets an
 * `AsyncResult`; a `Worker`, usually in another process, runs its handler.
 *
 * **Example** (Defining, handling and enqueuing a task)
 *
 * ```ts
 * import { AsyncResult, RetryPolicy, Task } from "chicory"
 * import { Effect, Schema } from "effect"
 *
 * class DivideByZero extends Schema.TaggedError<DivideByZero>()("DivideByZero", { dividend: Schema.Number }) {}
 *
 * const Divide = Task.make("math.divide", {
 *   payload: { dividend: Schema.Number, divisor: Schema.Number },
 *   success: Schema.Number,
 *   error: DivideByZero,
 *   retry: RetryPolicy.exponential({ maxRetries: 3, delay: "1 second" })
 * })
 *
 * export const DivideLive = Divide.toLayer(({ dividend, divisor }) =>
 *   divisor === 0 ? Effect.fail(new DivideByZero({ dividend })) : Effect.succeed(dividend / divisor)
 * )
 *
 * export const program = Effect.gen(function* () {
 *   const result = yield* Divide.delay({ dividend: 6, divisor: 3 })
 *   return yield* AsyncResult.get(result, { timeout: "5 seconds" })
 * })
 * ```
 *
 * @since 0.1.0
 * @module
 */
import { Context, Duration, Effect, Layer, Schema, type Scope } from "effect"
import type * as AsyncResult from "./AsyncResult.ts"
import { Backend } from "./Backend.ts"
import { Broker } from "./Broker.ts"
import type { EnqueueError, PartialEnqueue } from "./EnqueueError.ts"
import type { EnqueueOptions } from "./EnqueueOptions.ts"
import * as defaults from "./internal/defaults.ts"
import { checkSupport } from "./internal/driver/checkSupport.ts"
import { positiveDuration, positiveOrInfinite, text, wholeNumber } from "./internal/options.ts"
import { type OptionsOfEach, send, sendAll } from "./internal/producer/prepare.ts"
import { fromCodec } from "./internal/results/ResultHandle.ts"
import * as TaskCodec from "./internal/task/TaskCodec.ts"
import {
  definitionOf,
  register,
  type TaskDefinition,
  type Handler as HandlerService,
  handlerKey
} from "./internal/task/TaskDefinition.ts"
import { writeProgress } from "./internal/worker/writeProgress.ts"
import * as RetryPolicy from "./RetryPolicy.ts"
import type { TaskContext } from "./TaskContext.ts"

/**
 * Runtime type identifier of tasks.
 *
 * @category type IDs
 * @since 0.1.0
 */
export const TypeId = "~chicory/Task"

/**
 * Type-level identifier of tasks.
 *
 * @category type IDs
 * @since 0.1.0
 */
export type TypeId = typeof TypeId

export {
  EncodeError,
  IdempotencyConflict,
  PartialEnqueue,
  PayloadTooLarge,
  Unsupported
} from "./EnqueueError.ts"
export type { EnqueueError } from "./EnqueueError.ts"
export type { EnqueueOptions } from "./EnqueueOptions.ts"

/**
 * Any task. No part of it depends on the schemas, so tasks of different types fit into one array.
 *
 * @category models
 * @since 0.1.0
 */
export interface Any {
  readonly [TypeId]: typeof TypeId
  readonly name: string
  readonly queue: string
}

/**
 * The service of a task's handler. `toLayer` provides it, and `Worker.layer` needs it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Handler<in out Name extends string> {
  readonly _: unique symbol
  readonly name: Name
}

/**
 * The handlers of a union of tasks; `never` where the compiler sees no names, as for `Any`.
 *
 * @category utility types
 * @since 0.1.0
 */
export type HandlerOf<T extends Any> = T extends Any
  ? string extends T["name"]
    ? never
    : Handler<T["name"]>
  : never

/**
 * A function that enqueues a task: of a payload and options, or of options alone where the task has no payload.
 *
 * **Details**
 *
 * Code over any task passes the payload first, which is `undefined` for a task without one.
 *
 * @category utility types
 * @since 0.1.0
 */
export type Enqueue<Payload extends Schema.Constraint, Enqueued> = ((
  payload: Payload["~type.make.in"],
  options?: EnqueueOptions
) => Enqueued) &
  (Payload extends Schema.Void ? (options?: EnqueueOptions) => Enqueued : unknown)

/**
 * A task: its name, its schemas, and its operations.
 *
 * @see {@link make} for the constructor
 *
 * @category models
 * @since 0.1.0
 */
export interface Task<
  in out Name extends string,
  in out Payload extends Schema.Constraint,
  in out Success extends Schema.Constraint,
  in out Error extends Schema.Constraint,
  in out Progress extends Schema.Constraint = Schema.Never
> extends Any {
  readonly name: Name
  readonly payloadSchema: Payload
  readonly successSchema: Success
  readonly errorSchema: Error
  readonly progressSchema: Progress
  /**
   * Enqueues the task, and returns a handle on its result. When it returns, the store has the task.
   *
   * **Details**
   *
   * With `SqlStore` inside `sql.withTransaction`, the task is enqueued when the transaction commits.
   *
   * A task without a payload takes the options as the first argument: `task.delay({ delay: "1 minute" })`.
   *
   * Fails with `EncodeError`, `PayloadTooLarge`, `IdempotencyConflict`, `Unsupported` or `BackendNotConfigured` if
   * nothing was enqueued. Fails with `BrokerError` or `BackendError` if the task may have been enqueued; with an `id` the
   * call is safe to repeat.
   */
  readonly delay: Enqueue<
    Payload,
    Effect.Effect<
      AsyncResult.AsyncResult<
        Success["Type"],
        Error["Type"],
        Success["DecodingServices"] | Error["DecodingServices"] | Progress["DecodingServices"],
        Progress["Type"]
      >,
      EnqueueError,
      Broker | Backend | Payload["EncodingServices"]
    >
  >
  /**
   * Enqueues one task for each payload, and returns their handles in the order of the payloads.
   *
   * **Details**
   *
   * The options hold for every task, or a function returns those of one, of its payload and its index; only the function
   * may give an `id`.
   *
   * Payloads are taken, encoded and sent in batches of at most 256, or 2 MiB of characters. It stops at the first error,
   * and fails with `PartialEnqueue`, which has the ids of the tasks that were enqueued. When it stops early, or is
   * interrupted, it closes the iterator of the payloads, as a loop would.
   *
   * **Gotchas**
   *
   * An iterator, such as that of a generator function, can be read once: a second run of the same effect, as by a retry,
   * is a defect. A function of options that throws, or returns one out of range, is a defect too, which does not take
   * back what was enqueued before.
   */
  readonly delayAll: (
    payloads: Iterable<Payload["~type.make.in"]>,
    options?:
      | Omit<EnqueueOptions, "id">
      | ((payload: Payload["~type.make.in"], index: number) => EnqueueOptions)
  ) => Effect.Effect<
    Array<
      AsyncResult.AsyncResult<
        Success["Type"],
        Error["Type"],
        Success["DecodingServices"] | Error["DecodingServices"] | Progress["DecodingServices"],
        Progress["Type"]
      >
    >,
    PartialEnqueue,
    Broker | Backend | Payload["EncodingServices"]
  >
  /** Enqueues the task as `delay` does, and returns its id. */
  readonly send: Enqueue<
    Payload,
    Effect.Effect<string, EnqueueError, Broker | Backend | Payload["EncodingServices"]>
  >
  /** Returns a handle on the result of a task of this name, by its id. It reads nothing. */
  readonly result: (
    taskId: string
  ) => AsyncResult.AsyncResult<
    Success["Type"],
    Error["Type"],
    Success["DecodingServices"] | Error["DecodingServices"] | Progress["DecodingServices"],
    Progress["Type"]
  >
  /**
   * Writes progress, from the handler of this task.
   *
   * **Details**
   *
   * A write that fails is logged, and the handler continues. A value that does not encode, or that is larger than 4 MiB,
   * is a defect. Without a backend it does nothing. Inside a transaction of the `SqlClient` of the store nothing is
   * written, with a warning.
   */
  readonly progress: (
    value: Progress["~type.make.in"]
  ) => Effect.Effect<void, never, TaskContext | Progress["EncodingServices"]>
  /** Provides the handler of this task. Each attempt has its own `TaskContext` and its own `Scope`. */
  readonly toLayer: <R>(
    handler: (payload: Payload["Type"]) => Effect.Effect<Success["Type"], Error["Type"], R>
  ) => Layer.Layer<
    Handler<Name>,
    never,
    | Exclude<R, TaskContext | Scope.Scope>
    | Payload["DecodingServices"]
    | Success["EncodingServices"]
    | Error["EncodingServices"]
  >
}

/**
 * The payload schema of a task's options: a struct for fields, and a schema unchanged.
 *
 * @category utility types
 * @since 0.1.0
 */
export type PayloadSchema<P extends Schema.Constraint | Schema.Struct.Fields> = P extends Schema.Constraint
  ? P
  : P extends Schema.Struct.Fields
    ? Schema.Struct<P>
    : never

/**
 * Options of a task.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options<
  Payload extends Schema.Constraint | Schema.Struct.Fields,
  Success extends Schema.Constraint,
  Error extends Schema.Constraint,
  Progress extends Schema.Constraint
> {
  /**
   * The schema of the payload, or the fields of a struct. Default: `Schema.Void`, for a task without a payload. A few values change on their way
   * through JSON: see docs/payloads.md.
   */
  readonly payload?: Payload
  /** The schema of the handler's success. Default: `Schema.Void`. */
  readonly success?: Success
  /** The schema of the handler's error. Default: `Schema.Never`, for a handler that cannot fail. */
  readonly error?: Error
  /** The schema of the handler's progress. Default: `Schema.Never`, for a handler without progress. */
  readonly progress?: Progress
  /** The queue. Default `default`. */
  readonly queue?: string | undefined
  /** Which failures are retried, and when. Default `RetryPolicy.never`. */
  readonly retry?: RetryPolicy.RetryPolicy<Error["Type"]> | undefined
  /**
   * Whether defects of the handler are retried as `retry` says, and with them a handler that interrupts itself. Default
   * `false`: a defect is a bug.
   */
  readonly retryDefects?: boolean | undefined
  /**
   * What becomes of a task that fails for good with its typed error, or that asks for a retry when none is left: `keep`
   * writes a dead letter, `discard` does not. The task ends with its error either way. Defects, timeouts and all other
   * ends leave a dead letter. Default `keep`. For single errors see `RetryPolicy.ByTag`.
   */
  readonly deadLetter?: "keep" | "discard" | undefined
  /**
   * How many runs may vanish with their worker before the task ends with the reason `WorkerLost`. At least 1. Default 3.
   */
  readonly maxCrashes?: number | undefined
  /**
   * How often a task may run. `at-least-once`: it runs again if its worker vanishes. `at-most-once`: it never runs twice,
   * takes no retry policy, and ends with the reason `WorkerLost` if its worker vanishes. Default `at-least-once`.
   */
  readonly delivery?: "at-least-once" | "at-most-once" | undefined
  /** How long one attempt may take, whatever its lease. Default: unlimited. */
  readonly timeout?: Duration.Input | undefined
  /**
   * 0 to 255; a higher one runs first. Default 100. A broker without priorities does not take the task: see `layerCheck`.
   */
  readonly priority?: number | undefined
  /** How long a task may wait, counted from the enqueue; then it ends with the reason `Expired`. Default: unlimited. */
  readonly expires?: Duration.Input | undefined
  /**
   * How long the result is kept, counted from the task's end. `Duration.infinity`: forever. Default: the `retention` of
   * the backend's layer, by default 1 day.
   */
  readonly retention?: Duration.Input | undefined
  /**
   * Returns the idempotency key of a payload: 1 to 1,000 characters. Payloads with the same key are one task, until its
   * retention is over or it is forgotten. Payloads that differ are an `IdempotencyConflict`; the order of keys, sets and
   * maps makes no difference, nor does a field that is `undefined` or absent. A payload for which the function throws, or
   * returns another key, is an `EncodeError`. Default: none.
   */
  readonly idempotencyKey?: ((payload: PayloadSchema<Payload>["Type"]) => string) | undefined
}

/** The options of any task. */
type AnyOptions = Options<
  Schema.Constraint | Schema.Struct.Fields,
  Schema.Constraint,
  Schema.Constraint,
  Schema.Constraint
>

/** Returns the definition of a task, or throws a `RangeError` if an option is out of range. */
const toDefinition = (
  name: string,
  options: AnyOptions,
  codecs: Pick<TaskDefinition, "payload" | "result">
): TaskDefinition => {
  text("Task.make: the name", name)
  const at = (option: string) => `Task.make("${name}"): ${option}`
  const delivery = options.delivery ?? "at-least-once"
  const retry = RetryPolicy.check(at("retry"), options.retry ?? RetryPolicy.never)
  if (delivery === "at-most-once" && (retry.maxRetries > 0 || options.retryDefects === true)) {
    throw new RangeError(at(`delivery "at-most-once" never runs a task twice, so it takes no retry policy`))
  }
  const expires = options.expires === undefined ? undefined : positiveDuration(at("expires"), options.expires)
  const retention =
    options.retention === undefined ? undefined : positiveOrInfinite(at("retention"), options.retention)
  return {
    name,
    queue: text(at("queue"), options.queue ?? defaults.queue),
    ...codecs,
    retry,
    retryDefects: options.retryDefects ?? false,
    discardsFailures: options.deadLetter === "discard",
    maxCrashes: wholeNumber(at("maxCrashes"), options.maxCrashes ?? defaults.maxCrashes, 1),
    delivery,
    timeout: options.timeout === undefined ? undefined : positiveDuration(at("timeout"), options.timeout),
    priority:
      options.priority === undefined ? undefined : wholeNumber(at("priority"), options.priority, 0, 255),
    expiresMillis: expires === undefined ? undefined : Duration.toMillis(expires),
    retentionMillis: retention === undefined ? undefined : Duration.toMillis(retention),
    idempotencyKey: options.idempotencyKey
  }
}

/**
 * Makes a task.
 *
 * **Details**
 *
 * The name identifies the task in stores and messages, so it has to stay the same when the code moves, and each task of
 * a worker needs its own. Codecs are built here, once. Throws a `RangeError` if an option is out of range.
 *
 * **Example** (Enqueuing once for each order)
 *
 * ```ts
 * import { Task } from "chicory"
 * import { Schema } from "effect"
 *
 * export const SendReceipt = Task.make("receipt.send", {
 *   payload: { orderId: Schema.String, email: Schema.String },
 *   retention: "7 days",
 *   idempotencyKey: ({ orderId }) => orderId
 * })
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <
  const Name extends string,
  const Payload extends Schema.Constraint | Schema.Struct.Fields = Schema.Void,
  Success extends Schema.Constraint = Schema.Void,
  Error extends Schema.Constraint = Schema.Never,
  Progress extends Schema.Constraint = Schema.Never
>(
  name: Name,
  options?: Options<Payload, Success, Error, Progress>
): Task<Name, PayloadSchema<Payload>, Success, Error, Progress> => {
  const payloadSchema: Schema.Constraint =
    options?.payload === undefined
      ? Schema.Void
      : Schema.isSchema(options.payload)
        ? options.payload
        : Schema.Struct(options.payload as Schema.Struct.Fields)
  const schemas = {
    success: options?.success ?? Schema.Void,
    error: options?.error ?? Schema.Never,
    progress: options?.progress ?? Schema.Never
  }
  const definition = toDefinition(name, options ?? {}, {
    payload: TaskCodec.payload(payloadSchema),
    result: TaskCodec.result(schemas)
  })
  const result = (taskId: string) => fromCodec(taskId, definition.result)
  const enqueue = (use: "result" | "id") =>
    payloadSchema.ast._tag === "Void"
      ? (first: unknown, second?: EnqueueOptions) =>
          send(definition, undefined, second ?? (first as EnqueueOptions | undefined), use)
      : (payload: unknown, options?: EnqueueOptions) => send(definition, payload, options, use)
  const delay = enqueue("result")
  const task = {
    [TypeId]: TypeId,
    name,
    queue: definition.queue,
    payloadSchema,
    successSchema: schemas.success,
    errorSchema: schemas.error,
    progressSchema: schemas.progress,
    delay: (payload: unknown, options?: EnqueueOptions) => Effect.map(delay(payload, options), result),
    send: enqueue("id"),
    delayAll: (payloads: Iterable<unknown>, options?: OptionsOfEach) =>
      Effect.map(sendAll(definition, payloads, options), (ids) => ids.map(result)),
    result,
    progress: (value: unknown) => writeProgress(definition, value),
    toLayer: (handler: HandlerService["run"]) =>
      Layer.effect(
        handlerKey(name),
        Effect.contextWith((context: Context.Context<unknown>) => Effect.succeed({ run: handler, context }))
      )
  }
  register(task, definition)
  return task as never
}

/**
 * Checks, when it is built, that the stores support what tasks ask for. It provides nothing.
 *
 * **When to use**
 *
 * Use in a program that only enqueues, beside the layer of its store, so that a pairing that does not fit shows when the
 * program starts. `Worker.layer` does the same for the tasks of a worker.
 *
 * **Details**
 *
 * What is missing is a defect that names the tasks and the broker: a `priority` where the broker has none, as with
 * RabbitMQ, or an `idempotencyKey` without a backend. Options say what calls will ask for: a `priority`, and the longest
 * `delay`. A call that asks for more fails with `Unsupported`.
 *
 * **Example** (Checking a producer)
 *
 * ```ts
 * import { Task } from "chicory"
 * import { SqliteStore } from "chicory/sqlite"
 * import { Layer, Schema } from "effect"
 *
 * const SendMail = Task.make("mail.send", { payload: { to: Schema.String }, priority: 200 })
 *
 * export const ProducerLive = Task.layerCheck([SendMail], { delay: "30 days" }).pipe(
 *   Layer.provideMerge(SqliteStore.layer({ filename: "tasks.db" }))
 * )
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerCheck = (
  tasks: ReadonlyArray<Any>,
  options?: Pick<EnqueueOptions, "priority" | "delay">
): Layer.Layer<never, never, Broker | Backend> =>
  Layer.effectDiscard(
    Effect.contextWith((context: Context.Context<Broker | Backend>) => {
      const stores = { backend: Context.get(context, Backend), broker: Context.get(context, Broker) }
      return Effect.sync(() => checkSupport("Task.layerCheck", tasks.map(definitionOf), stores, options))
    })
  )
