/**
 * The duties of a worker beside its runs: it sends heartbeats, measures its queues, and sweeps the store.
 *
 * Where the store loses no hint (`reliableHints`), an idle worker has no duties: it measures and sends again after
 * something happened, and the store sweeps itself.
 */
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

/** Repeats a duty an interval after it is needed again, by default an interval after its last time. */
const repeatEvery =
  <A>(interval: Duration.Duration, untilNeeded: (last: A) => Effect.Effect<void> = () => Effect.void) =>
  (duty: Effect.Effect<A>): Effect.Effect<void, never, Scope.Scope> =>
    duty.pipe(
      Effect.flatMap(untilNeeded),
      Effect.andThen(Effect.sleep(interval)),
      Effect.forever,
      Effect.forkScoped,
      Effect.asVoid
    )

/** Runs the duties until the scope closes, then removes the worker from the registry. */
export const maintain = Effect.fnUntraced(function* (
  worker: WorkerState
): Effect.fn.Return<void, never, Scope.Scope> {
  const { backend, broker, heartbeat } = worker.settings
  const untilQueuesChange = () =>
    broker.capabilities.reliableHints === true ? worker.queuesChanged.await : Effect.void
  yield* measureQueues(worker).pipe(repeatEvery(heartbeat, untilQueuesChange))
  if (!worker.runStore.hasRecords) return

  yield* Effect.addFinalizer(() =>
    backend
      .unregisterWorker(worker.id)
      .pipe(Effect.timeoutOption("1 second"), logFailure("unregister the worker"))
  )
  if (backend.capabilities.reliableHints === true) {
    const untilRunsChange = (running: number) => (running > 0 ? Effect.void : worker.hasRuns.await)
    return yield* sendHeartbeat(worker, Infinity).pipe(repeatEvery(heartbeat, untilRunsChange))
  }
  yield* sendHeartbeat(worker, Duration.toMillis(heartbeat) * 3).pipe(repeatEvery(heartbeat))
  yield* Effect.andThen(Effect.sleep(SWEEP_INTERVAL), sweep(worker)).pipe(Effect.forever, Effect.forkScoped)
})

const measureQueues = (worker: WorkerState): Effect.Effect<void> => {
  const { broker, queues } = worker.settings
  return Effect.suspend(() => {
    // closed before the count, so that a change during it is counted the next time; the end of a run changes the queues
    if (worker.inFlight.isEmpty) worker.queuesChanged.closeUnsafe()
    return broker.counts(queues)
  }).pipe(
    Effect.map((counts) =>
      queues.forEach((queue, i) => {
        const { [i]: count } = counts
        if (count === undefined) return
        const { claimed, delayed, ready } = worker.queueMetrics(queue)
        ready.updateUnsafe(count.ready, worker.context)
        delayed.updateUnsafe(count.delayed, worker.context)
        claimed.updateUnsafe(count.claimed, worker.context)
      })
    ),
    logFailure("measure the queues")
  )
}

/** Returns the number of runs that the heartbeat reports. */
const sendHeartbeat = (worker: WorkerState, ttlMillis: number): Effect.Effect<number> => {
  const { backend, concurrency, queues, tasks } = worker.settings
  const { hostname, id } = worker
  return Effect.suspend(() => {
    const running = worker.runs.size
    const heartbeat = {
      id,
      hostname,
      pid: process.pid,
      queues,
      tasks: [...tasks.keys()],
      concurrency,
      running
    }
    return backend.heartbeat(heartbeat, ttlMillis).pipe(logFailure("send the heartbeat"), Effect.as(running))
  })
}

const sweep = (worker: WorkerState): Effect.Effect<void> =>
  Effect.repeat(worker.settings.backend.sweep(SWEEP_LIMIT), {
    while: (swept) => swept >= SWEEP_LIMIT
  }).pipe(logFailure("sweep the store"))
