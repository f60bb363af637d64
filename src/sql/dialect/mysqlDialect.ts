/**
 * The dialect of MariaDB.
 *
 * - It has no array to bind: a list is as many parameters as it has elements, and a batch a `SELECT` for every row, in
 *   sizes of powers of two, so that there are few statements to prepare. Each parameter says its type: otherwise a
 *   text of 64 KiB and more would be cut, without an error.
 * - An update answers nothing. A join says in which order and by which index, since the planner scans a small table, and
 *   then waits for all the rows that others hold.
 * - Transactions have to be `READ COMMITTED`, which is for the client to say.
 */
import { assignments, type ColumnType, type Dialect, type Prepared } from "./Dialect.ts"
import * as encodedBody from "./encodedBody.ts"
import { bindRows, powerOfTwo } from "./paddedBatch.ts"

/** Stands for the parameters of a list. */
const LIST = "(:list)"

/** The elements of a list, each to be a parameter. */
class List {
  readonly values: ReadonlyArray<string | number | null>

  constructor(values: ReadonlyArray<string | number | null>) {
    this.values = values
  }
}

const casts: Record<ColumnType, string> = {
  text: "CAST(? AS CHAR CHARACTER SET utf8mb4) COLLATE utf8mb4_nopad_bin",
  integer: "CAST(? AS SIGNED)"
}

const expand = (text: string, params: ReadonlyArray<unknown>): Prepared => {
  if (!text.includes(LIST)) return { text, params }
  const sizes: Array<number> = []
  const bound: Array<unknown> = []
  for (const param of params) {
    if (!(param instanceof List)) {
      bound.push(param)
      continue
    }
    const size = powerOfTwo(Math.max(param.values.length, 1))
    sizes.push(size)
    for (let i = 0; i < size; i++) bound.push(param.values[i] ?? null)
  }
  let next = 0
  return {
    text: text.replaceAll(LIST, () => `(${Array.from({ length: sizes[next++]! }, () => "?").join(", ")})`),
    params: bound
  }
}

/** MariaDB 10.6 or newer. */
export const mysqlDialect: Dialect = {
  name: "mysql",
  now: "CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED)",
  identifier: (name) => `\`${name.replaceAll("`", "``")}\``,
  prepare: expand,
  ...encodedBody,
  maxRows: 128,
  // well below max_allowed_packet, which is 16 MiB by default
  maxText: 1_000_000,
  batch: (columns, rows) => {
    const room = powerOfTwo(rows)
    const types = Object.entries(columns)
    const first = types.map(([column, type]) => `${casts[type]} AS ${column}`).join(", ")
    const other = types.map(([, type]) => casts[type]).join(", ")
    const selects = Array.from({ length: room }, (_, i) => `SELECT ${i === 0 ? first : other}`)
    return { text: `(${selects.join(" UNION ALL ")}) AS batch`, bind: bindRows(types.length, room) }
  },
  byIndex: (table, index = "PRIMARY") => `${table} FORCE INDEX (${index})`,
  remove: {
    answers: false,
    text: ({ batch, index, key, table }) =>
      `DELETE t FROM ${batch} STRAIGHT_JOIN ${table} AS t FORCE INDEX (${index}) ON t.${key} = batch.k`
  },
  inList: (column) => `${column} IN ${LIST}`,
  list: (values) => new List(values),
  concat: (...parts) => `CONCAT(${parts.join(", ")})`,
  insertNew: ({ columns, returning, select, table }) =>
    `INSERT IGNORE INTO ${table} (${columns.join(", ")}) ${select}` +
    (returning === undefined ? "" : ` RETURNING ${returning}`),
  upsert: ({ set, table, values }) =>
    `INSERT INTO ${table} (${Object.keys(values).join(", ")}) VALUES (${Object.values(values).join(", ")})
    ON DUPLICATE KEY UPDATE ${assignments(set((column) => `VALUES(${column})`))}`,
  update: {
    answers: false,
    find: ({ batch, key, table, where }) =>
      `SELECT t.${key} AS k FROM ${batch} STRAIGHT_JOIN ${table} AS t FORCE INDEX (PRIMARY) ON ${where} FOR UPDATE`,
    write: ({ batch, key, set, table, where }) =>
      `UPDATE ${batch} STRAIGHT_JOIN ${table} AS t FORCE INDEX (PRIMARY) ON ${where}
      SET ${assignments(set, (column) => `t.${column}`)} WHERE t.${key} IN ${LIST}`
  },
  forUpdate: "FOR UPDATE",
  skipLocked: "FOR UPDATE SKIP LOCKED",
  writableCtes: false,
  isolation: { select: "SELECT @@SESSION.tx_isolation AS level", needed: "READ-COMMITTED" },
  lock: (table) => {
    // of the whole server, and of the session, whatever becomes of the transaction
    const name = `SHA1(CONCAT(DATABASE(), '.${table}'))`
    return {
      acquire: `SELECT GET_LOCK(${name}, 600) AS got`,
      tryAcquire: `SELECT GET_LOCK(${name}, 0) AS got`,
      release: `SELECT RELEASE_LOCK(${name}) AS released`
    }
  }
}
