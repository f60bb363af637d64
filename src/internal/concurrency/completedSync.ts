/** Whether a store answers in the turn in which it is asked, or has to be waited for. */
import { Effect } from "effect"

/** Tells, when the effect has succeeded, whether it did so at once. */
export const completedSync = <A, E, R>(
  effect: Effect.Effect<A, E, R>,
  tell: (atOnce: boolean) => void
): Effect.Effect<A, E, R> =>
  Effect.suspend(() => {
    let atOnce = true
    queueMicrotask(() => {
      atOnce = false
    })
    return Effect.map(effect, (value) => {
      tell(atOnce)
      return value
    })
  })
