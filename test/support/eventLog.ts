/** A log of events that tests can wait on. */
import { Deferred, Effect } from "effect"

export interface EventLog<T> {
  readonly append: (event: T) => void
  /** The events so far. */
  readonly events: ReadonlyArray<T>
  /** Waits until the events pass the check. */
  readonly until: (check: (events: ReadonlyArray<T>) => boolean) => Effect.Effect<void>
  /** Removes the events so far. */
  readonly clear: () => void
}

export const make = <T>(): EventLog<T> => {
  const events: Array<T> = []
  const waiting = new Set<{ readonly check: () => boolean; readonly done: Deferred.Deferred<void> }>()
  return {
    events,
    clear: () => {
      events.length = 0
    },
    append: (event) => {
      events.push(event)
      for (const waiter of waiting) if (waiter.check()) Deferred.doneUnsafe(waiter.done, Effect.void)
    },
    until: (check) =>
      Effect.suspend(() => {
        if (check(events)) return Effect.void
        const waiter = { check: () => check(events), done: Deferred.makeUnsafe<void>() }
        waiting.add(waiter)
        return Effect.ensuring(
          Deferred.await(waiter.done),
          Effect.sync(() => waiting.delete(waiter))
        )
      })
  }
}
