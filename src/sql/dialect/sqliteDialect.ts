/**
 * The dialect of SQLite.
 *
 * The rows of a batch are bound one by one to a `VALUES` list, which costs half of what the same rows cost as one
 * JSON parameter. The lists come in sizes of powers of two, so that there are few statements to prepare; what is
 * left of a list is bound to NULL.
 *
 * A transaction has the file to itself from its beginning, so no row has to be locked.
 */
import { assignments, type Dialect } from "./Dialect.ts"
import { onConflict } from "./onConflict.ts"
import { bindRows, powerOfTwo } from "./paddedBatch.ts"

/** SQLite 3.42 or newer. */
export const sqliteDialect: Dialect = {
  name: "sqlite",
  now: "CAST(unixepoch('subsec') * 1000 AS INTEGER)",
  identifier: (name) => `"${name.replaceAll('"', '""')}"`,
  prepare: (text, params) => ({ text, params }),
  toBody: (body) => body,
  fromBody: (stored) => stored,
  maxRows: 256,
  maxText: Infinity,
  byIndex: (table) => table,
  remove: {
    answers: true,
    text: ({ key, table, where }) => `DELETE FROM ${table} WHERE ${where} RETURNING ${key} AS k`
  },
  batch: (columns, rows) => {
    const names = Object.keys(columns)
    const room = powerOfTwo(rows)
    const named = names.map((column, i) => `column${i + 1} AS ${column}`).join(", ")
    const row = `(${names.map(() => "?").join(", ")})`
    return {
      text: `(SELECT ${named} FROM (VALUES ${Array.from({ length: room }, () => row).join(", ")})) AS batch`,
      bind: bindRows(names.length, room)
    }
  },
  inList: (column) => `${column} IN (SELECT value FROM json_each(?))`,
  list: (values) => JSON.stringify(values),
  concat: (...parts) => parts.join(" || "),
  ...onConflict,
  update: {
    answers: true,
    text: ({ batch, returning, set, table, where }) =>
      `UPDATE ${table} AS t SET ${assignments(set)} FROM ${batch} WHERE ${where} RETURNING ${returning.join(", ")}`
  },
  forUpdate: "",
  skipLocked: "",
  writableCtes: false,
  lock: undefined
}
