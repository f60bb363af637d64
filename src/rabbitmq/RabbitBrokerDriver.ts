/**
 * The broker driver over RabbitMQ.
 *
 * The server pushes messages to subscribed workers. A claim lives as long as the connection over which its message came:
 * when the connection closes, the server delivers the message again.
 */
import { Array as Arr, Clock, type Duration, Effect, PubSub, type Scope, Stream } from "effect"
import type { BrokerDriver } from "../BrokerDriver.ts"
import * as CallLimit from "../internal/driver/callTimeout.ts"
import { claim } from "./claim.ts"
import { MAX_DELAY_MILLIS } from "./delayQueues.ts"
import type { DriverContext } from "./DriverContext.ts"
import { counts, purge } from "./inspectQueue.ts"
import { fromEnvelope } from "./OutgoingMessage.ts"
import * as PrefetchBuffer from "./PrefetchBuffer.ts"
import { Publisher } from "./Publisher.ts"
import { fromUnknown, isPermanent, type RabbitError } from "./RabbitError.ts"
import type { ReconnectingConnection } from "./ReconnectingConnection.ts"
import { reject, release, requeue } from "./release.ts"
import { Topology } from "./Topology.ts"
import { UnackedMessages } from "./UnackedMessages.ts"

/** What the driver is made of. */
export interface Settings {
  readonly publishing: ReconnectingConnection
  readonly consuming: ReconnectingConnection
  readonly prefix: string
  readonly callTimeout: Duration.Duration
  /** The server's `consumer_timeout`. */
  readonly maxClaimMillis: number
  /** How long a purge runs before it returns what it has removed so far. */
  readonly maxPurgeMillis: number
}

/** Makes the driver. It lives until the scope closes. */
export const make = Effect.fnUntraced(function* ({
  callTimeout,
  consuming,
  maxClaimMillis,
  maxPurgeMillis,
  prefix,
  publishing
}: Settings): Effect.fn.Return<BrokerDriver<RabbitError>, never, Scope.Scope> {
  const clock = yield* Clock.Clock
  const topology = new Topology({ consuming, publishing }, prefix, yield* Effect.scope)
  const unacked = new UnackedMessages(yield* PubSub.unbounded<ReadonlyArray<string>>(), clock)
  const prefetchBuffer = yield* PrefetchBuffer.make(consuming, topology, unacked)
  const publisher = new Publisher(publishing, topology)
  const limited = yield* CallLimit.make(callTimeout, fromUnknown)
  const context: DriverContext = {
    clock,
    consuming,
    topology,
    publisher,
    unacked,
    prefetchBuffer,
    limited
  }

  return {
    name: "rabbitmq",
    capabilities: {
      priorities: 1,
      lease: "connection",
      maxClaimMillis,
      maxDelayMillis: MAX_DELAY_MILLIS
    },
    isPermanent,
    publish: (envelopes) =>
      Effect.suspend(() => {
        const now = clock.currentTimeMillisUnsafe()
        return limited(publisher.publish(Arr.map(envelopes, (envelope) => fromEnvelope(envelope, now))))
      }),
    claim: ({ max, queues }) => claim(context, new Set(queues), max),
    ready: prefetchBuffer.subscribe,
    renew: (handles) => Effect.sync(() => handles.map((handle) => unacked.get(handle) !== undefined)),
    lost: Stream.fromPubSub(unacked.lost),
    ack: (handles) => limited(unacked.ack(handles)),
    returnUnhandled: (handles) => Effect.sync(() => requeue(context, handles)),
    release: (releases) => release(context, releases),
    reject: (rejections) => reject(context, rejections),
    counts: (queues) => counts(context, queues),
    purge: (queue, limit) => purge(context, queue, limit, maxPurgeMillis)
  }
})
