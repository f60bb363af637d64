/**
 * Effect's `SqlClient` over `node:sqlite`.
 *
 * One connection, used by one statement or one transaction at a time. Transactions begin as `BEGIN IMMEDIATE`, so
 * that none fails half-way because another process wrote meanwhile. Whoever finds the file locked waits without
 * blocking the event loop: the one who holds the lock may be a fiber of this very process.
 */
import { DatabaseSync, type SQLInputValue, type StatementSync } from "node:sqlite"
import { Context, Duration, Effect, Layer, type Scope, Semaphore, Stream } from "effect"
import { Reactivity } from "effect/reactivity"
import { SqlClient, type SqlConnection, SqlError, Statement } from "effect/sql"
import * as FileWatcher from "./FileWatcher.ts"

/** How a file is opened. */
export interface Options {
  /** The path of the file, which is made if it is missing, or `":memory:"`. Its directory has to exist. */
  readonly filename: string
  /**
   * `NORMAL` (the default): a power cut may take the last commits, never the consistency of the file; a process
   * that crashes loses nothing. `FULL`: a commit waits until it is on the disk.
   */
  readonly synchronous?: "NORMAL" | "FULL" | undefined
  /** How long a statement waits for others to let go of the file before it fails. Default 10 seconds. */
  readonly busyTimeout?: Duration.Input | undefined
}

/** A `SqlClient` that also tells of its connection. */
export interface SqliteClient extends SqlClient.SqlClient {
  readonly filename: string
  /** The connection beneath. Whoever writes through it goes past the client's transactions. */
  readonly database: DatabaseSync
  /** Calls back when another connection may have written. It may do so for nothing, and late. Until the scope closes. */
  readonly onWrite: (listener: () => void) => Effect.Effect<void, never, Scope.Scope>
}

const PREPARED_STATEMENTS = 256
const BUSY_SPINS = 8
const BUSY_PAUSE_MILLIS = 1

const BUSY = 5
const LOCKED = 6

interface SqliteFailure extends Error {
  errcode?: number
  errno?: number
}

const isBusy = (cause: unknown): boolean => {
  const code = (cause as SqliteFailure).errcode
  return code !== undefined && ((code & 0xff) === BUSY || (code & 0xff) === LOCKED)
}

const failure = (filename: string, operation: string, cause: unknown): SqlError.SqlError => {
  const error = cause as SqliteFailure
  // the classification reads `errno`; `node:sqlite` calls it `errcode`
  if (error.errcode !== undefined && error.errno === undefined) error.errno = error.errcode
  const message = `${filename}: ${cause instanceof Error ? cause.message : String(cause)}`
  return new SqlError.SqlError({ reason: SqlError.classifySqliteError(cause, { message, operation }) })
}

const toInput = (value: unknown): SQLInputValue => {
  if (value === undefined) return null
  if (typeof value === "boolean") return value ? 1 : 0
  if (value instanceof Date) return value.toISOString()
  return value as SQLInputValue
}

interface Prepared {
  readonly statement: StatementSync
  /** The names of its columns, where they cannot change. */
  readonly names: ReadonlyArray<string> | undefined
}

type Values = ReadonlyArray<unknown>

const namesOf = (statement: StatementSync): ReadonlyArray<string> =>
  statement.columns().map(({ name }) => name)

/** The rows of a statement that answers arrays. */
const valuesOf = (statement: StatementSync, params: Values): ReadonlyArray<Values> =>
  statement.all(...params.map(toInput)) as ReadonlyArray<unknown> as ReadonlyArray<Values>

const toObjects = (names: ReadonlyArray<string>, rows: ReadonlyArray<Values>): ReadonlyArray<object> =>
  rows.map((values) => {
    const row: Record<string, unknown> = {}
    for (let i = 0; i < names.length; i++) row[names[i]!] = values[i]
    return row
  })

const makeConnection = (options: {
  readonly database: DatabaseSync
  readonly filename: string
  readonly busyMillis: number
}): SqlConnection.Connection => {
  const { busyMillis, database, filename } = options
  const cache = new Map<string, Prepared>()

  // Rows are read as arrays, of which objects are made here: twice as fast as having `node:sqlite` make them.
  const prepare = (text: string): Prepared => {
    let prepared = cache.get(text)
    if (prepared === undefined) {
      const statement = database.prepare(text)
      statement.setReturnArrays(true)
      // what a star stands for may change
      prepared = { statement, names: text.includes("*") ? undefined : namesOf(statement) }
      if (cache.size >= PREPARED_STATEMENTS) cache.delete(cache.keys().next().value!)
      cache.set(text, prepared)
    }
    return prepared
  }

  // Outside a transaction a statement that found the file locked has done nothing, and can be tried again.
  const again = <A>(operation: string, run: () => A): Effect.Effect<A, SqlError.SqlError> =>
    Effect.callback((resume) => {
      const end = performance.now() + busyMillis
      let tries = 0
      let timer: NodeJS.Timeout | undefined
      let immediate: NodeJS.Immediate | undefined
      const attempt = (): void => {
        try {
          resume(Effect.succeed(run()))
        } catch (cause) {
          if (!isBusy(cause) || performance.now() >= end)
            return resume(Effect.fail(failure(filename, operation, cause)))
          schedule()
        }
      }
      const schedule = (): void => {
        if (tries++ < BUSY_SPINS) immediate = setImmediate(attempt)
        else timer = setTimeout(attempt, BUSY_PAUSE_MILLIS)
      }
      schedule()
      return Effect.sync(() => {
        clearImmediate(immediate)
        clearTimeout(timer)
      })
    })

  const attempt = <A>(operation: string, run: () => A): Effect.Effect<A, SqlError.SqlError> =>
    Effect.suspend(() => {
      const inside = database.isTransaction
      try {
        return Effect.succeed(run())
      } catch (cause) {
        return !inside && isBusy(cause)
          ? again(operation, run)
          : Effect.fail(failure(filename, operation, cause))
      }
    })

  const all = (text: string, params: Values) =>
    attempt("execute", () => {
      const { names, statement } = prepare(text)
      const rows = valuesOf(statement, params)
      return rows.length === 0 ? [] : toObjects(names ?? namesOf(statement), rows)
    })
  const allValues = (text: string, params: Values) =>
    attempt("executeValues", () => valuesOf(prepare(text).statement, params))

  const execute: SqlConnection.Connection["execute"] = (text, params, transform) =>
    transform === undefined ? all(text, params) : Effect.map(all(text, params), transform)

  return {
    execute,
    executeRaw: (text, params) =>
      attempt("executeRaw", () => prepare(text).statement.run(...params.map(toInput))),
    executeStream: (text, params, transform) => Stream.fromIterableEffect(execute(text, params, transform)),
    executeValues: allValues,
    executeValuesUnprepared: allValues,
    executeUnprepared: execute
  }
}

/**
 * The log is copied into the file, which costs a sync of both, when it has 4,000 pages (16 MiB) and not 1,000: this
 * nearly doubled the rate of short transactions. 16 MiB of pages are kept in memory.
 */
const pragmas = ({ synchronous }: Options): ReadonlyArray<string> => [
  "journal_mode = WAL",
  `synchronous = ${synchronous ?? "NORMAL"}`,
  "wal_autocheckpoint = 4000",
  "cache_size = -16384"
]

/** Opens the file, in WAL mode. It is closed with the scope. The error names the file. */
export const make = Effect.fnUntraced(function* (
  options: Options
): Effect.fn.Return<SqliteClient, SqlError.SqlError, Scope.Scope> {
  const { filename } = options
  const busyMillis = Duration.toMillis(options.busyTimeout ?? "10 seconds")
  const database = yield* Effect.acquireRelease(
    Effect.try({
      try: () => new DatabaseSync(filename, { timeout: 0 }),
      catch: (cause) => failure(filename, "open", cause)
    }),
    (opened) => Effect.sync(() => opened.close())
  )
  const connection = makeConnection({ database, filename, busyMillis })
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
  return Object.assign(client, { filename, database, onWrite: FileWatcher.make({ database, filename }) })
})

/** The client as Effect's `SqlClient` service. */
export const layer = (options: Options): Layer.Layer<SqlClient.SqlClient, SqlError.SqlError> =>
  Layer.effectContext(Effect.map(make(options), (client) => Context.make(SqlClient.SqlClient, client)))
