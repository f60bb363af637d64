/**
 * A broker that keeps messages in a `Map`: the smallest driver that passes the conformance suite.
 *
 * A broker knows nothing of results, retries or outcomes. It gives a message to one worker at a time, under a lease,
 * and keeps it until it is acked.
 */
import {
  type BrokerDriver,
  type ClaimRequest,
  maxMessageBytes,
  type Delivery,
  type Envelope,
  type PurgedMessage,
  type QueueCounts,
  type Release
} from "chicory/driver"
import { Clock, Effect, Stream } from "effect"
import { fitting } from "./fitting.ts"

interface StoredMessage {
  readonly envelope: Envelope
  /** In the order of publishing. */
  readonly order: number
  body: string
  /** When it became due: its place in the order of claims. */
  dueAt: number
  /** The time from which its age is counted. */
  waitsSince: number
  /** When it may be claimed: the end of its delay or of its lease. */
  availableAt: number
  /** The receipt of the last claim, until another claim takes the message. */
  handle: string | undefined
}

const byRank = (a: StoredMessage, b: StoredMessage): number =>
  b.envelope.priority - a.envelope.priority || a.dueAt - b.dueAt || a.order - b.order

/** A message that is larger than any of this library is not carried to a worker. */
const isOversized = ({ body }: StoredMessage): boolean => body.length > maxMessageBytes
const sizeOf = (message: StoredMessage): number => (isOversized(message) ? 0 : message.body.length)

class MapMessages {
  private readonly messages = new Map<number, StoredMessage>()
  private lastOrder = 0
  private lastHandle = 0

  publish(envelope: Envelope, now: number): void {
    const order = ++this.lastOrder
    const dueAt = now + envelope.delayMillis
    const { body } = envelope
    this.messages.set(order, {
      envelope,
      order,
      body,
      dueAt,
      waitsSince: dueAt,
      availableAt: dueAt,
      handle: undefined
    })
  }

  claim({ leaseMillis, max, queues }: ClaimRequest, now: number): ReadonlyArray<Delivery> {
    const due = this.where(
      ({ availableAt, envelope }) => availableAt <= now && queues.includes(envelope.queue)
    )
    return fitting(due.toSorted(byRank).slice(0, max), sizeOf).map((message) => {
      // a new handle, so that an earlier holder can do nothing more
      const handle = `${++this.lastHandle}`
      message.handle = handle
      message.availableAt = now + leaseMillis
      const { generation, id, incarnation, queue, task } = message.envelope
      const { body, waitsSince } = message
      const delivery = { handle, id, task, incarnation, generation, queue, ageMillis: now - waitsSince }
      return isOversized(message)
        ? { ...delivery, body: "", oversizedBytes: body.length }
        : { ...delivery, body }
    })
  }

  renew(handle: string, leaseMillis: number, now: number): boolean {
    const message = this.held(handle)
    if (message !== undefined) message.availableAt = now + leaseMillis
    return message !== undefined
  }

  ack(handle: string): boolean {
    const message = this.held(handle)
    return message !== undefined && this.messages.delete(message.order)
  }

  release({ afterMillis, body, handle, preserveDueTime }: Release, now: number): void {
    const message = this.held(handle)
    if (message === undefined) return
    message.handle = undefined
    message.availableAt = message.dueAt = now + afterMillis
    if (preserveDueTime !== true) message.waitsSince = message.dueAt
    if (body !== undefined) message.body = body
  }

  counts(queue: string, now: number): QueueCounts {
    const counts = { ready: 0, delayed: 0, claimed: 0 }
    let oldest = now
    for (const message of this.where(({ envelope }) => envelope.queue === queue)) {
      const place = this.placeOf(message, now)
      counts[place]++
      if (place === "ready") oldest = Math.min(oldest, message.dueAt)
    }
    return { ...counts, oldestMillis: now - oldest }
  }

  purge(queue: string, limit: number, now: number): ReadonlyArray<PurgedMessage> {
    const unclaimed = this.where(
      (message) => message.envelope.queue === queue && this.placeOf(message, now) !== "claimed"
    ).slice(0, limit)
    for (const { order } of unclaimed) this.messages.delete(order)
    return unclaimed.map(({ envelope: { generation = 0, id, incarnation = "" } }) => ({
      id,
      incarnation,
      generation
    }))
  }

  private where(predicate: (message: StoredMessage) => boolean): Array<StoredMessage> {
    return [...this.messages.values()].filter(predicate)
  }

  /** A claim that lapsed is held until another claim takes the message. */
  private held(handle: string): StoredMessage | undefined {
    return this.where((message) => message.handle === handle)[0]
  }

  private placeOf({ availableAt, handle }: StoredMessage, now: number): "ready" | "delayed" | "claimed" {
    if (availableAt <= now) return "ready"
    return handle === undefined ? "delayed" : "claimed"
  }
}

const at = <A>(f: (now: number) => A): Effect.Effect<A> => Effect.map(Clock.currentTimeMillis, f)

/** Makes the driver, without messages. */
export const makeMapBroker: Effect.Effect<BrokerDriver<never>> = Effect.sync(() => {
  const messages = new MapMessages()
  return {
    name: "map",
    capabilities: { priorities: 256, lease: "store", maxDelayMillis: Number.MAX_SAFE_INTEGER },
    publish: (envelopes) => at((now) => envelopes.forEach((one) => messages.publish(one, now))),
    claim: (request) => at((now) => messages.claim(request, now)),
    // may emit for nothing: a store that cannot push emits at an interval
    ready: () => Stream.tick("100 millis"),
    renew: (handles, leaseMillis) =>
      at((now) => handles.map((handle) => messages.renew(handle, leaseMillis, now))),
    ack: (handles) => Effect.sync(() => handles.map((handle) => messages.ack(handle))),
    release: (releases) => at((now) => releases.forEach((one) => messages.release(one, now))),
    // asked for without a backend only; this store keeps no parked messages
    reject: (rejections) => Effect.sync(() => rejections.forEach(({ handle }) => messages.ack(handle))),
    counts: (queues) => at((now) => queues.map((queue) => messages.counts(queue, now))),
    purge: (queue, limit) => at((now) => messages.purge(queue, limit, now))
  }
})
