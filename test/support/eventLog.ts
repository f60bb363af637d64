/** What is told, in order, for those who wait for something to be told. */
import { Deferred, Effect } from "effect"

export interface Tape<T> {
  readonly tell: (one: T) => void
  /** What was told so far. */
  readonly told: ReadonlyArray<T>
  /** Waits until what was told passes the check. */
  readonly until: (check: (told: ReadonlyArray<T>) => boolean) => Effect.Effect<void>
  /** Forgets what was told so far. */
  readonly clear: () => void
}

export const make = <T>(): Tape<T> => {
  const told: Array<T> = []
  const waiting = new Set<{ readonly check: () => boolean; readonly done: Deferred.Deferred<void> }>()
  return {
    told,
    clear: () => {
      told.length = 0
    },
    tell: (one) => {
      told.push(one)
      for (const waiter of waiting) if (waiter.check()) Deferred.doneUnsafe(waiter.done, Effect.void)
    },
    until: (check) =>
      Effect.suspend(() => {
        if (check(told)) return Effect.void
        const waiter = { check: () => check(told), done: Deferred.makeUnsafe<void>() }
        waiting.add(waiter)
        return Effect.ensuring(
          Deferred.await(waiter.done),
          Effect.sync(() => waiting.delete(waiter))
        )
      })
  }
}
