/** Detects whether a store answers synchronously, as memory and SQLite do. */
import { Effect } from "effect"

/** Calls `onSuccess` when the effect has succeeded, with whether it did so before the next microtask. */
export const completedSync = <A, E, R>(
  effect: Effect.Effect<A, E, R>,
  onSuccess: (sync: boolean) => void
): Effect.Effect<A, E, R> =>
  Effect.suspend(() => {
    let sync = true
    queueMicrotask(() => {
      sync = false
    })
    return Effect.map(effect, (value) => {
      onSuccess(sync)
      return value
    })
  })
