/**
 * Results and messages in one SQLite file, shared by any number of processes of one machine.
 *
 * ```ts
 * import { SqliteStore } from "chicory/sqlite"
 *
 * program.pipe(Effect.provide(SqliteStore.layer({ filename: "tasks.db" })))
 * ```
 *
 * The store opens a connection of its own, so a transaction of yours on the same file holds it up only while that
 * transaction writes. The file is in WAL mode, with `synchronous` at `NORMAL`: a process that crashes loses nothing; a
 * power cut, or a crash of the operating system, may take the last commits, never the consistency of the file. What
 * was lost so was never there: a task that `delay` had accepted may be missing, and one that had finished may be run
 * again. Where that matters, set `synchronous: "FULL"`; every commit then waits for the disk. The file has to lie on a
 * local disk: WAL does not work over a network.
 *
 * `":memory:"` is a store for one process that ends with its layer.
 */
import { Effect, Layer, type Scope } from "effect"
import { SqlClient } from "effect/sql"
import * as Backend from "../Backend.ts"
import type * as Broker from "../Broker.ts"
import * as Migrations from "../sql/schema/Migrations.ts"
import * as SqlDrivers from "../sql/SqlDrivers.ts"
import * as SqlStore from "../sql/SqlStore.ts"
import * as SqliteClient from "./SqliteClient.ts"

/** Where the file is, and how it is opened. */
export interface Options extends SqliteClient.Options {
  /** Begins the name of every table. Letters, digits and `_`, at most 40. Default `chicory`. */
  readonly prefix?: string | undefined
}

/** @internal Opens the file, brings its tables up to date, and makes the drivers. They live as long as the scope. */
export const makeDrivers = Effect.fnUntraced(function* (
  options: Options
): Effect.fn.Return<SqlDrivers.Drivers, Migrations.MigrationError, Scope.Scope> {
  const client = yield* SqliteClient.make(options)
  const settings = {
    store: options.filename,
    prefix: options.prefix
  }
  return yield* Effect.andThen(Migrations.run(settings), SqlDrivers.make(settings)).pipe(
    Effect.provideService(SqlClient.SqlClient, client)
  )
})

/** @internal */
export const operation = "opening the SQLite store"

/** @internal What opening comes to for whoever provides a layer: an error that names the file. */
export const toBackendError = (cause: Migrations.MigrationError): Backend.BackendError =>
  new Backend.BackendError({ operation, retryable: SqlStore.isRetryable(cause), cause })

/** Both services over one file. It fails where the file cannot be opened, or is no database. */
export const layer = (options: Options): Layer.Layer<Backend.Backend | Broker.Broker, Backend.BackendError> =>
  Layer.effectContext(
    Effect.flatMap(Effect.mapError(makeDrivers(options), toBackendError), SqlStore.services)
  )
