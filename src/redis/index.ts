/**
 * Stores in Redis, on the `Redis` service of `effect/persistence/Redis`.
 *
 * @since 0.1.0
 * @module chicory/redis
 */

/**
 * Keeps results in Redis.
 *
 * @since 0.1.0
 */
export * as RedisBackend from "./RedisBackend.ts"

/**
 * Keeps messages in Redis.
 *
 * @since 0.1.0
 */
export * as RedisBroker from "./RedisBroker.ts"

/**
 * Provides the `Redis` service over a cluster.
 *
 * @since 0.1.0
 */
export * as RedisCluster from "./RedisCluster.ts"

/**
 * Keeps results and messages in Redis.
 *
 * @since 0.1.0
 */
export * as RedisStore from "./RedisStore.ts"
