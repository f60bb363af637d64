/** Converts the times of a store into dates. */
import { DateTime } from "effect"

/** The latest date in epoch milliseconds; the earliest is its negative. */
export const latestMillis = 8_640_000_000_000_000

/** Returns the date of epoch milliseconds, clamped to the range of dates. */
export const toDate = (millis: number): DateTime.Utc =>
  DateTime.makeUnsafe(Math.min(Math.max(millis, -latestMillis), latestMillis))
