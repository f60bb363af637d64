/**
 * Publishes: a message counts as sent when the server has confirmed that a queue holds it.
 *
 * Messages are sent with `mandatory`, so the server gives back what no queue takes, before it confirms. A queue that
 * somebody has removed is made again then, and the message sent once more. While the server has no room and reads
 * nothing, nothing is sent.
 */
import { Array as Arr, Deferred, Effect, Schedule } from "effect"
import type { Batch } from "../BackendDriver.ts"
import * as Delay from "./Delay.ts"
import type { Line, Lines } from "./Line.ts"
import type { Parcel } from "./Parcel.ts"
import { fromUnknown, RabbitError } from "./RabbitError.ts"
import { delayedKey, type Topology } from "./Topology.ts"

/** Sends messages. */
export interface Publisher {
  /** All of them are held by the server when it is done. */
  readonly publish: (parcels: Batch<Parcel>) => Effect.Effect<void, RabbitError>
  /** The same, to where rejected messages lie. */
  readonly reject: (parcels: Batch<Parcel>) => Effect.Effect<void, RabbitError>
}

/** A parcel with its address. */
interface Addressed {
  readonly exchange: string
  readonly key: string
  readonly parcel: Parcel
}

/** The exchange that leads to the queue whose name is the routing key. */
const DIRECT = ""

/** A queue that is made or moves this moment takes nothing. */
const NOT_TAKEN = 311
const retrying = Schedule.exponential("20 millis")

/** Why a line has ended is told in the same turn as what it has not confirmed. */
const unconfirmed = (line: Line): Effect.Effect<never, RabbitError> =>
  Effect.andThen(
    Effect.yieldNow,
    Effect.suspend(() =>
      line.hasEnded
        ? Effect.flatMap(Deferred.await(line.ended), (why) => Effect.fail(why))
        : Effect.fail(
            new RabbitError({ message: "the server could not take what was published", code: NOT_TAKEN })
          )
    )
  )

const placeOf = ({ exchange, key }: { readonly exchange: string; readonly key: string }): string =>
  `${exchange} ${key}`

/** Sends over the line that is open. */
export const make = (lines: Lines, topology: Topology): Publisher => {
  const { names } = topology
  /** Where nothing was taken, for each batch that is on its way. */
  const underway = new Set<Set<string>>()
  const watched = new WeakSet<Line>()

  const watch = (line: Line): void => {
    if (watched.has(line)) return
    watched.add(line)
    line.channel.on("return", ({ fields: { exchange, routingKey } }) => {
      for (const unrouted of underway) unrouted.add(placeOf({ exchange, key: routingKey }))
    })
  }

  /** Answers those that no queue has taken. */
  const send = (line: Line, parcels: Batch<Addressed>) =>
    Effect.callback<ReadonlyArray<Addressed>, RabbitError>((resume) => {
      watch(line)
      const unrouted = new Set<string>()
      underway.add(unrouted)
      let missing = parcels.length
      let confirmed = true
      const answered = (error: unknown) => {
        if (error !== null && error !== undefined) confirmed = false
        if (--missing > 0) return
        underway.delete(unrouted)
        if (!confirmed) return resume(unconfirmed(line))
        resume(Effect.succeed(unrouted.size === 0 ? [] : parcels.filter((one) => unrouted.has(placeOf(one)))))
      }
      try {
        line.together(() => {
          for (const { exchange, key, parcel } of parcels) {
            line.channel.publish(exchange, key, parcel.content, parcel.properties, answered)
          }
        })
      } catch (cause) {
        // the channel has closed this moment
        underway.delete(unrouted)
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
        yield* Effect.flatMap(lines.open, (line) => line.unblocked.await)
        return yield* Effect.flatMap(lines.open, (line) => send(line, some))
      }).pipe(Effect.retry({ schedule: retrying, times: 5, while: ({ code }) => code === NOT_TAKEN }))
    const unrouted = yield* sendNow(parcels)
    if (!Arr.isReadonlyArrayNonEmpty(unrouted)) return
    topology.forget()
    const [still] = yield* sendNow(unrouted)
    if (still !== undefined) {
      return yield* new RabbitError({
        message: `no queue takes what is sent to ${placeOf(still)}`,
        code: 312
      })
    }
  })

  const address = (parcel: Parcel): Addressed => {
    if (parcel.delayMillis <= 0) return { exchange: DIRECT, key: names.queue(parcel.queue), parcel }
    const rounded = Delay.round(parcel.delayMillis)
    return {
      exchange: names.delay(Delay.sum(rounded)[0]!),
      key: delayedKey(rounded, parcel.queue),
      parcel
    }
  }

  /** Makes what is needed for these. */
  const prepare = (parcels: Batch<Parcel>) => {
    const needed = new Map<string, Effect.Effect<void, RabbitError>>()
    for (const { delayMillis, queue } of parcels) {
      const rounded = delayMillis <= 0 ? 0 : Delay.round(delayMillis)
      const key = `${rounded} ${queue}`
      if (needed.has(key)) continue
      needed.set(key, rounded === 0 ? topology.queue(queue) : topology.delay(queue, rounded))
    }
    return Effect.forEach([...needed.values()], (make) => make, { discard: true })
  }
  const prepareRejected = (parcels: Batch<Parcel>) =>
    Effect.forEach(new Set(parcels.map(({ queue }) => queue)), topology.rejected, { discard: true })

  return {
    publish: (parcels) => sendAll(Arr.map(parcels, address), prepare(parcels)),
    reject: (parcels) =>
      sendAll(
        Arr.map(parcels, (parcel) => ({ exchange: DIRECT, key: names.rejected(parcel.queue), parcel })),
        prepareRejected(parcels)
      )
  }
}
