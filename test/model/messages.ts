/** The model of a broker, as pure functions over plain data. Times are those of the tasks. */
import type { QueueCounts, Envelope, Release } from "../../src/BrokerDriver.ts"

/** A message, identified by its body. */
export interface Message {
  readonly envelope: Envelope
  /** When it became due, or will: its place in the order of claims. */
  readonly dueAt: number
  /** The time from which its age is counted. */
  readonly waitsSince: number
  /** The time from which it may be claimed. */
  readonly wakeAt: number
  readonly claim: { readonly handle: string; readonly until: number } | undefined
  /**
   * Whether the store may have removed it: its task ended while it waited. A store that has the messages too removes
   * those that are not due.
   */
  readonly maybeGone: boolean
}

/** All messages, by body. */
export type Messages = ReadonlyMap<string, Message>

export const empty: Messages = new Map()

const put = (all: Messages, message: Message): Messages => new Map(all).set(message.envelope.body, message)

/** Adds a message. */
export const publish = (all: Messages, envelope: Envelope, now: number): Messages => {
  const at = now + envelope.delayMillis
  return put(all, { envelope, dueAt: at, waitsSince: at, wakeAt: at, claim: undefined, maybeGone: false })
}

const isHeld = ({ claim }: Message, now: number): boolean => claim !== undefined && claim.until > now

/** Returns the messages that may be claimed. */
export const ready = (all: Messages, queues: ReadonlyArray<string>, now: number): ReadonlyArray<Message> =>
  [...all.values()].filter(
    (message) => queues.includes(message.envelope.queue) && message.wakeAt <= now && !isHeld(message, now)
  )

/**
 * Whether one message has to be claimed before the other. Messages that became due in the same unit are in no order.
 */
export const precedes = (one: Message, other: Message): boolean => {
  const [mine, its] = [one.envelope.priority, other.envelope.priority]
  return mine === its ? one.dueAt < other.dueAt : mine > its
}

/** Claims a message. */
export const claim = (all: Messages, message: Message, handle: string, until: number): Messages =>
  put(all, { ...message, claim: { handle, until }, maybeGone: false })

/** Returns the message of a claim, also of a lapsed one that was not taken over. */
export const heldBy = (all: Messages, handle: string): Message | undefined =>
  [...all.values()].find((message) => message.claim?.handle === handle)

/** Whether the lease of a claim is live. */
export const isLive = (all: Messages, handle: string, now: number): boolean => {
  const message = heldBy(all, handle)
  return message !== undefined && isHeld(message, now)
}

/** Renews a claim; returns whether it is still held. */
export const renew = (all: Messages, handle: string, until: number): readonly [boolean, Messages] => {
  const message = heldBy(all, handle)
  return message === undefined ? [false, all] : [true, claim(all, message, handle, until)]
}

/** Acks a message; returns whether it was removed. */
export const ack = (all: Messages, handle: string): readonly [boolean, Messages] => {
  const message = heldBy(all, handle)
  if (message === undefined) return [false, all]
  const after = new Map(all)
  after.delete(message.envelope.body)
  return [true, after]
}

/** Releases a message. */
export const release = (
  all: Messages,
  { afterMillis, handle, preserveDueTime }: Release,
  now: number
): Messages => {
  const message = heldBy(all, handle)
  if (message === undefined) return all
  const wakeAt = now + afterMillis
  return put(all, {
    ...message,
    wakeAt,
    dueAt: wakeAt,
    waitsSince: preserveDueTime === true ? message.waitsSince : wakeAt,
    claim: undefined
  })
}

/** Returns a claimed message unhandled: it is due as before. */
export const returnUnhandled = (all: Messages, handle: string): Messages => {
  const message = heldBy(all, handle)
  return message === undefined ? all : put(all, { ...message, claim: undefined })
}

/** Removes messages. */
export const remove = (all: Messages, gone: ReadonlyArray<Message>): Messages => {
  const after = new Map(all)
  for (const { envelope } of gone) after.delete(envelope.body)
  return after
}

/** Returns the messages that a purge removes: those that no worker has claimed. */
export const unclaimed = (all: Messages, queue: string, now: number): ReadonlyArray<Message> =>
  [...all.values()].filter((message) => message.envelope.queue === queue && !isHeld(message, now))

/** Notes that a task has ended, whose waiting messages the store may have removed. */
export const taskEnded = (all: Messages, id: string): Messages =>
  [...all.values()]
    .filter(({ claim, envelope }) => envelope.id === id && claim === undefined)
    .reduce((before, message) => put(before, { ...message, maybeGone: true }), all)

/** The counts of a queue, and how much lower they may be because of messages that may be gone. */
export interface Counted {
  readonly counts: QueueCounts
  readonly fewer: QueueCounts
}

/** Counts the messages of a queue by state. */
export const counts = (all: Messages, queue: string, now: number): Counted => {
  const counts = { ready: 0, delayed: 0, claimed: 0 }
  const fewer = { ready: 0, delayed: 0, claimed: 0 }
  for (const message of all.values()) {
    if (message.envelope.queue !== queue) continue
    const state = isHeld(message, now) ? "claimed" : message.wakeAt <= now ? "ready" : "delayed"
    counts[state]++
    if (message.maybeGone) fewer[state]++
  }
  return { counts, fewer }
}
