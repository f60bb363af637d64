/**
 * Transactions of the store, and the part that effects have in transactions of a caller.
 */
import { Context, Effect, Schedule } from "effect"
import { SqlClient, SqlError } from "effect/sql"
import type { Connection } from "effect/sql/SqlConnection"
import type { Run } from "./batchStatements.ts"
import type { Dialect } from "./dialect/Dialect.ts"
import * as Row from "./Row.ts"

/** Keeps the error and the context of an effect, but for errors of the database. */
export type WithSqlError = <A, E, R>(
  effect: Effect.Effect<A, E, R>
) => Effect.Effect<A, E | SqlError.SqlError, R>

/** The transactions of one client. */
export interface Transactions {
  /**
   * Runs in a transaction, which is run again after a deadlock. Inside a caller's transaction it is a savepoint, and
   * is not repeated.
   */
  readonly inTransaction: WithSqlError
  /** The same, for an operation that is one statement where updates return rows, and several elsewhere. */
  readonly inTransactionIfNeeded: WithSqlError
  /** Runs a single statement, and runs it again after a deadlock, unless it is part of a caller's transaction. */
  readonly retryOnDeadlock: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  /** Runs outside any caller transaction. */
  readonly outsideTransaction: WithSqlError
  /** Runs in the caller's transaction, if there is one. */
  readonly inCallerTransaction: WithSqlError
  /** Reads in the caller's transaction, if there is one. */
  readonly readsInCallerTransaction: WithSqlError
  /** Calls back after the commit of the caller's transaction; at once if there is none. */
  readonly afterCommit: (callback: () => void) => Effect.Effect<void>
  /** Returns the caller's transaction, if it is one of this client. */
  readonly transactionOf: (context: Context.Context<never>) => object | undefined
  /** Runs with that connection, which is in no transaction. Transactions inside begin on it. */
  readonly onConnection: (
    connection: Connection
  ) => <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  /** Whether the context has a connection: of the caller's transaction, or by `onConnection`. */
  readonly hasConnection: (context: Context.Context<never>) => boolean
  /** Runs if no other process holds the lock of that name; otherwise returns `otherwise`. Needs a transaction. */
  readonly withLock: <A, E, R>(
    name: string,
    effect: Effect.Effect<A, E, R>,
    otherwise: A
  ) => Effect.Effect<A, E | SqlError.SqlError | Row.CorruptRow, R>
}

/** The database rolled a transaction back for the sake of another one. */
const isDeadlock = (error: unknown): boolean =>
  SqlError.isSqlError(error) &&
  (error.reason._tag === "DeadlockError" || error.reason._tag === "SerializationError")

/** The depth of a connection without a transaction: `withTransaction` begins one, in place of a savepoint. */
const NO_TRANSACTION = -1

const backoff = Schedule.jittered(Schedule.exponential("4 millis"))

const retry = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.catchIf(effect, isDeadlock, () =>
    Effect.retry(effect, { schedule: backoff, times: 8, while: isDeadlock })
  )

/** Returns the transactions of a client. */
export const make = (options: {
  readonly client: SqlClient.SqlClient
  readonly dialect: Dialect
  readonly run: Run
  readonly store: string
  readonly tableName: (name: string) => string
}): Transactions => {
  const { client, dialect, run, store, tableName } = options
  const { transactionService } = client
  const connectionOf = (context: Context.Context<never>) =>
    Context.getOrUndefined(context, transactionService)
  const transactionOf = (context: Context.Context<never>) => {
    const found = connectionOf(context)
    return found === undefined || found[1] === NO_TRANSACTION ? undefined : found
  }
  const isInside = (context: Context.Context<never>) => transactionOf(context) !== undefined
  const withoutTransaction = <R>(context: Context.Context<R>) =>
    Context.omit(transactionService)(context) as Context.Context<R>

  const ownTransaction = <A, E, R>(effect: Effect.Effect<A, E, R>) => {
    const { begin, transactionSetup } = dialect
    const whole = client.withTransaction(
      transactionSetup === undefined ? effect : Effect.andThen(run(transactionSetup), effect)
    )
    return begin === undefined ? whole : Effect.provideService(whole, SqlClient.BeginTransaction, begin)
  }
  const inTransaction: Transactions["inTransaction"] = (effect) =>
    Effect.withFiber(({ context }) =>
      isInside(context) ? client.withTransaction(effect) : retry(ownTransaction(effect))
    )
  const retryOnDeadlock: Transactions["retryOnDeadlock"] = (effect) =>
    Effect.withFiber(({ context }) => (isInside(context) ? effect : retry(effect)))

  const readGot = Row.reader<{ readonly got: 0 | 1 }>(store, "(lock)", { got: Row.flag })
  return {
    inTransaction,
    inTransactionIfNeeded: dialect.update.returnsRows ? retryOnDeadlock : inTransaction,
    retryOnDeadlock,
    outsideTransaction: <A, E, R>(effect: Effect.Effect<A, E, R>) =>
      Effect.withFiber<A, E, R>(({ context }) =>
        isInside(context) ? Effect.updateContext(effect, withoutTransaction<R>) : effect
      ),
    inCallerTransaction: (effect) => effect,
    readsInCallerTransaction: (effect) => effect,
    onConnection: (connection) => Effect.provideService(transactionService, [connection, NO_TRANSACTION]),
    hasConnection: (context) => connectionOf(context) !== undefined,
    afterCommit: (callback) =>
      Effect.withFiber(({ context }) => {
        if (isInside(context)) return client.afterCommit(Effect.sync(callback))
        callback()
        return Effect.void
      }),
    transactionOf,
    withLock: (name, effect, otherwise) => {
      const lock = dialect.lock?.(tableName(name))
      if (lock === undefined) return effect
      return Effect.acquireUseRelease(
        Effect.flatMap(run(lock.tryAcquire), readGot),
        ([row]) => (row?.got === 1 ? effect : Effect.succeed(otherwise)),
        ([row]) =>
          lock.release === undefined || row?.got !== 1 ? Effect.void : Effect.ignore(run(lock.release))
      )
    }
  }
}
