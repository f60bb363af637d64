/** The schema of a later release: with one more step, which only adds to the tables. */
import type { DialectName } from "../../src/sql/dialect/Dialect.ts"
import type { Migration } from "../../src/sql/schema/Migration.ts"
import { schema } from "../../src/sql/schema/schema.ts"

/** Adds the step to what this process knows. */
export const addStep = (dialect: DialectName): Migration => {
  const steps = schema[dialect] as Array<Migration>
  const { id } = steps.at(-1)!
  // a strict table of SQLite knows no VARCHAR
  const text = dialect === "sqlite" ? "TEXT" : "VARCHAR(100)"
  const step: Migration = {
    id: id + 1,
    name: "notes",
    needs: id,
    statements: (table) => [
      `ALTER TABLE ${table("tasks")} ADD COLUMN note ${text}`,
      `ALTER TABLE ${table("messages")} ADD COLUMN note ${text} NOT NULL DEFAULT ''`,
      `CREATE TABLE ${table("notes")} (id INTEGER NOT NULL PRIMARY KEY, note ${text} NOT NULL)`,
      `CREATE INDEX ${table("notes_by_note")} ON ${table("notes")} (note)`
    ]
  }
  steps.push(step)
  return step
}
