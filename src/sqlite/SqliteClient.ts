/**
 * Effect's `SqlClient` over `node:sqlite`.
 *
 * **Details**
 *
 * Uses one connection, for one statement or one transaction at a time. Transactions begin with `BEGIN IMMEDIATE`, so that
 * none fails half-way because another process wrote meanwhile. A statement that finds the file locked waits without
 * blocking the event loop, since the lock may be held by a fiber of the same process.
 *
 * @module
 */
import { DatabaseSync } from "node:sqlite"
import { Context, Duration, Effect, Layer, type Scope, Semaphore } from "effect"
import { Reactivity } from "effect/reactivity"
import { SqlClient, type SqlError, Statement } from "effect/sql"
import { FileWatcher } from "./FileWatcher.ts"
import * as SqliteConnection from "./SqliteConnection.ts"

/**
 * Options for {@link make} and {@link layer}.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** The path of the file, which is created if it is missing, or `":memory:"`. Its directory has to exist. */
  readonly filename: string
  /**
   * `NORMAL` (the default): a power cut may lose the last commits, never the consistency of the file; a process that
   * crashes loses nothing. `FULL`: a commit waits until it is on the disk.
   */
  readonly synchronous?: "NORMAL" | "FULL" | undefined
  /** How long a statement waits for a lock on the file before it fails. Default 10 seconds. */
  readonly busyTimeout?: Duration.Input | undefined
}

/**
 * A `SqlClient` with its connection and a subscription to the writes of others.
 *
 * @category models
 * @since 0.1.0
 */
export interface SqliteClient extends SqlClient.SqlClient {
  readonly filename: string
  /** The connection beneath. Statements on it do not take part in the client's transactions. */
  readonly database: DatabaseSync
  /**
   * Calls `listener` when another connection may have written to the file, until the scope closes. Calls may be spurious
   * or late.
   */
  readonly onWrite: (listener: () => void) => Effect.Effect<void, never, Scope.Scope>
}

/**
 * The write-ahead log is copied into the file, which costs a sync of both, when it has 4,000 pages (16 MiB) instead of
 * 1,000: this nearly doubled the rate of short transactions. 16 MiB of pages are cached in memory.
 */
const pragmas = ({ synchronous }: Options): ReadonlyArray<string> => [
  "journal_mode = WAL",
  `synchronous = ${synchronous ?? "NORMAL"}`,
  "wal_autocheckpoint = 4000",
  "cache_size = -16384"
]

/**
 * Opens the file in WAL mode, and closes it with the scope. Fails with a `SqlError` that names the file.
 *
 * @see {@link layer}
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function* (
  options: Options
): Effect.fn.Return<SqliteClient, SqlError.SqlError, Scope.Scope> {
  const { filename } = options
  const busyMillis = Duration.toMillis(options.busyTimeout ?? "10 seconds")
  const database = yield* Effect.acquireRelease(
    Effect.try({
      try: () => new DatabaseSync(filename, { timeout: 0 }),
      catch: (cause) => SqliteConnection.toSqlError(filename, "open", cause)
    }),
    (opened) => Effect.sync(() => opened.close())
  )
  const connection = SqliteConnection.make({ database, filename, busyMillis })
  for (const pragma of pragmas(options))
    yield* connection.executeUnprepared(`PRAGMA ${pragma}`, [], undefined)

  const client = yield* SqlClient.make({
    ...SqlClient.makeSqliteAcquirers({
      connection: Effect.succeed(connection),
      semaphore: yield* Semaphore.make(1),
      isTransaction: () => database.isTransaction
    }),
    compiler: Statement.makeCompilerSqlite(),
    driver: "node-sqlite",
    beginTransaction: "BEGIN IMMEDIATE",
    prepareTransactionControls: true,
    releaseSavepoint: (name) => `RELEASE SAVEPOINT ${name}`,
    spanAttributes: [["db.system.name", "sqlite"]]
  }).pipe(Effect.provide(Reactivity.layer))
  return Object.assign(client, {
    filename,
    database,
    onWrite: new FileWatcher(database, filename).subscribe
  })
})

/**
 * Provides {@link make}'s client as Effect's `SqlClient` service.
 *
 * **When to use**
 *
 * To give `SqlStore` of `chicory/sql` the connection that the program uses, so that `delay` joins the program's
 * transactions. `SqliteStore.layer` opens its own connection instead.
 *
 * @see {@link make}
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options): Layer.Layer<SqlClient.SqlClient, SqlError.SqlError> =>
  Layer.effectContext(Effect.map(make(options), (client) => Context.make(SqlClient.SqlClient, client)))
