/** Keeps the log from being flooded by a condition that lasts: one warning a minute, and at Debug what comes meanwhile. */
import { Clock, Effect } from "effect"

const MINUTE_NANOS = 60_000_000_000n

/** Makes an effect that answers `true` once a minute at most: whether this time is to be a warning. */
export const makeOnceAMinute = (): Effect.Effect<boolean> => {
  /** Monotonic nanoseconds of the last `true`. */
  let last: bigint | undefined
  return Effect.map(Clock.Clock, (clock) => {
    const now = clock.monotonicTimeNanosUnsafe()
    if (last !== undefined && now - last < MINUTE_NANOS) return false
    last = now
    return true
  })
}
