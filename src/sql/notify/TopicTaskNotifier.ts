/**
 * Notifies waiters by LISTEN and NOTIFY of PostgreSQL.
 */
import { Effect, type Scope, Stream } from "effect"
import type { StoreError } from "../Database.ts"
import { LocalSubscriptions } from "./LocalSubscriptions.ts"
import type { PostgresNotifications } from "./PostgresNotifications.ts"
import type { TaskNotifier } from "./TaskNotifier.ts"

/** The topic of changes that may be the end of a task. */
const ENDS = "ends"
/** The topic of all other changes. */
const STEPS = "steps"
/** The topic of changes that the worker of a task has to know: every process that waits registers for it. */
const REQUESTS = "requests"

/** Makes the notifier over the notifications of one store. */
export const make = ({ notify, registerTopics, subscribe, trim }: PostgresNotifications): TaskNotifier => {
  const subscriptions = new LocalSubscriptions()
  const registerEnds = registerTopics([ENDS], () => subscriptions.active && subscriptions.any)
  const registerSteps = registerTopics([STEPS], () => subscriptions.active && subscriptions.anySteps)
  const register = Effect.suspend(() =>
    subscriptions.anySteps ? Effect.andThen(registerEnds, registerSteps) : registerEnds
  )

  const activate: Effect.Effect<void, never, Scope.Scope> = Effect.asVoid(
    Effect.acquireRelease(
      Effect.sync(() => {
        subscriptions.active = true
      }),
      () =>
        Effect.sync(() => {
          subscriptions.active = false
        })
    )
  )
  const openHints = Effect.gen(function* (): Effect.fn.Return<
    Stream.Stream<ReadonlyArray<string> | "resync">,
    StoreError,
    Scope.Scope
  > {
    yield* activate
    yield* subscribe({
      onHint: ({ ids, topic }) => {
        if (topic === ENDS) subscriptions.notify(ids, "end")
        else if (topic === STEPS) subscriptions.notify(ids, "step")
        else if (topic === REQUESTS) subscriptions.notifyAll(ids)
      },
      onResync: () => subscriptions.resync()
    })
    if (subscriptions.any) {
      // subscribed before the stream ran, and not registered
      yield* register
      subscriptions.resync()
    }
    yield* registerTopics([REQUESTS], () => subscriptions.active)
    return subscriptions.hints
  })

  return {
    recordChanges: () => Effect.void,
    recordChangesForAll: () => Effect.void,
    notify: (ids, kind) => {
      if (ids.length === 0) return
      subscriptions.notify(ids, kind)
      notify(kind === "end" ? ENDS : STEPS, ids)
    },
    notifyLocal: (ids) => subscriptions.notify(ids, "end"),
    notifyAll: (ids) => {
      if (ids.length === 0) return
      subscriptions.notifyAll(ids)
      notify(ENDS, ids)
      notify(REQUESTS, ids)
    },
    subscribe: (ids, until) =>
      Effect.suspend(() => {
        subscriptions.add(ids, until)
        return subscriptions.active ? register : Effect.void
      }),
    unsubscribe: (ids) => subscriptions.remove(ids),
    hints: Stream.unwrap(openHints),
    trim
  }
}
