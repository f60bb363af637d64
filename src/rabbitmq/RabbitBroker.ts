/**
 * A broker on RabbitMQ, beside a backend of any kind.
 *
 * ```ts
 * import { NodeRedis } from "@effect/platform-node"
 * import { RabbitBroker } from "chicory/rabbitmq"
 * import { RedisBackend } from "chicory/redis"
 * import { Effect, Layer } from "effect"
 *
 * const StoresLive = Layer.merge(
 *   RabbitBroker.layer({ url: "amqp://localhost" }),
 *   RedisBackend.layer().pipe(Layer.provide(NodeRedis.layer({ url: "redis://localhost:6379" })))
 * )
 *
 * program.pipe(Effect.provide(StoresLive))
 * ```
 *
 * **Details**
 *
 * Requires RabbitMQ 3.10 or newer, whose quorum queues support message TTLs, and the package `amqplib`.
 *
 * @module
 */
import type { SocketOptions } from "amqplib"
import { Duration, Effect, type Layer, Redacted, type Scope } from "effect"
import * as Broker from "../Broker.ts"
import type { BrokerDriver } from "../BrokerDriver.ts"
import { outagesOf } from "../internal/driver/Outages.ts"
import { matchingText, positiveDuration } from "../internal/options.ts"
import * as RabbitBrokerDriver from "./RabbitBrokerDriver.ts"
import { isPermanent, type RabbitError } from "./RabbitError.ts"
import * as ReconnectingConnection from "./ReconnectingConnection.ts"

/**
 * Options for {@link layer}: the server, the names on it, the times that calls and claims may take, and the default of
 * workers.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options extends Broker.Options {
  /**
   * `amqp://user:password@host:port/vhost`, or `amqps://` for TLS. Default `amqp://guest:guest@localhost:5672`.
   * Heartbeats are sent every 10 seconds unless the URL sets another interval, as in `?heartbeat=30`.
   */
  readonly url?: string | Redacted.Redacted | undefined
  /** Options of the socket: for TLS, certificates and keys as Node's `tls.connect` takes them. */
  readonly socket?: SocketOptions | undefined
  /** Prefix of the names of all queues and exchanges: 1 to 60 letters, digits and `._-`. Default `chicory`. */
  readonly prefix?: string | undefined
  /** How long a call may take before it fails with a retryable error; its effect is unknown then. Default 5 seconds. */
  readonly callTimeout?: Duration.Input | undefined
  /**
   * The server's `consumer_timeout`: how long a message may stay unacked before the server closes the channel. A message
   * whose task runs for more than half of it is put back, and is put back again while the task runs. Default 30 minutes,
   * which is the server's default.
   */
  readonly consumerTimeout?: Duration.Input | undefined
}

const HEARTBEAT_SECONDS = "10"

/** Adds the heartbeat. The error does not contain the given URL, which may hold a password. */
const urlOf = (given: Options["url"] = "amqp://guest:guest@localhost:5672"): string => {
  const url = URL.parse(Redacted.isRedacted(given) ? Redacted.value(given) : given)
  if (url === null || !/^amqps?:$/.test(url.protocol)) {
    throw new RangeError(
      "url must be that of a RabbitMQ server: amqp://user:password@host:port/vhost, or amqps://"
    )
  }
  if (!url.searchParams.has("heartbeat")) url.searchParams.set("heartbeat", HEARTBEAT_SECONDS)
  return url.href
}

/** Limited in length, since names on the server are. */
const prefixOf = (prefix = "chicory"): string =>
  matchingText("prefix", prefix, /^[\w.-]{1,60}$/, "1 to 60 letters, digits and ._-")

/** @internal Connects and makes the driver, which lives until the scope closes. */
export const makeDriver = Effect.fnUntraced(function* (
  options: Options = {}
): Effect.fn.Return<BrokerDriver<RabbitError>, RabbitError, Scope.Scope> {
  const address = { url: urlOf(options.url), socket: options.socket ?? {} }
  const callTimeout = positiveDuration("callTimeout", options.callTimeout ?? "5 seconds")
  const consumerTimeout = positiveDuration("consumerTimeout", options.consumerTimeout ?? "30 minutes")
  const prefix = prefixOf(options.prefix)
  const store = {}
  const outages = outagesOf(store, "rabbitmq")
  const driver = yield* RabbitBrokerDriver.make({
    consuming: yield* ReconnectingConnection.make(address, "consuming", outages),
    publishing: yield* ReconnectingConnection.make(address, "publishing", outages),
    prefix,
    callTimeout,
    maxClaimMillis: Duration.toMillis(consumerTimeout),
    maxPurgeMillis: Duration.toMillis(callTimeout) / 2
  })
  return { ...driver, store }
})

/**
 * Provides a broker that keeps messages in RabbitMQ. Connects when it is built, and reconnects by itself afterwards.
 *
 * Fails with a `BrokerError` if the server cannot be reached, or refuses the user or the virtual host. Options out of
 * range are a defect.
 *
 * **When to use**
 *
 * Where RabbitMQ already carries the messages of other services. Redis or SQL need no second server, and can store a
 * message and its record in one step.
 *
 * **Details**
 *
 * Opens two connections, one to publish and one to consume. Messages are persistent, lie in quorum queues, and count as
 * accepted once the server has confirmed and routed them. A claim lasts as long as the connection over which its message
 * came; the run's lease is the backend's.
 *
 * **Gotchas**
 *
 * Priorities are `Unsupported`, and delays of more than 49 days. `consumerTimeout` must not exceed the server's
 * `consumer_timeout`. See `docs/rabbitmq.md` for what is on the server and for its limits.
 *
 * @see {@link Options}
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options = {}): Layer.Layer<Broker.Broker, Broker.BrokerError> =>
  Broker.layer(
    Effect.mapError(
      makeDriver(options),
      (cause) =>
        new Broker.BrokerError({
          operation: "connecting to RabbitMQ",
          retryable: !isPermanent(cause),
          cause
        })
    ),
    options
  )
