/**
 * The dialect of SQLite.
 *
 * The rows of a batch are bound one by one to a `VALUES` list, which costs half of what the same rows cost as one
 * JSON parameter. The lists come in sizes of powers of two, so that there are few statements to prepare; what is
 * left of a list is bound to NULL.
 */
import type { Dialect } from "./Dialect.ts"
import { sqliteMigrations } from "./sqliteMigrations.ts"

/** SQLite 3.42 or newer. */
export const sqliteDialect: Dialect = {
  now: "CAST(unixepoch('subsec') * 1000 AS INTEGER)",
  identifier: (name) => `"${name.replaceAll('"', '""')}"`,
  maxRows: 256,
  batch: (columns, rows) => {
    let room = 1
    while (room < rows) room *= 2
    const names = columns.map((column, i) => `column${i + 1} AS ${column}`).join(", ")
    const row = `(${columns.map(() => "?").join(", ")})`
    return {
      text: `(SELECT ${names} FROM (VALUES ${Array.from({ length: room }, () => row).join(", ")})) AS batch`,
      room
    }
  },
  among: (column) => `${column} IN (SELECT value FROM json_each(?))`,
  list: (values) => JSON.stringify(values),
  elements: "json_each(?) AS each",
  updateFrom: ({ batch, returning, set, table, where }) =>
    `UPDATE ${table} AS t SET ${set} FROM ${batch} WHERE ${where} RETURNING ${returning}`,
  migrations: sqliteMigrations
}
