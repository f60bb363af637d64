/** What a worker does for the others: it says that it is there, measures its queues, and keeps the store tidy. */
import { Duration, Effect, type Scope } from "effect"
import type { WorkerState } from "./WorkerState.ts"

const sweepInterval = Duration.seconds(5)
const SWEEP_LIMIT = 1000

const quietly =
  (what: string) =>
  <A, E>(effect: Effect.Effect<A, E>) =>
    Effect.catchCause(Effect.asVoid(effect), (cause) =>
      Effect.logDebug(`${what} failed; it is tried again`, cause)
    )

/** Heartbeats, queue gauges and sweeps until the scope closes. */
export const maintain = Effect.fnUntraced(function* (
  worker: WorkerState
): Effect.fn.Return<void, never, Scope.Scope> {
  const { backend, broker, concurrency, heartbeat, queues, tasks } = worker.settings

  const measure = Effect.map(broker.counts(queues), (counts) =>
    queues.forEach((queue, i) => {
      const { claimed, delayed, ready } = worker.queueMetrics(queue)
      const { [i]: count } = counts
      if (count === undefined) return
      ready.updateUnsafe(count.ready, worker.context)
      delayed.updateUnsafe(count.delayed, worker.context)
      claimed.updateUnsafe(count.claimed, worker.context)
    })
  ).pipe(quietly("Measuring the queues"))
  yield* Effect.forkScoped(Effect.forever(Effect.andThen(measure, Effect.sleep(heartbeat))))
  if (!worker.runStore.hasRecords) return

  yield* Effect.addFinalizer(() =>
    backend.unregisterWorker(worker.id).pipe(Effect.timeoutOption("1 second"), quietly("Farewell"))
  )
  const beat = Effect.suspend(() =>
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
  ).pipe(quietly("The heartbeat"))
  yield* Effect.forkScoped(Effect.forever(Effect.andThen(beat, Effect.sleep(heartbeat))))

  const sweep = Effect.repeat(backend.sweep(SWEEP_LIMIT), { while: (swept) => swept >= SWEEP_LIMIT }).pipe(
    quietly("The sweep")
  )
  yield* Effect.forkScoped(Effect.forever(Effect.andThen(Effect.sleep(sweepInterval), sweep)))
})
