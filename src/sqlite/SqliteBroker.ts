/**
 * Messages in a SQLite file, beside a backend of another kind.
 *
 * @module
 */
import { Effect, type Layer } from "effect"
import * as Broker from "../Broker.ts"
import * as SqlStore from "../sql/SqlStore.ts"
import * as SqliteStore from "./SqliteStore.ts"

/**
 * Provides the broker of {@link SqliteStore.layer} alone, with the same options. Fails with a `BrokerError` that names the
 * file.
 *
 * **When to use**
 *
 * Beside a backend of another kind, such as `RedisBackend`. With both services in one file, use `SqliteStore`, which
 * stores a message and its record in one step.
 *
 * @see {@link SqliteStore.layer}
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: SqliteStore.Options): Layer.Layer<Broker.Broker, Broker.BrokerError> =>
  Broker.layer(
    SqliteStore.makeDrivers(options).pipe(
      Effect.map((drivers) => drivers.broker),
      Effect.mapError(
        (cause) =>
          new Broker.BrokerError({
            operation: SqliteStore.operation,
            retryable: SqlStore.isRetryable(cause),
            cause
          })
      )
    )
  )
