/** Times of a store, as a user sees them. */
import { DateTime } from "effect"

/** The latest moment that is a date, in epoch milliseconds; the earliest is as far from zero. */
export const latestMillis = 8_640_000_000_000_000

/** The moment of epoch milliseconds; of what is no date any more the last or the first that is one. */
export const toDate = (millis: number): DateTime.Utc =>
  DateTime.makeUnsafe(Math.min(Math.max(millis, -latestMillis), latestMillis))
