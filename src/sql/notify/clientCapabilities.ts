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
}

/** A client that shows its configuration, as the one of `@effect/sql-pg` does. */
interface ConfiguredClient {
  readonly config: { readonly maxConnections?: number | undefined }
}

/** A client that notices writes of other connections to its file, as `SqliteClient` does. */
export interface WriteWatchClient {
  /** Calls back when another connection may have written, until the scope closes. Calls may be late or spurious. */
  readonly onWrite: (callback: () => void) => Effect.Effect<void, never, Scope.Scope>
}

/** The connections of a pool of `@effect/sql-pg` that sets no number. */
const DEFAULT_CONNECTIONS = 10
/** A connection listens, and one is reserved for workers. */
const OWN_CONNECTIONS = 2

/** Returns the most connections of a client, if its configuration says so. */
export const connectionsOf = (client: SqlClient.SqlClient): number | undefined => {
  const { config } = client as Partial<ConfiguredClient>
  return config?.maxConnections
}

/** Returns the most connections of a client, as far as it is known. One that has a single connection may not be recognized. */
export const likelyConnectionsOf = (client: SqlClient.SqlClient): number | undefined =>
  connectionsOf(client) ?? ("listen" in client ? DEFAULT_CONNECTIONS : undefined)

/** Returns whether a client can listen, and has a connection to spare for it. */
export const canListen = (client: SqlClient.SqlClient): client is SqlClient.SqlClient & ListenClient =>
  "listen" in client &&
  typeof client.listen === "function" &&
  (connectionsOf(client) ?? Infinity) > OWN_CONNECTIONS

/** Returns whether a client notices writes. */
export const canWatchWrites = (
  client: SqlClient.SqlClient
): client is SqlClient.SqlClient & WriteWatchClient =>
  "onWrite" in client && typeof client.onWrite === "function"
