/**
 * Messages in a SQLite file, beside a backend of another kind. With both in one file, take `SqliteStore`.
 */
import { Effect, type Layer } from "effect"
import type { BackendError } from "../Backend.ts"
import * as Broker from "../Broker.ts"
import * as SqliteStore from "./SqliteStore.ts"

/** As `SqliteStore.layer`, the broker alone. */
export const layer = (options: SqliteStore.Options): Layer.Layer<Broker.Broker, BackendError> =>
  Broker.layer(
    SqliteStore.makeDrivers(options).pipe(
      Effect.map((drivers) => drivers.broker),
      Effect.mapError(SqliteStore.toBackendError)
    )
  )
