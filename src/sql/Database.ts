/**
 * The tables of one store, reached through a `SqlClient`: their names, and how statements over batches are run.
 */
import { Effect } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import type { Dialect } from "./Dialect.ts"
import * as Row from "./Row.ts"
import { sqliteDialect } from "./sqliteDialect.ts"

/** Which tables. */
export interface Options {
  /** Begins the name of every table: a letter or `_`, then letters, digits, `_`; at most 40. Default `chicory`. */
  readonly prefix?: string | undefined
  /** Names the store in errors: the file, or the database. Default `sql`. */
  readonly store?: string | undefined
}

/** What a call to the store can fail with. */
export type StoreError = SqlError.SqlError | Row.CorruptRow

/** A row as it comes, before it is checked. */
type Rows = ReadonlyArray<object>

/** A statement over the rows of a batch; further parameters come after theirs. */
export type BatchStatement = (
  rows: ReadonlyArray<ReadonlyArray<unknown>>,
  params?: ReadonlyArray<unknown>
) => Effect.Effect<Rows, SqlError.SqlError>

/** The store's tables. */
export interface Database {
  readonly store: string
  readonly dialect: Dialect
  /** The quoted name of a table. */
  readonly table: (name: string) => string
  readonly run: (text: string, params?: ReadonlyArray<unknown>) => Effect.Effect<Rows, SqlError.SqlError>
  /**
   * Prepares a statement over batches. `text` is given the table expression `batch`, with these columns; it has to
   * pass over rows that are all NULL.
   */
  readonly batched: (columns: ReadonlyArray<string>, text: (batch: string) => string) => BatchStatement
  /** The same, which sets columns of the rows `t` of a table, and answers columns of those that it found. */
  readonly updating: (options: {
    readonly table: string
    readonly columns: ReadonlyArray<string>
    readonly set: string
    readonly where: string
    readonly returning: string
  }) => BatchStatement
  /** All or nothing, apart from every other writer. */
  readonly transaction: <A, E, R>(
    effect: Effect.Effect<A, E, R>
  ) => Effect.Effect<A, E | SqlError.SqlError, R>
  /** The clock of the store, epoch milliseconds. */
  readonly now: Effect.Effect<number, StoreError>
  readonly reader: <A extends object>(table: string, shape: Row.Shape<A>) => Row.Reader<A>
}

/** Ten thousand years: what is longer would not fit a column. */
const LONGEST_MILLIS = 10_000 * 365 * 24 * 60 * 60 * 1000
const PREFIX = /^[A-Za-z_][A-Za-z0-9_]{0,39}$/

/** Over the `SqlClient` of the context. A prefix that is none is a defect. */
export const make = Effect.fnUntraced(function* (
  options?: Options
): Effect.fn.Return<Database, never, SqlClient.SqlClient> {
  const sql = (yield* SqlClient.SqlClient).withoutTransforms()
  const prefix = options?.prefix ?? "chicory"
  if (!PREFIX.test(prefix)) {
    return yield* Effect.die(
      new RangeError(
        `The prefix ${JSON.stringify(prefix)} is no name: a letter or _, then letters, digits, _; at most 40`
      )
    )
  }
  const store = options?.store ?? "sql"
  const dialect = sql.onDialectOrElse({
    sqlite: (): Dialect | undefined => sqliteDialect,
    orElse: () => undefined
  })
  if (dialect === undefined)
    return yield* Effect.die(new Error(`There is no dialect for the driver ${sql.driver}`))

  const table = (name: string): string => dialect.identifier(`${prefix}_${name}`)
  const run: Database["run"] = (text, params) => sql.unsafe<object>(text, params)

  const batched: Database["batched"] = (columns, text) => {
    const bySize = new Map<number, { readonly text: string; readonly room: number }>()
    const one: BatchStatement = (rows, params) =>
      Effect.suspend(() => {
        let statement = bySize.get(rows.length)
        if (statement === undefined) {
          const source = dialect.batch(columns, rows.length)
          statement = { text: text(source.text), room: source.room }
          bySize.set(rows.length, statement)
        }
        const bound: Array<unknown> = []
        for (const row of rows) for (const value of row) bound.push(value)
        for (let i = statement.room * columns.length - bound.length; i > 0; i--) bound.push(null)
        if (params !== undefined) bound.push(...params)
        return run(statement.text, bound)
      })
    return (rows, params) => {
      if (rows.length <= dialect.maxRows) return rows.length === 0 ? Effect.succeed([]) : one(rows, params)
      const chunks: Array<ReadonlyArray<ReadonlyArray<unknown>>> = []
      for (let i = 0; i < rows.length; i += dialect.maxRows) chunks.push(rows.slice(i, i + dialect.maxRows))
      return Effect.map(
        Effect.forEach(chunks, (chunk) => one(chunk, params)),
        (parts) => parts.flat()
      )
    }
  }

  const readNow = Row.reader<{ readonly now: number }>(store, "(clock)", { now: Row.integer })

  return {
    store,
    dialect,
    table,
    run,
    batched,
    updating: ({ columns, table: name, ...parts }) =>
      batched(columns, (batch) => dialect.updateFrom({ ...parts, table: table(name), batch })),
    transaction: sql.withTransaction,
    now: Effect.map(Effect.flatMap(run(`SELECT ${dialect.now} AS now`), readNow), (rows) => rows[0]!.now),
    reader: (name, shape) => Row.reader(store, `${prefix}_${name}`, shape)
  }
})

/** Whole milliseconds, for a column; NULL for what is not given. */
export const millis = (duration: number | undefined): number | null =>
  duration === undefined ? null : Math.min(Math.ceil(duration), LONGEST_MILLIS)

/** An item of a batch, and its place there. */
export interface Numbered<out A> {
  readonly item: A
  readonly index: number
}

/**
 * A batch, in as many rounds as an id occurs in it at most: within a round every id is there once, and the rounds
 * come one after the other.
 */
export const rounds = <A>(
  batch: ReadonlyArray<A>,
  idOf: (item: A) => string
): ReadonlyArray<ReadonlyArray<Numbered<A>>> => {
  const seen = new Map<string, number>()
  const made: Array<Array<Numbered<A>>> = []
  for (let index = 0; index < batch.length; index++) {
    const item = batch[index]!
    const id = idOf(item)
    const round = seen.get(id) ?? 0
    seen.set(id, round + 1)
    ;(made[round] ??= []).push({ item, index })
  }
  return made
}
