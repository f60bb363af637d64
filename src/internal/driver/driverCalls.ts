/** Calls a driver for a facade: errors become the facade's, and concurrent requests are coalesced. */
import { Array as Arr, type Context, Effect, Exit, type Scope } from "effect"
import type { Batch } from "../../BrokerDriver.ts"
import * as Batcher from "../concurrency/Batcher.ts"
import { untraced } from "../tracing.ts"

/** Items per call of a driver, at most. */
export const maxBatch = 256
/** Characters of payloads, results and progress per call, at most; a larger item goes alone. */
export const maxSize = 2 * 1024 * 1024
/** Calls of one operation on their way, at most. */
const MAX_CALLS = 4

/** Options of one operation's batches. */
export type BatchOptions<In> = Pick<Batcher.Options<In, never, never>, "key" | "splitWhenIdle" | "sizeOf">

/** The calls of one driver. */
export interface DriverCalls<E> {
  readonly toError: (operation: string) => (cause: unknown) => E
  readonly toClosedError: (operation: string) => E
  /** Refuses an operation inside a transaction of the store, which may hold the connection that it would wait for. */
  readonly refusing: (operation: string) => <A>(call: Effect.Effect<A, E>) => Effect.Effect<A, E>
  /** Does the same for the requests of a batcher. */
  readonly refusingBatcher: <In, Out>(
    operation: string,
    batcher: Batcher.Batcher<In, Out, E>
  ) => Batcher.Batcher<In, Out, E>
  /** Runs one call. A driver that throws or dies fails like any other error, so that it ends no loop. */
  readonly call: <A>(operation: string, run: () => Effect.Effect<A, unknown>) => Effect.Effect<A, E>
  /** Makes the batcher of an operation. */
  readonly batched: <In, Out>(
    operation: string,
    run: (batch: Batch<In>) => Effect.Effect<ReadonlyArray<Out>, unknown>,
    options?: BatchOptions<In>
  ) => Effect.Effect<Batcher.Batcher<In, Out, E>, never, Scope.Scope>
  /** Makes the batcher of an operation without answers. */
  readonly batchedVoid: <In>(
    operation: string,
    run: (batch: Batch<In>) => Effect.Effect<void, unknown>,
    options?: BatchOptions<In>
  ) => Effect.Effect<Batcher.Batcher<In, void, E>, never, Scope.Scope>
}

/** The cause of the error of a call that comes after the scope of its store has closed. */
export const storeClosed = (): Error => new Error("the store was closed")

/** The cause of the error of a call that is refused inside a transaction of its store. */
export const insideTransaction = (): Error =>
  new Error(
    "it cannot be part of the open transaction of the SqlClient, and would wait for a connection that the transaction " +
      "holds: call it before the transaction, or after its commit, for instance with sql.afterCommit"
  )

/** Fails where a driver answered no item of a batch, which would be sent again for ever. */
export const someAnswers = <A>(answers: ReadonlyArray<A>): ReadonlyArray<A> => {
  if (answers.length === 0) throw new Error("the driver answered no item of a batch")
  return answers
}

/** Makes the calls of a driver. When the scope has closed, they fail with `toClosedError` and do not reach the driver. */
export const make = Effect.fnUntraced(function* <E>(options: {
  readonly toError: (operation: string) => (cause: unknown) => E
  readonly toClosedError: (operation: string) => E
  /** Makes the error of an operation that is refused inside a transaction. */
  readonly toRefusedError: (operation: string) => E
  /** The driver's `batchKey`. */
  readonly key: ((context: Context.Context<never>) => unknown) | undefined
  /** Whether an error is the fault of an item, so that a batch is tried again in halves. */
  readonly isPermanent: (error: E) => boolean
  /** Wraps every call of an operation. It sees the errors of the driver. */
  readonly around?: (operation: string) => <A>(call: Effect.Effect<A, unknown>) => Effect.Effect<A, unknown>
}): Effect.fn.Return<DriverCalls<E>, never, Scope.Scope> {
  let closed = false
  yield* Effect.addFinalizer(() => Effect.sync(() => void (closed = true)))

  const call: DriverCalls<E>["call"] = (operation, run) => {
    const toError = options.toError(operation)
    const fail = (cause: unknown) => Effect.fail(toError(cause))
    const running = Effect.suspend(run)
    const wrapped = options.around === undefined ? running : options.around(operation)(running)
    const called = Effect.catchDefect(Effect.catch(wrapped, fail), fail)
    return Effect.suspend(() => (closed ? Effect.fail(options.toClosedError(operation)) : called))
  }
  const batched: DriverCalls<E>["batched"] = (operation, run, batchOptions) =>
    // a batch serves many callers, and is a part of none of their traces
    untraced(
      Batcher.make({
        run: (batch) => call(operation, () => Effect.map(run(batch), someAnswers)),
        isPermanent: options.isPermanent,
        toClosedError: () => options.toClosedError(operation),
        maxBatch,
        maxSize,
        concurrency: MAX_CALLS,
        ...batchOptions
      })
    )
  const { key } = options
  const refusing: DriverCalls<E>["refusing"] = (operation) => (effect) =>
    key === undefined
      ? effect
      : Effect.withFiber(({ context }) =>
          key(context) === undefined ? effect : Effect.fail(options.toRefusedError(operation))
        )
  return {
    toError: options.toError,
    toClosedError: options.toClosedError,
    refusing,
    refusingBatcher: (operation, { isUnbatched, many, one, request }) => {
      const refuse = refusing(operation)
      return {
        request,
        isUnbatched,
        one: (item) => refuse(one(item)),
        many: (items) =>
          Effect.catch(refuse(many(items)), (error) => Effect.succeed(items.map(() => Exit.fail(error))))
      }
    },
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
})
