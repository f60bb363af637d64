/**
 * Keeps messages in Redis, beside a backend of another kind, or without one.
 *
 * @see {@link RedisStore.layer} for results and messages in one server
 *
 * @since 0.1.0
 * @module
 */
import type { Layer } from "effect"
import type { Redis } from "effect/persistence/Redis"
import type * as Broker from "../Broker.ts"
import * as storeLayers from "../internal/layers/storeLayers.ts"
import * as RedisStore from "./RedisStore.ts"

/**
 * Options for {@link layer}: those of `RedisStore.layer` that concern a broker.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options extends RedisStore.StoreOptions, Broker.Options {}

/**
 * Provides a broker that keeps messages in Redis, without a backend.
 *
 * Fails with a `BrokerError` where `RedisStore.layer` fails with a `BackendError`. Options out of range are a defect.
 *
 * **When to use**
 *
 * Where results are kept by another backend, or not at all. With both in Redis, `RedisStore.layer` writes a task and its
 * message in one step.
 *
 * @see {@link RedisStore.layer} for the options and their defaults
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options = {}): Layer.Layer<Broker.Broker, Broker.BrokerError, Redis> =>
  storeLayers.brokerLayer(RedisStore.open(options), options)
