import { toMillis } from "../toMillis.ts"

/** Returns the earlier of two times, or the shorter of two durations; `null` is never. */
export const earliest = (one: number | null, other: number | null): number | null =>
  one === null || other === null ? (one ?? other) : Math.min(one, other)

/** Returns the time at which a duration from `from` on is over; `null` is never. */
export const timeAfter = (from: number, duration: number | null | undefined): number | null =>
  duration === null || duration === undefined ? null : from + toMillis(duration)!

/** Returns the later of two times; `null` is never. */
export const latest = (one: number | null, other: number | null): number | null =>
  one === null || other === null ? null : Math.max(one, other)
