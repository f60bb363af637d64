/** What a `SqlClient` may be able to do besides, known by what it has: no driver is needed here. */
import type { Effect, Queue, Scope } from "effect"
import type { SqlClient, SqlError } from "effect/sql"

/** A client that hears notifications of PostgreSQL, as the one of `@effect/sql-pg` does. */
export interface ListenClient {
  /** Answers once the database has confirmed. It holds a connection until the scope closes. */
  readonly listen: (
    channel: string
  ) => Effect.Effect<
    Queue.Dequeue<{ readonly payload: string }, SqlError.SqlError>,
    SqlError.SqlError,
    Scope.Scope
  >
  readonly config?: { readonly maxConnections?: number | undefined } | undefined
}

/** A client that sees that others wrote to its file, as `SqliteClient` does. */
export interface WriteWatchClient {
  /** Calls back when another connection may have written. It may do so for nothing, and late. Until the scope closes. */
  readonly onWrite: (listener: () => void) => Effect.Effect<void, never, Scope.Scope>
}

/** Whether a client hears notifications, and has a connection to spare for it. */
export const canListen = (client: SqlClient.SqlClient): client is SqlClient.SqlClient & ListenClient =>
  "listen" in client &&
  typeof client.listen === "function" &&
  ((client as SqlClient.SqlClient & ListenClient).config?.maxConnections ?? Infinity) > 1

/** Whether a client sees that others wrote. */
export const canWatchWrites = (
  client: SqlClient.SqlClient
): client is SqlClient.SqlClient & WriteWatchClient =>
  "onWrite" in client && typeof client.onWrite === "function"
