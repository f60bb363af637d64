/**
 * A handle on the result of a task: the task's id and its codec, no connection. A handle made elsewhere from the
 * same id is as good.
 *
 * ```ts
 * const result = yield* Divide.delay({ dividend: 6, divisor: 3 })
 * const two = yield* AsyncResult.get(result, { timeout: "5 seconds" })
 * ```
 */
import {
  Cause,
  Duration,
  Effect,
  Exit,
  Option,
  Pipeable,
  Predicate,
  Queue,
  Schedule,
  Schema,
  Stream
} from "effect"
import { Backend } from "./Backend.ts"
import type { CancelAnswer, TaskRecord } from "./BackendDriver.ts"
import { backoff } from "./internal/backoff.ts"
import type { BackendService } from "./internal/driver/BackendService.ts"
import { formatError } from "./internal/formatError.ts"
import { nonNegativeDuration, positiveDuration, text } from "./internal/options.ts"
import { awaitTerminal, type TerminalRecord, type TimeoutInfo } from "./internal/results/awaitTerminal.ts"
import { decodeExit, toTaskResult } from "./internal/results/decodeRecord.ts"
import * as TaskCodec from "./internal/task/TaskCodec.ts"
import { BackendError, BackendNotConfigured, isRetryable, type ReadError } from "./StoreError.ts"
import type * as TaskFailed from "./TaskFailed.ts"
import type { TaskResult } from "./TaskResult.ts"
import { isTerminal, TaskState } from "./TaskState.ts"

export type { CancelAnswer } from "./BackendDriver.ts"
export { ReadRetry } from "./internal/results/awaitTerminal.ts"

/** Identifies handles at run time. */
export const TypeId = "~chicory/AsyncResult"

/** Identifies handles at run time. */
export type TypeId = typeof TypeId

/** A task's id with the codec of its result: `A` and `E` of the task, `R` what decoding needs, `P` its progress. */
export interface AsyncResult<out A, out E = never, out R = never, out P = unknown> extends Pipeable.Pipeable {
  readonly [TypeId]: {
    readonly _A: () => A
    readonly _E: () => E
    readonly _R: () => R
    readonly _P: () => P
  }
  readonly taskId: string
}

/** Any handle. */
export type Any = AsyncResult<unknown, unknown, unknown>

/** What the task of a handle gives. */
export type Success<T> = T extends AsyncResult<infer A, infer _E, infer _R> ? A : never

/** What the task of a handle fails with. */
export type Error<T> = T extends AsyncResult<infer _A, infer E, infer _R> ? E : never

/** What decoding the result of a handle needs. */
export type Services<T> = T extends AsyncResult<infer _A, infer _E, infer R> ? R : never

/**
 * The time was up. Its tag is that of Effect's own `Cause.TimeoutError`: where both can occur, `Cause.isTimeoutError`
 * tells them apart.
 */
export class TimeoutError extends Schema.TaggedError<TimeoutError>("chicory/TimeoutError")("TimeoutError", {
  /** The task, or the first that was missing. */
  taskId: Schema.String,
  timeout: Schema.DurationFromMillis,
  /** The state it was last seen in. */
  state: TaskState,
  /** The last error of the backend while waiting, if there was one. */
  cause: Schema.optionalKey(Schema.Defect())
}) {
  override get message(): string {
    const trouble = this.cause === undefined ? "" : `; the last read failed: ${formatError(this.cause)}`
    return `task ${this.taskId} did not end within ${String(this.timeout)} (last seen ${this.state})${trouble}`
  }
}

/** How to wait. */
export interface GetOptions {
  /** How long to wait. Default: for ever. Zero: one read. */
  readonly timeout?: Duration.Input | undefined
  /**
   * How often to read. Default: 100 millis where the backend gives no hints; where it does, a hint wakes the waiter
   * and all that is awaited is read again every 5 seconds. An interval that is given is honoured.
   */
  readonly pollInterval?: Duration.Input | undefined
}

const absurd = (): never => {
  throw new TypeError("the variance of an AsyncResult is no value")
}
const variance = { _A: absurd, _E: absurd, _R: absurd, _P: absurd }

class Handle<A, E, R, P> extends Pipeable.Class implements AsyncResult<A, E, R, P> {
  readonly [TypeId]: AsyncResult<A, E, R, P>[TypeId] = variance
  readonly taskId: string
  readonly codec: TaskCodec.ResultCodec<A, E, P, R, unknown>
  constructor(taskId: string, codec: TaskCodec.ResultCodec<A, E, P, R, unknown>) {
    super()
    this.taskId = taskId
    this.codec = codec
  }
  toJSON(): unknown {
    return { _id: "chicory/AsyncResult", taskId: this.taskId }
  }
}
const codecOf = <A, E, R, P>(self: AsyncResult<A, E, R, P>) => (self as Handle<A, E, R, P>).codec

/** @internal A handle over a codec that exists. */
export const fromCodec = <A, E, R, P>(
  taskId: string,
  codec: TaskCodec.ResultCodec<A, E, P, R, unknown>
): AsyncResult<A, E, R, P> => new Handle(text("AsyncResult: taskId", taskId), codec)

/** Whether a value is a handle. */
export const isAsyncResult = (u: unknown): u is Any => Predicate.hasProperty(u, TypeId)

/** One signature for data-first and data-last: an overloaded function infers `unknown` when it is passed on. */
const dualWith = (
  body: (self: AsyncResult<unknown, unknown, unknown>, options: GetOptions | undefined) => unknown
): never =>
  ((selfOrOptions?: Any | GetOptions, options?: GetOptions) =>
    isAsyncResult(selfOrOptions)
      ? body(selfOrOptions, options)
      : (self: AsyncResult<unknown, unknown, unknown>) => body(self, selfOrOptions)) as never

interface Schemas {
  readonly success: Schema.Constraint
  readonly error?: Schema.Constraint | undefined
  readonly progress?: Schema.Constraint | undefined
}

/** Codecs of handles made from schemas: made once for each success schema and what came with it last. */
const codecs = new WeakMap<
  Schema.Constraint,
  {
    readonly schemas: Schemas
    readonly codec: TaskCodec.ResultCodec<unknown, unknown, unknown, unknown, unknown>
  }
>()

const codecFor = (schemas: Schemas) => {
  const known = codecs.get(schemas.success)
  if (
    known !== undefined &&
    known.schemas.error === schemas.error &&
    known.schemas.progress === schemas.progress
  ) {
    return known.codec
  }
  const codec = TaskCodec.result({
    success: schemas.success,
    error: schemas.error ?? Schema.Never,
    progress: schemas.progress ?? Schema.Never
  })
  codecs.set(schemas.success, { schemas, codec })
  return codec
}

/**
 * A handle from an id. With the id alone, success and error are the JSON that is stored; a task's own
 * `task.result(id)` is the typed way.
 */
export const make: {
  (taskId: string): AsyncResult<Schema.Json, Schema.Json, never, Schema.Json>
  <
    A extends Schema.Constraint,
    E extends Schema.Constraint = Schema.Never,
    P extends Schema.Constraint = Schema.Never
  >(
    taskId: string,
    schemas: { readonly success: A; readonly error?: E | undefined; readonly progress?: P | undefined }
  ): AsyncResult<
    A["Type"],
    E["Type"],
    A["DecodingServices"] | E["DecodingServices"] | P["DecodingServices"],
    P["Type"]
  >
} = (taskId: string, schemas?: Schemas): AsyncResult<never, never, never, never> =>
  fromCodec(taskId, (schemas === undefined ? TaskCodec.json : codecFor(schemas)) as never)

const timed = (options: GetOptions | undefined) => {
  const timeout = options?.timeout === undefined ? undefined : Duration.fromInputUnsafe(options.timeout)
  return {
    timeout:
      timeout === undefined || !Duration.isFinite(timeout)
        ? undefined
        : nonNegativeDuration("AsyncResult: timeout", timeout),
    pollInterval:
      options?.pollInterval === undefined
        ? undefined
        : positiveDuration("AsyncResult: pollInterval", options.pollInterval)
  }
}

const onOverdue =
  (options: GetOptions | undefined) =>
  ({ cause, state, taskId }: TimeoutInfo): TimeoutError =>
    new TimeoutError({
      taskId,
      timeout: Duration.fromInputUnsafe(options?.timeout ?? Duration.infinity),
      state,
      ...(cause === undefined ? {} : { cause })
    })

const wait = (
  ids: ReadonlyArray<string>,
  options: GetOptions | undefined,
  onEnd: (ended: TerminalRecord) => boolean
) =>
  Effect.suspend(() =>
    awaitTerminal({ ids, ...timed(options), onTimeout: onOverdue(options), onTerminal: onEnd })
  )

/** An error of the backend about one task tells its id. */
const tellingTask =
  (taskId: string) =>
  <E>(error: E): E => {
    if (error instanceof BackendError && error.taskId === undefined) {
      const { cause, operation, retryable } = error
      return new BackendError({ taskId, operation, retryable, cause }) as E & BackendError
    }
    if (error instanceof BackendNotConfigured && error.taskId === undefined) {
      return new BackendNotConfigured({ taskId, operation: error.operation }) as E & BackendNotConfigured
    }
    return error
  }

const about =
  (taskId: string) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.mapError(effect, tellingTask(taskId))

const exitOfHandle = <A, E, R, P>(self: AsyncResult<A, E, R, P>, options: GetOptions | undefined) =>
  Effect.suspend(() => {
    let ended: TerminalRecord | undefined
    return Effect.flatMap(
      wait([self.taskId], options, (end) => {
        ended = end
        return true
      }).pipe(about(self.taskId)),
      () => decodeExit(codecOf(self), ended!)
    )
  })

/**
 * Waits until the task has ended, and gives what it gave; a task that gave nothing gives `undefined`. Interrupting
 * it never touches the task. Inside a handler, the worker's slot is free while it waits.
 *
 * Fails with `TaskFailed<E>` if the task did, with `TimeoutError` when the time is up (after a last read), with
 * `BackendNotConfigured` without a backend, and with `BackendError` for what trying again cannot heal; other errors
 * of the backend are borne as `ReadRetry` says, by default until the timeout.
 *
 * `get(result)`, `get(result, options)`, `result.pipe(get)`, `result.pipe(get(options))`.
 */
export const get: <Arg extends Any | GetOptions = GetOptions>(
  selfOrOptions?: Arg,
  options?: GetOptions
) => [Arg] extends [AsyncResult<infer A, infer E, infer R>]
  ? Effect.Effect<
      A,
      TimeoutError | BackendNotConfigured | TaskFailed.TaskFailed<E> | BackendError,
      Backend | R
    >
  : <A, E, R>(
      self: AsyncResult<A, E, R>
    ) => Effect.Effect<
      A,
      TimeoutError | BackendNotConfigured | TaskFailed.TaskFailed<E> | BackendError,
      Backend | R
    > = dualWith((self, options) => Effect.flatten(exitOfHandle(self, options)))

/** Waits as `get` does; that the task failed is a value. */
export const exit: <Arg extends Any | GetOptions = GetOptions>(
  selfOrOptions?: Arg,
  options?: GetOptions
) => [Arg] extends [AsyncResult<infer A, infer E, infer R>]
  ? Effect.Effect<
      Exit.Exit<A, TaskFailed.TaskFailed<E>>,
      TimeoutError | BackendNotConfigured | BackendError,
      Backend | R
    >
  : <A, E, R>(
      self: AsyncResult<A, E, R>
    ) => Effect.Effect<
      Exit.Exit<A, TaskFailed.TaskFailed<E>>,
      TimeoutError | BackendNotConfigured | BackendError,
      Backend | R
    > = dualWith(exitOfHandle)

const read = (self: Any): Effect.Effect<TaskRecord | undefined, ReadError, Backend> =>
  Backend.use((backend) => backend.read.one(self.taskId)).pipe(about(self.taskId))

/** One read. `none`: no such task, or its record is gone. */
export const poll = <A, E, R, P>(
  self: AsyncResult<A, E, R, P>
): Effect.Effect<Option.Option<TaskResult<A, E, P>>, BackendNotConfigured | BackendError, Backend | R> =>
  Effect.flatMap(read(self), (record) =>
    record === undefined ? Effect.succeedNone : Effect.asSome(toTaskResult(codecOf(self), record))
  )

/** One read of the state. An id that the backend has never seen is `PENDING`. */
export const state = (self: Any): Effect.Effect<TaskState, BackendNotConfigured | BackendError, Backend> =>
  Effect.map(read(self), (record) => record?.state ?? "PENDING")

/** Whether the task has ended: `SUCCESS` or `FAILURE`. One read. */
export const ready = (self: Any): Effect.Effect<boolean, BackendNotConfigured | BackendError, Backend> =>
  Effect.map(state(self), isTerminal)

/** Whether the task has ended in `FAILURE`. One read. */
export const failed = (self: Any): Effect.Effect<boolean, BackendNotConfigured | BackendError, Backend> =>
  Effect.map(state(self), (state) => state === "FAILURE")

/** Whether the task has ended in `SUCCESS`. One read. */
export const successful = (self: Any): Effect.Effect<boolean, BackendNotConfigured | BackendError, Backend> =>
  Effect.map(state(self), (state) => state === "SUCCESS")

/**
 * Cancels the task. A waiting one ends at once, as `Cancelled`; a running one is asked to stop, and its handler is
 * interrupted within a second where the store can push, at the next renewal of its lease otherwise.
 */
export const cancel = (
  self: Any
): Effect.Effect<CancelAnswer, BackendNotConfigured | BackendError, Backend> =>
  Backend.use((backend) => backend.cancel.one(self.taskId)).pipe(about(self.taskId))

/**
 * Gives up the task's record. That of a task which has ended is removed; one that has not runs on, and its record
 * goes when it ends. Whoever waits for it gets the reason `Forgotten`. Its idempotency key is free at once.
 */
export const forget = (self: Any): Effect.Effect<void, BackendNotConfigured | BackendError, Backend> =>
  Backend.use((backend) => backend.forget.one(self.taskId)).pipe(about(self.taskId))

/** What is told apart by `changes`. */
const fingerprint = (record: TaskRecord): string =>
  `${record.generation} ${record.state} ${record.attempt} ${record.ended ?? ""} ${record.progress ?? ""}`

/** Every read that shows something new, until the terminal one. */
const snapshots = (backend: BackendService, taskId: string): Stream.Stream<TaskRecord, ReadError> => {
  const reads: Stream.Stream<TaskRecord | undefined, ReadError> =
    backend.subscriptions === undefined
      ? Stream.fromEffectSchedule(
          Effect.retry(backend.read.one(taskId), { schedule: backoff, while: isRetryable }),
          Schedule.spaced("100 millis")
        )
      : Stream.callback(
          (queue) =>
            Effect.acquireRelease(
              Effect.sync(() =>
                backend.subscriptions!.subscribe([taskId], {
                  waitsFor: "change",
                  onRecord: (_, record) => void Queue.offerUnsafe(queue, record),
                  onError: (error) => {
                    if (!isRetryable(error)) Queue.failCauseUnsafe(queue, Cause.fail(error))
                  }
                })
              ),
              (leave) => Effect.sync(leave)
            ),
          { bufferSize: 16, strategy: "sliding" }
        )
  return reads.pipe(
    Stream.mapAccum(
      () => undefined as TaskRecord | undefined,
      (last, record) => {
        // a record that was forgotten or went away has ended for whoever looked at it
        const gone = record === undefined || record.ended === "Forgotten"
        const known = record ?? last
        const seen: TaskRecord | undefined =
          known !== undefined && gone ? { ...known, state: "FAILURE", exit: null, ended: "Forgotten" } : known
        return [seen, seen === undefined ? [] : [seen]] as const
      }
    ),
    Stream.changesWith((a, b) => fingerprint(a) === fingerprint(b)),
    Stream.takeUntil((record) => isTerminal(record.state))
  )
}

/**
 * A snapshot for every change of state or progress that is seen, from the current one on; ends with the terminal
 * one. Changes that follow each other fast may be seen as one. Of an unknown id nothing is seen before its task is
 * enqueued.
 */
export const changes = <A, E, R, P>(
  self: AsyncResult<A, E, R, P>
): Stream.Stream<TaskResult<A, E, P>, BackendNotConfigured | BackendError, Backend | R> =>
  Stream.unwrap(Backend.useSync((backend) => snapshots(backend, self.taskId))).pipe(
    Stream.mapError(tellingTask(self.taskId)),
    Stream.mapEffect((record) => toTaskResult(codecOf(self), record))
  )

type Handles = Iterable<Any> | { readonly [key: string]: Any }
type Member<H> = H extends Iterable<infer I> ? I : H[keyof H]
type Values<H> =
  H extends ReadonlyArray<unknown>
    ? { -readonly [K in keyof H]: Success<H[K]> }
    : H extends Iterable<infer I>
      ? Array<Success<I>>
      : { -readonly [K in keyof H]: Success<H[K]> }

/** The ends of tasks as they are seen, in one shared wait. */
const ends = (
  ids: ReadonlyArray<string>,
  options: GetOptions | undefined
): Stream.Stream<TerminalRecord, TimeoutError | ReadError, Backend> =>
  Stream.callback((queue) =>
    wait(ids, options, (end) => {
      Queue.offerUnsafe(queue, end)
      return false
    }).pipe(
      Effect.matchCauseEffect({
        onFailure: (cause) => Queue.failCause(queue, cause),
        onSuccess: () => Queue.end(queue)
      })
    )
  )

const isIterable = (handles: Handles): handles is Iterable<Any> => Symbol.iterator in handles

/**
 * Waits for all of them, in one shared wait, and gives their values in the shape of the argument: tuple, iterable or
 * record. Fails with the first failure; the other tasks run on.
 */
export const all = <const H extends Handles>(
  handles: H,
  options?: GetOptions
): Effect.Effect<
  Values<H>,
  TimeoutError | BackendNotConfigured | TaskFailed.TaskFailed<Error<Member<H>>> | BackendError,
  Backend | Services<Member<H>>
> =>
  Effect.suspend(() => {
    const keyed: Array<readonly [key: string, handle: Any]> = isIterable(handles)
      ? Array.from(handles, (handle, i) => [String(i), handle] as const)
      : Object.entries(handles)
    const byId = Map.groupBy(keyed, ([, handle]) => handle.taskId)
    const values = new Map<string, unknown>()
    // decoded as they arrive, so that one that does not decode fails at once
    const take = (end: TerminalRecord) =>
      Effect.forEach(byId.get(end.record.id)!, ([key, handle]) =>
        Effect.map(Effect.flatten(decodeExit(codecOf(handle), end)), (value) => values.set(key, value))
      )
    return Effect.map(Stream.runForEach(ends([...byId.keys()], options), take), () => {
      const pairs = keyed.map(([key]) => [key, values.get(key)] as const)
      return isIterable(handles) ? pairs.map(([, value]) => value) : Object.fromEntries(pairs)
    })
  }) as never

/**
 * The first success; the other tasks run on. If all of them fail, the failure that came last. Of no handles at all:
 * a defect.
 */
export const race = <const H extends Iterable<Any>>(
  handles: H,
  options?: GetOptions
): Effect.Effect<
  Success<Member<H>>,
  TimeoutError | BackendNotConfigured | TaskFailed.TaskFailed<Error<Member<H>>> | BackendError,
  Backend | Services<Member<H>>
> =>
  Effect.suspend(() => {
    const open = new Map(Array.from(handles, (handle) => [handle.taskId, handle]))
    if (open.size === 0) return Effect.die(new RangeError("AsyncResult.race needs at least one handle"))
    // a success that does not decode is a failure, and the race goes on
    return stream(open.values(), options).pipe(
      Stream.map(([, exit]) => exit),
      Stream.takeUntil((exit) => Exit.isSuccess(exit)),
      Stream.runLast,
      // there is at least one handle, and so at least one outcome
      Effect.flatMap(Option.getOrThrow)
    )
  }) as never

/**
 * Outcomes as they arrive, each once, in one shared wait. A task that failed is an element, not the end of the
 * stream; `TimeoutError` is its end, if the time is up before all have arrived.
 */
export const stream = <const H extends Iterable<Any>>(
  handles: H,
  options?: GetOptions
): Stream.Stream<
  readonly [taskId: string, exit: Exit.Exit<Success<Member<H>>, TaskFailed.TaskFailed<Error<Member<H>>>>],
  TimeoutError | BackendNotConfigured | BackendError,
  Backend | Services<Member<H>>
> =>
  Stream.suspend(() => {
    const byId = new Map(Array.from(handles, (handle) => [handle.taskId, handle]))
    return Stream.mapEffect(ends([...byId.keys()], options), (end) =>
      Effect.map(decodeExit(codecOf(byId.get(end.record.id)!), end), (exit) => [end.record.id, exit] as const)
    )
  }) as never
