/**
 * Keeps results in Redis, beside a broker of another kind.
 *
 * @see {@link RedisStore.layer} for results and messages in one server
 *
 * @since 0.1.0
 * @module
 */
import type { Layer } from "effect"
import type { Redis } from "effect/persistence/Redis"
import type * as Backend from "../Backend.ts"
import * as storeLayers from "../internal/layers/storeLayers.ts"
import * as RedisStore from "./RedisStore.ts"

/**
 * Options for {@link layer}: those of `RedisStore.layer` that concern a backend.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options extends RedisStore.StoreOptions, Backend.Options {}

/**
 * Provides a backend that keeps results in Redis, without a broker.
 *
 * Fails with a `BackendError` as `RedisStore.layer` does. Options out of range are a defect.
 *
 * **When to use**
 *
 * Where messages are carried by another broker, such as `RabbitBroker`. With both in Redis, `RedisStore.layer` writes a
 * task and its message in one step.
 *
 * @see {@link RedisStore.layer} for the options and their defaults
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options = {}): Layer.Layer<Backend.Backend, Backend.BackendError, Redis> =>
  storeLayers.backendLayer(RedisStore.open(options), options)
