import type { Connection } from "./Connection.ts"
/** A worker's wish to consume a queue, and how many messages the server may push for it. */
import type { UnackedMessage, UnackedCounter } from "./UnackedMessages.ts"

/** The server pushes no more than this ahead of acks, however many slots a worker has; more only when it is hungry. */
const MOST_UNACKED = 1000
/** A fast worker lets so many be pushed for each slot. It is fast if that many come and go within the time. */
const AHEAD = 4
const FAST_NANOS = 500_000_000n

/** What was pushed, and not claimed yet. */
export interface PrefetchedMessage extends UnackedMessage {
  /** Monotonic nanoseconds. */
  readonly receivedAt: bigint
}

/** A consumer as the server knows it. */
export class ActiveConsumer implements UnackedCounter {
  readonly line: Connection
  readonly tag: string
  unacked = 0
  received = 0
  /** How many had come at that time: monotonic nanoseconds. */
  private mark = 0
  private markedAt: bigint
  /** It has to be begun anew: with another limit, or since too many messages are unacked while slots are free. */
  mustRestart = false

  constructor(line: Connection, tag: string, now: bigint) {
    this.line = line
    this.tag = tag
    this.markedAt = now
  }

  /** Takes note of one that came; answers whether as many as `many` came in a short time. */
  receive(now: bigint, many: number): boolean {
    this.received++
    if (this.received - this.mark < many) return false
    const isFast = now - this.markedAt < FAST_NANOS
    this.mark = this.received
    this.markedAt = now
    return isFast
  }
}

/** A worker's wish to consume a queue. */
export class QueueConsumer {
  readonly queue: string
  private readonly slots: number
  private isFast = false
  prefetched: Array<PrefetchedMessage> = []
  /** Whether slots may be free. */
  wanted = true
  active: ActiveConsumer | undefined
  /** A claim came away with too little when so many messages had come. */
  starved: number | undefined
  /** Its worker has ended. */
  closed = false

  constructor(queue: string, slots: number) {
    this.queue = queue
    this.slots = slots
  }

  /** Messages that may be unacked. */
  get prefetchLimit(): number {
    return Math.min(this.isFast ? AHEAD * this.slots : this.slots, MOST_UNACKED)
  }

  /** Takes in what was pushed. */
  receive(pushed: PrefetchedMessage, by: ActiveConsumer): void {
    this.prefetched.push(pushed)
    if (!by.receive(pushed.receivedAt, AHEAD * this.slots) || this.isFast) return
    this.isFast = true
    by.mustRestart = true
  }

  /** Slots are taken for longer than a moment. */
  pause(): void {
    this.wanted = false
    this.isFast = false
  }

  get isConsuming(): boolean {
    return this.active !== undefined && !this.active.mustRestart && !this.active.line.isClosed
  }

  /** Whether it consumes, if that is wanted, and otherwise holds nothing. */
  get isAsWanted(): boolean {
    return this.wanted ? this.isConsuming : this.active === undefined && this.prefetched.length === 0
  }

  get isAtPrefetchLimit(): boolean {
    return (
      this.prefetched.length === 0 && this.active !== undefined && this.active.unacked >= this.prefetchLimit
    )
  }
}
