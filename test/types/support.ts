/** Assertions of the type tests, and the unions that occur in most signatures. Checked by `tsc`, never run. */
import type { AsyncResult, Backend, Broker, TaskFailed } from "chicory"
import type { Effect } from "effect"

/** `true` for identical types only: `any`, `never` and `unknown` equal nothing but themselves. */
export type Equal<X, Y> = (<T>() => T extends X ? 1 : 2) extends <T>() => T extends Y ? 1 : 2 ? true : false

/** The compiler's message for two types that should be identical. */
interface Mismatch<Expected, Actual> {
  readonly expected: Expected
  readonly actual: Actual
}

interface Subject<Actual> {
  /** Takes `true` if the types are identical, and otherwise shows both. */
  readonly is: <Expected>(
    identical: Equal<Actual, Expected> extends true ? true : Mismatch<Expected, Actual>
  ) => void
}

/** The inferred type of a value: `expectType(value).is<number>(true)`. */
export declare const expectType: <Actual>(value: Actual) => Subject<Actual>

/** A type by itself: `typeOf<Services<typeof effect>>().is<never>(true)`. */
export declare const typeOf: <Actual>() => Subject<Actual>

/** Asserts that a value is assignable to a type. */
export declare const fits: <Wanted>(value: Wanted) => void

export type Success<T> = Effect.Success<T>
export type Failure<T> = Effect.Error<T>
export type Services<T> = Effect.Services<T>

/** Both services that a store provides. */
export type Store = Backend.Backend | Broker.Broker

/** The errors of one read of a task. */
export type ReadError = Backend.BackendNotConfigured | Backend.BackendError

/** The errors of waiting for a task, except its failure. */
export type WaitError = AsyncResult.TimeoutError | ReadError

/** The errors of `get`, for a task whose error is `E`. */
export type GetError<E> = WaitError | TaskFailed.TaskFailed<E>
