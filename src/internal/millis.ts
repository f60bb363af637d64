/** Durations as stores count them. */

/** The longest duration, ten thousand years in milliseconds: no store counts longer ones. */
export const longestMillis = 10_000 * 365 * 24 * 60 * 60 * 1000

/** Rounds milliseconds up to whole ones, at most `longestMillis`. */
export const wholeMillis = (millis: number): number => Math.min(Math.ceil(millis), longestMillis)
