/**
 * Messages in a SQLite file, beside a backend of another kind. With both in one file, take `SqliteStore`.
 */
import { Effect, type Layer } from "effect"
import * as Broker from "../Broker.ts"
import { isPermanent } from "../sql/isPermanent.ts"
import * as SqliteStore from "./SqliteStore.ts"

/** As `SqliteStore.layer`, the broker alone. */
export const layer = (options: SqliteStore.Options): Layer.Layer<Broker.Broker, Broker.BrokerError> =>
  Broker.layer(
    SqliteStore.makeDrivers(options).pipe(
      Effect.map((drivers) => drivers.broker),
      Effect.mapError(
        (cause) =>
          new Broker.BrokerError({
            operation: "opening the SQLite store",
            retryable: cause._tag === "SqlError" && !isPermanent(cause),
            cause
          })
      )
    )
  )
