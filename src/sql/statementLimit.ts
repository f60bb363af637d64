/**
 * The limit of a database on one statement with its parameters. MariaDB refuses a larger one with an error, or closes the
 * connection while the client still writes.
 */
import { Data, Effect } from "effect"
import { SqlError } from "effect/sql"
import type { Rows } from "./batchStatements.ts"
import type { Dialect } from "./dialect/Dialect.ts"

/** Bytes of a statement besides its payloads, results and errors: its text, ids, names, and the rest of a message. */
const HEADROOM = 64 * 1024
/** The statement of a dead letter holds a payload and an error. */
const VALUES = 2
/** Bytes of a character, at most. */
const CHARACTER = 3

/** Returns the most bytes of one encoded value. */
export const maxValueBytes = (limit: number): number => Math.max(0, Math.floor((limit - HEADROOM) / VALUES))

/** Lets a dialect split batches so that their statements keep to the limit. */
export const withLimit = (dialect: Dialect, limit: number | undefined): Dialect =>
  limit === undefined
    ? dialect
    : {
        ...dialect,
        maxText: Math.min(dialect.maxText, Math.max(0, Math.floor((limit - HEADROOM) / CHARACTER)))
      }

/** The cause of the error of a statement that is larger than the limit. */
export class StatementTooLarge extends Data.Error<{
  readonly bytes: number
  readonly limit: number
  readonly cause: unknown
}> {
  override get message(): string {
    return `a statement of ${this.bytes} bytes lost its connection; the server takes at most ${this.limit}`
  }
}

const bytesOf = (params: ReadonlyArray<unknown>): number => {
  let bytes = 0
  for (const param of params) if (typeof param === "string") bytes += Buffer.byteLength(param)
  return bytes
}

/** Tells the loss of a connection by a statement that is larger than the limit from an outage. */
export const explainLostConnection = (
  limit: number | undefined
): ((
  sent: Effect.Effect<Rows, SqlError.SqlError>,
  params: ReadonlyArray<unknown>
) => Effect.Effect<Rows, SqlError.SqlError>) =>
  limit === undefined
    ? (sent) => sent
    : (sent, params) =>
        Effect.mapError(sent, (error) => {
          if (error.reason._tag !== "ConnectionError") return error
          const bytes = bytesOf(params)
          if (bytes <= limit) return error
          const cause = new StatementTooLarge({ bytes, limit, cause: error.reason.cause })
          return new SqlError.SqlError({
            reason: new SqlError.UnknownError({ cause, message: cause.message })
          })
        })
