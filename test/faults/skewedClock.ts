/** A wrong wall clock. */
import { Clock, Effect } from "effect"

/** Provides a wall clock that is ahead by that many milliseconds. Monotonic time and sleeps are unchanged. */
export const provide =
  (aheadMillis: number) =>
  <A, E, R>(program: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.flatMap(Clock.Clock, (clock) => {
      const currentTimeMillisUnsafe = () => clock.currentTimeMillisUnsafe() + aheadMillis
      const aheadNanos = BigInt(aheadMillis) * 1_000_000n
      const currentTimeNanosUnsafe = () => clock.currentTimeNanosUnsafe() + aheadNanos
      return Effect.provideService(program, Clock.Clock, {
        currentTimeMillisUnsafe,
        currentTimeMillis: Effect.sync(currentTimeMillisUnsafe),
        currentTimeNanosUnsafe,
        currentTimeNanos: Effect.sync(currentTimeNanosUnsafe),
        monotonicTimeNanosUnsafe: () => clock.monotonicTimeNanosUnsafe(),
        monotonicTimeNanos: clock.monotonicTimeNanos,
        sleep: (duration) => clock.sleep(duration)
      })
    })
