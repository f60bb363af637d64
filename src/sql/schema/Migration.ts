/** One step of the schema. A published step never changes; a change to the schema is a new step. */
export interface Migration {
  /** The version of the schema after this step, counted from 1. */
  readonly id: number
  readonly name: string
  /** Returns the statements, in order. `table` prefixes and quotes a name. */
  readonly statements: (table: (name: string) => string) => ReadonlyArray<string>
}
