/**
 * The dialect of PostgreSQL.
 *
 * A batch is one array a column, so that a statement is one text for every size of a batch, and is planned once.
 *
 * Numbers are sent as text, whose type the statement declares: drivers choose the type of a number by its size, and
 * every combination of types would be another prepared statement.
 */
import { type AnyBatchRow, assignments, type ColumnType, type Dialect } from "./Dialect.ts"
import { fromBody, toBody } from "./encodedBody.ts"
import { onConflict } from "./onConflict.ts"

const scalarTypes: Readonly<Record<ColumnType, string>> = { text: "text", integer: "bigint", body: "text" }

/**
 * An array parameter that the planner does not look into. Otherwise a plan for one row looks better than the generic
 * plan, and the statement is planned anew every time.
 */
const opaqueArray = (type: ColumnType): string => `(SELECT ?::${scalarTypes[type]}[])`

const scalar = (value: unknown): unknown => {
  if (typeof value === "number") return String(value)
  if (typeof value === "boolean") return value ? "1" : "0"
  return value === undefined ? null : value
}

/** Writes whole numbers, or values that are all NULL, as the text of an array. */
const arrayText = (values: ReadonlyArray<unknown>): string =>
  `{${values.map((value) => (value === null || value === undefined ? "NULL" : String(scalar(value)))).join(",")}}`

const textArray = (values: ReadonlyArray<unknown>): unknown => {
  let hasValue = false
  const array = values.map((value) => {
    if (value === null || value === undefined) return null
    hasValue = true
    return value
  })
  return hasValue ? array : arrayText(values)
}

const valueOf = (row: AnyBatchRow, name: string, type: ColumnType): unknown =>
  type === "body" ? toBody(row[name] as string | Uint8Array | null | undefined) : row[name]

const numberedTexts = new Map<string, string>()

/** Numbers the parameters of a text. */
const numbered = (text: string): string => {
  let made = numberedTexts.get(text)
  if (made === undefined) {
    let count = 0
    made = text.replaceAll("?", () => `$${++count}`)
    numberedTexts.set(text, made)
  }
  return made
}

/** A standby, a default of the session, or one of its user or database. */
const IS_READ_ONLY = "current_setting('transaction_read_only') = 'on'"

const literals = (names: ReadonlyArray<string>): string =>
  `ARRAY[${names.map((name) => `'${name.replaceAll("'", "''")}'`).join(", ")}]::text[]`

/** Selects denied rights, in the order of the tables and of the rights. */
const selectDenied = (tables: ReadonlyArray<string>, functions: ReadonlyArray<string>): string =>
  `SELECT privilege, target FROM (
    SELECT privilege, target, 1 AS kind, t, p
    FROM unnest(${literals(tables)}) WITH ORDINALITY AS targets (target, t),
      unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) WITH ORDINALITY AS privileges (privilege, p)
    WHERE NOT has_table_privilege(quote_ident(target), privilege)
    UNION ALL
    SELECT 'EXECUTE', target, 2, t, 1 FROM unnest(${literals(functions)}) WITH ORDINALITY AS targets (target, t)
    WHERE NOT has_function_privilege(to_regproc(quote_ident(target)), 'EXECUTE')
  ) AS denied ORDER BY kind, t, p`

/** PostgreSQL 12 or newer. */
export const postgresDialect: Dialect = {
  name: "postgres",
  isLocalFile: false,
  rights: {
    tables: ["tasks", "messages", "dead_letters", "workers", "documents", "listeners"],
    // that of `fused/singleStatement.ts`
    functions: ["claim_1"],
    user: "SELECT quote_ident(current_user) AS name",
    by: { _tag: "Selected", select: selectDenied }
  },
  notifications: "listen-notify",
  // whatever the connection's default is
  begin: "BEGIN ISOLATION LEVEL READ COMMITTED",
  transactionSetup: "SELECT set_config('idle_in_transaction_session_timeout', '5000', true)",
  readOnlySessions: {
    // read_only_sql_transaction: of a standby, too
    isRefusal: ({ code }) => code === "25006",
    select: `SELECT CASE WHEN ${IS_READ_ONLY} THEN 1 ELSE 0 END AS is_read_only`,
    // checks again: a pooler may run it in another session
    end: `SELECT pg_terminate_backend(pg_backend_pid()) WHERE ${IS_READ_ONLY}`
  },
  selectTable: (name) => `SELECT 1 AS found WHERE to_regclass('"${name}"') IS NOT NULL`,
  lock: (table) => {
    // an advisory lock is of the whole database, so its key holds the schema too
    const key = `hashtextextended(current_schema() || '.' || '${table.replaceAll("'", "''")}', 0)`
    return {
      acquire: `SELECT pg_advisory_xact_lock(${key})`,
      tryAcquire: `SELECT CASE WHEN pg_try_advisory_xact_lock(${key}) THEN 1 ELSE 0 END AS got`
    }
  },
  prepare: (text, params) => ({ text: numbered(text), params: params.map(scalar) }),
  identifier: (name) => `"${name.replaceAll('"', '""')}"`,
  // evaluated once a statement, so that an index can use it; `now()` is the time at which the transaction began
  now: "(SELECT (date_part('epoch', clock_timestamp()) * 1000)::bigint)",
  concat: (...parts) => parts.map((part) => `${part}::text`).join(" || "),
  last: (text, count) => `right(${text}, ${count})`,
  fromBody,
  // an entry of an index has at most 2,704 bytes
  maxQueueLength: 800,
  maxRows: 1024,
  maxText: Infinity,
  batch: (columns, rows) => {
    const entries = Object.entries(columns)
    // a single row needs no arrays, which cost more than the row
    if (rows === 1) {
      const values = entries.map(([name, type]) => `?::${scalarTypes[type]} AS ${name}`)
      return {
        text: `(SELECT ${values.join(", ")}) AS batch`,
        bind: ([row]) => entries.map(([name, type]) => valueOf(row!, name, type))
      }
    }
    const names = entries.map(([name]) => name)
    return {
      text: `unnest(${entries.map(([, type]) => opaqueArray(type)).join(", ")}) AS batch (${names.join(", ")})`,
      bind: (all) =>
        entries.map(([name, type]) => {
          const values = all.map((row) => valueOf(row, name, type))
          return type === "integer" ? arrayText(values) : textArray(values)
        })
    }
  },
  inList: (column, type) => `${column} = ANY (${opaqueArray(type)}::${scalarTypes[type]}[])`,
  list: (values) => (typeof values[0] === "string" ? values : arrayText(values)),
  byIndex: (table) => table,
  // statistics of a queue are of another time
  followIndexes: `SELECT set_config(name, 'off', true)
    FROM unnest(ARRAY['enable_seqscan', 'enable_bitmapscan', 'enable_sort']) AS settings (name)`,
  delayedId: "id",
  forUpdate: "FOR UPDATE",
  skipLocked: "FOR UPDATE SKIP LOCKED",
  ...onConflict,
  writableCtes: true,
  enqueueView: false,
  update: {
    returnsRows: true,
    text: ({ batch, key, returning, set, skipLocked, table, where }) => {
      const returned = returning.map((column) => `t.${column}`).join(", ")
      if (!skipLocked)
        return `UPDATE ${table} AS t SET ${assignments(set)} FROM ${batch} WHERE ${where} RETURNING ${returned}`
      return `WITH batch AS MATERIALIZED (SELECT * FROM ${batch}),
      free AS MATERIALIZED (
        SELECT t.${key} AS k FROM batch JOIN ${table} AS t ON ${where} FOR NO KEY UPDATE OF t SKIP LOCKED
      )
      UPDATE ${table} AS t SET ${assignments(set)} FROM batch
      WHERE ${where} AND t.${key} IN (SELECT k FROM free) RETURNING ${returned}`
    }
  },
  remove: {
    returnsRows: true,
    text: ({ key, table, where }) => `DELETE FROM ${table} WHERE ${where} RETURNING ${key} AS k`
  }
}
