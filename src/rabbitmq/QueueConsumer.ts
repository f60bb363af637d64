/**
 * A worker's consumption of one queue: whether to consume it, with which prefetch, and the messages that were pushed for it
 * and are not claimed yet.
 */
import type { ActiveConsumer } from "./ActiveConsumer.ts"
import type { UnackedMessage } from "./UnackedMessages.ts"

/** The largest prefetch, however many slots a worker has. Only a starved consumer gets more, by a restart. */
const MAX_PREFETCH = 1000
/** The prefetch for each slot of a fast worker. A worker is fast if that many messages arrive within half a second. */
const FAST_PREFETCH_PER_SLOT = 4

/** A message that was pushed and is not claimed yet. */
export interface PrefetchedMessage extends UnackedMessage {
  /** Monotonic nanoseconds. */
  readonly receivedAt: bigint
}

/** A worker's demand for one queue. */
export class QueueConsumer {
  readonly queue: string
  private readonly slots: number
  private isFast = false
  /** The oldest first. */
  prefetched: Array<PrefetchedMessage> = []
  /** `false` while all slots are taken. */
  wanted = true
  /** The consumer on the server, if one was started. */
  active: ActiveConsumer | undefined
  /** The `received` of the active consumer at the time a claim found too little at the prefetch limit. */
  starved: number | undefined
  /** `true` once its worker has ended. */
  closed = false

  constructor(queue: string, slots: number) {
    this.queue = queue
    this.slots = slots
  }

  /** How many messages may be unacked. */
  get prefetchLimit(): number {
    return Math.min(this.isFast ? FAST_PREFETCH_PER_SLOT * this.slots : this.slots, MAX_PREFETCH)
  }

  /** Buffers a message, and raises the prefetch if the worker is fast. */
  receive(message: PrefetchedMessage, active: ActiveConsumer): void {
    this.prefetched.push(message)
    const windowSize = FAST_PREFETCH_PER_SLOT * this.slots
    if (!active.countReceived(message.receivedAt, windowSize) || this.isFast) return
    this.isFast = true
    active.mustRestart = true
  }

  /** Stops consuming until the next claim that finds too little. */
  pause(): void {
    this.wanted = false
    this.isFast = false
  }

  get isConsuming(): boolean {
    return this.active !== undefined && !this.active.mustRestart && !this.active.connection.isClosed
  }

  /** Whether it consumes if that is wanted, and otherwise neither consumes nor buffers. */
  get isAsWanted(): boolean {
    return this.wanted ? this.isConsuming : this.active === undefined && this.prefetched.length === 0
  }

  /** Whether nothing is buffered, and the server pushes nothing more before an ack. */
  get isAtPrefetchLimit(): boolean {
    return (
      this.prefetched.length === 0 && this.active !== undefined && this.active.unacked >= this.prefetchLimit
    )
  }
}
