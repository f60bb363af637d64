/** One step of the schema. A published step never changes; a change to the schema is a new step. */
export interface Migration {
  /** The version of the schema after this step, counted from 1. */
  readonly id: number
  readonly name: string
  /**
   * The version that code has to know to work on the tables after this step: this one, or an earlier one, so that workers of an
   * older release go on while the next one is deployed. A step that only adds columns with defaults, tables and indexes needs
   * no more than the step before it.
   */
  readonly needs: number
  /** Returns the statements, in order. `table` prefixes and quotes a name. */
  readonly statements: (table: (name: string) => string) => ReadonlyArray<string>
}
