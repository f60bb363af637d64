import type { Line } from "./Connection.ts"
/** A worker's wish to consume a queue, and how many messages the server may push for it. */
import type { Held, Pusher } from "./UnackedMessages.ts"

/** The server pushes no more than this ahead of acks, however many slots a worker has; more only when it is hungry. */
const MOST_UNACKED = 1000
/** A fast worker lets so many be pushed for each slot. It is fast if that many come and go within the time. */
const AHEAD = 4
const FAST_NANOS = 500_000_000n

/** What was pushed, and not claimed yet. */
export interface Pushed extends Held {
  /** Monotonic nanoseconds. */
  readonly at: bigint
}

/** A consumer as the server knows it. */
export class Consumption implements Pusher {
  readonly line: Line
  readonly tag: string
  unacked = 0
  received = 0
  /** How many had come at that time: monotonic nanoseconds. */
  private mark = 0
  private markedAt: bigint
  /** It has to be begun anew: with another limit, or since too many messages are unacked while slots are free. */
  isSpent = false

  constructor(line: Line, tag: string, now: bigint) {
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
export class Consumer {
  readonly queue: string
  private readonly slots: number
  private isFast = false
  pushed: Array<Pushed> = []
  /** Whether slots may be free. */
  wanted = true
  on: Consumption | undefined
  /** A claim came away with too little when so many messages had come. */
  hungry: number | undefined
  /** Its worker has ended. */
  closed = false

  constructor(queue: string, slots: number) {
    this.queue = queue
    this.slots = slots
  }

  /** Messages that may be unacked. */
  get most(): number {
    return Math.min(this.isFast ? AHEAD * this.slots : this.slots, MOST_UNACKED)
  }

  /** Takes in what was pushed. */
  receive(pushed: Pushed, by: Consumption): void {
    this.pushed.push(pushed)
    if (!by.receive(pushed.at, AHEAD * this.slots) || this.isFast) return
    this.isFast = true
    by.isSpent = true
  }

  /** Slots are taken for longer than a moment. */
  pause(): void {
    this.wanted = false
    this.isFast = false
  }

  get consumes(): boolean {
    return this.on !== undefined && !this.on.isSpent && !this.on.line.hasEnded
  }

  /** Whether it consumes, if that is wanted, and otherwise holds nothing. */
  get isRight(): boolean {
    return this.wanted ? this.consumes : this.on === undefined && this.pushed.length === 0
  }

  get isFull(): boolean {
    return this.pushed.length === 0 && this.on !== undefined && this.on.unacked >= this.most
  }
}
