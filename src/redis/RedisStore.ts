/**
 * Results and messages in Redis, shared by any number of processes and machines.
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
 * The connection comes from the `Redis` service of `effect/persistence/Redis`: that of `@effect/platform-node`, of Bun
 * or of Deno, or, for Redis Cluster, `RedisCluster.layer`. Redis 6.2 or newer is needed, with `maxmemory-policy
 * noeviction`: any other lets it delete tasks and results when its memory is full.
 *
 * What Redis has confirmed is as durable as its settings make it. Without persistence a restart loses everything;
 * with `appendonly yes` and the default `appendfsync everysec` a crash may take the last second, with `always`
 * nothing. What was lost so was never there: a task that `delay` had accepted may be missing, and one that had
 * finished may be run again.
 */
import { Clock, Context, type Duration, Effect, Layer, type Scope } from "effect"
import * as Redis from "effect/persistence/Redis"
import * as Backend from "../Backend.ts"
import type { BackendDriver } from "../BackendDriver.ts"
import * as Broker from "../Broker.ts"
import type { BrokerDriver } from "../BrokerDriver.ts"
import * as CallTimeout from "../internal/driver/callTimeout.ts"
import { positiveDuration } from "../internal/options.ts"
import { isPermanent } from "./isPermanent.ts"
import * as Keyspace from "./Keyspace.ts"
import * as MessageClaims from "./MessageClaims.ts"
import * as ProcessChannel from "./ProcessChannel.ts"
import * as ReadySignal from "./ReadySignal.ts"
import * as RedisBackendDriver from "./RedisBackendDriver.ts"
import * as RedisBrokerDriver from "./RedisBrokerDriver.ts"
import * as RedisFusion from "./RedisFusion.ts"
import { CallFailed, type RedisStoreError } from "./RedisStoreError.ts"
import * as ScriptRunner from "./ScriptRunner.ts"
import * as ServerInfo from "./ServerInfo.ts"

/** How the store is laid out, how long its calls may take, and what holds where tasks and workers say nothing. */
export interface Options extends Keyspace.Options, Backend.Options, Broker.Options {
  /**
   * How long a call may take before it fails, and is tried again where that helps. What became of it is unknown
   * then. Default 5 seconds.
   */
  readonly callTimeout?: Duration.Input | undefined
}

/** @internal The drivers of one store. */
export interface Drivers {
  readonly backend: BackendDriver<RedisStoreError>
  readonly broker: BrokerDriver<Redis.RedisError>
}

/** @internal Looks at the server, and makes the drivers. They live as long as the scope. */
export const makeDrivers = Effect.fnUntraced(function* (
  options: Options
): Effect.fn.Return<Drivers, Redis.RedisError | ServerInfo.UnsupportedServer, Scope.Scope | Redis.Redis> {
  const redis = yield* Redis.Redis
  const timeout = positiveDuration("callTimeout", options.callTimeout ?? "5 seconds")
  const keyspace = Keyspace.make(options)
  const bounded = yield* CallTimeout.make(timeout, (cause) => new CallFailed({ cause }))
  const runner = ScriptRunner.make(redis, keyspace, bounded, yield* ServerInfo.inspect(redis, bounded))
  const channel = yield* ProcessChannel.make(redis, runner)
  const readySignal = ReadySignal.make(channel, yield* Clock.Clock)
  const claims = MessageClaims.make(runner, channel, readySignal)
  const backend = RedisBackendDriver.make(runner, channel)
  const broker = RedisBrokerDriver.make(runner, claims, readySignal)
  const store = {}
  return {
    backend: { ...backend, fusion: RedisFusion.make(runner, backend, broker, claims, store) },
    broker: { ...broker, store }
  }
})

/** @internal */
export const operation = "opening the Redis store"

/** @internal Whether opening it once more may help. */
export const isRetryable = (cause: Redis.RedisError | ServerInfo.UnsupportedServer): boolean =>
  cause._tag === "RedisError" && !isPermanent(cause)

/** @internal */
export const toBackendError = (
  cause: Redis.RedisError | ServerInfo.UnsupportedServer
): Backend.BackendError => new Backend.BackendError({ operation, retryable: isRetryable(cause), cause })

/**
 * Both services over one server or cluster. It fails where the server does not answer, is too old, or is a replica.
 */
export const layer = (
  options: Options = {}
): Layer.Layer<Backend.Backend | Broker.Broker, Backend.BackendError, Redis.Redis> =>
  Layer.effectContext(
    Effect.gen(function* () {
      const { backend, broker } = yield* Effect.mapError(makeDrivers(options), toBackendError)
      return Context.make(Backend.Backend, yield* Backend.make(backend, options)).pipe(
        Context.add(Broker.Broker, yield* Broker.make(broker, options))
      )
    })
  )
