/**
 * Publishes: a message counts as sent when the server has confirmed that a queue holds it.
 *
 * Messages are sent with `mandatory`, so the server gives back what no queue takes, before it confirms. A queue that
 * somebody has removed is made again then, and the message sent once more. While the server has no room and reads
 * nothing, nothing is sent.
 */
import { Array as Arr, Deferred, Effect, Schedule } from "effect"
import type { Batch } from "../BrokerDriver.ts"
import type { Connection, ReconnectingConnection } from "./Connection.ts"
import * as Delay from "./delayQueues.ts"
import type { OutgoingMessage } from "./OutgoingMessage.ts"
import { fromUnknown, RabbitError } from "./RabbitError.ts"
import { delayRoutingKey, type Topology } from "./Topology.ts"

/** Sends messages. */
export interface Publisher {
  /** All of them are held by the server when it is done. */
  readonly publish: (parcels: Batch<OutgoingMessage>) => Effect.Effect<void, RabbitError>
  /** The same, to where rejected messages lie. */
  readonly reject: (parcels: Batch<OutgoingMessage>) => Effect.Effect<void, RabbitError>
}

/** A parcel with its address. */
interface Addressed {
  readonly exchange: string
  readonly key: string
  readonly parcel: OutgoingMessage
}

/** The exchange that leads to the queue whose name is the routing key. */
const DIRECT = ""

/** Somebody has removed an exchange. It closes the channel, and so fails all that was on its way. */
const NOT_FOUND = 404
/** Who consumed a queue that was removed is told within so long. */
const REMOVED = "200 millis"
const retrying = Schedule.exponential("20 millis")

/** What is on its way together. */
interface Underway {
  /** Where nothing was taken. */
  readonly unrouted: Set<string>
  /** Nothing else was on its way meanwhile. */
  alone: boolean
}

/**
 * A queue that is made or moves this moment takes nothing. If the line has ended instead, that may be the fault of what
 * was alone on it; otherwise of anything.
 */
const unconfirmed = (line: Connection, { alone }: Underway): Effect.Effect<never, RabbitError> =>
  line.isClosed && alone
    ? Effect.flatMap(Deferred.await(line.closed), (why) => Effect.fail(why))
    : Effect.fail(
        new RabbitError({ message: "the server did not take what was published", kind: "not taken" })
      )

const placeOf = ({ exchange, key }: { readonly exchange: string; readonly key: string }): string =>
  `${exchange} ${key}`

/** Sends over the line that is open. */
export const make = (lines: ReconnectingConnection, topology: Topology): Publisher => {
  const { names } = topology
  const underway = new Set<Underway>()
  const watched = new WeakSet<Connection>()

  const watch = (line: Connection): void => {
    if (watched.has(line)) return
    watched.add(line)
    line.channel.on("return", ({ fields: { exchange, routingKey } }) => {
      for (const { unrouted } of underway) unrouted.add(placeOf({ exchange, key: routingKey }))
    })
  }

  /** Answers those that no queue has taken. */
  const send = (line: Connection, parcels: Batch<Addressed>) =>
    Effect.callback<ReadonlyArray<Addressed>, RabbitError>((resume) => {
      watch(line)
      const batch: Underway = { unrouted: new Set(), alone: underway.size === 0 }
      for (const other of underway) other.alone = false
      underway.add(batch)
      let missing = parcels.length
      let confirmed = true
      const answered = (error: unknown) => {
        if (error !== null && error !== undefined) confirmed = false
        if (--missing > 0) return
        underway.delete(batch)
        const { unrouted } = batch
        if (!confirmed) return resume(unconfirmed(line, batch))
        resume(Effect.succeed(unrouted.size === 0 ? [] : parcels.filter((one) => unrouted.has(placeOf(one)))))
      }
      try {
        line.writeTogether(() => {
          for (const { exchange, key, parcel } of parcels) {
            line.channel.publish(exchange, key, parcel.content, parcel.properties, answered)
          }
        })
      } catch (cause) {
        // the channel has closed this moment
        underway.delete(batch)
        resume(Effect.fail(fromUnknown(cause)))
      }
    })

  const sendAll = Effect.fnUntraced(function* (
    parcels: Batch<Addressed>,
    prepare: Effect.Effect<void, RabbitError>
  ): Effect.fn.Return<void, RabbitError> {
    const sendNow = (some: Batch<Addressed>) =>
      Effect.gen(function* () {
        yield* prepare
        yield* Effect.flatMap(lines.current, (line) => line.unblocked.await)
        return yield* Effect.flatMap(lines.current, (line) => send(line, some))
      }).pipe(
        Effect.tapError(() => Effect.sync(topology.invalidate)),
        Effect.retry({
          schedule: retrying,
          times: 5,
          while: ({ code, kind }) => kind === "not taken" || code === NOT_FOUND
        })
      )
    const unrouted = yield* sendNow(parcels)
    if (!Arr.isReadonlyArrayNonEmpty(unrouted)) return
    topology.invalidate()
    // consumers of a queue that was removed hear of it before there is another one of that name: the server would move
    // them over silently, and lose what it delivers
    yield* Effect.sleep(REMOVED)
    const [still] = yield* sendNow(unrouted)
    if (still !== undefined) {
      return yield* new RabbitError({
        message: `no queue takes what is sent to ${placeOf(still)}`,
        kind: "unroutable"
      })
    }
  })

  const address = (parcel: OutgoingMessage): Addressed => {
    if (parcel.delayMillis <= 0) return { exchange: DIRECT, key: names.queue(parcel.queue), parcel }
    const rounded = Delay.roundDelay(parcel.delayMillis)
    return {
      exchange: names.delayExchange(Delay.exponentsOf(rounded)[0]!),
      key: delayRoutingKey(rounded, parcel.queue),
      parcel
    }
  }

  /** Makes what is needed for these. */
  const prepare = (parcels: Batch<OutgoingMessage>) => {
    const needed = new Map<string, Effect.Effect<void, RabbitError>>()
    for (const { delayMillis, queue } of parcels) {
      const rounded = delayMillis <= 0 ? 0 : Delay.roundDelay(delayMillis)
      const key = `${rounded} ${queue}`
      if (needed.has(key)) continue
      needed.set(key, rounded === 0 ? topology.declareQueue(queue) : topology.declareDelay(queue, rounded))
    }
    return Effect.forEach([...needed.values()], (make) => make, { discard: true })
  }
  const prepareRejected = (parcels: Batch<OutgoingMessage>) =>
    Effect.forEach(new Set(parcels.map(({ queue }) => queue)), topology.declareRejectedQueue, {
      discard: true
    })

  return {
    publish: (parcels) => sendAll(Arr.map(parcels, address), prepare(parcels)),
    reject: (parcels) =>
      sendAll(
        Arr.map(parcels, (parcel) => ({ exchange: DIRECT, key: names.rejectedQueue(parcel.queue), parcel })),
        prepareRejected(parcels)
      )
  }
}
