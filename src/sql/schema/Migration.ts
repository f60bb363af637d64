/** One step of the schema. A step that was published never changes. */
export interface Migration {
  readonly id: number
  readonly name: string
  /** The statements, in order. `table` quotes and prefixes a name. */
  readonly statements: (table: (name: string) => string) => ReadonlyArray<string>
}
