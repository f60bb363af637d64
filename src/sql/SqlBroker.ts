/**
 * Messages in a SQL database, beside a backend of another kind. With both in one database, take `SqlStore`.
 */
import { Effect, type Layer } from "effect"
import type { SqlClient } from "effect/sql"
import * as Broker from "../Broker.ts"
import * as SqlStore from "./SqlStore.ts"

const make = (
  options: SqlStore.Options,
  migrates: boolean
): Layer.Layer<Broker.Broker, Broker.BrokerError, SqlClient.SqlClient> =>
  Broker.layer(
    SqlStore.makeDrivers(options, migrates).pipe(
      Effect.map((drivers) => drivers.broker),
      Effect.mapError(
        (cause) =>
          new Broker.BrokerError({
            operation: SqlStore.operation,
            retryable: SqlStore.isRetryable(cause),
            cause
          })
      )
    ),
    options
  )

/** As `SqlStore.layer`, the broker alone. */
export const layer = (
  options: SqlStore.Options = {}
): Layer.Layer<Broker.Broker, Broker.BrokerError, SqlClient.SqlClient> => make(options, true)

/** As `SqlStore.layerStorage`, the broker alone. */
export const layerStorage = (
  options: SqlStore.Options = {}
): Layer.Layer<Broker.Broker, Broker.BrokerError, SqlClient.SqlClient> => make(options, false)
