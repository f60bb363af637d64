/**
 * Statements over batches: prepared once for every size of a batch, and split where a batch is larger than one
 * statement holds.
 */
import { Effect } from "effect"
import type { SqlError } from "effect/sql"
import type { AnyBatchRow, BatchRow, Columns, Dialect } from "./dialect/Dialect.ts"
import * as Row from "./Row.ts"

/** The rows that a statement returns, before they are checked. */
export type Rows = ReadonlyArray<object>

/** Runs a statement with `?` for its parameters. */
export type Run = (text: string, params?: ReadonlyArray<unknown>) => Effect.Effect<Rows, SqlError.SqlError>

/** A statement over the rows of a batch, whose parameters come before `params`. */
export type BatchStatement<C extends Columns> = (
  rows: ReadonlyArray<BatchRow<C>>,
  params?: ReadonlyArray<unknown>
) => Effect.Effect<Rows, SqlError.SqlError>

/** An update of rows `t` of a table from the rows of a batch. */
export interface UpdateOptions<C extends Columns> {
  /** The name of the table, without the prefix. */
  readonly table: string
  readonly columns: C
  /** The assigned expressions, by column. */
  readonly set: Readonly<Record<string, string>>
  readonly where: string
  /** The primary key of the table. */
  readonly key: readonly [name: string, type: "text" | "integer"]
  readonly returning: ReadonlyArray<string>
  /** Leaves out rows that another transaction has locked. Default `false`: the update waits for them. */
  readonly skipLocked?: boolean | undefined
}

/** A deletion of rows by their keys. */
export interface DeleteOptions<Key extends string | number> {
  /** The name of the table, without the prefix. */
  readonly table: string
  readonly key: readonly [name: string, type: Key extends string ? "text" : "integer"]
  /** The index of the key. Default: the primary key. */
  readonly index?: string | undefined
  /** A further condition. */
  readonly and?: string | undefined
}

/** Deletes rows by their keys, and returns the keys of those that it deleted. */
export type DeleteStatement<Key extends string | number> = (
  keys: ReadonlyArray<Key>,
  params?: ReadonlyArray<unknown>
) => Effect.Effect<ReadonlyArray<Key>, SqlError.SqlError | Row.CorruptRow>

/** What the statements need to know of the database. */
export interface Context {
  readonly store: string
  readonly dialect: Dialect
  readonly run: Run
  readonly tableName: (name: string) => string
  readonly table: (name: string) => string
}

/** Splits rows into parts that one statement holds. */
const chunksOf = (
  rows: ReadonlyArray<AnyBatchRow>,
  { maxRows, maxText }: Dialect
): ReadonlyArray<ReadonlyArray<AnyBatchRow>> => {
  if (rows.length <= maxRows && maxText === Infinity) return rows.length === 0 ? [] : [rows]
  const chunks: Array<Array<AnyBatchRow>> = []
  let last: Array<AnyBatchRow> = []
  let size = 0
  for (const row of rows) {
    let text = 0
    for (const value of Object.values(row)) if (typeof value === "string") text += value.length
    if (last.length === maxRows || size + text > maxText || chunks.length === 0) {
      chunks.push((last = []))
      size = 0
    }
    last.push(row)
    size += text
  }
  return chunks
}

/** Prepares a statement over batches; see `Database.batched`. */
export const makeBatched = <C extends Columns>(
  { dialect, run }: Context,
  columns: C,
  text: (batch: string) => string
): BatchStatement<C> => {
  const bySize = new Map<
    number,
    { readonly text: string; readonly bind: (rows: ReadonlyArray<AnyBatchRow>) => Array<unknown> }
  >()
  const runChunk = (rows: ReadonlyArray<AnyBatchRow>, params: ReadonlyArray<unknown> | undefined) =>
    Effect.suspend(() => {
      let statement = bySize.get(rows.length)
      if (statement === undefined) {
        const source = dialect.batch(columns, rows.length)
        statement = { text: text(source.text), bind: source.bind }
        bySize.set(rows.length, statement)
      }
      const bound = statement.bind(rows)
      if (params !== undefined) bound.push(...params)
      return run(statement.text, bound)
    })
  return (rows, params) => {
    const chunks = chunksOf(rows, dialect)
    const [first] = chunks
    if (first === undefined) return Effect.succeed([])
    if (chunks.length === 1) return runChunk(first, params)
    return Effect.map(
      Effect.forEach(chunks, (chunk) => runChunk(chunk, params)),
      (parts) => parts.flat()
    )
  }
}

/** Prepares an update from batches; see `Database.batchedUpdate`. */
export const makeBatchedUpdate = <C extends Columns>(
  context: Context,
  { columns, key: [key, type], returning, set, skipLocked = false, table: name, where }: UpdateOptions<C>
): BatchStatement<C> => {
  const {
    dialect: { inList, list, update },
    run
  } = context
  const table = context.table(name)
  const parts = { table, key, set, where, returning, skipLocked }
  if (update.returnsRows) {
    return makeBatched(context, columns, (batch) => update.text({ ...parts, batch }))
  }
  const select = makeBatched(context, columns, (batch) => update.select({ ...parts, batch }))
  const write = makeBatched(context, columns, (batch) => update.write({ ...parts, batch }))
  const read = `SELECT ${returning.join(", ")} FROM ${table} WHERE ${inList(key, type)}`
  const returnsKeys = returning.length === 1 && returning[0] === key
  return (rows, params) =>
    Effect.flatMap(select(rows, params), (found) => {
      if (found.length === 0) return Effect.succeed([])
      const keys = found.map((row) => (row as { readonly k: string | number }).k)
      const written = write(rows, [...(params ?? []), list(keys)])
      return returnsKeys
        ? Effect.as(
            written,
            keys.map((k) => ({ [key]: k }))
          )
        : Effect.andThen(written, run(read, [list(keys)]))
    })
}

/** Prepares a deletion by keys; see `Database.deleteByKeys`. */
export const makeDeleteByKeys = <Key extends string | number>(
  context: Context,
  { and, index = "PRIMARY", key: [key, type], table: name }: DeleteOptions<Key>
): DeleteStatement<Key> => {
  const {
    dialect: { byIndex, forUpdate, inList, list, remove },
    run
  } = context
  const table = context.table(name)
  const where = `${inList(key, type)}${and === undefined ? "" : ` AND ${and}`}`
  const readKeys = Row.reader<{ readonly k: string | number }>(context.store, context.tableName(name), {
    k: type === "text" ? Row.text : Row.integer
  })
  const toKeys = (rows: Rows) => Effect.map(readKeys(rows), (found) => found.map(({ k }) => k as Key))
  if (remove.returnsRows) {
    const removal = remove.text({ table, key, where })
    return (keys, params = []) =>
      keys.length === 0 ? Effect.succeed([]) : Effect.flatMap(run(removal, [list(keys), ...params]), toKeys)
  }
  const select = `SELECT ${key} AS k FROM ${byIndex(table, index)} WHERE ${where} ORDER BY ${key} ${forUpdate}`
  const columns: { readonly k: "text" | "integer" } = { k: type }
  const write = makeBatched(context, columns, (batch) => remove.text({ table, key, index, batch }))
  return (keys, params = []) =>
    keys.length === 0
      ? Effect.succeed([])
      : Effect.flatMap(run(select, [list(keys), ...params]), toKeys).pipe(
          Effect.tap((found) => write(found.map((k) => ({ k }))))
        )
}
