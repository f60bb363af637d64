/**
 * Carries messages through a SQL database, beside a backend of another kind.
 *
 * **When to use**
 *
 * Use it where results are kept in another store. With results and messages in one database, use `SqlStore`: only then
 * are tasks part of your transactions.
 *
 * @module
 */
import type { Layer } from "effect"
import type { SqlClient } from "effect/sql"
import type * as Broker from "../Broker.ts"
import * as storeLayers from "../internal/layers/storeLayers.ts"
import type * as SqlDrivers from "./SqlDrivers.ts"
import * as SqlStore from "./SqlStore.ts"

/**
 * Options for {@link layer}: those of `SqlStore.layer` that concern a broker.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options extends SqlDrivers.Options, Broker.Options {}

/**
 * Provides the broker, after it has created the tables or brought them up to date.
 *
 * **Details**
 *
 * Options and defaults are those of `SqlStore.layer`. It fails with `BrokerError` for the same reasons.
 *
 * @see {@link layerStorage} for roles that may not change the schema
 * @category layers
 * @since 0.1.0
 */
export const layer = (
  options: Options = {}
): Layer.Layer<Broker.Broker, Broker.BrokerError, SqlClient.SqlClient> =>
  storeLayers.brokerLayer(SqlStore.open(options, true), options)

/**
 * Provides the broker over tables that exist; fails with `BrokerError` if they are missing or of another version.
 *
 * @see {@link layer} for a layer that migrates
 * @category layers
 * @since 0.1.0
 */
export const layerStorage = (
  options: Options = {}
): Layer.Layer<Broker.Broker, Broker.BrokerError, SqlClient.SqlClient> =>
  storeLayers.brokerLayer(SqlStore.open(options, false), options)
