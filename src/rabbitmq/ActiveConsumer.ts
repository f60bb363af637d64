/**
 * A consumer as the server knows it: its tag, its connection, and how fast messages arrive.
 */
import type { Connection } from "./Connection.ts"
import type { UnackedCounter } from "./UnackedMessages.ts"

/** A window of messages counts as fast if it arrives within this time. */
const FAST_WINDOW_NANOS = 500_000_000n

/** A consumer from `basic.consume` until its cancellation. */
export class ActiveConsumer implements UnackedCounter {
  readonly connection: Connection
  readonly tag: string
  unacked = 0
  received = 0
  /** `received` and the monotonic time (nanoseconds) at the start of the current window. */
  private windowStart = 0
  private windowStartedAt: bigint
  /** `true` if it has to be replaced: for another prefetch, or because it was cancelled, or failed to start. */
  mustRestart = false

  constructor(connection: Connection, tag: string, now: bigint) {
    this.connection = connection
    this.tag = tag
    this.windowStartedAt = now
  }

  /** Counts a message. Returns `true` if it completes a window of `windowSize` messages that was fast. */
  countReceived(now: bigint, windowSize: number): boolean {
    this.received++
    if (this.received - this.windowStart < windowSize) return false
    const isFast = now - this.windowStartedAt < FAST_WINDOW_NANOS
    this.windowStart = this.received
    this.windowStartedAt = now
    return isFast
  }
}
