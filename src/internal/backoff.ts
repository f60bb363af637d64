/** How calls to a failing store are retried: after 50 milliseconds at first, then after up to 2 seconds. */
import { Schedule } from "effect"

/** The schedule of the delays. */
export const backoff = Schedule.min([Schedule.exponential("50 millis"), Schedule.spaced("2 seconds")])
