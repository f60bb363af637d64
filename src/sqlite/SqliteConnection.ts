/**
 * A connection of Effect's SQL over `node:sqlite`: prepared statements, rows as objects, and waiting for locks.
 */
import type { DatabaseSync, SQLInputValue, StatementSync } from "node:sqlite"
import { Effect, Stream } from "effect"
import { type SqlConnection, SqlError } from "effect/sql"

const MAX_PREPARED_STATEMENTS = 256
/** A locked file is tried again in this many turns of the event loop, and then at this interval. */
const IMMEDIATE_RETRIES = 8
const RETRY_INTERVAL_MILLIS = 1

const SQLITE_BUSY = 5
const SQLITE_LOCKED = 6

interface SqliteFailure extends Error {
  errcode?: number
  errno?: number
}

const isLocked = (cause: unknown): boolean => {
  const code = (cause as SqliteFailure).errcode
  return code !== undefined && ((code & 0xff) === SQLITE_BUSY || (code & 0xff) === SQLITE_LOCKED)
}

/** Classifies what `node:sqlite` throws. The message names the file. */
export const toSqlError = (filename: string, operation: string, cause: unknown): SqlError.SqlError => {
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

type Values = ReadonlyArray<unknown>

interface PreparedStatement {
  readonly statement: StatementSync
  /** `undefined` where the columns may change between runs. */
  readonly columns: ReadonlyArray<string> | undefined
}

const columnsOf = (statement: StatementSync): ReadonlyArray<string> =>
  statement.columns().map(({ name }) => name)

/** Runs a statement that returns its rows as arrays. */
const rowsOf = (statement: StatementSync, params: Values): ReadonlyArray<Values> =>
  statement.all(...params.map(toInput)) as ReadonlyArray<unknown> as ReadonlyArray<Values>

const toObjects = (columns: ReadonlyArray<string>, rows: ReadonlyArray<Values>): ReadonlyArray<object> =>
  rows.map((values) => {
    const row: Record<string, unknown> = {}
    for (let i = 0; i < columns.length; i++) row[columns[i]!] = values[i]
    return row
  })

/** Prepares statements, and keeps those that were prepared last. */
const makePreparedStatements = (database: DatabaseSync) => {
  const prepared = new Map<string, PreparedStatement>()
  return (text: string): PreparedStatement => {
    const known = prepared.get(text)
    if (known !== undefined) return known
    const statement = database.prepare(text)
    // objects are made from arrays here, which is twice as fast as objects made by `node:sqlite`
    statement.setReturnArrays(true)
    // the columns of `*` change with the schema
    const made = { statement, columns: text.includes("*") ? undefined : columnsOf(statement) }
    if (prepared.size >= MAX_PREPARED_STATEMENTS) prepared.delete(prepared.keys().next().value!)
    prepared.set(text, made)
    return made
  }
}

/** Runs calls, and retries those that find the file locked without blocking the event loop. */
const makeRunner = (database: DatabaseSync, filename: string, busyMillis: number) => {
  const retryWhileLocked = <A>(operation: string, run: () => A): Effect.Effect<A, SqlError.SqlError> =>
    Effect.callback((resume) => {
      const deadline = performance.now() + busyMillis
      let retries = 0
      let timer: NodeJS.Timeout | undefined
      let immediate: NodeJS.Immediate | undefined
      const runOnce = (): void => {
        try {
          resume(Effect.succeed(run()))
        } catch (cause) {
          if (!isLocked(cause) || performance.now() >= deadline)
            return resume(Effect.fail(toSqlError(filename, operation, cause)))
          schedule()
        }
      }
      const schedule = (): void => {
        if (retries++ < IMMEDIATE_RETRIES) immediate = setImmediate(runOnce)
        else timer = setTimeout(runOnce, RETRY_INTERVAL_MILLIS)
      }
      schedule()
      return Effect.sync(() => {
        clearImmediate(immediate)
        clearTimeout(timer)
      })
    })

  return <A>(operation: string, run: () => A): Effect.Effect<A, SqlError.SqlError> =>
    Effect.suspend(() => {
      const insideTransaction = database.isTransaction
      try {
        return Effect.succeed(run())
      } catch (cause) {
        // outside a transaction a statement that found the file locked has done nothing, and can be retried
        return !insideTransaction && isLocked(cause)
          ? retryWhileLocked(operation, run)
          : Effect.fail(toSqlError(filename, operation, cause))
      }
    })
}

/** Makes the connection. A statement waits up to `busyMillis` for a lock. */
export const make = (options: {
  readonly database: DatabaseSync
  readonly filename: string
  readonly busyMillis: number
}): SqlConnection.Connection => {
  const prepare = makePreparedStatements(options.database)
  const run = makeRunner(options.database, options.filename, options.busyMillis)

  const selectObjects = (text: string, params: Values) =>
    run("execute", () => {
      const { columns, statement } = prepare(text)
      const rows = rowsOf(statement, params)
      return rows.length === 0 ? [] : toObjects(columns ?? columnsOf(statement), rows)
    })
  const selectValues = (text: string, params: Values) =>
    run("executeValues", () => rowsOf(prepare(text).statement, params))

  const execute: SqlConnection.Connection["execute"] = (text, params, transform) =>
    transform === undefined ? selectObjects(text, params) : Effect.map(selectObjects(text, params), transform)

  return {
    execute,
    executeRaw: (text, params) =>
      run("executeRaw", () => prepare(text).statement.run(...params.map(toInput))),
    executeStream: (text, params, transform) => Stream.fromIterableEffect(execute(text, params, transform)),
    executeValues: selectValues,
    executeValuesUnprepared: selectValues,
    executeUnprepared: execute
  }
}
