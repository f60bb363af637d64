/**
 * What databases say differently. The statements of the store are written once; a dialect fills in these parts.
 */

/** Rows of a batch, as a part of a statement. */
export interface BatchSource {
  /** A table expression named `batch`, with the columns asked for. It may have rows that are all NULL. */
  readonly text: string
  /** How many rows the text has room for. */
  readonly room: number
}

/** One step of the schema. */
export interface Migration {
  readonly id: number
  readonly name: string
  /** The statements, in order. `table` quotes and prefixes a name. */
  readonly statements: (table: (name: string) => string) => ReadonlyArray<string>
}

/** The parts. */
export interface Dialect {
  /** The clock of the store: epoch milliseconds, as an integer expression. */
  readonly now: string
  /** A quoted identifier. */
  readonly identifier: (name: string) => string
  /** The most rows that one batch has. */
  readonly maxRows: number
  /** A table expression for at least that many rows, whose parameters are the rows' values, one after the other. */
  readonly batch: (columns: ReadonlyArray<string>, rows: number) => BatchSource
  /** `column` is one of a list, which is one parameter. */
  readonly among: (column: string) => string
  /** That parameter. */
  readonly list: (values: ReadonlyArray<string | number>) => unknown
  /** A table expression named `each`, with the elements of a list as `value`. */
  readonly elements: string
  /** Updates the rows `t` of a table from a batch, and answers columns of those that it updated. */
  readonly updateFrom: (options: {
    readonly table: string
    readonly batch: string
    readonly set: string
    readonly where: string
    readonly returning: string
  }) => string
  readonly migrations: ReadonlyArray<Migration>
}
