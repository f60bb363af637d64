/** What the memory store has to look at when a time comes. It waits in a heap, so that nothing else is looked at. */
import type { Member } from "../internal/concurrency/Heap.ts"

/** A member of a heap of deadlines. */
export interface Expiring extends Member {
  /** Epoch milliseconds, or `Infinity`. */
  deadline: number
}

/** Orders by deadline. */
export const isSooner = (self: Expiring, that: Expiring): boolean => self.deadline < that.deadline

/** Returns the time after a duration; `Infinity` after `undefined`. */
export const timeAfter = (now: number, millis: number | undefined): number =>
  millis === undefined ? Infinity : now + millis
