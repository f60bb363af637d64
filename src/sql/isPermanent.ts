/**
 * Which errors would come again however often the call is repeated.
 */
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

const PERMANENT: ReadonlySet<string> = new Set([
  "AuthenticationError",
  "AuthorizationError",
  "ConstraintError",
  "SqlSyntaxError",
  "UniqueViolation"
])

/** A wrong password, no permission, a corrupt file or row, a statement that the tables do not fit. */
export const isPermanent = (error: unknown): boolean => {
  if (error instanceof CorruptRow || error instanceof NoTransaction) return true
  if (!SqlError.isSqlError(error)) return false
  const { cause, _tag } = error.reason
  if (_tag !== "UnknownError") return PERMANENT.has(_tag)
  const code = (cause as { readonly errcode?: unknown } | undefined)?.errcode
  return typeof code === "number" && SQLITE_PERMANENT.has(code & 0xff)
}
