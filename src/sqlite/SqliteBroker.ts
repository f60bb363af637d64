/**
 * Messages in a SQLite file, beside a backend of another kind. With both in one file, take `SqliteStore`.
 */
import { Effect, type Layer } from "effect"
import * as Broker from "../Broker.ts"
import * as SqlStore from "../sql/SqlStore.ts"
import * as SqliteStore from "./SqliteStore.ts"

/** As `SqliteStore.layer`, the broker alone. */
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
