/**
 * The parts of SQL in which databases differ. The statements of the store are written once, with `?` for a parameter,
 * and take these parts from the dialect.
 */

/** The databases that have a dialect. */
export type DialectName = "sqlite" | "postgres" | "mysql"

/** The type of a column of a batch. A `body` is text, or bytes that are not text; the dialect encodes it. */
export type ColumnType = "text" | "integer" | "body"

/** The columns of a batch, by name, in order. */
export type Columns = Readonly<Record<string, ColumnType>>

/** The values of the column types. */
export interface ColumnValues {
  readonly text: string
  readonly integer: number
  readonly body: string | Uint8Array
}

/** A row of a batch: a value for every column. `null` and `undefined` are NULL. */
export type BatchRow<C extends Columns> = {
  readonly [K in keyof C]: ColumnValues[C[K]] | null | undefined
}

/** A row of a batch whose columns are not known to the compiler. */
export type AnyBatchRow = Readonly<Record<string, unknown>>

/** A batch as a part of a statement. */
export interface BatchSource {
  /** A table expression named `batch`, with the declared columns. It may have rows that are all NULL. */
  readonly text: string
  /** Returns the parameters of the text. There may be fewer rows than the text was made for, and never more. */
  readonly bind: (rows: ReadonlyArray<AnyBatchRow>) => Array<unknown>
}

/** An update of the rows `t` of a table from the rows of a batch. */
export interface Update {
  /** The quoted name of the table. */
  readonly table: string
  /** The table expression of the batch. */
  readonly batch: string
  /** The assigned expressions, by column. */
  readonly set: Readonly<Record<string, string>>
  readonly where: string
  /** The primary key of the table. */
  readonly key: string
  readonly returning: ReadonlyArray<string>
  /** Leaves out rows that another transaction has locked. */
  readonly skipLocked: boolean
}

/** A deletion of rows that returns their keys. */
export interface ReturningDelete {
  readonly table: string
  readonly key: string
  readonly where: string
}

/** A deletion of rows whose keys are in the column `k` of a batch. */
export interface BatchDelete {
  readonly table: string
  readonly key: string
  readonly index: string
  readonly batch: string
}

/** The statements of a lock that one session of the database holds at a time. */
export interface DatabaseLock {
  /** Waits for the lock. */
  readonly acquire: string
  /** Returns `got`, 0 or 1, without waiting. */
  readonly tryAcquire: string
  /** Releases the lock, where it does not end with the transaction. */
  readonly release?: string | undefined
}

/** The codes of a server's error, by which drivers tell it. */
export interface ServerError {
  readonly code?: unknown
  readonly errno?: unknown
}

/** How a session that can only read is recognized and ended. */
export interface ReadOnlySessions {
  /**
   * Whether the server refused a statement, or a commit, because the session is read-only. It has undone the statement
   * or the transaction then.
   */
  readonly isRefusal: (cause: ServerError) => boolean
  /** Returns `is_read_only`, 0 or 1. */
  readonly select: string
  /** Ends the session that runs it, whose user needs no privilege for that. */
  readonly end: string
}

/** How it is found out what a user may not do. */
export interface Rights {
  /** The tables that a store reads and writes. */
  readonly tables: ReadonlyArray<string>
  /** The functions that it calls. */
  readonly functions: ReadonlyArray<string>
  /** Returns the `name` of the session's user, as a `GRANT` has it. */
  readonly user: string
  /** Where the database does not say what is denied, statements are tried. */
  readonly by: SelectedRights | TriedRights
}

/** Rights that the database tells. */
export interface SelectedRights {
  readonly _tag: "Selected"
  /** Selects what the user may not do: each `privilege`, and the name of its `target`. */
  readonly select: (tables: ReadonlyArray<string>, functions: ReadonlyArray<string>) => string
}

/** Rights that are tried, by statements that touch no row. */
export interface TriedRights {
  readonly _tag: "Tried"
  /** Joins statements to one, which fails if any of them is denied. */
  readonly join: (statements: ReadonlyArray<string>) => string
  readonly isDenied: (cause: ServerError) => boolean
  /** Whether the server refused a statement for another reason, after it had found that the user may run it. */
  readonly isAllowed: (cause: ServerError) => boolean
}

/** A statement and its parameters in the form that the driver takes. */
export interface Prepared {
  readonly text: string
  readonly params: ReadonlyArray<unknown>
}

/** The parts of statements that depend on the database. */
export interface Dialect {
  readonly name: DialectName
  /** The database is a file of this machine: a call has no round trip, and cannot hang on a connection. */
  readonly isLocalFile: boolean
  /** `undefined`: there are no users. */
  readonly rights?: Rights | undefined
  /** How processes notify each other, if the client can. */
  readonly notifications: "listen-notify" | "change-table" | "notification-table"
  /** The isolation level that transactions need where the client sets it; `select` returns it as `level`. */
  readonly isolation?: { readonly select: string; readonly needed: string } | undefined
  /** Selects the most bytes of a statement with its parameters, as `bytes`; `undefined`: far more than a store writes. */
  readonly statementLimit?: string | undefined
  /** Begins transactions of the store, in place of the client's own statement. */
  readonly begin?: string | undefined
  /** The first statement of those transactions: the server ends them if the process stands still between two others. */
  readonly transactionSetup?: string | undefined
  /** `undefined`: no session outlives the ability to write. */
  readonly readOnlySessions?: ReadOnlySessions | undefined
  /** Selects a row if a table of the name exists; `undefined`: there is no such statement for every user. */
  readonly selectTable?: ((name: string) => string) | undefined
  /** A lock named after the table that it guards; `undefined`: a transaction excludes all others. */
  readonly lock: ((table: string) => DatabaseLock) | undefined

  /** Returns a statement in the form that the driver takes. */
  readonly prepare: (text: string, params: ReadonlyArray<unknown>) => Prepared
  /** Quotes an identifier. */
  readonly identifier: (name: string) => string
  /** The clock of the store: epoch milliseconds, an integer expression that advances within a transaction. */
  readonly now: string
  /** Concatenates texts and numbers to a text. */
  readonly concat: (...parts: ReadonlyArray<string>) => string
  /** Returns the last characters of a text, at most `count`. */
  readonly last: (text: string, count: number) => string
  /** Decodes a stored body to text or bytes. */
  readonly fromBody: (stored: string | Uint8Array) => string | Uint8Array

  /** The most characters of the name of a queue. */
  readonly maxQueueLength: number
  /** The most rows of one batch. */
  readonly maxRows: number
  /** The most characters in the texts of one batch, unless it is a single row; `Infinity`: no limit. */
  readonly maxText: number
  /** Returns a batch of at least that many rows. */
  readonly batch: (columns: Columns, rows: number) => BatchSource
  /** The condition that a column is in a list, which is one parameter. */
  readonly inList: (column: string, type: "text" | "integer") => string
  /** Returns the parameter of `inList`. */
  readonly list: (values: ReadonlyArray<string | number | null>) => unknown

  /** A table in a `SELECT`, whose rows are found by that index and by no other. Default: the primary key. */
  readonly byIndex: (table: string, index?: string) => string
  /** Makes the statements of a transaction that follow it use indexes, whatever the planner expects; `undefined`: they do so anyway. */
  readonly followIndexes?: string | undefined
  /** The column of messages by which the index of delayed ones finds them: the task's id. */
  readonly delayedId: string
  /** Ends a `SELECT` whose rows this transaction changes. */
  readonly forUpdate: string
  /** The same, without rows that another transaction has locked. */
  readonly skipLocked: string
  /** Begins an `INSERT` that skips rows which exist. `onConflictDoNothing` follows its source. */
  readonly insertIgnore: string
  readonly onConflictDoNothing: string
  /** Follows the values of an `INSERT`, and begins the assignments that are made if the row exists. */
  readonly onConflictUpdate: (key: string) => string
  /** The value that such an `INSERT` would have inserted. */
  readonly incoming: (column: string) => string
  /** Whether one statement can write several tables (`WITH … AS (INSERT …)`). */
  readonly writableCtes: boolean
  /** Whether the schema has the view `enqueue`, by which one statement creates records and publishes their messages. */
  readonly enqueueView: boolean
  /**
   * An update that returns the updated rows, or one that returns nothing. For the latter the rows are found and locked
   * first, their keys are the last parameter of the update, and they are read after it.
   */
  readonly update:
    | { readonly returnsRows: true; readonly text: (update: Update) => string }
    | {
        readonly returnsRows: false
        /** Returns the keys as `k`, and locks the rows. */
        readonly select: (update: Update) => string
        readonly write: (update: Update) => string
      }
  /**
   * A deletion that returns the keys as `k`, or one that returns nothing. For the latter the rows are found and locked
   * first, by the index.
   */
  readonly remove:
    | { readonly returnsRows: true; readonly text: (removal: ReturningDelete) => string }
    | { readonly returnsRows: false; readonly text: (removal: BatchDelete) => string }
}

/** Returns the assignments of an update, in order. */
export const assignments = (
  set: Readonly<Record<string, string>>,
  target: (column: string) => string = (column) => column
): string =>
  Object.entries(set)
    .map(([column, value]) => `${target(column)} = ${value}`)
    .join(", ")
