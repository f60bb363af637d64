/**
 * Results in a SQLite file, beside a broker of another kind.
 *
 * @module
 */
import type { Layer } from "effect"
import type * as Backend from "../Backend.ts"
import * as storeLayers from "../internal/layers/storeLayers.ts"
import * as SqliteStore from "./SqliteStore.ts"

/**
 * Options for {@link layer}: those of `SqliteStore.layer` that concern a backend.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options extends SqliteStore.StoreOptions, Backend.Options {}

/**
 * Provides the backend of {@link SqliteStore.layer} alone, with the same errors.
 *
 * **When to use**
 *
 * Beside a broker of another kind, such as `RabbitBroker`. With both services in one file, use `SqliteStore`, which
 * stores a message and its record in one step.
 *
 * @see {@link SqliteStore.layer}
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options): Layer.Layer<Backend.Backend, Backend.BackendError> =>
  storeLayers.backendLayer(SqliteStore.open(options), options)
