/**
 * Results and messages in one SQLite file, shared by any number of processes of one machine.
 *
 * ```ts
 * import { SqliteStore } from "chicory/sqlite"
 *
 * program.pipe(Effect.provide(SqliteStore.layer({ filename: "tasks.db" })))
 * ```
 *
 * @module
 */
import { type Duration, Effect, type Layer, type Scope } from "effect"
import { SqlClient } from "effect/sql"
import type * as Backend from "../Backend.ts"
import type * as Broker from "../Broker.ts"
import * as storeLayers from "../internal/layers/storeLayers.ts"
import * as Migrations from "../sql/schema/Migrations.ts"
import * as SqlDrivers from "../sql/SqlDrivers.ts"
import * as SqlStore from "../sql/SqlStore.ts"
import * as SqliteClient from "./SqliteClient.ts"

/**
 * The file, how it is opened, and the prefix of its tables.
 *
 * @see {@link SqliteClient.Options}
 * @category models
 * @since 0.1.0
 */
export interface StoreOptions extends SqliteClient.Options {
  /** Prefix of every table's name: letters, digits and `_`, at most 40. Default `chicory`. */
  readonly prefix?: string | undefined
  /** How long a call may take before it fails, with its effect unknown. Default 10 seconds. */
  readonly callTimeout?: Duration.Input | undefined
}

/**
 * Options for {@link layer}: the file, how it is opened, the prefix of its tables, and the defaults of tasks and workers.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options extends StoreOptions, Backend.Options, Broker.Options {}

/** @internal Opens the file, migrates its tables, and makes the drivers, which live until the scope closes. */
export const makeDrivers = Effect.fnUntraced(function* (
  options: StoreOptions
): Effect.fn.Return<SqlDrivers.Drivers, Migrations.MigrationError, Scope.Scope> {
  const client = yield* SqliteClient.make(options)
  const settings = {
    store: options.filename,
    prefix: options.prefix,
    callTimeout: options.callTimeout
  }
  return yield* Effect.andThen(Migrations.run(settings), SqlDrivers.make(settings)).pipe(
    Effect.provideService(SqlClient.SqlClient, client)
  )
})

/** @internal Opens the store. */
export const open = (
  options: StoreOptions
): storeLayers.OpenStore<Migrations.MigrationError, Scope.Scope> => ({
  makeDrivers: makeDrivers(options),
  operation: "opening the SQLite store",
  isRetryable: SqlStore.isRetryable
})

/**
 * Provides both services over one file, and migrates its tables when it is built.
 *
 * Fails with a `BackendError` that names the file if it cannot be opened, is not a database, or holds tables of a newer
 * version.
 *
 * **When to use**
 *
 * For the processes of one machine, without a server. For several machines, use `chicory/sql`, `chicory/redis`, or
 * `chicory/rabbitmq`.
 *
 * **Details**
 *
 * Opens its own connection, so a transaction of the program on the same file delays the store only while that transaction
 * writes. The file is in WAL mode with `synchronous = NORMAL`: a process that crashes loses nothing; a power cut, or a
 * crash of the operating system, may lose the last commits, never the consistency of the file. Lost writes are as if they
 * never happened: a task that `delay` had accepted may be missing, and one that had finished may run again. Set
 * `synchronous: "FULL"` where that matters; every commit then waits for the disk.
 *
 * `":memory:"` is a store for one process, which ends with its layer.
 *
 * **Gotchas**
 *
 * The file has to be on a local disk, since WAL does not work over a network.
 *
 * @see {@link Options}
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options): Layer.Layer<Backend.Backend | Broker.Broker, Backend.BackendError> =>
  storeLayers.layer(open(options), options)
