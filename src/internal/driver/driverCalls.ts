/** How a facade calls its driver: what goes wrong becomes the facade's error, and concurrent calls are coalesced. */
import { Array as Arr, Effect, type Scope } from "effect"
import type { Batch } from "../../BrokerDriver.ts"
import * as Batcher from "../concurrency/Batcher.ts"

/** Items that one call of a driver carries at most. */
export const maxBatch = 256
/** Characters of payloads, results and progress that it carries at most; what has more by itself goes alone. */
export const maxSize = 2 * 1024 * 1024
/** Calls of one operation that are on their way at most. */
const calls = 4

/** What sets one operation's batches apart. */
export type BatchOptions<In> = Pick<Batcher.Options<In, never, never>, "key" | "splitWhenIdle" | "sizeOf">

/** Calls of one driver. */
export interface DriverCalls<Error> {
  readonly toError: (operation: string) => (cause: unknown) => Error
  /** A driver that throws or dies is an error like any other: it must not end a loop. */
  readonly call: <A>(operation: string, run: () => Effect.Effect<A, unknown>) => Effect.Effect<A, Error>
  readonly batched: <In, Out>(
    operation: string,
    run: (batch: Batch<In>) => Effect.Effect<ReadonlyArray<Out>, unknown>,
    options?: BatchOptions<In>
  ) => Effect.Effect<Batcher.Batcher<In, Out, Error>, never, Scope.Scope>
  /** The same, of an operation without answers. */
  readonly batchedVoid: <In>(
    operation: string,
    run: (batch: Batch<In>) => Effect.Effect<void, unknown>,
    options?: BatchOptions<In>
  ) => Effect.Effect<Batcher.Batcher<In, void, Error>, never, Scope.Scope>
}

/** Calls that fail with `toError`. */
export const make = <Error>(options: {
  readonly toError: (operation: string) => (cause: unknown) => Error
  /** Whether the items are to blame, so that a batch is tried again in halves. */
  readonly isPermanent: (error: Error) => boolean
  /** Goes around every call of an operation. */
  readonly around?: (operation: string) => <A>(call: Effect.Effect<A, Error>) => Effect.Effect<A, Error>
}): DriverCalls<Error> => {
  const call: DriverCalls<Error>["call"] = (operation, run) => {
    const toError = options.toError(operation)
    const fail = (cause: unknown) => Effect.fail(toError(cause))
    const called = Effect.catchDefect(Effect.catch(Effect.suspend(run), fail), fail)
    return options.around === undefined ? called : options.around(operation)(called)
  }
  const batched: DriverCalls<Error>["batched"] = (operation, run, batchOptions) =>
    Batcher.make({
      run: (batch) => call(operation, () => run(batch)),
      isPermanent: options.isPermanent,
      maxBatch,
      maxSize,
      concurrency: calls,
      ...batchOptions
    })
  return {
    toError: options.toError,
    call,
    batched,
    batchedVoid: <In>(
      operation: string,
      run: (batch: Batch<In>) => Effect.Effect<void, unknown>,
      batchOptions?: BatchOptions<In>
    ) =>
      batched(
        operation,
        (batch: Batch<In>) =>
          Effect.map(run(batch), (): ReadonlyArray<void> => Arr.map(batch, () => undefined)),
        batchOptions
      )
  }
}
