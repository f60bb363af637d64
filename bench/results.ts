/** What the bench found, as `--json` writes it, and as tables and the picture show it. */

/** The tables of one run on one store. */
export interface Results {
  readonly store: string
  /** `YYYY-MM-DD`. */
  readonly date: string
  /** The commit of the working tree, and whether files differ from it. */
  readonly commit: string
  /** Node's version, the number of processors, and the load when the run began. */
  readonly machine: string
  readonly tables: ReadonlyArray<Table>
}

/** A line for each thing that was measured, with a value for each column. */
export interface Table {
  readonly name: string
  readonly title: string
  readonly columns: ReadonlyArray<string>
  /** How a value is compared with that of the first column. */
  readonly compared: "first / it" | "it / first" | "not"
  readonly rows: ReadonlyArray<Row>
  /** Printed under the table. */
  readonly notes: ReadonlyArray<string>
}

/** One thing that was measured. */
export interface Row {
  readonly name: string
  readonly what: string
  readonly unit: string
  /** By column; a column is missing if it has no value. */
  readonly cells: Readonly<Record<string, Cell>>
}

/** What was measured of one thing in one column. */
export interface Cell {
  /** A value for each round. */
  readonly values: ReadonlyArray<number>
  /** Set if a round was measured on fewer tasks than the workload has. */
  readonly fewer?: FewerTasks | undefined
}

/** A measurement on fewer tasks than the workload has. */
export interface FewerTasks {
  readonly measured: number
  readonly of: number
}

/** Returns the middle value, or the mean of the two in the middle. */
export const median = (values: ReadonlyArray<number>): number | undefined => {
  const sorted = [...values].sort((a, b) => a - b)
  const upper = sorted[Math.floor(sorted.length / 2)]
  const lower = sorted[Math.floor((sorted.length - 1) / 2)]
  return upper === undefined || lower === undefined ? undefined : (lower + upper) / 2
}
