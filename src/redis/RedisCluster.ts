/**
 * Provides Effect's `Redis` service over a Redis Cluster.
 *
 * The service uses the cluster client of the package `redis` (version 5 or 6), which is loaded when the layer is built
 * and has to be installed: `npm install redis`.
 *
 * ```ts
 * import { Layer } from "effect"
 * import { RedisCluster, RedisStore } from "chicory/redis"
 *
 * const cluster = RedisCluster.layer({
 *   rootNodes: [{ url: "redis://10.0.0.1:6379" }, { url: "redis://10.0.0.2:6379" }],
 *   // `rootNodes` only lead to the cluster: `defaults` has what every connection needs
 *   defaults: { password: "secret" }
 * })
 *
 * const store = RedisStore.layer().pipe(Layer.provide(cluster))
 * ```
 *
 * @since 0.1.0
 * @module
 */
import { Deferred, Effect, Layer } from "effect"
import { Redis } from "effect/persistence"
import {
  type ClientOptions,
  connectCluster,
  connectReserved,
  loadCreateCluster
} from "./cluster/connectCluster.ts"
import { sendWith, toRedisError } from "./cluster/routeCommand.ts"
import { subscribeWith } from "./cluster/subscribeToCluster.ts"

/**
 * The options of `createCluster` of the package `redis`, and those of the pool of connections behind `Redis.reserve`.
 *
 * **Details**
 *
 * - `defaults.socket.reconnectStrategy` has its own default: while the layer is built, a master that cannot be
 *   reached fails it; from then on lost connections are replaced for as long as it takes, 50 milliseconds after the loss
 *   at first and 2 seconds at most. A strategy that is given decides both.
 * - With `minimizeConnections` no master is tried while the layer is built.
 * - With `useReplicas`, a replica may answer commands that only read, and it may be behind (`redis` 6; with 5 the
 *   masters answer). Scripts always run on masters.
 *
 * @see {@link layer}
 *
 * @category models
 * @since 0.1.0
 */
export interface Options extends ClientOptions, Redis.PoolOptions {}

const make = Effect.fnUntraced(function* ({
  acquireTimeout,
  idleTimeout,
  maxConnections,
  minConnections,
  ...options
}: Options) {
  const create = yield* loadCreateCluster
  const closed = yield* Deferred.make<never, Redis.RedisError>()
  yield* Effect.addFinalizer(() =>
    Deferred.fail(closed, toRedisError(new Error("The cluster client is closed")))
  )
  const client = yield* connectCluster(create, options)
  return yield* Redis.make({
    send: sendWith(client),
    subscribe: subscribeWith(client, closed),
    connect: connectReserved(create, options),
    pool: { acquireTimeout, idleTimeout, maxConnections, minConnections }
  })
})

/**
 * Provides the `Redis` service of a cluster. The client is connected when the layer is built; closing the layer fails
 * the commands under way.
 *
 * **When to use**
 *
 * Use it to run a `RedisStore`, `RedisBackend` or `RedisBroker` on Redis Cluster. For a single server, take the layer of
 * `@effect/platform-node`, of Bun or of Deno.
 *
 * **Details**
 *
 * - `send` sends a command to the node of its first key. A command without a key goes to any one master and concerns
 *   that master alone (`DBSIZE`, `KEYS`, `FLUSHALL`, ...); `SCRIPT LOAD` goes to all masters.
 * - `subscribe` subscribes at any one master: the nodes forward published messages to one another. A lost connection is
 *   replaced, at another node if need be. The queue fails if the first connection does, and when the layer closes.
 * - `reserve` opens a separate connection to each node that its commands go to. These do not reconnect.
 *
 * Fails with a `RedisError` if the package `redis` is not installed, no root node answers, or a master cannot be
 * reached. Later errors of connections are logged as warnings, and commands fail with a `RedisError`.
 *
 * **Gotchas**
 *
 * - All keys of a command have to lie in one hash slot.
 * - Messages that are published while a subscription reconnects are lost.
 *
 * @see {@link Options}
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options): Layer.Layer<Redis.Redis, Redis.RedisError> =>
  Layer.effect(Redis.Redis, make(options))
