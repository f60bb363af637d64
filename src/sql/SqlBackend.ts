/**
 * Stores results in a SQL database, beside a broker of another kind.
 *
 * **When to use**
 *
 * Use it where messages travel through another broker, such as RabbitMQ. With results and messages in one database, use
 * `SqlStore`: only then are tasks part of your transactions.
 *
 * @module
 */
import type { Layer } from "effect"
import type { SqlClient } from "effect/sql"
import type * as Backend from "../Backend.ts"
import * as storeLayers from "../internal/layers/storeLayers.ts"
import type * as SqlDrivers from "./SqlDrivers.ts"
import * as SqlStore from "./SqlStore.ts"

/**
 * Options for {@link layer}: those of `SqlStore.layer` that concern a backend.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options extends SqlDrivers.Options, Backend.Options {}

/**
 * Provides the backend, after it has created the tables or brought them up to date.
 *
 * **Details**
 *
 * Options, defaults and errors are those of `SqlStore.layer`.
 *
 * @see {@link layerStorage} for roles that may not change the schema
 * @category layers
 * @since 0.1.0
 */
export const layer = (
  options: Options = {}
): Layer.Layer<Backend.Backend, Backend.BackendError, SqlClient.SqlClient> =>
  storeLayers.backendLayer(SqlStore.open(options, true), options)

/**
 * Provides the backend over tables that exist; fails with `BackendError` if they are missing or of another version.
 *
 * @see {@link layer} for a layer that migrates
 * @category layers
 * @since 0.1.0
 */
export const layerStorage = (
  options: Options = {}
): Layer.Layer<Backend.Backend, Backend.BackendError, SqlClient.SqlClient> =>
  storeLayers.backendLayer(SqlStore.open(options, false), options)
