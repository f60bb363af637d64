/**
 * The tables of one store, reached through a `SqlClient`: their names, and how statements over batches are run.
 */
import { Context, Data, Effect, Schedule } from "effect"
import { SqlClient, SqlError } from "effect/sql"
import { wholeMillis } from "../internal/millis.ts"
import type { Columns, ColumnType, Dialect, Values } from "./dialect/Dialect.ts"
import { dialects } from "./dialect/dialects.ts"
import * as Row from "./Row.ts"

/** Which tables. */
export interface Options {
  /** Begins the name of every table: a letter or `_`, then letters, digits, `_`; at most 40. Default `chicory`. */
  readonly prefix?: string | undefined
  /** Names the store in errors: the file, or the database. Default: the kind of the database. */
  readonly store?: string | undefined
}

/** What a call to the store can fail with. */
export type StoreError = SqlError.SqlError | Row.CorruptRow

/** What belongs into a transaction of the store's database was done outside of one, or in one of another database. */
export class NoTransaction extends Data.TaggedError("NoTransaction") {
  override get message(): string {
    return "the transaction is not one of the SqlClient that SqlStore was given: provide the same client to both"
  }
}

/** A row as it comes, before it is checked. */
type Rows = ReadonlyArray<object>

/** A statement over the rows of a batch; further parameters come after theirs. */
export type BatchStatement = (
  rows: Values,
  params?: ReadonlyArray<unknown>
) => Effect.Effect<Rows, SqlError.SqlError>

/** Which rows are removed. */
export interface RemoveOptions<Key extends string | number> {
  readonly table: string
  readonly key: readonly [name: string, type: Key extends string ? "text" : "integer"]
  /** The index of the key. Default: that of the primary key. */
  readonly index?: string | undefined
  /** What has to hold of them besides. */
  readonly and?: string | undefined
}

/** The store's tables. */
export interface Database {
  readonly store: string
  readonly dialect: Dialect
  readonly client: SqlClient.SqlClient
  /** The name of a table, with the prefix. */
  readonly tableName: (name: string) => string
  /** The same, quoted. */
  readonly table: (name: string) => string
  readonly run: (text: string, params?: ReadonlyArray<unknown>) => Effect.Effect<Rows, SqlError.SqlError>
  /**
   * Prepares a statement over batches. `text` is given the table expression `batch`, with these columns; it has to
   * pass over rows that are all NULL.
   */
  readonly batched: (columns: Columns, text: (batch: string) => string) => BatchStatement
  /**
   * The same, which sets columns of the rows `t` of a table, and answers columns of those that it found. Belongs into
   * a transaction.
   */
  readonly updating: (options: {
    readonly table: string
    readonly columns: Columns
    readonly set: Readonly<Record<string, string>>
    readonly where: string
    readonly key: readonly [name: string, type: ColumnType]
    readonly returning: ReadonlyArray<string>
  }) => BatchStatement
  /**
   * Removes the rows whose keys are in a list, if `and` holds of them too, and answers those that it removed. Belongs
   * into a transaction.
   */
  readonly removing: <Key extends string | number>(
    options: RemoveOptions<Key>
  ) => (
    keys: ReadonlyArray<Key>,
    params?: ReadonlyArray<unknown>
  ) => Effect.Effect<ReadonlyArray<Key>, StoreError>
  /**
   * All or nothing. Where the database gives up on it for the sake of another transaction (a deadlock), it is run
   * again, unless it is part of a caller's.
   */
  readonly inTransaction: <A, E, R>(
    effect: Effect.Effect<A, E, R>
  ) => Effect.Effect<A, E | SqlError.SqlError, R>
  /** The same, for what is one statement where updates answer, and several elsewhere. */
  readonly inTransactionIfNeeded: <A, E, R>(
    effect: Effect.Effect<A, E, R>
  ) => Effect.Effect<A, E | SqlError.SqlError, R>
  /** The same, for what is one statement. */
  readonly retryOnDeadlock: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  /** Runs while no other process does the same, and is answered so where one does. Belongs into a transaction. */
  readonly withLock: <A, E, R>(
    name: string,
    effect: Effect.Effect<A, E, R>,
    otherwise: A
  ) => Effect.Effect<A, E | StoreError, R>
  /** Runs apart from a caller's transaction, and not for too long. */
  readonly outsideTransaction: <A, E, R>(
    effect: Effect.Effect<A, E, R>
  ) => Effect.Effect<A, E | SqlError.SqlError, R>
  /** Runs as part of a caller's transaction; where there is none, not for too long. */
  readonly inCallerTransaction: <A, E, R>(
    effect: Effect.Effect<A, E, R>
  ) => Effect.Effect<A, E | SqlError.SqlError, R>
  /** After the commit of a caller's transaction; at once, where there is none. */
  readonly afterCommit: (run: () => void) => Effect.Effect<void>
  /** A caller's transaction, if it is in one of this database. */
  readonly transactionOf: (context: Context.Context<never>) => object | undefined
  /** The clock of the store, epoch milliseconds. */
  readonly now: Effect.Effect<number, StoreError>
  readonly reader: <A extends object>(table: string, shape: Row.Shape<A>) => Row.Reader<A>
}

const PREFIX = /^[A-Za-z_][A-Za-z0-9_]{0,39}$/

/** Checks a prefix, and gives it or the default; one that is none throws. */
export const prefixOf = (options?: Options): string => {
  const prefix = options?.prefix ?? "chicory"
  if (PREFIX.test(prefix)) return prefix
  throw new RangeError(
    `The prefix ${JSON.stringify(prefix)} is no name: a letter or _, then letters, digits, _; at most 40`
  )
}

/** The transactions that a database gave up were not at fault, and are over. */
const isGivenUp = (error: unknown): boolean =>
  SqlError.isSqlError(error) &&
  (error.reason._tag === "DeadlockError" || error.reason._tag === "SerializationError")

const soon = Schedule.jittered(Schedule.exponential("4 millis"))

const again = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.catchIf(effect, isGivenUp, () =>
    Effect.retry(effect, { schedule: soon, times: 8, while: isGivenUp })
  )

/** As many rows together as a statement holds. */
const chunksOf = (rows: Values, { maxRows, maxText }: Dialect): ReadonlyArray<Values> => {
  if (rows.length <= maxRows && maxText === Infinity) return rows.length === 0 ? [] : [rows]
  const chunks: Array<Array<ReadonlyArray<unknown>>> = []
  let last: Array<ReadonlyArray<unknown>> = []
  let size = 0
  for (const row of rows) {
    const text = row.reduce<number>((sum, value) => sum + (typeof value === "string" ? value.length : 0), 0)
    if (last.length === maxRows || size + text > maxText || chunks.length === 0) {
      chunks.push((last = []))
      size = 0
    }
    last.push(row)
    size += text
  }
  return chunks
}

/** Over the `SqlClient` of the context. A prefix that is none is a defect, and so is a database without a dialect. */
export const make = Effect.fnUntraced(function* (
  options?: Options
): Effect.fn.Return<Database, never, SqlClient.SqlClient> {
  const sql = (yield* SqlClient.SqlClient).withoutTransforms()
  const prefix = yield* Effect.sync(() => prefixOf(options))
  const dialect = sql.onDialectOrElse({
    sqlite: (): Dialect | undefined => dialects.sqlite,
    pg: () => dialects.postgres,
    mysql: () => dialects.mysql,
    orElse: () => undefined
  })
  if (dialect === undefined) {
    return yield* Effect.die(new Error("There is no dialect for this SqlClient: PostgreSQL, SQLite, MariaDB"))
  }
  const store = options?.store ?? dialect.name

  const tableName = (name: string): string => `${prefix}_${name}`
  const table = (name: string): string => dialect.identifier(tableName(name))
  const run: Database["run"] = (text, params = []) => {
    const prepared = dialect.prepare(text, params)
    return sql.unsafe<object>(prepared.text, prepared.params)
  }

  const batched: Database["batched"] = (columns, text) => {
    const bySize = new Map<
      number,
      { readonly text: string; readonly bind: (rows: Values) => Array<unknown> }
    >()
    const one: BatchStatement = (rows, params) =>
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
      if (chunks.length === 1) return one(first, params)
      return Effect.map(
        Effect.forEach(chunks, (chunk) => one(chunk, params)),
        (parts) => parts.flat()
      )
    }
  }

  const updating: Database["updating"] = ({ columns, key: [key, type], table: name, ...rest }) => {
    const parts = { ...rest, table: table(name), key }
    const { update } = dialect
    if (update.answers) return batched(columns, (batch) => update.text({ ...parts, batch }))

    const found = batched(columns, (batch) => update.find({ ...parts, batch }))
    const write = batched(columns, (batch) => update.write({ ...parts, batch }))
    const read = `SELECT ${parts.returning.join(", ")} FROM ${parts.table} WHERE ${dialect.inList(key, type)}`
    return (rows, params) =>
      Effect.flatMap(found(rows, params), (keys) => {
        if (keys.length === 0) return Effect.succeed([])
        const list = dialect.list(keys.map((row) => (row as { readonly k: string | number }).k))
        return Effect.andThen(write(rows, [...(params ?? []), list]), run(read, [list]))
      })
  }

  const removing = <Key extends string | number>({
    and,
    index = "PRIMARY",
    key: [key, type],
    table: name
  }: RemoveOptions<Key>): ((
    keys: ReadonlyArray<Key>,
    params?: ReadonlyArray<unknown>
  ) => Effect.Effect<ReadonlyArray<Key>, StoreError>) => {
    const from = table(name)
    const where = `${dialect.inList(key, type)}${and === undefined ? "" : ` AND ${and}`}`
    const read = Row.reader<{ readonly k: string | number }>(store, tableName(name), {
      k: type === "text" ? Row.text : Row.integer
    })
    const keysOf = (rows: ReadonlyArray<object>) =>
      Effect.map(read(rows), (found) => found.map(({ k }) => k as Key))
    const { remove } = dialect
    if (remove.answers) {
      const removal = remove.text({ table: from, key, where })
      return (keys, params = []) =>
        keys.length === 0
          ? Effect.succeed([])
          : Effect.flatMap(run(removal, [dialect.list(keys), ...params]), keysOf)
    }
    const find = `SELECT ${key} AS k FROM ${dialect.byIndex(from, index)} WHERE ${where} ORDER BY ${key} ${dialect.forUpdate}`
    const write = batched({ k: type }, (batch) => remove.text({ table: from, key, index, batch }))
    return (keys, params = []) =>
      keys.length === 0
        ? Effect.succeed([])
        : Effect.flatMap(run(find, [dialect.list(keys), ...params]), keysOf).pipe(
            Effect.tap((found) => write(found.map((k) => [k])))
          )
  }

  const { transactionService } = sql
  const readGot = Row.reader<{ readonly got: 0 | 1 }>(store, "(lock)", { got: Row.flag })
  const readNow = Row.reader<{ readonly now: number }>(store, "(clock)", { now: Row.integer })
  const transactionOf = (context: Context.Context<never>) =>
    Context.getOrUndefined(context, transactionService)
  const withoutTransaction = <R>(context: Context.Context<R>) =>
    Context.omit(transactionService)(context) as Context.Context<R>
  const isInside = (context: Context.Context<never>) => transactionOf(context) !== undefined
  /** A transaction that is this store's alone. */
  const own = <A, E, R>(effect: Effect.Effect<A, E, R>) => {
    const { begin, transactionSetup: bound } = dialect
    const whole = sql.withTransaction(bound === undefined ? effect : Effect.andThen(run(bound), effect))
    return begin === undefined ? whole : Effect.provideService(whole, SqlClient.BeginTransaction, begin)
  }
  const transaction: Database["inTransaction"] = (effect) =>
    Effect.withFiber(({ context }) => (isInside(context) ? sql.withTransaction(effect) : again(own(effect))))
  const outermost: Database["retryOnDeadlock"] = (effect) =>
    Effect.withFiber((fiber) => (isInside(fiber.context) ? effect : again(effect)))

  return {
    store,
    dialect,
    client: sql,
    tableName,
    table,
    run,
    batched,
    updating,
    removing,
    inTransaction: transaction,
    inTransactionIfNeeded: dialect.update.answers ? outermost : transaction,
    retryOnDeadlock: outermost,
    withLock: (name, effect, otherwise) => {
      const exclusion = dialect.lock?.(tableName(name))
      if (exclusion === undefined) return effect
      const { release, tryAcquire } = exclusion
      return Effect.acquireUseRelease(
        Effect.flatMap(run(tryAcquire), readGot),
        ([row]) => (row?.got === 1 ? effect : Effect.succeed(otherwise)),
        ([row]) => (release === undefined || row?.got !== 1 ? Effect.void : Effect.ignore(run(release)))
      )
    },
    outsideTransaction: <A, E, R>(effect: Effect.Effect<A, E, R>) =>
      Effect.withFiber<A, E, R>(({ context }) =>
        isInside(context) ? Effect.updateContext(effect, withoutTransaction<R>) : effect
      ),
    inCallerTransaction: (effect) => effect,
    afterCommit: (told) =>
      Effect.withFiber((fiber) => {
        if (isInside(fiber.context)) return sql.afterCommit(Effect.sync(told))
        told()
        return Effect.void
      }),
    transactionOf,
    now: Effect.map(Effect.flatMap(run(`SELECT ${dialect.now} AS now`), readNow), (rows) => rows[0]!.now),
    reader: (name, shape) => Row.reader(store, tableName(name), shape)
  }
})

/** Whole milliseconds, for a column; NULL for what is not given. */
export const toMillis = (duration: number | undefined): number | null =>
  duration === undefined ? null : wholeMillis(duration)

/** An item of a batch, and its place there. */
export interface Indexed<out A> {
  readonly item: A
  readonly index: number
}

/**
 * A batch, in as many rounds as an id occurs in it at most: within a round every id is there once, and the rounds
 * come one after the other.
 */
export const distinctBatches = <A>(
  batch: ReadonlyArray<A>,
  idOf: (item: A) => string
): ReadonlyArray<ReadonlyArray<Indexed<A>>> => {
  const seen = new Map<string, number>()
  const made: Array<Array<Indexed<A>>> = []
  for (let index = 0; index < batch.length; index++) {
    const item = batch[index]!
    const id = idOf(item)
    const round = seen.get(id) ?? 0
    seen.set(id, round + 1)
    ;(made[round] ??= []).push({ item, index })
  }
  return made
}
