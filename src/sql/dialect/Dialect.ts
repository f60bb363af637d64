/**
 * What databases say differently. The statements of the store are written once, with `?` for a parameter; a dialect
 * fills in these parts.
 */

/** What a column of a batch holds. */
export type ColumnType = "text" | "integer"

/** The columns of a batch, in order. */
export type Columns = Readonly<Record<string, ColumnType>>

/** Rows of a batch: their values in the order of the columns. */
export type Values = ReadonlyArray<ReadonlyArray<unknown>>

/** Rows of a batch, as a part of a statement. */
export interface BatchSource {
  /** A table expression named `batch`, with the columns asked for. It may have rows that are all NULL. */
  readonly text: string
  /** The parameters of the text, for up to as many rows as it was made for. */
  readonly bind: (rows: Values) => Array<unknown>
}

/** An update of rows `t` of a table from the rows of a batch. */
export interface Update {
  readonly table: string
  readonly batch: string
  readonly set: Readonly<Record<string, string>>
  readonly where: string
  /** The column by which rows are told apart. */
  readonly key: string
  readonly returning: ReadonlyArray<string>
}

/** A lock that is held until the transaction ends. */
export interface DatabaseLock {
  /** Waits for it. */
  readonly acquire: string
  /** Answers `got`, 0 or 1, and does not wait. */
  readonly tryAcquire: string
  /** Where it does not end with the transaction. */
  readonly release?: string | undefined
}

/** What goes to the driver. */
export interface Prepared {
  readonly text: string
  readonly params: ReadonlyArray<unknown>
}

/** The parts. */
export interface Dialect {
  readonly name: DialectName
  /** The clock of the store: epoch milliseconds, as an integer expression that does not stand still in a transaction. */
  readonly now: string
  /** A quoted identifier. */
  readonly identifier: (name: string) => string
  /** A statement and its parameters as the driver takes them. */
  readonly prepare: (text: string, params: ReadonlyArray<unknown>) => Prepared
  /** A body in a column of its own kind: text, or bytes that are none. */
  readonly toBody: (body: string | Uint8Array | null | undefined) => unknown
  /** Its way back. */
  readonly fromBody: (stored: string | Uint8Array) => string | Uint8Array
  /** The most rows that one batch has. */
  readonly maxRows: number
  /** The most characters that the texts of one batch have, unless it is a single row; `Infinity`: no limit. */
  readonly maxText: number
  /** A table expression for at least that many rows. */
  readonly batch: (columns: Columns, rows: number) => BatchSource
  /** A table whose rows are to be found by that index and in no other way, as a part of a `SELECT`. */
  readonly byIndex: (table: string, index?: string) => string
  /** `column` is one of a list, which is one parameter. */
  readonly inList: (column: string, type: ColumnType) => string
  /** That parameter. */
  readonly list: (values: ReadonlyArray<string | number | null>) => unknown
  /** Texts and numbers, one after the other, as text. */
  readonly concat: (...parts: ReadonlyArray<string>) => string
  /** `INSERT`, but for rows that are there already; answers columns of those that were not. */
  readonly insertNew: (insert: {
    readonly table: string
    readonly columns: ReadonlyArray<string>
    readonly select: string
    readonly returning?: string | undefined
  }) => string
  /** `INSERT` of one row of values, or its update by the primary key; `incoming` names a value that was to be inserted. */
  readonly upsert: (upsert: {
    readonly table: string
    readonly values: Readonly<Record<string, string>>
    readonly key: ReadonlyArray<string>
    readonly set: (incoming: (column: string) => string) => Readonly<Record<string, string>>
  }) => string
  /**
   * An update that answers what it updated, or one that answers nothing. Of the latter the rows are found and locked
   * first, are given by their keys, as a last parameter, and are read after it.
   */
  readonly update:
    | { readonly answers: true; readonly text: (update: Update) => string }
    | {
        readonly answers: false
        /** Answers the keys as `k`, and locks the rows. */
        readonly find: (update: Update) => string
        readonly write: (update: Update) => string
      }
  /**
   * A removal of rows that answers their keys as `k`, or one that answers nothing. Of the latter the rows are found and
   * locked first, by the index, and are given by the `k` of a batch.
   */
  readonly remove:
    | {
        readonly answers: true
        readonly text: (removal: {
          readonly table: string
          readonly key: string
          readonly where: string
        }) => string
      }
    | {
        readonly answers: false
        readonly text: (removal: {
          readonly table: string
          readonly key: string
          readonly index: string
          readonly batch: string
        }) => string
      }
  /** What the transactions of the store begin with, in place of the client's own. */
  readonly begin?: string | undefined
  /** A statement at the beginning of those: if the process stands still between two statements, they end all the same. */
  readonly transactionSetup?: string | undefined
  /** Ends a `SELECT` whose rows are to be changed by this transaction. */
  readonly forUpdate: string
  /** The same, of rows that no other transaction is at. */
  readonly skipLocked: string
  /** Whether one statement can have several parts that write (`WITH … AS (INSERT …)`). */
  readonly writableCtes: boolean
  /** Answers `level`: how far transactions of the client see each other; `undefined`: as far as they should. */
  readonly isolation?: { readonly select: string; readonly needed: string } | undefined
  /** A lock by the name of the table that it guards; `undefined`: a transaction excludes all others anyway. */
  readonly lock: ((table: string) => DatabaseLock) | undefined
}

/** The databases there are dialects for. */
export type DialectName = "sqlite" | "postgres" | "mysql"

/** Assignments of a statement, in order. */
export const assignments = (
  set: Readonly<Record<string, string>>,
  target: (column: string) => string = (column) => column
): string =>
  Object.entries(set)
    .map(([column, value]) => `${target(column)} = ${value}`)
    .join(", ")
