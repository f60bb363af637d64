/** How a store that fails is tried again: after 50 milliseconds at first, after 2 seconds at last. */
import { Schedule } from "effect"

/** The delays between tries. */
export const backoff = Schedule.min([Schedule.exponential("50 millis"), Schedule.spaced("2 seconds")])
