/**
 * Tells workers that messages came from another process.
 */
import { Effect, type Scope } from "effect"
import type { WriteWatchClient } from "./clientCapabilities.ts"
import type { PostgresNotifications } from "./PostgresNotifications.ts"

/** Each kind of database has its own way. */
export interface WorkerNotifier {
  /**
   * Calls back when messages may have come to one of the queues, until the scope closes. `certain`: they did come, and
   * a claim is worth while.
   */
  readonly subscribe: (
    queues: ReadonlyArray<string>,
    listener: (certain: boolean) => void
  ) => Effect.Effect<void, never, Scope.Scope>
  /** Tells other processes, after the commit, that messages came to the queues. */
  readonly notify: (queues: ReadonlySet<string>) => void
}

/** Whenever something was written. */
export const onWrite = (client: WriteWatchClient): WorkerNotifier => ({
  subscribe: (_queues, listener) => client.onWrite(() => listener(false)),
  notify: () => {}
})

/** So often, in milliseconds, whether or not something was written. */
export const every = (millis: number): WorkerNotifier => ({
  subscribe: (_queues, listener) =>
    Effect.asVoid(
      Effect.acquireRelease(
        Effect.sync(() => setInterval(() => listener(false), millis)),
        (timer) => Effect.sync(() => clearInterval(timer))
      )
    ),
  notify: () => {}
})

/** By notifications, and every second besides as all workers do. */
export const byNotification = ({
  subscribe: listen,
  registerTopic: register,
  notify: tell
}: PostgresNotifications): WorkerNotifier => ({
  subscribe: (queues, listener) =>
    Effect.gen(function* () {
      const topics = new Set(queues.map(topicOf))
      let listening = true
      yield* Effect.addFinalizer(() =>
        Effect.sync(() => {
          listening = false
        })
      )
      yield* listen({
        onHint: ({ topic }) => {
          if (topics.has(topic)) listener(true)
        },
        onResync: () => listener(false)
      })
      for (const topic of topics) {
        yield* Effect.ignore(
          register(topic, () => listening),
          { log: "Debug" }
        )
      }
    }),
  notify: (queues) => {
    for (const queue of queues) tell(topicOf(queue), [queue])
  }
})

const topicOf = (queue: string): string => `queue:${queue}`
