/** Abilities of a `SqlClient` beyond the service, found by its members, so that no driver is imported. */
import type { Effect, Queue, Scope } from "effect"
import type { SqlClient, SqlError } from "effect/sql"

/** A client that receives notifications of PostgreSQL, as the one of `@effect/sql-pg` does. */
export interface ListenClient {
  /** Returns once the database listens. It holds a connection until the scope closes. */
  readonly listen: (
    channel: string
  ) => Effect.Effect<
    Queue.Dequeue<{ readonly payload: string }, SqlError.SqlError>,
    SqlError.SqlError,
    Scope.Scope
  >
  readonly config?: { readonly maxConnections?: number | undefined } | undefined
}

/** A client that notices writes of other connections to its file, as `SqliteClient` does. */
export interface WriteWatchClient {
  /** Calls back when another connection may have written, until the scope closes. Calls may be late or spurious. */
  readonly onWrite: (callback: () => void) => Effect.Effect<void, never, Scope.Scope>
}

/** Returns whether a client can listen, and has a connection to spare for it. */
export const canListen = (client: SqlClient.SqlClient): client is SqlClient.SqlClient & ListenClient =>
  "listen" in client &&
  typeof client.listen === "function" &&
  ((client as SqlClient.SqlClient & ListenClient).config?.maxConnections ?? Infinity) > 1

/** Returns whether a client notices writes. */
export const canWatchWrites = (
  client: SqlClient.SqlClient
): client is SqlClient.SqlClient & WriteWatchClient =>
  "onWrite" in client && typeof client.onWrite === "function"
