/**
 * Tells those who wait that a task changed, by notifications.
 */
import { Effect, Stream } from "effect"
import type { PostgresNotifications } from "./PostgresNotifications.ts"
import { type TaskNotifier, LocalSubscriptions } from "./TaskNotifier.ts"

/** What may be the end of tasks that somebody waits for. */
const ENDS = "ends"
/** Everything on the way there. */
const STEPS = "steps"
/** Changes that concern whoever runs the task. */
const REQUESTS = "requests"

/** Over the notifications of one store. */
export const make = ({
  subscribe: listen,
  registerTopic: register,
  notify: tell,
  trim
}: PostgresNotifications): TaskNotifier => {
  const watched = new LocalSubscriptions()
  const registerEnds = register(ENDS, () => watched.listening && watched.some)
  const registerSteps = register(STEPS, () => watched.listening && watched.someSteps)
  const registerAll = Effect.suspend(() =>
    watched.someSteps ? Effect.andThen(registerEnds, registerSteps) : registerEnds
  )

  return {
    recordChanges: () => Effect.void,
    recordChangesForAll: () => Effect.void,
    notify: (ids, kind) => {
      if (ids.length === 0) return
      watched.tell(ids, kind)
      tell(kind === "end" ? ENDS : STEPS, ids)
    },
    notifyLocal: (ids) => watched.tell(ids, "end"),
    notifyAll: (ids) => {
      if (ids.length === 0) return
      watched.tellAll(ids)
      tell(ENDS, ids)
      tell(REQUESTS, ids)
    },
    subscribe: (ids, until) =>
      Effect.suspend(() => {
        watched.add(ids, until)
        return watched.listening ? registerAll : Effect.void
      }),
    unsubscribe: (ids) => watched.remove(ids),
    hints: Stream.unwrap(
      Effect.gen(function* () {
        yield* Effect.acquireRelease(
          Effect.sync(() => {
            watched.listening = true
          }),
          () =>
            Effect.sync(() => {
              watched.listening = false
            })
        )
        yield* listen({
          onHint: ({ ids, topic }) => {
            if (topic === ENDS) watched.tell(ids, "end")
            else if (topic === STEPS) watched.tell(ids, "step")
            else if (topic === REQUESTS) watched.tellAll(ids)
          },
          onResync: () => watched.tellResync()
        })
        // who began to wait before reads again
        if (watched.some)
          yield* Effect.andThen(
            registerAll,
            Effect.sync(() => watched.tellResync())
          )
        yield* register(REQUESTS, () => watched.listening)
        return watched.stream
      })
    ),
    trim
  }
}
