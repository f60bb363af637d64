/**
 * The dialect of SQLite.
 *
 * A batch is a `VALUES` list with one parameter a value, which costs half as much as the same rows in one JSON
 * parameter. A transaction has the file to itself from its beginning, so no row is locked.
 */
import { assignments, type Dialect } from "./Dialect.ts"
import { onConflict } from "./onConflict.ts"
import { bindRows, powerOfTwo } from "./paddedBatch.ts"

/** SQLite 3.43 or newer. */
export const sqliteDialect: Dialect = {
  name: "sqlite",
  isLocalFile: true,
  notifications: "change-table",
  selectTable: (name) =>
    `SELECT 1 AS found FROM sqlite_master WHERE type = 'table' AND name = '${name}' COLLATE NOCASE`,
  lock: undefined,
  prepare: (text, params) => ({ text, params }),
  identifier: (name) => `"${name.replaceAll('"', '""')}"`,
  now: "CAST(unixepoch('subsec') * 1000 AS INTEGER)",
  concat: (...parts) => parts.join(" || "),
  last: (text, count) => `substr(${text}, -${count})`,
  fromBody: (stored) => stored,
  maxQueueLength: Infinity,
  maxRows: 256,
  maxText: Infinity,
  batch: (columns, rows) => {
    const names = Object.keys(columns)
    const capacity = powerOfTwo(rows)
    const named = names.map((column, i) => `column${i + 1} AS ${column}`).join(", ")
    const row = `(${names.map(() => "?").join(", ")})`
    return {
      text: `(SELECT ${named} FROM (VALUES ${Array.from({ length: capacity }, () => row).join(", ")})) AS batch`,
      bind: bindRows(columns, capacity)
    }
  },
  inList: (column) => `${column} IN (SELECT value FROM json_each(?))`,
  list: (values) => JSON.stringify(values),
  byIndex: (table) => table,
  delayedId: "id",
  forUpdate: "",
  skipLocked: "",
  ...onConflict,
  writableCtes: false,
  enqueueView: true,
  update: {
    returnsRows: true,
    text: ({ batch, returning, set, table, where }) =>
      `UPDATE ${table} AS t SET ${assignments(set)} FROM ${batch} WHERE ${where} RETURNING ${returning.join(", ")}`
  },
  remove: {
    returnsRows: true,
    text: ({ key, table, where }) => `DELETE FROM ${table} WHERE ${where} RETURNING ${key} AS k`
  }
}
