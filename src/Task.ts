/**
 * A task is a value: a name, with Schemas for what goes in, what comes out and what it fails with.
 *
 * ```ts
 * const Divide = Task.make("math.divide", {
 *   payload: { dividend: Schema.Number, divisor: Schema.Number },
 *   success: Schema.Number,
 *   error: DivideByZero,
 *   retry: RetryPolicy.exponential({ maxRetries: 3, delay: "1 second" })
 * })
 * ```
 *
 * @module
 */
import { type Context, Duration, Effect, Layer, Schema, type Scope } from "effect"
import * as AsyncResult from "./AsyncResult.ts"
import type { Backend } from "./Backend.ts"
import type { Broker } from "./Broker.ts"
import type { EnqueueError, PartialEnqueue } from "./EnqueueError.ts"
import * as defaults from "./internal/defaults.ts"
import { positiveDuration, positiveOrInfinite, text, wholeNumber } from "./internal/options.ts"
import { type EnqueueOptions, send, sendAll } from "./internal/producer/prepare.ts"
import { CurrentRun } from "./internal/task/CurrentRun.ts"
import * as TaskCodec from "./internal/task/TaskCodec.ts"
import {
  define,
  type TaskDefinition,
  type Handler as HandlerService,
  handlerKey
} from "./internal/task/TaskDefinition.ts"
import * as RetryPolicy from "./RetryPolicy.ts"
import { TaskContext } from "./TaskContext.ts"

/** Identifies tasks at run time. */
export const TypeId = "~chicory/Task"

/** Identifies tasks at run time. */
export type TypeId = typeof TypeId

export {
  EncodeError,
  IdempotencyConflict,
  PartialEnqueue,
  PayloadTooLarge,
  Unsupported
} from "./EnqueueError.ts"
export type { EnqueueError } from "./EnqueueError.ts"
export type { EnqueueOptions } from "./internal/producer/prepare.ts"

/** For arrays of tasks: nothing in it depends on their schemas. */
export interface Any {
  readonly [TypeId]: typeof TypeId
  readonly name: string
  readonly queue: string
}

/** `toLayer` provides it, `Worker.layer` asks for it. */
export interface Handler<in out Name extends string> {
  readonly _: unique symbol
  readonly name: Name
}

/** The handlers of a union of tasks; none where the compiler sees no names. */
export type HandlerOf<T extends Any> = T extends Any
  ? string extends T["name"]
    ? never
    : Handler<T["name"]>
  : never

/** A task: its name, its schemas, and what is done with it. */
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
   * Enqueues the task and gives a handle on its result. When it returns, the store has the task.
   *
   * Fails with `EncodeError`, `PayloadTooLarge`, `IdempotencyConflict`, `Unsupported` (nothing was enqueued), or with
   * `BrokerError`, `BackendError` (unknown: it may have been; with an id of one's own it is safe to call again).
   */
  readonly delay: (
    payload: Payload["~type.make.in"],
    options?: EnqueueOptions
  ) => Effect.Effect<
    AsyncResult.AsyncResult<
      Success["Type"],
      Error["Type"],
      Success["DecodingServices"] | Error["DecodingServices"] | Progress["DecodingServices"],
      Progress["Type"]
    >,
    EnqueueError,
    Broker | Backend | Payload["EncodingServices"]
  >
  /** Enqueues many at once, in bulk; fails with the ids that were accepted. */
  readonly delayAll: (
    payloads: Iterable<Payload["~type.make.in"]>,
    options?: Omit<EnqueueOptions, "id">
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
  /** `delay` for programs that want no handle: gives the id. */
  readonly send: (
    payload: Payload["~type.make.in"],
    options?: EnqueueOptions
  ) => Effect.Effect<string, EnqueueError, Broker | Backend | Payload["EncodingServices"]>
  /** A handle on a task of this name that exists, from any process. */
  readonly result: (
    taskId: string
  ) => AsyncResult.AsyncResult<
    Success["Type"],
    Error["Type"],
    Success["DecodingServices"] | Error["DecodingServices"] | Progress["DecodingServices"],
    Progress["Type"]
  >
  /**
   * In this task's handler: writes progress. A write that is lost is logged; a value that does not encode, or that is
   * larger than a result may be, is a defect.
   */
  readonly progress: (
    value: Progress["~type.make.in"]
  ) => Effect.Effect<void, never, TaskContext | Progress["EncodingServices"]>
  /** The layer of this task's handler. Each attempt has a `TaskContext` and a `Scope` of its own. */
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

/** Fields make a struct; a schema stays what it is. */
export type PayloadSchema<P extends Schema.Constraint | Schema.Struct.Fields> = P extends Schema.Constraint
  ? P
  : P extends Schema.Struct.Fields
    ? Schema.Struct<P>
    : never

/** Options of a task. */
export interface Options<
  Payload extends Schema.Constraint | Schema.Struct.Fields,
  Success extends Schema.Constraint,
  Error extends Schema.Constraint,
  Progress extends Schema.Constraint
> {
  /** Fields of a struct, or a schema. Default: nothing. */
  readonly payload?: Payload
  /** Default: nothing. */
  readonly success?: Success
  /** Default: the handler cannot fail. */
  readonly error?: Error
  /** Default: there is no progress. */
  readonly progress?: Progress
  /** Default: `default`. */
  readonly queue?: string | undefined
  /** Default: no retries. */
  readonly retry?: RetryPolicy.RetryPolicy<Error["Type"]> | undefined
  /** Defects are bugs: not retried unless asked for. */
  readonly retryDefects?: boolean | undefined
  /** The task ends as `WorkerLost` when so many of its runs vanished with their worker. Default 3, at least 1. */
  readonly maxCrashes?: number | undefined
  /** `at-most-once`: never runs twice, and may be lost with its worker; retries are refused. Default: at least once. */
  readonly delivery?: "at-least-once" | "at-most-once" | undefined
  /** Of one attempt, apart from its lease. Default: none. */
  readonly timeout?: Duration.Input | undefined
  /** 0 to 255, higher first. Default 100. */
  readonly priority?: number | undefined
  /** The task ends as `Expired` when it has waited this long, counted from the enqueue. Default: never. */
  readonly expires?: Duration.Input | undefined
  /** How long the result stays, counted from the task's end; `Duration.infinity`: for ever. Default: what the backend's layer says, 1 day. */
  readonly retention?: Duration.Input | undefined
  /** The same key gives the same task, until its retention ends or it is forgotten. */
  readonly idempotencyKey?: ((payload: PayloadSchema<Payload>["Type"]) => string) | undefined
}

/** Options as they were given, their schemas not known. */
type AnyOptions = Options<
  Schema.Constraint | Schema.Struct.Fields,
  Schema.Constraint,
  Schema.Constraint,
  Schema.Constraint
>

const check = (
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
 * Makes a task. Its name is its identity on the wire: keep it when the code moves. Options out of range throw.
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
  const definition = check(name, options ?? {}, {
    payload: TaskCodec.payload(payloadSchema),
    result: TaskCodec.result(schemas)
  })
  const result = (taskId: string) => AsyncResult.fromCodec(taskId, definition.result)
  const task = {
    [TypeId]: TypeId,
    name,
    queue: definition.queue,
    payloadSchema,
    successSchema: schemas.success,
    errorSchema: schemas.error,
    progressSchema: schemas.progress,
    delay: (payload: unknown, options?: EnqueueOptions) =>
      Effect.map(send(definition, payload, options), result),
    send: (payload: unknown, options?: EnqueueOptions) => send(definition, payload, options),
    delayAll: (payloads: Iterable<unknown>, options?: EnqueueOptions) =>
      Effect.map(sendAll(definition, payloads, options), (ids) => ids.map(result)),
    result,
    progress: (value: unknown) => writeProgress(definition, value),
    toLayer: (handler: HandlerService["run"]) =>
      Layer.effect(
        handlerKey(name),
        Effect.contextWith((context: Context.Context<unknown>) => Effect.succeed({ run: handler, context }))
      )
  }
  define(task, definition)
  return task as never
}

const writeProgress = (definition: TaskDefinition, value: unknown): Effect.Effect<void, never, unknown> =>
  Effect.gen(function* () {
    const { taskName } = yield* TaskContext
    if (taskName !== definition.name) {
      return yield* Effect.die(
        new TypeError(`${definition.name}.progress was called in the handler of ${taskName}`)
      )
    }
    const run = yield* CurrentRun
    if (run === undefined) return
    const progress = yield* Effect.orDie(definition.result.encodeProgress(value))
    const bytes = defaults.bytesOf(progress)
    if (bytes > defaults.maxBytes) {
      return yield* Effect.die(
        new RangeError(
          `the progress of ${taskName} has ${bytes} bytes, of at most ${defaults.maxBytes}: store it elsewhere and give its address`
        )
      )
    }
    yield* run.writeProgress(progress)
  })
