/**
 * Notifies waiters by notifications, to which a process registers by topics: the ends of tasks, all other changes, and
 * requests to the workers of tasks.
 */
import { Effect, type Scope, Stream } from "effect"
import type { StoreError } from "../Database.ts"
import { LocalSubscriptions } from "./LocalSubscriptions.ts"
import type { Hint, Interest, Notifications } from "./notificationProtocol.ts"
import type { TaskNotifier } from "./TaskNotifier.ts"

/** The topic of changes that may be the end of a task. */
const ENDS = "ends"
/** The topic of all other changes. */
const STEPS = "steps"
/** The topic of changes that the worker of a task has to know: every process that waits registers for it. */
const REQUESTS = "requests"

/** Tasks that are read at a time on a hint without ids. */
const MAX_POLLED = 256

/** Passes a hint of another process on. */
const receive = (subscriptions: LocalSubscriptions, { ids, topic }: Hint): void => {
  if (topic === REQUESTS) {
    if (ids !== undefined) subscriptions.notifyAll(ids)
    return
  }
  if (topic !== ENDS && topic !== STEPS) return
  const kind = topic === ENDS ? "end" : "step"
  if (ids === undefined) subscriptions.notifySome(kind, MAX_POLLED)
  else subscriptions.notify(ids, kind)
}

/**
 * Makes the notifier over the notifications of one store. A process without a worker has no use for requests: `untilWorking`
 * returns when it has one. Default: it registers for them at once.
 */
export const make = (
  { notify, registerTopics, subscribe, trim }: Notifications,
  untilWorking?: Effect.Effect<void>
): TaskNotifier => {
  const subscriptions = new LocalSubscriptions()
  const ends: Interest = { isWanted: () => subscriptions.active && subscriptions.any, isUrgent: true }
  const steps: Interest = { isWanted: () => subscriptions.active && subscriptions.anySteps, isUrgent: true }
  // a renewal of the lease brings the request too
  const requests: Interest = { isWanted: () => subscriptions.active, isUrgent: false }
  const registerEnds = registerTopics([ENDS], ends)
  const registerSteps = registerTopics([STEPS], steps)
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
      onHint: (hint) => receive(subscriptions, hint),
      onResync: () => subscriptions.resync()
    })
    if (subscriptions.any) {
      // subscribed before the stream ran, and not registered
      yield* register
      subscriptions.resync()
    }
    const registerRequests = registerTopics([REQUESTS], requests)
    if (untilWorking === undefined) yield* registerRequests
    else yield* Effect.forkScoped(Effect.andThen(untilWorking, Effect.ignore(registerRequests)))
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
