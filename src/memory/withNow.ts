/** The clock of the memory store. */
import { Clock, Effect } from "effect"

/** Runs a function in one step, with the time of the caller's `Clock` in epoch milliseconds. */
export const withNow = <A>(f: (now: number) => A): Effect.Effect<A> =>
  Clock.clockWith((clock) => Effect.succeed(f(clock.currentTimeMillisUnsafe())))
