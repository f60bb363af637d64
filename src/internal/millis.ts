/** Ten thousand years: what is longer is counted by no store. */
export const longestMillis = 10_000 * 365 * 24 * 60 * 60 * 1000

/** Milliseconds as stores count them: whole ones, and not more than the longest time. */
export const wholeMillis = (millis: number): number => Math.min(Math.ceil(millis), longestMillis)
