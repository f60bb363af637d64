/**
 * Results and messages in a SQL database, shared by any number of processes and machines: PostgreSQL, MariaDB, SQLite.
 *
 * ```ts
 * import { PgClient } from "@effect/sql-pg"
 * import { SqlStore } from "chicory/sql"
 * import { Effect, Layer, Redacted } from "effect"
 *
 * const DatabaseLive = PgClient.layer({ url: Redacted.make("postgres://localhost/shop") })
 * const StoreLive = SqlStore.layer().pipe(Layer.provideMerge(DatabaseLive))
 *
 * program.pipe(Effect.provide(StoreLive))
 * ```
 *
 * The connections come from the `SqlClient` service, and so tasks can be part of your transactions: a task that is
 * enqueued inside of `sql.withTransaction` is there for workers when the transaction has committed, and was never
 * there if it rolls back; and a handler can complete its task in the transaction of its own writes, with `transact`.
 * Everything else that this library does, it does on other connections of the client, in short transactions.
 *
 * What the database has confirmed is as durable as its settings make it: with the defaults of PostgreSQL and MariaDB a
 * commit is on the disk.
 */
import { Context, Effect, Layer, type Scope } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import * as Backend from "../Backend.ts"
import * as Broker from "../Broker.ts"
import { CurrentRun } from "../internal/task/CurrentRun.ts"
import type { TaskContext } from "../TaskContext.ts"
import type { DialectName } from "./dialect/Dialect.ts"
import { dialects } from "./dialect/dialects.ts"
import { isPermanent } from "./isPermanent.ts"
import * as Migrations from "./schema/Migrations.ts"
import * as SqlDrivers from "./SqlDrivers.ts"

/** Which tables, how processes learn of each other, and what holds where tasks and workers say nothing. */
export interface Options extends SqlDrivers.Options, Backend.Options, Broker.Options {}

/** @internal Brings the tables up to date, or checks that they are, and makes the drivers. */
export const makeDrivers = Effect.fnUntraced(function* (
  options: Options,
  migrates: boolean
): Effect.fn.Return<SqlDrivers.Drivers, Migrations.MigrationError, SqlClient.SqlClient | Scope.Scope> {
  yield* migrates ? Migrations.run(options) : Migrations.check(options)
  return yield* SqlDrivers.make(options)
})

/** @internal */
export const operation = "opening the SQL store"

/** @internal Whether opening it once more may help. */
export const isRetryable = (cause: Migrations.MigrationError): boolean =>
  cause._tag === "SqlError" && !isPermanent(cause)

/** @internal What opening comes to for whoever provides a layer. */
export const toBackendError = (cause: Migrations.MigrationError): Backend.BackendError =>
  new Backend.BackendError({ operation, retryable: isRetryable(cause), cause })

/** @internal Both services over drivers. */
export const services = Effect.fnUntraced(function* (
  { backend, broker }: SqlDrivers.Drivers,
  options?: Backend.Options & Broker.Options
) {
  return Context.make(Backend.Backend, yield* Backend.make(backend, options)).pipe(
    Context.add(Broker.Broker, yield* Broker.make(broker, options))
  )
})

const make = (
  options: Options,
  migrates: boolean
): Layer.Layer<Backend.Backend | Broker.Broker, Backend.BackendError, SqlClient.SqlClient> =>
  Layer.effectContext(
    Effect.flatMap(Effect.mapError(makeDrivers(options, migrates), toBackendError), (drivers) =>
      services(drivers, options)
    )
  )

/**
 * Both services over one database, whose tables are made or brought up to date first, by one process at a time. It
 * fails with `BackendError` where the database does not answer, refuses, or has tables of a newer version.
 */
export const layer = (
  options: Options = {}
): Layer.Layer<Backend.Backend | Broker.Broker, Backend.BackendError, SqlClient.SqlClient> =>
  make(options, true)

/**
 * The same, without a change to the schema, for roles that may not make one: `migrations` prints what has to be
 * applied. It fails with `BackendError` if tables are missing or of another version.
 */
export const layerStorage = (
  options: Options = {}
): Layer.Layer<Backend.Backend | Broker.Broker, Backend.BackendError, SqlClient.SqlClient> =>
  make(options, false)

/** The schema, from nothing to what this version needs, as a script of SQL. A prefix that is none throws. */
export const migrations = (
  dialect: DialectName,
  options?: {
    /** Begins the name of every table. Default `chicory`. */
    readonly prefix?: string | undefined
  }
): string => Migrations.script(dialects[dialect], options)

/**
 * Completes the task of the handler that calls it, in the transaction of the effect: what the effect writes with the
 * `SqlClient`, the task's success and the end of its message are committed together, or not at all. So the effect on
 * this database is exactly once: a worker that dies before the commit leaves nothing, and one that dies after it
 * leaves a task that is done. A run that was superseded, since its lease was lost, rolls back and is interrupted.
 *
 * The value of the effect is the result of the task, and what the handler does after it no longer matters to the
 * task: return the value. Where the effect fails nothing was written, and the handler may go on, or fail with it. With
 * `SqlBackend` and another broker the message is acked after the commit, and a redelivery finds the result.
 *
 * A backend that is not in the database of the `SqlClient` is a defect.
 */
export const transact = <A, E, R>(
  effect: Effect.Effect<A, E, R>
): Effect.Effect<
  A,
  E | SqlError.SqlError | Backend.BackendError | Backend.BackendNotConfigured,
  R | SqlClient.SqlClient | TaskContext
> =>
  Effect.gen(function* () {
    const run = yield* CurrentRun
    if (run === undefined) {
      return yield* Effect.die(new Error("SqlStore.transact belongs into the handler of a task"))
    }
    const sql = yield* SqlClient.SqlClient
    return yield* sql.withTransaction(
      Effect.gen(function* () {
        const value = yield* effect
        const completed = yield* run.complete(value)
        yield* sql.afterCommit(Effect.sync(completed))
        return value
      })
    )
  })
