import { SqlError } from "effect/sql"
import { NoTransaction } from "./Database.ts"
import { CorruptRow } from "./Row.ts"

const SQLITE_ERROR = 1
const SQLITE_READONLY = 8
const SQLITE_CORRUPT = 11
const SQLITE_NOTADB = 26
const SQLITE_PERMANENT: ReadonlySet<number> = new Set([
  SQLITE_ERROR,
  SQLITE_READONLY,
  SQLITE_CORRUPT,
  SQLITE_NOTADB
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
 * or row, a statement that does not fit the tables.
 */
export const isPermanent = (error: unknown): boolean => {
  if (error instanceof CorruptRow || error instanceof NoTransaction) return true
  if (!SqlError.isSqlError(error)) return false
  const { cause, _tag } = error.reason
  if (_tag !== "UnknownError") return PERMANENT.has(_tag)
  const { code, errcode, sqlState } = (cause ?? {}) as Readonly<Record<string, unknown>>
  // node:sqlite: a stored integer is no safe integer
  if (code === "ERR_OUT_OF_RANGE") return true
  if (typeof errcode === "number") return SQLITE_PERMANENT.has(errcode & 0xff)
  const state = sqlState ?? code
  return typeof state === "string" && SQLSTATE_PERMANENT.has(state.slice(0, 2))
}
