/**
 * Results in a SQLite file, beside a broker of another kind. With both in one file, take `SqliteStore`.
 */
import { Effect, type Layer } from "effect"
import * as Backend from "../Backend.ts"
import * as SqliteStore from "./SqliteStore.ts"

/** As `SqliteStore.layer`, the backend alone. */
export const layer = (options: SqliteStore.Options): Layer.Layer<Backend.Backend, Backend.BackendError> =>
  Backend.layer(
    SqliteStore.makeDrivers(options).pipe(
      Effect.map((drivers) => drivers.backend),
      Effect.mapError(SqliteStore.toBackendError)
    )
  )
