/**
 * The dialect of MariaDB.
 *
 * - There are no array parameters: a list is a parameter for each element, and a batch is a `SELECT` for each row, both
 *   in sizes of powers of two. Each parameter is cast to its type: otherwise a text of 64 KiB and more is cut without
 *   an error.
 * - An update returns no rows. The hints of its join fix the order and the index, since the planner scans a small table
 *   and then waits for every row that another transaction has locked. The keys of the rows that were found restrict the
 *   batch, not the table, as otherwise each row of the batch is read, and waited for, before it is left out.
 * - Transactions have to be `READ COMMITTED`, which the client sets.
 */
import { assignments, type ColumnType, type Dialect, type Prepared } from "./Dialect.ts"
import { fromBody, toBody } from "./encodedBody.ts"
import { bindRows, powerOfTwo } from "./paddedBatch.ts"

/** Stands for the parameters of a list. */
const LIST = "(:list)"

/** The values of a list, each of which becomes a parameter. */
class List {
  readonly values: ReadonlyArray<string | number | null>

  constructor(values: ReadonlyArray<string | number | null>) {
    this.values = values
  }
}

const TEXT = "CAST(? AS CHAR CHARACTER SET utf8mb4) COLLATE utf8mb4_nopad_bin"

const casts: Readonly<Record<ColumnType, string>> = { text: TEXT, integer: "CAST(? AS SIGNED)", body: TEXT }

/** Writes a parameter for every element of every list. */
const expandLists = (text: string, params: ReadonlyArray<unknown>): Prepared => {
  if (!text.includes(LIST)) return { text, params }
  const sizes: Array<number> = []
  const expanded: Array<unknown> = []
  for (const param of params) {
    if (!(param instanceof List)) {
      expanded.push(param)
      continue
    }
    const size = powerOfTwo(Math.max(param.values.length, 1))
    sizes.push(size)
    for (let i = 0; i < size; i++) expanded.push(param.values[i] ?? null)
  }
  let next = 0
  return {
    text: text.replaceAll(LIST, () => `(${Array.from({ length: sizes[next++]! }, () => "?").join(", ")})`),
    params: expanded
  }
}

const TABLE_DENIED = 1142
const COLUMN_DENIED = 1143
/** An insert leaves out a column that needs a value. */
const NO_DEFAULT = 1364

/** A server with --read-only, InnoDB in read-only mode, a transaction that is read-only by its session's default. */
const READ_ONLY_ERRORS: ReadonlySet<unknown> = new Set([1290, 1836, 1792])

/** Settings are read as text: whether one is a number or a word depends on the version. */
const CAN_WRITE = ["@@global.read_only", "@@global.innodb_read_only", "@@session.tx_read_only"]
  .map((setting) => `CAST(${setting} AS CHAR) IN ('0', 'OFF')`)
  .join(" AND ")

/** MariaDB 10.6 or newer. */
export const mysqlDialect: Dialect = {
  name: "mysql",
  isLocalFile: false,
  rights: {
    tables: ["tasks", "messages", "dead_letters", "workers", "documents", "listeners", "notifications"],
    functions: [],
    user: "SELECT CONCAT(QUOTE(SUBSTRING_INDEX(CURRENT_USER(), '@', 1)), '@', QUOTE(SUBSTRING_INDEX(CURRENT_USER(), '@', -1))) AS name",
    // the tables of privileges do not have what a user may do by its roles
    by: {
      _tag: "Tried",
      join: (statements) =>
        `BEGIN NOT ATOMIC DECLARE CONTINUE HANDLER FOR ${NO_DEFAULT} BEGIN END; ${statements.join("; ")}; END`,
      isDenied: ({ errno }) => errno === TABLE_DENIED || errno === COLUMN_DENIED,
      isAllowed: ({ errno }) => errno === NO_DEFAULT
    }
  },
  notifications: "notification-table",
  isolation: { select: "SELECT @@SESSION.tx_isolation AS level", needed: "READ-COMMITTED" },
  statementLimit: "SELECT @@max_allowed_packet AS bytes",
  readOnlySessions: {
    isRefusal: ({ errno }) => READ_ONLY_ERRORS.has(errno),
    select: `SELECT CASE WHEN ${CAN_WRITE} THEN 0 ELSE 1 END AS is_read_only`,
    end: "KILL CONNECTION_ID()"
  },
  lock: (table) => {
    // the lock is of the whole server and belongs to the session, whatever the transaction does
    const name = `SHA1(CONCAT(DATABASE(), '.${table}'))`
    return {
      acquire: `SELECT GET_LOCK(${name}, 600) AS got`,
      tryAcquire: `SELECT GET_LOCK(${name}, 0) AS got`,
      release: `SELECT RELEASE_LOCK(${name}) AS released`
    }
  },
  prepare: expandLists,
  identifier: (name) => `\`${name.replaceAll("`", "``")}\``,
  // in UTC: a local time occurs twice when clocks are set back
  now: "(TIMESTAMPDIFF(MICROSECOND, TIMESTAMP'1970-01-01 00:00:00', UTC_TIMESTAMP(3)) DIV 1000)",
  concat: (...parts) => `CONCAT(${parts.join(", ")})`,
  last: (text, count) => `RIGHT(${text}, ${count})`,
  fromBody,
  maxQueueLength: 255,
  maxRows: 128,
  // well below max_allowed_packet, which is 16 MiB by default; less where the server takes less
  maxText: 1_000_000,
  batch: (columns, rows) => {
    const capacity = powerOfTwo(rows)
    const entries = Object.entries(columns)
    const first = entries.map(([column, type]) => `${casts[type]} AS ${column}`).join(", ")
    const others = entries.map(([, type]) => casts[type]).join(", ")
    const selects = Array.from({ length: capacity }, (_, i) => `SELECT ${i === 0 ? first : others}`)
    return { text: `(${selects.join(" UNION ALL ")}) AS batch`, bind: bindRows(columns, capacity, toBody) }
  },
  inList: (column) => `${column} IN ${LIST}`,
  list: (values) => new List(values),
  byIndex: (table, index = "PRIMARY") => `${table} FORCE INDEX (${index})`,
  delayedId: "delayed_id",
  forUpdate: "FOR UPDATE",
  skipLocked: "FOR UPDATE SKIP LOCKED",
  insertIgnore: "INSERT IGNORE INTO",
  onConflictDoNothing: "",
  onConflictUpdate: () => "ON DUPLICATE KEY UPDATE",
  incoming: (column) => `VALUES(${column})`,
  writableCtes: false,
  enqueueView: false,
  update: {
    returnsRows: false,
    select: ({ batch, key, skipLocked, table, where }) =>
      `SELECT t.${key} AS k FROM ${batch} STRAIGHT_JOIN ${table} AS t FORCE INDEX (PRIMARY) ON ${where}
      FOR UPDATE ${skipLocked ? "SKIP LOCKED" : ""}`,
    write: ({ batch, key, set, table, where }) =>
      `UPDATE ${batch} STRAIGHT_JOIN ${table} AS t FORCE INDEX (PRIMARY) ON ${where}
      SET ${assignments(set, (column) => `t.${column}`)} WHERE batch.${key} IN ${LIST}`
  },
  remove: {
    returnsRows: false,
    text: ({ batch, index, key, table }) =>
      `DELETE t FROM ${batch} STRAIGHT_JOIN ${table} AS t FORCE INDEX (${index}) ON t.${key} = batch.k`
  }
}
