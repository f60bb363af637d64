/**
 * What a broker has to do, as pure functions over plain data. Times are those of the tasks.
 */
import type { QueueCounts, Envelope, Release } from "../../src/BrokerDriver.ts"

/** A message, told from all others by its body. */
export interface Message {
  readonly envelope: Envelope
  /** From when on its age is counted. */
  readonly dueAt: number
  /** From when on it may be claimed. */
  readonly wakeAt: number
  readonly claim: { readonly handle: string; readonly until: number } | undefined
}

/** All messages, by their bodies. */
export type Messages = ReadonlyMap<string, Message>

export const empty: Messages = new Map()

const put = (all: Messages, message: Message): Messages => new Map(all).set(message.envelope.body, message)

/** Sends a message. */
export const publish = (all: Messages, envelope: Envelope, now: number): Messages => {
  const at = now + envelope.delayMillis
  return put(all, { envelope, dueAt: at, wakeAt: at, claim: undefined })
}

const isHeld = ({ claim }: Message, now: number): boolean => claim !== undefined && claim.until > now

/** Those that may be claimed. */
export const ready = (all: Messages, queues: ReadonlyArray<string>, now: number): ReadonlyArray<Message> =>
  [...all.values()].filter(
    (message) => queues.includes(message.envelope.queue) && message.wakeAt <= now && !isHeld(message, now)
  )

/** Whether one has to be claimed before the other. Those that became due in the same unit are in no order. */
export const precedes = (one: Message, other: Message): boolean => {
  const [mine, its] = [one.envelope.priority, other.envelope.priority]
  return mine === its ? one.dueAt < other.dueAt : mine > its
}

/** Gives a message out. */
export const claim = (all: Messages, message: Message, handle: string, until: number): Messages =>
  put(all, { ...message, claim: { handle, until } })

/** The message of a claim, also of one that lapsed and was not taken over. */
export const heldBy = (all: Messages, handle: string): Message | undefined =>
  [...all.values()].find((message) => message.claim?.handle === handle)

/** Whether the lease of a claim runs. */
export const isLive = (all: Messages, handle: string, now: number): boolean => {
  const message = heldBy(all, handle)
  return message !== undefined && isHeld(message, now)
}

/** Whether the claim is still held. */
export const renew = (all: Messages, handle: string, until: number): readonly [boolean, Messages] => {
  const message = heldBy(all, handle)
  return message === undefined ? [false, all] : [true, claim(all, message, handle, until)]
}

/** Whether a message was removed. */
export const ack = (all: Messages, handle: string): readonly [boolean, Messages] => {
  const message = heldBy(all, handle)
  if (message === undefined) return [false, all]
  const after = new Map(all)
  after.delete(message.envelope.body)
  return [true, after]
}

/** Puts a message back. */
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
    dueAt: preserveDueTime === true ? message.dueAt : wakeAt,
    claim: undefined
  })
}

/** Gives a claim up: its message is due as it was. */
export const returnUnhandled = (all: Messages, handle: string): Messages => {
  const message = heldBy(all, handle)
  return message === undefined ? all : put(all, { ...message, claim: undefined })
}

/** The messages of a queue by what they wait for. */
export const counts = (all: Messages, queue: string, now: number): QueueCounts => {
  const here = [...all.values()].filter(({ envelope }) => envelope.queue === queue)
  const claimed = here.filter((message) => isHeld(message, now))
  const due = ready(
    here.length === all.size ? all : new Map(here.map((m) => [m.envelope.body, m])),
    [queue],
    now
  )
  return { ready: due.length, claimed: claimed.length, delayed: here.length - claimed.length - due.length }
}
