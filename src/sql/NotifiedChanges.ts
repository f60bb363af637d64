/**
 * Tells those who wait that a task changed, by notifications.
 */
import { Effect, Stream } from "effect"
import { type Changes, Watched } from "./Changes.ts"
import type { Notifications } from "./Notifications.ts"

/** Changes of tasks that somebody may wait for. */
const CHANGES = "changes"
/** Changes that concern whoever runs the task. */
const REQUESTS = "requests"

/** Over the notifications of one store. */
export const make = ({ listen, register, tell, trim }: Notifications): Changes => {
  const watched = new Watched()
  const registerChanges = register(CHANGES, () => watched.listening && !watched.isEmpty)

  return {
    record: () => Effect.void,
    recordForAll: () => Effect.void,
    tell: (ids) => {
      if (ids.length === 0) return
      watched.tell(ids)
      tell(CHANGES, ids)
    },
    tellHere: (ids) => watched.tell(ids),
    tellAll: (ids) => {
      if (ids.length === 0) return
      watched.tellAll(ids)
      tell(CHANGES, ids)
      tell(REQUESTS, ids)
    },
    watch: (ids) =>
      Effect.suspend(() => {
        watched.add(ids)
        return watched.listening ? registerChanges : Effect.void
      }),
    unwatch: (ids) => watched.remove(ids),
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
          told: ({ ids, topic }) => {
            if (topic === CHANGES) watched.tell(ids)
            else if (topic === REQUESTS) watched.tellAll(ids)
          },
          again: () => watched.tellResync()
        })
        // who began to wait before reads again
        if (!watched.isEmpty)
          yield* Effect.andThen(
            registerChanges,
            Effect.sync(() => watched.tellResync())
          )
        yield* register(REQUESTS, () => watched.listening)
        return watched.stream
      })
    ),
    trim
  }
}
