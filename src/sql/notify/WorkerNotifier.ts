import { Effect, type Scope } from "effect"
import type { WriteWatchClient } from "./clientCapabilities.ts"
import type { Interest, Notifications } from "./notificationProtocol.ts"
import type { TableNotifications } from "./TableNotifications.ts"

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
  /** Takes note of a claim, by which it knows whether the worker of these queues is idle. */
  readonly onClaim?: ((claim: ClaimOfQueues) => void) | undefined
  /** Takes note that a claim of these queues, which is not answered yet, leaves messages that are due. */
  readonly onLeft?: ((queues: ReadonlyArray<string>) => void) | undefined
}

/** A claim that was answered. */
export interface ClaimOfQueues {
  readonly queues: ReadonlyArray<string>
  readonly claimed: number
  /** As many as it asked for: the worker has no free slot, or claims again at once. */
  readonly isFull: boolean
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

const notifyTopics =
  ({ notify }: Notifications): WorkerNotifier["notify"] =>
  (queues) => {
    for (const queue of queues) notify(topicOf(queue), [queue])
  }

/** Wakes workers by notifications. */
export const byNotification = (notifications: Notifications): WorkerNotifier => ({
  subscribe: (queues, callback) =>
    Effect.gen(function* () {
      const topics = new Set(queues.map(topicOf))
      let active = true
      yield* Effect.addFinalizer(() =>
        Effect.sync(() => {
          active = false
        })
      )
      yield* notifications.subscribe({
        onHint: ({ topic }) => {
          if (topics.has(topic)) callback(true)
        },
        onResync: () => callback(false)
      })
      // they are registered again with the next renewal of registrations
      yield* Effect.ignore(notifications.registerTopics(topics, { isWanted: () => active, isUrgent: true }), {
        log: "Debug"
      })
    }),
  notify: notifyTopics(notifications)
})

/** A worker that claims from some queues. */
interface ClaimingWorker {
  readonly key: string
  readonly topics: ReadonlySet<string>
  readonly interest: Interest
  readonly callback: (certain: boolean) => void
  /** Its last claim took as many messages as it asked for, or left some. True before the first one. */
  isBusy: boolean
  leftSome: boolean
}

const keyOf = (queues: ReadonlyArray<string>): string => queues.join("\n")

/**
 * Wakes idle workers by notifications that cost calls: a worker is registered while its claims leave slots free, and polls at
 * an interval, in milliseconds, until all other processes have seen that. `fork` runs in the background.
 */
export const whileIdle = (
  notifications: TableNotifications,
  millis: number,
  fork: (effect: Effect.Effect<void>) => void
): WorkerNotifier => {
  const workers = new Set<ClaimingWorker>()
  const { expectHints, isSeen, registerIfNeeded, subscribe } = notifications

  const workersOf = (queues: ReadonlyArray<string>): ReadonlyArray<ClaimingWorker> => {
    const key = keyOf(queues)
    return [...workers].filter((worker) => worker.key === key)
  }
  const onIdle = ({ callback, interest, topics }: ClaimingWorker): void => {
    const registering = registerIfNeeded(topics, interest)
    // messages may have come after the claim and before the registration
    if (registering !== undefined) fork(Effect.map(registering, () => callback(false)))
  }
  return {
    subscribe: (queues, callback) =>
      Effect.gen(function* () {
        const topics = new Set(queues.map(topicOf))
        const worker: ClaimingWorker = {
          key: keyOf(queues),
          topics,
          interest: { isWanted: () => workers.has(worker) && !worker.isBusy, isUrgent: true },
          callback,
          isBusy: true,
          leftSome: false
        }
        yield* Effect.acquireRelease(
          Effect.sync(() => workers.add(worker)),
          () => Effect.sync(() => workers.delete(worker))
        )
        yield* subscribe({
          onHint: ({ ids, topic }) => {
            if (ids !== undefined && topics.has(topic)) callback(true)
          },
          onResync: () => callback(false)
        })
        yield* every(millis).subscribe(queues, () => {
          for (const topic of topics) if (!isSeen(topic)) return callback(false)
        })
      }),
    notify: notifyTopics(notifications),
    onClaim: ({ claimed, isFull, queues }) => {
      for (const worker of workersOf(queues)) {
        const wasBusy = worker.isBusy
        worker.isBusy = isFull || worker.leftSome
        worker.leftSome = false
        if (worker.isBusy) continue
        if (wasBusy || claimed > 0) expectHints()
        onIdle(worker)
      }
    },
    onLeft: (queues) => {
      for (const worker of workersOf(queues)) worker.leftSome = true
    }
  }
}
