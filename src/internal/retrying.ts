/** How a store that fails is tried again. */
import { Effect, Schedule } from "effect"

/** The delays: from 50 milliseconds up to 2 seconds. */
export const backoff = Schedule.min([Schedule.exponential("50 millis"), Schedule.spaced("2 seconds")])

/** Tries again after failures, with `backoff`. Where the first try succeeds, no schedule is made. */
export const retrying = <A, E, R>(
  effect: Effect.Effect<A, E, R>,
  options: { readonly while: (error: E) => boolean; readonly times?: number }
): Effect.Effect<A, E, R> =>
  Effect.catch(effect, (error) =>
    options.while(error)
      ? Effect.retry(Effect.delay(effect, "50 millis"), { schedule: backoff, ...options })
      : Effect.fail(error)
  )
