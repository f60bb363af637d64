/**
 * Keeps results and messages in Redis, shared by any number of processes and machines.
 *
 * ```ts
 * import { NodeRedis } from "@effect/platform-node"
 * import { RedisStore } from "chicory/redis"
 * import { Effect, Layer } from "effect"
 *
 * const StoreLive = RedisStore.layer().pipe(Layer.provide(NodeRedis.layer({ url: "redis://localhost:6379" })))
 *
 * program.pipe(Effect.provide(StoreLive))
 * ```
 *
 * The connection comes from the `Redis` service of `effect/persistence/Redis`: that of `@effect/platform-node`, of Bun or
 * of Deno, or, for Redis Cluster, `RedisCluster.layer`.
 *
 * **Details**
 *
 * - Requires Redis 6.2 or newer, with `maxmemory-policy noeviction`. Any other policy lets the server delete tasks and
 *   results when its memory is full.
 * - The user of the connection needs the keys `{<prefix>:*`, the channels `<prefix>:process:*`, and the commands that
 *   `docs/redis.md` lists, none of which is dangerous.
 * - What Redis has confirmed is as durable as its settings make it. Without persistence a restart loses everything; with
 *   `appendonly yes`, a crash of the machine may lose the last second with `appendfsync everysec` (the default), and
 *   nothing with `always`.
 *
 * **Gotchas**
 *
 * Lost writes are as if they never happened: a task that `delay` had accepted may be missing, and one that had finished
 * may run again.
 *
 * @see {@link layer}
 *
 * @since 0.1.0
 * @module
 */
import { Clock, type Duration, Effect, type Layer, type Scope } from "effect"
import * as Redis from "effect/persistence/Redis"
import type * as Backend from "../Backend.ts"
import type { BackendDriver } from "../BackendDriver.ts"
import type * as Broker from "../Broker.ts"
import type { BrokerDriver } from "../BrokerDriver.ts"
import * as CallTimeout from "../internal/driver/callTimeout.ts"
import { outagesOf } from "../internal/driver/Outages.ts"
import * as storeLayers from "../internal/layers/storeLayers.ts"
import { positiveDuration } from "../internal/options.ts"
import * as ClaimByTask from "./ClaimsByTask.ts"
import { isPermanent } from "./isPermanent.ts"
import * as Keyspace from "./Keyspace.ts"
import * as MessageClaims from "./MessageClaims.ts"
import * as ProcessChannel from "./ProcessChannel.ts"
import * as ReadySignal from "./ReadySignal.ts"
import * as RedisBackendDriver from "./RedisBackendDriver.ts"
import * as RedisBrokerDriver from "./RedisBrokerDriver.ts"
import * as RedisFusion from "./RedisFusion.ts"
import { CallTimedOut, type RedisStoreError } from "./RedisStoreError.ts"
import * as RefusalLog from "./RefusalLog.ts"
import * as ScriptRunner from "./ScriptRunner.ts"
import { checkRights } from "./scripts/checkRights.ts"
import * as ServerInfo from "./ServerInfo.ts"
import { ServerSubscriptions } from "./ServerSubscriptions.ts"
import { WaitingClaims } from "./WaitingClaims.ts"

/**
 * The layout of the store, and the time that a call may take.
 *
 * @category models
 * @since 0.1.0
 */
export interface StoreOptions extends Keyspace.Options {
  /** How long a call may take before it fails with a retryable error; its effect is unknown then. Default 5 seconds. */
  readonly callTimeout?: Duration.Input | undefined
}

/**
 * Options for {@link layer}: the layout of the store, the time that a call may take, and the defaults of tasks and workers.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options extends StoreOptions, Backend.Options, Broker.Options {}

/** @internal The two drivers of one store. */
export interface Drivers {
  readonly backend: BackendDriver<RedisStoreError>
  readonly broker: BrokerDriver<Redis.RedisError>
}

/** @internal Inspects the server and makes the drivers, which live until the scope closes. */
export const makeDrivers = Effect.fnUntraced(function* (
  options: StoreOptions
): Effect.fn.Return<Drivers, Redis.RedisError | ServerInfo.UnsupportedServer, Scope.Scope | Redis.Redis> {
  const redis = yield* Redis.Redis
  const timeout = positiveDuration("callTimeout", options.callTimeout ?? "5 seconds")
  const keyspace = Keyspace.make(options)
  const bounded = yield* CallTimeout.make(timeout, (cause) => new CallTimedOut({ cause }))
  const runner = yield* ScriptRunner.make(redis, keyspace, bounded, yield* ServerInfo.inspect(redis, bounded))
  yield* checkRights(runner)
  const store = {}
  const outages = outagesOf(store, "redis")
  const channel = yield* ProcessChannel.make(redis, runner, outages)
  const clock = yield* Clock.Clock
  const waitingClaims = new WaitingClaims(clock)
  const readySignal = ReadySignal.make(channel, clock, waitingClaims)
  const refusals = RefusalLog.make()
  const subscriptions = new ServerSubscriptions()
  const claims = MessageClaims.make(runner, channel, readySignal, refusals, waitingClaims)
  const backend = RedisBackendDriver.make(runner, channel, subscriptions, refusals)
  const claimByTask = ClaimByTask.make(runner, claims, readySignal, outages)
  const broker = RedisBrokerDriver.make(runner, claims, claimByTask, readySignal)
  return {
    backend: {
      ...backend,
      fusion: RedisFusion.make(runner, channel.process, subscriptions, {
        backend,
        broker,
        claims,
        claimByTask,
        store
      })
    },
    broker: { ...broker, store }
  }
})

/** @internal Opens the store. */
export const open = (
  options: StoreOptions
): storeLayers.OpenStore<Redis.RedisError | ServerInfo.UnsupportedServer, Redis.Redis | Scope.Scope> => ({
  makeDrivers: makeDrivers(options),
  operation: "opening the Redis store",
  isRetryable: (cause) => cause._tag === "RedisError" && !isPermanent(cause)
})

/**
 * Provides a backend and a broker that keep results and messages in one Redis server or cluster.
 *
 * Fails with a `BackendError` if the server does not answer, refuses the connection, is older than Redis 6.2, or is a
 * read-only replica. Options out of range are a defect.
 *
 * **When to use**
 *
 * Where both are to be in Redis: a task and its message are then written in one step, and so are its outcome and the ack.
 * Take `RedisBackend.layer` or `RedisBroker.layer` for one of the two beside another store.
 *
 * **Details**
 *
 * Logs a warning if the server's `maxmemory-policy` is not `noeviction`, as far as the user may read it. The store opens no connections itself: it uses
 * the `Redis` service, one subscription of it while anything waits, and closes with the layer.
 *
 * **Gotchas**
 *
 * All processes have to give the same `prefix` and `shards`.
 *
 * @see {@link Options}
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (
  options: Options = {}
): Layer.Layer<Backend.Backend | Broker.Broker, Backend.BackendError, Redis.Redis> =>
  storeLayers.layer(open(options), options)
