/** The duties of a worker beside its runs: it sends heartbeats, measures its queues, and sweeps the store. */
import { Duration, Effect, type Scope } from "effect"
import type { WorkerState } from "./WorkerState.ts"

const SWEEP_INTERVAL = Duration.seconds(5)
/** Records, dead letters and workers per sweep, at most of each. */
const SWEEP_LIMIT = 1000

const logFailure =
  (duty: string) =>
  <A, E>(effect: Effect.Effect<A, E>) =>
    Effect.catchCause(Effect.asVoid(effect), (cause) =>
      Effect.logDebug(`Failed to ${duty}; trying again at the next interval`, cause)
    )

const repeatEvery =
  (interval: Duration.Duration) =>
  <A>(effect: Effect.Effect<A>): Effect.Effect<void, never, Scope.Scope> =>
    Effect.asVoid(Effect.forkScoped(Effect.forever(Effect.andThen(effect, Effect.sleep(interval)))))

/** Runs the duties until the scope closes, then removes the worker from the registry. */
export const maintain = Effect.fnUntraced(function* (
  worker: WorkerState
): Effect.fn.Return<void, never, Scope.Scope> {
  const { backend, heartbeat } = worker.settings
  yield* measureQueues(worker).pipe(repeatEvery(heartbeat))
  if (!worker.runStore.hasRecords) return

  yield* Effect.addFinalizer(() =>
    backend
      .unregisterWorker(worker.id)
      .pipe(Effect.timeoutOption("1 second"), logFailure("unregister the worker"))
  )
  yield* sendHeartbeat(worker).pipe(repeatEvery(heartbeat))
  yield* Effect.andThen(Effect.sleep(SWEEP_INTERVAL), sweep(worker)).pipe(Effect.forever, Effect.forkScoped)
})

const measureQueues = (worker: WorkerState): Effect.Effect<void> => {
  const { broker, queues } = worker.settings
  return Effect.map(broker.counts(queues), (counts) =>
    queues.forEach((queue, i) => {
      const { [i]: count } = counts
      if (count === undefined) return
      const { claimed, delayed, ready } = worker.queueMetrics(queue)
      ready.updateUnsafe(count.ready, worker.context)
      delayed.updateUnsafe(count.delayed, worker.context)
      claimed.updateUnsafe(count.claimed, worker.context)
    })
  ).pipe(logFailure("measure the queues"))
}

const sendHeartbeat = (worker: WorkerState): Effect.Effect<void> => {
  const { backend, concurrency, heartbeat, queues, tasks } = worker.settings
  return Effect.suspend(() =>
    backend.heartbeat(
      {
        id: worker.id,
        hostname: worker.hostname,
        pid: process.pid,
        queues,
        tasks: [...tasks.keys()],
        concurrency,
        running: worker.runs.size
      },
      Duration.toMillis(heartbeat) * 3
    )
  ).pipe(logFailure("send the heartbeat"))
}

const sweep = (worker: WorkerState): Effect.Effect<void> =>
  Effect.repeat(worker.settings.backend.sweep(SWEEP_LIMIT), {
    while: (swept) => swept >= SWEEP_LIMIT
  }).pipe(logFailure("sweep the store"))
