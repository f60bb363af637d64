/**
 * The dialect of PostgreSQL.
 *
 * A batch is one array a column, so a statement is one text for every size of a batch, which is planned once.
 *
 * Numbers are sent as texts, whose type the statement says: drivers give a number a type by its size, and every
 * combination would be a statement of its own to prepare.
 */
import { assignments, type ColumnType, type Dialect } from "./Dialect.ts"
import * as encodedBody from "./encodedBody.ts"
import { onConflict } from "./onConflict.ts"

const arrayTypes: Record<ColumnType, string> = { text: "text[]", integer: "bigint[]" }

/**
 * An array that the planner does not look into. Otherwise a plan for one row would look better than the one for any
 * number, and a statement would be planned anew every time.
 */
const unseen = (type: ColumnType): string => `(SELECT ?::${arrayTypes[type]})`

const scalar = (value: unknown): unknown => {
  if (typeof value === "number") return String(value)
  if (typeof value === "boolean") return value ? "1" : "0"
  return value === undefined ? null : value
}

/** Whole numbers, or nothing but NULL, as the text of an array. */
const literal = (values: ReadonlyArray<unknown>): string =>
  `{${values.map((value) => (value === null || value === undefined ? "NULL" : String(scalar(value)))).join(",")}}`

const texts = (values: ReadonlyArray<unknown>): unknown => {
  let some = false
  const array = values.map((value) => {
    if (value === null || value === undefined) return null
    some = true
    return value
  })
  return some ? array : literal(values)
}

const numberedTexts = new Map<string, string>()

/** The same text, with numbers for its parameters. */
const numbered = (text: string): string => {
  let made = numberedTexts.get(text)
  if (made === undefined) {
    let count = 0
    made = text.replaceAll("?", () => `$${++count}`)
    numberedTexts.set(text, made)
  }
  return made
}

/** PostgreSQL 12 or newer. */
export const postgresDialect: Dialect = {
  name: "postgres",
  // evaluated once a statement, and so of use for an index; `now()` would be the time at which the transaction began
  now: "(SELECT (date_part('epoch', clock_timestamp()) * 1000)::bigint)",
  identifier: (name) => `"${name.replaceAll('"', '""')}"`,
  prepare: (text, params) => ({ text: numbered(text), params: params.map(scalar) }),
  ...encodedBody,
  maxRows: 1024,
  maxText: Infinity,
  byIndex: (table) => table,
  remove: {
    answers: true,
    text: ({ key, table, where }) => `DELETE FROM ${table} WHERE ${where} RETURNING ${key} AS k`
  },
  batch: (columns, rows) => {
    const names = Object.keys(columns)
    const types = Object.values(columns)
    // one row alone has no need of arrays, which cost more than it
    if (rows === 1) {
      const values = names.map((name, i) => `?::${arrayTypes[types[i]!].slice(0, -2)} AS ${name}`)
      return { text: `(SELECT ${values.join(", ")}) AS batch`, bind: ([row]) => [...(row ?? [])] }
    }
    return {
      text: `unnest(${types.map(unseen).join(", ")}) AS batch (${names.join(", ")})`,
      bind: (all) =>
        types.map((type, column) => {
          const values = all.map((row) => row[column])
          return type === "text" ? texts(values) : literal(values)
        })
    }
  },
  inList: (column, type) => `${column} = ANY (${unseen(type)}::${arrayTypes[type]})`,
  list: (values) => (typeof values[0] === "string" ? values : literal(values)),
  concat: (...parts) => parts.map((part) => `${part}::text`).join(" || "),
  ...onConflict,
  update: {
    answers: true,
    text: ({ batch, returning, set, table, where }) =>
      `UPDATE ${table} AS t SET ${assignments(set)} FROM ${batch} WHERE ${where}
    RETURNING ${returning.map((column) => `t.${column}`).join(", ")}`
  },
  // whatever the connection would begin
  begin: "BEGIN ISOLATION LEVEL READ COMMITTED",
  transactionSetup: "SELECT set_config('idle_in_transaction_session_timeout', '5000', true)",
  forUpdate: "FOR UPDATE",
  skipLocked: "FOR UPDATE SKIP LOCKED",
  writableCtes: true,
  lock: (table) => {
    // by the schema too, since such a lock is of the whole database
    const key = `hashtextextended(current_schema() || '.' || '${table.replaceAll("'", "''")}', 0)`
    return {
      acquire: `SELECT pg_advisory_xact_lock(${key})`,
      tryAcquire: `SELECT CASE WHEN pg_try_advisory_xact_lock(${key}) THEN 1 ELSE 0 END AS got`
    }
  }
}
