import { Effect, type Scope } from "effect"
import type { WriteWatchClient } from "./clientCapabilities.ts"
import type { Notifications } from "./notificationProtocol.ts"

/** Notifies workers of other processes of new messages. How it reaches them depends on the database. */
export interface WorkerNotifier {
  /**
   * Calls back when messages may have come to one of the queues, until the scope closes. `certain`: they did come, so
   * that a claim is worthwhile.
   */
  readonly subscribe: (
    queues: ReadonlyArray<string>,
    callback: (certain: boolean) => void
  ) => Effect.Effect<void, never, Scope.Scope>
  /** Notifies other processes, after the commit, that messages came to the queues. */
  readonly notify: (queues: ReadonlySet<string>) => void
}

/** Wakes workers whenever another connection wrote to the file. */
export const onWrite = (client: WriteWatchClient): WorkerNotifier => ({
  subscribe: (_queues, callback) => client.onWrite(() => callback(false)),
  notify: () => {}
})

/** Wakes workers at an interval, in milliseconds. */
export const every = (millis: number): WorkerNotifier => ({
  subscribe: (_queues, callback) =>
    Effect.asVoid(
      Effect.acquireRelease(
        Effect.sync(() => setInterval(() => callback(false), millis)),
        (timer) => Effect.sync(() => clearInterval(timer))
      )
    ),
  notify: () => {}
})

const topicOf = (queue: string): string => `queue:${queue}`

/** Wakes workers by notifications. */
export const byNotification = ({ notify, registerTopics, subscribe }: Notifications): WorkerNotifier => ({
  subscribe: (queues, callback) =>
    Effect.gen(function* () {
      const topics = new Set(queues.map(topicOf))
      let active = true
      yield* Effect.addFinalizer(() =>
        Effect.sync(() => {
          active = false
        })
      )
      yield* subscribe({
        onHint: ({ topic }) => {
          if (topics.has(topic)) callback(true)
        },
        onResync: () => callback(false)
      })
      // they are registered again with the next renewal of registrations
      yield* Effect.ignore(registerTopics(topics, { isWanted: () => active, isUrgent: true }), {
        log: "Debug"
      })
    }),
  notify: (queues) => {
    for (const queue of queues) notify(topicOf(queue), [queue])
  }
})
