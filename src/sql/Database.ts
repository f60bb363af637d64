/**
 * The tables of one store, reached through a `SqlClient`: their names, their statements and their transactions.
 */
import { Data, Effect } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import * as Batch from "./batchStatements.ts"
import type { Columns, Dialect } from "./dialect/Dialect.ts"
import { dialectOf } from "./dialect/dialects.ts"
import { likelyConnectionsOf } from "./notify/clientCapabilities.ts"
import * as Row from "./Row.ts"
import { explainLostConnection, maxValueBytes, withLimit } from "./statementLimit.ts"
import * as Transactions from "./transactions.ts"

/** Which tables a store uses, and its name. */
export interface Options {
  /** The prefix of all table names: a letter or `_`, then letters, digits, `_`; at most 40. Default `chicory`. */
  readonly prefix?: string | undefined
  /** The name of the store in errors, such as its file or database. Default: the kind of the database. */
  readonly store?: string | undefined
}

/** The errors of a call to the store. */
export type StoreError = SqlError.SqlError | Row.CorruptRow

/** A run was to be completed in a transaction, and there is none of the store's database. */
export class NoTransaction extends Data.TaggedError("NoTransaction") {
  override get message(): string {
    return "the transaction is not one of the SqlClient that SqlStore was given: provide the same client to both"
  }
}

/** The tables of one store. */
export interface Database extends Transactions.Transactions {
  /** The name of the store in errors. */
  readonly store: string
  readonly dialect: Dialect
  readonly client: SqlClient.SqlClient
  /** The most connections of the client; `undefined`: the database is a file, or the client does not show it. */
  readonly connections: number | undefined
  /** The most bytes of one encoded value; `undefined`: the database does not limit statements. */
  readonly maxBytes: number | undefined
  /** Returns the name of a table with the prefix. */
  readonly tableName: (name: string) => string
  /** Returns the same name, quoted. */
  readonly table: (name: string) => string
  readonly run: Batch.Run
  /**
   * Prepares a statement over batches. `text` is given the table expression `batch`, with these columns; it has to
   * skip rows that are all NULL.
   */
  readonly batched: <const C extends Columns>(
    columns: C,
    text: (batch: string) => string
  ) => Batch.BatchStatement<C>
  /**
   * Prepares an update of the rows `t` of a table from batches, which returns columns of the updated rows. It needs a
   * transaction where updates return no rows.
   */
  readonly batchedUpdate: <const C extends Columns>(
    options: Batch.UpdateOptions<C>
  ) => Batch.BatchStatement<C>
  /** Prepares a deletion by keys. It needs a transaction where deletions return no rows. */
  readonly deleteByKeys: <Key extends string | number>(
    options: Batch.DeleteOptions<Key>
  ) => Batch.DeleteStatement<Key>
  /** Returns a reader of rows of a table; see `Row.reader`. */
  readonly reader: <A extends object>(table: string, shape: Row.Shape<A>) => Row.Reader<A>
  /** Ends connections of the client that can only read, in the background, so that it opens others. */
  readonly endReadOnlySessions: Effect.Effect<void>
  /** The clock of the store, in epoch milliseconds. */
  readonly now: Effect.Effect<number, StoreError>
}

const PREFIX = /^[A-Za-z_][A-Za-z0-9_]{0,39}$/

/** Returns the prefix of the options. Throws a `RangeError` if it is not a valid one. */
export const prefixOf = (options?: Options): string => {
  const prefix = options?.prefix ?? "chicory"
  if (PREFIX.test(prefix)) return prefix
  throw new RangeError(
    `The prefix ${JSON.stringify(prefix)} is not valid: a letter or _, then letters, digits, _; at most 40`
  )
}

/**
 * Makes the tables of the `SqlClient` in the context, whose statements keep to a limit in bytes. An invalid prefix and a
 * database without a dialect are defects.
 */
export const make = Effect.fnUntraced(function* (
  options?: Options,
  statementLimit?: number
): Effect.fn.Return<Database, never, SqlClient.SqlClient> {
  const client = (yield* SqlClient.SqlClient).withoutTransforms()
  const prefix = yield* Effect.sync(() => prefixOf(options))
  const known = dialectOf(client)
  if (known === undefined) {
    return yield* Effect.die(
      new Error("This SqlClient has no dialect: supported are PostgreSQL, SQLite and MariaDB")
    )
  }
  const dialect = withLimit(known, statementLimit)
  const explained = explainLostConnection(statementLimit)
  const store = options?.store ?? dialect.name
  const tableName = (name: string): string => `${prefix}_${name}`
  const table = (name: string): string => dialect.identifier(tableName(name))
  const run: Batch.Run = (text, params = []) => {
    const prepared = dialect.prepare(text, params)
    return explained(client.unsafe<object>(prepared.text, prepared.params), prepared.params)
  }
  const context: Batch.Context = { store, dialect, run, tableName, table }
  const readNow = Row.reader<{ readonly now: number }>(store, "(clock)", { now: Row.integer })

  return {
    ...context,
    ...Transactions.make({ client, dialect, run, store, tableName }),
    client,
    connections: dialect.isLocalFile ? undefined : likelyConnectionsOf(client),
    maxBytes: statementLimit === undefined ? undefined : maxValueBytes(statementLimit),
    batched: (columns, text) => Batch.makeBatched(context, columns, text),
    batchedUpdate: (update) => Batch.makeBatchedUpdate(context, update),
    deleteByKeys: (deletion) => Batch.makeDeleteByKeys(context, deletion),
    reader: (name, shape) => Row.reader(store, tableName(name), shape),
    endReadOnlySessions: Effect.void,
    now: Effect.map(Effect.flatMap(run(`SELECT ${dialect.now} AS now`), readNow), (rows) => rows[0]!.now)
  }
})
