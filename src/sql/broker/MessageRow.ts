/**
 * A row of the table of messages: its states, its columns, the order of claims, and the handles of deliveries.
 *
 * A message that is due is in one small index, in the order of claims. A message that is delayed or claimed is in
 * another, by the time at which it becomes due (again). A claim first makes ready the messages whose time has come. A
 * parked message is in that index too, by the time at which it is removed. A third index has claimed messages by their
 * handles, for claims that are asked for again.
 */
import type { ClaimRequest, Delivery } from "../../BrokerDriver.ts"
import { maxMessageBytes } from "../../internal/driver/maxMessageBytes.ts"
import type { Dialect } from "../dialect/Dialect.ts"
import * as Row from "../Row.ts"

/** The states of a message, as they are stored. */
export const READY = 0
export const DELAYED = 1
export const CLAIMED = 2
export const PARKED = 3

/** The columns of a claimed message. `now` is the time of the claim; times are epoch milliseconds. */
export interface MessageRow {
  readonly seq: number
  readonly id: string
  readonly task: string
  readonly incarnation: string
  readonly generation: number
  readonly queue: string
  readonly priority: number
  /** When the message became due: its place in the order of claims. */
  readonly due_at: number
  /** The time from which its age is counted, where that is not `due_at`. */
  readonly waits_since: number | null
  readonly now: number
  /** Bytes of the body. */
  readonly size: number
  /** NULL where the body has more bytes than the statement may return. */
  readonly body: string | Uint8Array | null
}

/** The checks of those columns. */
export const shape: Row.Shape<MessageRow> = {
  seq: Row.integer,
  id: Row.text,
  task: Row.text,
  incarnation: Row.text,
  generation: Row.integer,
  queue: Row.text,
  priority: Row.integer,
  due_at: Row.integer,
  waits_since: Row.orNull(Row.integer),
  now: Row.integer,
  size: Row.integer,
  body: Row.orNull(Row.bytes)
}

/** The order of claims. */
export const CLAIM_ORDER = "ORDER BY priority DESC, due_at, seq"

/** Compares rows by that order. */
export const byClaimOrder = (one: MessageRow, other: MessageRow): number =>
  other.priority - one.priority || one.due_at - other.due_at || one.seq - other.seq

/**
 * Returns what the handles of a claim's messages begin with. A handle is `<claim id>:<seq>`, and is stored in the column
 * `claim` of its message, whose index finds the messages of a claim.
 */
export const handlePrefix = ({ claimId }: ClaimRequest): string => `${claimId ?? crypto.randomUUID()}:`

/** Returns the `seq` of a handle; -1, which no message has, for a handle that is not of this store. */
export const seqOf = (handle: string): number => {
  const seq = Number.parseInt(handle.slice(handle.lastIndexOf(":") + 1), 10)
  return Number.isSafeInteger(seq) ? seq : -1
}

/** Returns how many bytes a message adds to an answer: an oversized one comes without its body. */
export const answerBytes = ({ size }: Pick<MessageRow, "size">): number => (size > maxMessageBytes ? 0 : size)

/** Returns the delivery of a claimed message. */
export const toDelivery = (row: MessageRow, prefix: string): Delivery => ({
  handle: `${prefix}${row.seq}`,
  id: row.id,
  task: row.task,
  incarnation: row.incarnation,
  generation: row.generation,
  queue: row.queue,
  ageMillis: Math.max(row.now - (row.waits_since ?? row.due_at), 0),
  body: row.body ?? "",
  ...(row.size > maxMessageBytes && { oversizedBytes: row.size })
})

/** The condition that a message is held by the claim whose handles are between two parameters: see `heldBetween`. */
export const isHeld = ({ now }: Dialect): string =>
  `state = ${CLAIMED} AND claim > ? AND claim < ? AND wake_at > ${now}`

/** Returns the two parameters for the handles with a prefix, which ends with a colon; a semicolon follows it in order. */
export const heldBetween = (prefix: string): readonly [after: string, before: string] => [
  prefix,
  `${prefix.slice(0, -1)};`
]
