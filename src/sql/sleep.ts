import { Effect } from "effect"

/**
 * Sleeps by the clock of the machine. Times of a store go by the clock of its database, so a test clock that replaces
 * `Clock` must not hold them up.
 */
export const sleep = (millis: number): Effect.Effect<void> =>
  Effect.callback((resume) => {
    const timer = setTimeout(() => resume(Effect.void), millis)
    return Effect.sync(() => clearTimeout(timer))
  })
