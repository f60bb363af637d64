import { SqlError } from "effect/sql"
import { NoTransaction } from "./Database.ts"
import { CorruptRow } from "./Row.ts"
import { StatementTooLarge } from "./statementLimit.ts"

const SQLITE_ERROR = 1
const SQLITE_READONLY = 8
const SQLITE_CORRUPT = 11
const SQLITE_TOOBIG = 18
const SQLITE_NOTADB = 26
const SQLITE_PERMANENT: ReadonlySet<number> = new Set([
  SQLITE_ERROR,
  SQLITE_READONLY,
  SQLITE_CORRUPT,
  SQLITE_TOOBIG,
  SQLITE_NOTADB
])

/**
 * Codes of MariaDB, in either form, for a statement or a value that is larger than `max_allowed_packet`. Clients take the
 * SQLSTATE of the first one for that of a lost connection.
 */
const MYSQL_PERMANENT: ReadonlySet<unknown> = new Set([
  1153,
  "ER_NET_PACKET_TOO_LARGE",
  1301,
  "ER_WARN_ALLOWED_PACKET_OVERFLOWED"
])

/**
 * Classes of SQLSTATE: 22, a value that a type cannot hold (a NUL in a text of PostgreSQL); 54, a limit of an index or
 * a statement is exceeded.
 */
const SQLSTATE_PERMANENT: ReadonlySet<string> = new Set(["22", "54"])

const PERMANENT: ReadonlySet<string> = new Set([
  "AuthenticationError",
  "AuthorizationError",
  "ConstraintError",
  "SqlSyntaxError",
  "UniqueViolation"
])

/**
 * Returns whether the same call would fail with the same error: a wrong password, a missing permission, a corrupt file
 * or row, a statement that does not fit the tables, a value that is too large.
 */
export const isPermanent = (error: unknown): boolean => {
  if (error instanceof CorruptRow || error instanceof NoTransaction) return true
  if (!SqlError.isSqlError(error)) return false
  const { cause, _tag } = error.reason
  if (cause instanceof StatementTooLarge) return true
  const { code, errcode, errno, sqlState } = (cause ?? {}) as Readonly<Record<string, unknown>>
  if (errcode === undefined && (MYSQL_PERMANENT.has(errno) || MYSQL_PERMANENT.has(code))) return true
  if (_tag !== "UnknownError") return PERMANENT.has(_tag)
  // node:sqlite: a stored integer is no safe integer
  if (code === "ERR_OUT_OF_RANGE") return true
  if (typeof errcode === "number") return SQLITE_PERMANENT.has(errcode & 0xff)
  const state = sqlState ?? code
  return typeof state === "string" && SQLSTATE_PERMANENT.has(state.slice(0, 2))
}
