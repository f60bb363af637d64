/**
 * Results and messages in Redis, on the `Redis` service of `effect/persistence/Redis`.
 *
 * @module chicory/redis
 */

/** Results alone. */
export * as RedisBackend from "./RedisBackend.ts"

/** Messages alone. */
export * as RedisBroker from "./RedisBroker.ts"

/** The `Redis` service over a cluster. */
export * as RedisCluster from "./RedisCluster.ts"

/** Results and messages in one server or cluster. */
export * as RedisStore from "./RedisStore.ts"
