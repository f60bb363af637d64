/** Durations and times in milliseconds. */
import type { Clock } from "effect"

/** The longest duration, ten thousand years in milliseconds: no store counts longer ones. */
export const longestMillis = 10_000 * 365 * 24 * 60 * 60 * 1000

/** Rounds milliseconds up to whole ones, at most `longestMillis`. */
export const wholeMillis = (millis: number): number => Math.min(Math.ceil(millis), longestMillis)

/** Returns the monotonic time of a clock. */
export const monotonicMillis = (clock: Clock.Clock): number =>
  Number(clock.monotonicTimeNanosUnsafe()) / 1_000_000
