/**
 * Which errors would come again however often the call is repeated.
 */
import { SqlError } from "effect/sql"
import { CorruptRow } from "./Row.ts"

const SQLITE_READONLY = 8
const SQLITE_CORRUPT = 11
const SQLITE_NOTADB = 26
const SQLITE_PERMANENT: ReadonlySet<number> = new Set([SQLITE_READONLY, SQLITE_CORRUPT, SQLITE_NOTADB])

/** A wrong password, no permission, a corrupt file or row, a statement that the tables do not fit. */
export const isPermanent = (error: unknown): boolean => {
  if (error instanceof CorruptRow) return true
  if (!SqlError.isSqlError(error)) return false
  const { reason } = error
  switch (reason._tag) {
    case "AuthenticationError":
    case "AuthorizationError":
    case "ConstraintError":
    case "SqlSyntaxError":
    case "UniqueViolation":
      return true
    case "UnknownError": {
      const code = (reason.cause as { readonly errcode?: unknown } | undefined)?.errcode
      return typeof code === "number" && SQLITE_PERMANENT.has(code & 0xff)
    }
    default:
      return false
  }
}
