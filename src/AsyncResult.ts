/**
 * Waits for tasks and reads them, through handles on their results.
 *
 * A handle is the id of a task with the codec of its result. It holds no connection, and any number of handles in any
 * number of processes may exist for one task: `task.delay` returns one, and `task.result(id)` makes one from an id.
 *
 * **Example** (Waiting for a result)
 *
 * ```ts
 * import { AsyncResult, Task } from "chicory"
 * import { Effect, Schema } from "effect"
 *
 * const Double = Task.make("math.double", {
 *   payload: { n: Schema.Number },
 *   success: Schema.Number
 * })
 *
 * export const program = Effect.gen(function* () {
 *   const result = yield* Double.delay({ n: 21 })
 *   return yield* AsyncResult.get(result, { timeout: "5 seconds" })
 * })
 * ```
 *
 * **Gotchas**
 *
 * `effect/reactivity` exports another `AsyncResult`, for the state of a value in a user interface. To use both, rename
 * one:
 *
 * ```ts
 * import { AsyncResult } from "chicory"
 * import { AsyncResult as AsyncState } from "effect/reactivity"
 * ```
 *
 * @since 0.1.0
 * @module
 */
import { Effect, Exit, Option, Predicate, type Schema, Stream } from "effect"
import { Backend } from "./Backend.ts"
import type { CancelAnswer, TaskRecord } from "./BackendDriver.ts"
import type { GetOptions } from "./GetOptions.ts"
import { nameOf } from "./internal/errorText.ts"
import { awaitTerminal } from "./internal/results/awaitTerminal.ts"
import { decodeExit, toTaskResult } from "./internal/results/decodeRecord.ts"
import { readWithHistory } from "./internal/results/histories.ts"
import { recordChanges } from "./internal/results/recordChanges.ts"
import {
  type Any,
  type AsyncResult,
  codecFor,
  codecOf,
  type Error,
  fromCodec,
  type HandleSchemas,
  isAsyncResult,
  type Services,
  type Success
} from "./internal/results/ResultHandle.ts"
import type { TerminalRecord } from "./internal/results/terminalRecord.ts"
import { terminalRecords } from "./internal/results/terminalRecords.ts"
import { withTaskId } from "./internal/results/waitOptions.ts"
import * as TaskCodec from "./internal/task/TaskCodec.ts"
import type { BackendError, BackendNotConfigured, ReadError } from "./StoreError.ts"
import type * as TaskFailed from "./TaskFailed.ts"
import type { TaskResult } from "./TaskResult.ts"
import { isTerminal, type TaskState } from "./TaskState.ts"
import type { TimeoutError } from "./TimeoutError.ts"

export type { CancelAnswer } from "./BackendDriver.ts"
export type { GetOptions } from "./GetOptions.ts"
export { ReadRetry } from "./internal/results/ReadRetry.ts"
export {
  type Any,
  type AsyncResult,
  type Error,
  isAsyncResult,
  type Services,
  type Success,
  TypeId
} from "./internal/results/ResultHandle.ts"
export { TimeoutError } from "./TimeoutError.ts"

/**
 * Makes a function that takes its handle first or last. Its callers have one signature for both, because an overloaded
 * function infers `unknown` when it is passed to `pipe`. Its arguments are a union of tuples, because the type of an
 * optional parameter would accept a handle that may be `undefined`, and take it for missing options.
 */
const dual = (
  body: (self: AsyncResult<unknown, unknown, unknown>, options: GetOptions | undefined) => unknown
): never =>
  ((...args: [] | [selfOrOptions: Any | GetOptions, options?: GetOptions | undefined]) => {
    const [selfOrOptions, options] = args
    if (isAsyncResult(selfOrOptions)) return body(selfOrOptions, options)
    // only a program that is not checked by the compiler gets here
    if (args.length > 0 && !Predicate.isObject(selfOrOptions)) {
      return Effect.die(new TypeError(`AsyncResult: ${nameOf(selfOrOptions)} is not a handle`))
    }
    return (self: AsyncResult<unknown, unknown, unknown>) => body(self, selfOrOptions)
  }) as never

/**
 * Makes a handle from the id of a task. It reads nothing.
 *
 * **When to use**
 *
 * Use where the task itself is not at hand; `task.result(id)` makes the same handle with the task's types.
 *
 * **Details**
 *
 * Without schemas, success, error and progress are the JSON that is stored. The id has 1 to 255 characters; any other
 * throws a `RangeError`.
 *
 * **Example** (Reading a task by its id)
 *
 * ```ts
 * import { AsyncResult } from "chicory"
 * import { Schema } from "effect"
 *
 * const untyped = AsyncResult.make("4fkz0q")
 * const typed = AsyncResult.make("4fkz0q", { success: Schema.Number })
 * ```
 *
 * @category constructors
 * @since 0.1.0
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
} = (taskId: string, schemas?: HandleSchemas): AsyncResult<never, never, never, never> =>
  fromCodec(taskId, (schemas === undefined ? TaskCodec.json : codecFor(schemas)) as never)

const awaitExit = <A, E, R, P>(self: AsyncResult<A, E, R, P>, options: GetOptions | undefined) =>
  Effect.flatMap(Effect.mapError(awaitTerminal(self.taskId, options), withTaskId(self.taskId)), (ended) =>
    decodeExit(codecOf(self), ended)
  )

/**
 * Waits until the task has ended, and returns its success.
 *
 * **Details**
 *
 * Fails with
 *
 * - `TaskFailed<E>` if the task ended without a success, also if the stored result does not decode;
 * - `TimeoutError` if the task did not end within `timeout`, after one last read;
 * - `BackendNotConfigured` if the program has no backend;
 * - `BackendError` if the backend fails with an error that is not retryable, or its layer closes. Retryable errors are
 *   retried as `ReadRetry` says, by default until the timeout.
 *
 * The forms `get(result)`, `get(result, options)`, `result.pipe(get)` and `result.pipe(get(options))` are the same.
 *
 * Interrupting it leaves the task alone.
 *
 * Inside a handler it frees the worker's slot while every fiber of the handler waits for tasks, so that a task may wait for
 * others of the same worker. Fibers of `Effect.all`, `Effect.forEach` and `Effect.race` may do so together. Afterwards it
 * waits for a slot, until its `timeout` at the latest.
 *
 * **Gotchas**
 *
 * A worker that stops puts back, uncounted, an at-least-once task that waits, and leaves what it waits for alone. The
 * handler runs again elsewhere: give the tasks that it enqueues an `id` or an idempotency key, so that it finds them.
 *
 * A fiber of the handler that does anything else holds the slot, also if it sleeps, or awaits a fiber that it has forked.
 * So does the timer of `Effect.timeout`: use the `timeout` of the options.
 *
 * Without a `timeout` it waits for as long as the task takes. An id that no store knows may still be enqueued, so it
 * waits for that one too.
 *
 * Inside a transaction of the `SqlClient` of the store it returns the success of a task that has ended, and otherwise fails
 * at once with a `BackendError`: a wait would hold the transaction open, and a task that the transaction enqueued does not
 * run before the commit.
 *
 * @see {@link exit} for the outcome as a value
 * @see {@link all}, {@link race} and {@link stream} for several tasks
 * @see {@link poll} for one read without waiting
 *
 * @category waiting
 * @since 0.1.0
 */
export const get: <Arg extends Any | GetOptions = GetOptions>(
  ...args: [] | [selfOrOptions: Arg, options?: GetOptions | undefined]
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
    > = dual((self, options) => Effect.flatten(awaitExit(self, options)))

/**
 * Waits as `get` does, and returns the outcome of the task as a value, also if it is a failure.
 *
 * @see {@link get} for the errors and the forms
 *
 * @category waiting
 * @since 0.1.0
 */
export const exit: <Arg extends Any | GetOptions = GetOptions>(
  ...args: [] | [selfOrOptions: Arg, options?: GetOptions | undefined]
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
    > = dual(awaitExit)

const read = (self: Any): Effect.Effect<TaskRecord | undefined, ReadError, Backend> =>
  Effect.mapError(
    Backend.use((backend) => backend.read.one(self.taskId)),
    withTaskId(self.taskId)
  )

/**
 * Reads the task once. `None` if it has no record: it was never enqueued, or its retention is over. Of a task that was
 * retried it reads the history too: `history.at(-1)` is the last failure, and in `RETRY` `dueAt` is the time of the next
 * attempt.
 *
 * @see {@link get} to wait for its end
 * @see {@link changes} to follow it
 *
 * @category getters
 * @since 0.1.0
 */
export const poll = <A, E, R, P>(
  self: AsyncResult<A, E, R, P>
): Effect.Effect<Option.Option<TaskResult<A, E, P>>, BackendNotConfigured | BackendError, Backend | R> =>
  Effect.flatMap(Effect.mapError(readWithHistory(self.taskId), withTaskId(self.taskId)), (found) =>
    found === undefined ? Effect.succeedNone : Effect.asSome(toTaskResult(codecOf(self), found))
  )

/**
 * Reads the state of the task once. A task without a record is `PENDING`.
 *
 * @category getters
 * @since 0.1.0
 */
export const state = (self: Any): Effect.Effect<TaskState, BackendNotConfigured | BackendError, Backend> =>
  Effect.map(read(self), (record) => record?.state ?? "PENDING")

/**
 * Reads once whether the task has ended, in `SUCCESS` or `FAILURE`.
 *
 * @category getters
 * @since 0.1.0
 */
export const ready = (self: Any): Effect.Effect<boolean, BackendNotConfigured | BackendError, Backend> =>
  Effect.map(state(self), isTerminal)

/**
 * Reads once whether the task has ended in `FAILURE`.
 *
 * @category getters
 * @since 0.1.0
 */
export const failed = (self: Any): Effect.Effect<boolean, BackendNotConfigured | BackendError, Backend> =>
  Effect.map(state(self), (state) => state === "FAILURE")

/**
 * Reads once whether the task has ended in `SUCCESS`.
 *
 * @category getters
 * @since 0.1.0
 */
export const successful = (self: Any): Effect.Effect<boolean, BackendNotConfigured | BackendError, Backend> =>
  Effect.map(state(self), (state) => state === "SUCCESS")

/**
 * Cancels the task.
 *
 * **Details**
 *
 * A waiting task ends at once with the reason `Cancelled`: the answer is `Cancelled`. A running task is asked to stop:
 * the answer is `Requested`, and its handler is interrupted within a second where the store gives hints, otherwise at the
 * next renewal of its lease. A task that has ended is left alone: `AlreadyDone`. A task without a record is `Unknown`.
 *
 * **Gotchas**
 *
 * A running handler may end before it is interrupted; its outcome stands.
 *
 * Inside a transaction of the `SqlClient` of the store it fails at once with a `BackendError`: call it after the commit.
 *
 * @category managing
 * @since 0.1.0
 */
export const cancel = (
  self: Any
): Effect.Effect<CancelAnswer, BackendNotConfigured | BackendError, Backend> =>
  Effect.mapError(
    Backend.use((backend) => backend.cancel.one(self.taskId)),
    withTaskId(self.taskId)
  )

/**
 * Removes the record of the task.
 *
 * **Details**
 *
 * The record of a task that has ended is removed at once. A task that has not ended runs on, and its record is removed
 * when it ends. Waiters get the reason `Forgotten`. The idempotency key is free at once; the id is an
 * `IdempotencyConflict` until the task has ended.
 *
 * @category managing
 * @since 0.1.0
 */
export const forget = (self: Any): Effect.Effect<void, BackendNotConfigured | BackendError, Backend> =>
  Effect.mapError(
    Backend.use((backend) => backend.forget.one(self.taskId)),
    withTaskId(self.taskId)
  )

/**
 * Emits the task as it is now, and then after every change of its state or progress, until it has ended.
 *
 * **Details**
 *
 * The elements are those of `poll`. Of changes in quick succession some may be skipped; the end is not. For an id without
 * a record it emits nothing until the task is enqueued. A record that is forgotten, or whose retention ends, ends the
 * stream with the reason `Forgotten`. Inside a handler it frees the worker's slot as `get` does, while its consumer waits.
 *
 * @see {@link poll} for one read
 *
 * @category waiting
 * @since 0.1.0
 */
export const changes = <A, E, R, P>(
  self: AsyncResult<A, E, R, P>
): Stream.Stream<TaskResult<A, E, P>, BackendNotConfigured | BackendError, Backend | R> =>
  Stream.unwrap(Backend.useSync((backend) => recordChanges(backend, self.taskId))).pipe(
    Stream.mapError(withTaskId(self.taskId)),
    Stream.mapEffect((found) => toTaskResult(codecOf(self), found))
  )

type Handles = Iterable<Any> | { readonly [key: string]: Any }
type Member<H> = H extends Iterable<infer I> ? I : H[keyof H]
type Values<H> =
  H extends ReadonlyArray<unknown>
    ? { -readonly [K in keyof H]: Success<H[K]> }
    : H extends Iterable<infer I>
      ? Array<Success<I>>
      : { -readonly [K in keyof H]: Success<H[K]> }

const isIterable = (handles: Handles): handles is Iterable<Any> => Symbol.iterator in handles

/**
 * Waits for all tasks, and returns their successes in the shape of the argument: a tuple, an array for another iterable,
 * or a record.
 *
 * **Details**
 *
 * All tasks share one wait. Fails with the first failure, or with the error of the first record that cannot be read; the
 * other tasks run on. The handles are read when the effect is made, so that it can be run again whatever the iterable.
 *
 * **Example** (Waiting for several tasks)
 *
 * ```ts
 * import { AsyncResult, Task } from "chicory"
 * import { Effect, Schema } from "effect"
 *
 * const Double = Task.make("math.double", {
 *   payload: { n: Schema.Number },
 *   success: Schema.Number
 * })
 *
 * export const program = Effect.gen(function* () {
 *   const one = yield* Double.delay({ n: 1 })
 *   const two = yield* Double.delay({ n: 2 })
 *   return yield* AsyncResult.all({ one, two }, { timeout: "5 seconds" })
 * })
 * ```
 *
 * @see {@link get} for the errors
 * @see {@link stream} for the outcomes as they arrive
 *
 * @category waiting
 * @since 0.1.0
 */
export const all = <const H extends Handles>(
  handles: H,
  options?: GetOptions
): Effect.Effect<
  Values<H>,
  TimeoutError | BackendNotConfigured | TaskFailed.TaskFailed<Error<Member<H>>> | BackendError,
  Backend | Services<Member<H>>
> => {
  const keyed: Array<readonly [key: string, handle: Any]> = isIterable(handles)
    ? Array.from(handles, (handle, i) => [String(i), handle] as const)
    : Object.entries(handles)
  const byId = Map.groupBy(keyed, ([, handle]) => handle.taskId)
  return Effect.suspend(() => {
    const values = new Map<string, unknown>()
    // decodes each as it arrives, so that one that does not decode fails at once
    const take = (ended: TerminalRecord) =>
      Effect.forEach(byId.get(ended.record.id)!, ([key, handle]) =>
        Effect.map(Effect.flatten(decodeExit(codecOf(handle), ended)), (value) => values.set(key, value))
      )
    return Effect.map(Stream.runForEach(terminalRecords([...byId.keys()], options, "all"), take), () => {
      const pairs = keyed.map(([key]) => [key, values.get(key)] as const)
      return isIterable(handles) ? pairs.map(([, value]) => value) : Object.fromEntries(pairs)
    })
  }) as never
}

/**
 * Waits for the first success of any of the tasks. The other tasks run on.
 *
 * **Details**
 *
 * All tasks share one wait. If all of them fail, it fails with the last failure; if the record of one cannot be read, with
 * that error. Without any handle it dies. The handles are read when the effect is made.
 *
 * @see {@link get} for the errors
 *
 * @category waiting
 * @since 0.1.0
 */
export const race = <const H extends Iterable<Any>>(
  handles: H,
  options?: GetOptions
): Effect.Effect<
  Success<Member<H>>,
  TimeoutError | BackendNotConfigured | TaskFailed.TaskFailed<Error<Member<H>>> | BackendError,
  Backend | Services<Member<H>>
> => {
  const listed = [...handles]
  if (listed.length === 0) {
    return Effect.die(new RangeError("AsyncResult.race needs at least one handle"))
  }
  // a success that does not decode counts as a failure
  return stream(listed, options).pipe(
    Stream.map(([, exit]) => exit),
    Stream.takeUntil((exit) => Exit.isSuccess(exit)),
    Stream.runLast,
    // at least one handle has at least one outcome
    Effect.flatMap(Option.getOrThrow)
  ) as never
}

/**
 * Emits the outcome of each task once, as they arrive.
 *
 * **Details**
 *
 * All tasks share one wait. A task that failed is an element, and does not end the stream. The handles are read when the
 * stream is made.
 *
 * Inside a handler it frees the worker's slot as `get` does, while its consumer waits for the next outcome.
 *
 * Results are read at the pace of the consumer: at most 32 ahead of it, and about 8 MiB of characters of large ones. While
 * it works on an element, nothing is read.
 *
 * The stream fails with `TimeoutError` if a task has not ended within `timeout`, which counts the consumer's time too. What
 * had ended by then is emitted first. A record that cannot be read fails the stream with its `BackendError` after all
 * other tasks have ended.
 *
 * @see {@link all} for all successes at once
 *
 * @category waiting
 * @since 0.1.0
 */
export const stream = <const H extends Iterable<Any>>(
  handles: H,
  options?: GetOptions
): Stream.Stream<
  readonly [taskId: string, exit: Exit.Exit<Success<Member<H>>, TaskFailed.TaskFailed<Error<Member<H>>>>],
  TimeoutError | BackendNotConfigured | BackendError,
  Backend | Services<Member<H>>
> => {
  const byId = new Map(Array.from(handles, (handle) => [handle.taskId, handle]))
  return Stream.mapEffect(terminalRecords([...byId.keys()], options, "each"), (ended) =>
    Effect.map(
      decodeExit(codecOf(byId.get(ended.record.id)!), ended),
      (exit) => [ended.record.id, exit] as const
    )
  ) as never
}
