/**
 * Messages in RabbitMQ.
 *
 * The server pushes; a claim takes of what it has pushed, and asks for messages one by one only where no worker
 * listens. A claim lives as long as the connection over which it came: when that ends, the server delivers the
 * message again.
 */
import type { Message } from "amqplib"
import { Array as Arr, Clock, Effect, Number as Num, PubSub, type Scope, Stream } from "effect"
import type { Delivery, BrokerDriver, Release, Batch } from "../BrokerDriver.ts"
import type { CallLimit } from "../internal/driver/callTimeout.ts"
import { tryCall, type ReconnectingConnection, withChannel, syncChannel } from "./Connection.ts"
import * as Delay from "./delayQueues.ts"
import {
  readBody,
  fromDelivered,
  readProperties,
  fromEnvelope,
  type OutgoingMessage
} from "./OutgoingMessage.ts"
import * as Inbox from "./PrefetchBuffer.ts"
import * as Publisher from "./Publisher.ts"
import { isPermanent, type RabbitError } from "./RabbitError.ts"
import type { Topology } from "./Topology.ts"
import { UnackedMessages, type UnackedMessage } from "./UnackedMessages.ts"

/** Both lines, and what is declared over them. */
export interface Server {
  readonly publishing: ReconnectingConnection
  readonly consuming: ReconnectingConnection
  readonly topology: Topology
  readonly limited: CallLimit<RabbitError>
  /** How long the server lets a message be unacked. */
  readonly maxClaimMillis: number
  /** How long a purge goes on before it answers what it has removed. */
  readonly purgeMillis: number
}

/** Over one server. Ends with the scope. */
export const make = Effect.fnUntraced(function* ({
  consuming,
  limited,
  maxClaimMillis,
  publishing,
  purgeMillis,
  topology
}: Server): Effect.fn.Return<BrokerDriver<RabbitError>, never, Scope.Scope> {
  const clock = yield* Clock.Clock
  const claims = new UnackedMessages(yield* PubSub.unbounded<ReadonlyArray<string>>(), clock)
  const inbox = yield* Inbox.make(consuming, topology, claims)
  const publisher = Publisher.make(publishing, topology)
  const { names } = topology

  const toDelivery = (held: UnackedMessage): Delivery => {
    const { dueAt: due, expires, generation, id, task, waited = 0 } = readProperties(held.message)
    return {
      handle: claims.claim(held),
      id,
      task,
      generation,
      expiresMillis: expires,
      queue: held.queue,
      ageMillis: due === undefined ? 0 : Math.max(0, clock.currentTimeMillisUnsafe() - due),
      waitedMillis: waited,
      body: readBody(held.message)
    }
  }

  /** Something may be gone that was there. */
  const orForget = <A>(effect: Effect.Effect<A, RabbitError>): Effect.Effect<A, RabbitError> =>
    Effect.tapError(effect, () => Effect.sync(topology.invalidate))

  /** Asks for what no worker listens to. */
  const pull = Effect.fnUntraced(function* (queue: string, max: number) {
    const line = yield* limited(Effect.andThen(topology.declareQueue(queue), consuming.current))
    const pulled: Array<UnackedMessage> = []
    const next = Effect.map(
      tryCall(() => line.channel.get(names.queue(queue))),
      (message) => {
        if (message === false) return false
        const held = { connection: line, queue, message }
        claims.add(held)
        pulled.push(held)
        return pulled.length < max
      }
    )
    // what the server has given must be known here
    yield* Effect.uninterruptible(Effect.repeat(next, { while: (more) => more })).pipe(
      Effect.onInterrupt(() => Effect.sync(() => claims.requeue(pulled)))
    )
    return pulled
  }, orForget)

  const claim = (queues: ReadonlySet<string>, max: number) =>
    Effect.suspend(() => {
      const taken = [...inbox.take(queues, max)]
      const rest = [...queues].filter((queue) => !inbox.isConsumed(queue))
      return Effect.forEach(
        rest,
        (queue) =>
          taken.length < max
            ? Effect.map(pull(queue, max - taken.length), (pulled) => taken.push(...pulled))
            : Effect.void,
        { discard: true }
      ).pipe(
        Effect.map(() => taken.map(toDelivery)),
        Effect.onError(() => Effect.sync(() => claims.requeue(taken)))
      )
    })

  /** The message of a claim, due anew or as it was. */
  const copyFor = (
    { message, queue }: UnackedMessage,
    { afterMillis, body, preserveDueTime }: Release
  ): OutgoingMessage => {
    const now = clock.currentTimeMillisUnsafe()
    if (preserveDueTime !== true) {
      return fromDelivered(message, { queue, delayMillis: afterMillis, due: now + afterMillis, body })
    }
    const { dueAt: due = now, waited = 0 } = readProperties(message)
    return fromDelivered(message, {
      queue,
      delayMillis: afterMillis,
      // what was delivered is due, whatever it says
      due: Math.min(due, now),
      waited: waited + Math.max(0, afterMillis),
      body
    })
  }

  /** What goes back as it is needs no copy. */
  const isUnchanged = ({ afterMillis, body, preserveDueTime }: Release): boolean =>
    afterMillis <= 0 && preserveDueTime === true && body === undefined

  /** Publishes in place of claims, then acks them: a crash between leaves both, never none. */
  const replace = <Item extends { readonly handle: string }>(
    items: ReadonlyArray<Item>,
    publish: (parcels: Batch<OutgoingMessage>) => Effect.Effect<void, RabbitError>,
    toParcel: (held: UnackedMessage, item: Item) => OutgoingMessage
  ): Effect.Effect<void, RabbitError> =>
    Effect.suspend(() => {
      const byHandle = new Map(items.map((item) => [item.handle, item]))
      const handles: Array<string> = []
      const parcels: Array<OutgoingMessage> = []
      for (const [handle, item] of byHandle) {
        const held = claims.get(handle)
        if (held === undefined) continue
        handles.push(handle)
        parcels.push(toParcel(held, item))
      }
      return Arr.isArrayNonEmpty(parcels)
        ? Effect.andThen(publish(parcels), Effect.asVoid(claims.ack(handles)))
        : Effect.void
    })

  const putBack = (handles: ReadonlyArray<string>): void =>
    claims.requeue(handles.map((handle) => claims.take(handle)).filter((held) => held !== undefined))

  /** The places where messages of a queue are, in the order in which they go through them. */
  const placesOf = Effect.fnUntraced(function* (queue: string) {
    yield* topology.declareQueue(queue)
    const exponents = yield* topology.delayExponents(queue)
    return [...exponents.map((exponent) => names.delayQueue(queue, exponent)), names.queue(queue)]
  })

  /** A message that moves meanwhile is rather counted twice than not at all. */
  const countOne = Effect.fnUntraced(function* (queue: string) {
    const places = yield* placesOf(queue)
    yield* claims.awaitRequeued
    const line = yield* consuming.current
    const claimed = claims.count(queue)
    const counts = yield* withChannel(line, async (channel) => {
      const counts: Array<number> = []
      for (const place of places) counts.push((await channel.checkQueue(place)).messageCount)
      return counts
    })
    // what the server has pushed by now has arrived
    yield* syncChannel(line)
    return {
      ready: (counts.pop() ?? 0) + inbox.count(queue),
      delayed: Num.sumAll(counts),
      claimed: Math.max(claimed, claims.count(queue))
    }
  })

  /** Removes messages, and answers their ids: fewer than there are, rather than too late. */
  const removeFrom = (places: ReadonlyArray<string>, limit: number) =>
    Effect.flatMap(consuming.current, (line) =>
      withChannel(line, async (channel) => {
        const until = clock.monotonicTimeNanosUnsafe() + BigInt(Math.round(purgeMillis * 1e6))
        const ids: Array<string> = []
        let last: Message | undefined
        for (const place of places) {
          while (ids.length < limit && clock.monotonicTimeNanosUnsafe() < until) {
            const message = await channel.get(place)
            if (message === false) break
            last = message
            ids.push(readProperties(message).id ?? "")
          }
        }
        // until here a channel that closes gives all of it back
        if (last !== undefined) channel.ack(last, true)
        await channel.prefetch(0)
        return ids
      })
    )

  return {
    name: "rabbitmq",
    capabilities: {
      priorities: 1,
      lease: "connection",
      maxClaimMillis,
      maxDelayMillis: Delay.MAX_DELAY_MILLIS
    },
    isPermanent,
    publish: (envelopes) =>
      Effect.suspend(() => {
        const now = clock.currentTimeMillisUnsafe()
        return limited(publisher.publish(Arr.map(envelopes, (envelope) => fromEnvelope(envelope, now))))
      }),
    claim: ({ max, queues }) => claim(new Set(queues), max),
    ready: inbox.subscribe,
    renew: (handles) => Effect.sync(() => handles.map((handle) => claims.get(handle) !== undefined)),
    lost: Stream.fromPubSub(claims.lost),
    ack: (handles) => limited(claims.ack(handles)),
    returnUnhandled: (handles) => Effect.sync(() => putBack(handles)),
    release: (releases) =>
      Effect.suspend(() => {
        putBack(releases.filter(isUnchanged).map(({ handle }) => handle))
        return limited(
          replace(
            releases.filter((release) => !isUnchanged(release)),
            publisher.publish,
            copyFor
          )
        )
      }),
    reject: (rejections) =>
      limited(
        replace(rejections, publisher.reject, ({ message, queue }, { reason }) =>
          fromDelivered(message, { queue, delayMillis: 0, reason })
        )
      ),
    counts: (queues) => limited(Effect.forEach(queues, countOne)).pipe(orForget),
    purge: (queue, limit) =>
      limited(
        Effect.gen(function* () {
          const removed = yield* removeFrom(yield* placesOf(queue), limit)
          const pushed = inbox.takeForPurge(queue, limit - removed.length)
          const ids = pushed.map(({ message }) => readProperties(message).id ?? "")
          yield* claims.ack(pushed.map((held) => claims.claim(held)))
          return [...removed, ...ids]
        })
      ).pipe(orForget)
  }
})
