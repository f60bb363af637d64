/**
 * Messages in a SQLite file, beside a backend of another kind.
 *
 * @module
 */
import type { Layer } from "effect"
import type * as Broker from "../Broker.ts"
import * as storeLayers from "../internal/layers/storeLayers.ts"
import * as SqliteStore from "./SqliteStore.ts"

/**
 * Options for {@link layer}: those of `SqliteStore.layer` that concern a broker.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options extends SqliteStore.StoreOptions, Broker.Options {}

/**
 * Provides the broker of {@link SqliteStore.layer} alone. Fails with a `BrokerError` that names the
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
export const layer = (options: Options): Layer.Layer<Broker.Broker, Broker.BrokerError> =>
  storeLayers.brokerLayer(SqliteStore.open(options), options)
