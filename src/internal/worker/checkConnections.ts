/** Compares the connections that a worker shares with its handlers with the number of its slots. */
import { Effect } from "effect"
import type { WorkerSettings } from "./WorkerState.ts"

/** Connections that the worker needs for its own calls and hints. */
const OWN_CONNECTIONS = 2

/** Dies where handlers can take the store's only connection, and warns where there are fewer connections than slots. */
export const checkConnections = ({ backend, broker, concurrency }: WorkerSettings): Effect.Effect<void> => {
  for (const { capabilities, name } of [backend, broker]) {
    const { sharedConnections = Infinity } = capabilities
    if (sharedConnections === 1) {
      return Effect.die(
        new RangeError(
          `Worker.layer: the client of the store ${name} has a single connection. A handler that holds it keeps the worker ` +
            `from renewing leases: give its pool at least ${1 + OWN_CONNECTIONS} connections`
        )
      )
    }
    if (sharedConnections < concurrency) {
      return Effect.logWarning(
        `The client of the store ${name} has at most ${sharedConnections} connections, and this worker runs up to ${concurrency} ` +
          "handlers at a time: those that use the client wait for each other. For a connection for each, give its pool " +
          `${concurrency + OWN_CONNECTIONS} connections, or the worker a concurrency of ${Math.max(1, sharedConnections - OWN_CONNECTIONS)}`
      )
    }
  }
  return Effect.void
}
