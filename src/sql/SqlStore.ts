/**
 * Stores results and messages in a SQL database, shared by any number of processes and machines: PostgreSQL, MariaDB,
 * SQLite.
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
 * **When to use**
 *
 * Use it where the data of your program is in the same database: a task that is enqueued inside `sql.withTransaction`
 * is visible to workers after the commit and does not exist after a rollback, and a handler completes its task in the
 * transaction of its own writes with `transact`.
 *
 * **Details**
 *
 * Connections come from the `SqlClient` service. Calls that join no transaction of yours run in short transactions on
 * other connections of the client. A confirmed write is as durable as the settings of the database: with the defaults of
 * PostgreSQL and MariaDB a commit is on the disk.
 *
 * @module
 */
import { Effect, type Layer, Option, type Scope } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import type * as Backend from "../Backend.ts"
import type * as Broker from "../Broker.ts"
import * as storeLayers from "../internal/layers/storeLayers.ts"
import { CurrentRun } from "../internal/task/CurrentRun.ts"
import type { TaskContext } from "../TaskContext.ts"
import type { DialectName } from "./dialect/Dialect.ts"
import { dialects } from "./dialect/dialects.ts"
import { isPermanent } from "./isPermanent.ts"
import { checkRights, type MissingRights } from "./schema/checkRights.ts"
import * as Migrations from "./schema/Migrations.ts"
import * as SqlDrivers from "./SqlDrivers.ts"

/**
 * Options for {@link layer}: the tables of the store, how its processes notify each other, and the defaults of tasks and
 * workers.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options extends SqlDrivers.Options, Backend.Options, Broker.Options {}

/** @internal The errors of opening a store. */
export type OpeningError = Migrations.MigrationError | MissingRights

/** @internal Migrates the tables, or checks their version, and makes the drivers. */
export const makeDrivers = Effect.fnUntraced(function* (
  options: SqlDrivers.Options,
  migrates: boolean
): Effect.fn.Return<SqlDrivers.Drivers, OpeningError, SqlClient.SqlClient | Scope.Scope> {
  yield* migrates ? Migrations.run(options) : Migrations.check(options)
  yield* checkRights(options)
  return yield* SqlDrivers.make(options)
})

/** @internal Opens the store. */
export const open = (
  options: SqlDrivers.Options,
  migrates: boolean
): storeLayers.OpenStore<OpeningError, SqlClient.SqlClient | Scope.Scope> => ({
  makeDrivers: makeDrivers(options, migrates),
  operation: "opening the SQL store",
  isRetryable
})

/** @internal Returns whether opening the store again may succeed. */
export const isRetryable = (cause: OpeningError): boolean => cause._tag === "SqlError" && !isPermanent(cause)

/**
 * Provides both services over one database, after it has created the tables or brought them up to date.
 *
 * **Details**
 *
 * One process migrates; others that start at the same time wait for it. Without options the tables have the prefix
 * `chicory`, workers poll every 250 millis where they are not notified, and a call may take 10 seconds. It fails with
 * `BackendError` if the database does not answer or refuses, or if its tables are of a newer version.
 *
 * **Gotchas**
 *
 * A prefix that is not valid is a defect, and so is a `SqlClient` of another kind of database. On MariaDB every
 * connection of the client has to be set to `READ COMMITTED`.
 *
 * @see {@link layerStorage} for roles that may not change the schema
 * @category layers
 * @since 0.1.0
 */
export const layer = (
  options: Options = {}
): Layer.Layer<Backend.Backend | Broker.Broker, Backend.BackendError, SqlClient.SqlClient> =>
  storeLayers.layer(open(options, true), options)

/**
 * Provides both services over tables that exist; fails with `BackendError` if they are missing or of another version.
 *
 * **When to use**
 *
 * Use it for a role that may not change the schema. `migrations` returns the script to apply.
 *
 * @see {@link migrations} for the script
 * @see {@link layer} for a layer that migrates
 * @category layers
 * @since 0.1.0
 */
export const layerStorage = (
  options: Options = {}
): Layer.Layer<Backend.Backend | Broker.Broker, Backend.BackendError, SqlClient.SqlClient> =>
  storeLayers.layer(open(options, false), options)

/**
 * Returns the SQL script that creates the tables of this version in an empty database, or brings those of an earlier version
 * up to date. Throws a `RangeError` if the prefix is not valid.
 *
 * @see {@link layerStorage} for the layer that uses the tables
 * @category schema
 * @since 0.1.0
 */
export const migrations = (
  dialect: DialectName,
  options?: {
    /** The prefix of all table names. Default `chicory`. */
    readonly prefix?: string | undefined
    /** The version of the tables: the highest in the table `<prefix>_schema`. Default 0: there are none. */
    readonly from?: number | undefined
  }
): string => Migrations.script(dialects[dialect], options?.from ?? 0, options)

/**
 * Runs an effect in a transaction that also completes the task of the calling handler: what the effect writes with the
 * `SqlClient`, the success of the task and the end of its message are committed together, or not at all.
 *
 * **When to use**
 *
 * Use it in a handler whose writes to this database have to happen exactly once: a worker that dies before the commit
 * leaves nothing, and one that dies after it leaves a finished task.
 *
 * **Details**
 *
 * The value of the effect is the result of the task: return it from the handler. If the effect fails, nothing is
 * written, and the handler may continue or fail with the same error. A run that lost its lease to another one is rolled
 * back and interrupted. With `SqlBackend` and another broker the message is acked after the commit, and a redelivery
 * finds the result.
 *
 * **Gotchas**
 *
 * Nothing that the handler does after `transact` changes the result of the task. It is a defect outside a handler, with a
 * backend that is not in the database of the `SqlClient`, and inside a transaction of the `SqlClient`: there the record of
 * the task would stay locked until that transaction ends.
 *
 * @category transactions
 * @since 0.1.0
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
      return yield* Effect.die(new Error("SqlStore.transact has to be called in the handler of a task"))
    }
    const sql = yield* SqlClient.SqlClient
    if (Option.isSome(yield* Effect.serviceOption(sql.transactionService))) {
      return yield* Effect.die(
        new Error(
          "SqlStore.transact cannot be a part of another transaction: give it all writes, in place of withTransaction"
        )
      )
    }
    return yield* sql.withTransaction(
      Effect.gen(function* () {
        const value = yield* effect
        const completed = yield* run.complete(value)
        yield* sql.afterCommit(Effect.sync(completed))
        return value
      })
    )
  })
