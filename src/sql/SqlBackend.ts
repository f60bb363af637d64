/**
 * Results in a SQL database, beside a broker of another kind. With both in one database, take `SqlStore`.
 */
import { Effect, type Layer } from "effect"
import type { SqlClient } from "effect/sql"
import * as Backend from "../Backend.ts"
import * as SqlStore from "./SqlStore.ts"

const make = (
  options: SqlStore.Options,
  migrates: boolean
): Layer.Layer<Backend.Backend, Backend.BackendError, SqlClient.SqlClient> =>
  Backend.layer(
    SqlStore.makeDrivers(options, migrates).pipe(
      Effect.map((drivers) => drivers.backend),
      Effect.mapError(SqlStore.toBackendError)
    ),
    options
  )

/** As `SqlStore.layer`, the backend alone. */
export const layer = (
  options: SqlStore.Options = {}
): Layer.Layer<Backend.Backend, Backend.BackendError, SqlClient.SqlClient> => make(options, true)

/** As `SqlStore.layerStorage`, the backend alone. */
export const layerStorage = (
  options: SqlStore.Options = {}
): Layer.Layer<Backend.Backend, Backend.BackendError, SqlClient.SqlClient> => make(options, false)
