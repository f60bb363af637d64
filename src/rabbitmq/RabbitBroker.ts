/**
 * Messages in RabbitMQ, with results in any backend.
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
 * RabbitMQ 3.10 or newer is needed, for quorum queues whose messages can expire.
 */
import type { SocketOptions } from "amqplib"
import { Duration, Effect, type Layer, Redacted, type Scope } from "effect"
import * as Broker from "../Broker.ts"
import type { BrokerDriver } from "../BrokerDriver.ts"
import * as CallLimit from "../internal/driver/callTimeout.ts"
import { positive } from "../internal/options.ts"
import * as Line from "./Connection.ts"
import * as RabbitBrokerDriver from "./RabbitBrokerDriver.ts"
import { fromUnknown, isPermanent, type RabbitError } from "./RabbitError.ts"
import * as Topology from "./Topology.ts"

/** How the server is reached, and what is kept there. */
export interface Options extends Broker.Options {
  /**
   * `amqp://user:password@host:port/vhost`, or `amqps://` for TLS. Default `amqp://guest:guest@localhost:5672`.
   * Heartbeats are sent each 10 seconds, unless the URL says otherwise: `?heartbeat=30`.
   */
  readonly url?: string | Redacted.Redacted | undefined
  /** For TLS: certificates and keys, as `tls.connect` of Node takes them; and other settings of the socket. */
  readonly socket?: SocketOptions | undefined
  /** What the names of all queues and exchanges begin with: letters, digits and `._-`. Default `chicory`. */
  readonly prefix?: string | undefined
  /**
   * How long a call may take before it fails, and is tried again where that helps. What became of it is unknown
   * then. Default 5 seconds.
   */
  readonly callTimeout?: Duration.Input | undefined
  /**
   * The server's `consumer_timeout`: how long it lets a message be unacked before it closes the channel. A message
   * whose task runs longer than half of it is put back meanwhile, and finds its task running. Default 30 minutes, as
   * the server's.
   */
  readonly consumerTimeout?: Duration.Input | undefined
}

const HEARTBEAT_SECONDS = "10"

/** The URL with a heartbeat. What is wrong with it is said without it, as it may hold a password. */
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

/** Names are short on the server. */
const prefixOf = (given = "chicory"): string => {
  if (/^[\w.-]{1,60}$/.test(given)) return given
  throw new RangeError(`prefix must be of 1 to 60 letters, digits and ._-, but is ${JSON.stringify(given)}`)
}

/** @internal Connects, and makes the driver. It lives as long as the scope. */
export const makeDriver = Effect.fnUntraced(function* (
  options: Options = {}
): Effect.fn.Return<BrokerDriver<RabbitError>, RabbitError, Scope.Scope> {
  const address = { url: urlOf(options.url), socket: options.socket ?? {} }
  const timeout = positive("callTimeout", options.callTimeout ?? "5 seconds")
  const maxClaim = positive("consumerTimeout", options.consumerTimeout ?? "30 minutes")
  const prefix = prefixOf(options.prefix)
  const consuming = yield* Line.keep(address, "consuming")
  const publishing = yield* Line.keep(address, "publishing")
  return yield* RabbitBrokerDriver.make({
    publishing,
    consuming,
    topology: yield* Topology.make({ consuming, publishing }, prefix),
    limited: yield* CallLimit.make(timeout, fromUnknown),
    maxClaimMillis: Duration.toMillis(maxClaim),
    purgeMillis: Duration.toMillis(timeout) / 2
  })
})

/** Messages in RabbitMQ. It fails where the server cannot be reached, or refuses the user or the virtual host. */
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
