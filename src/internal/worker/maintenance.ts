/**
 * The duties of a worker beside its runs: it sends heartbeats, ends tasks that no worker knows, and sweeps the store.
 *
 * Where the store loses no hint (`reliableHints`), an idle worker has no duties: it sends again after something happened,
 * and the store sweeps itself.
 */
import { Duration, Effect, Latch, Metric, type Scope } from "effect"
import type { BrokerError, ReadError } from "../../StoreError.ts"
import type { Outages } from "../driver/Outages.ts"
import * as metrics from "../metrics.ts"
import { forkLoop } from "./health.ts"
import { endSetAsideTasks } from "./setAsideTasks.ts"
import * as workerLog from "./workerLog.ts"
import type { WorkerState } from "./WorkerState.ts"

const SWEEP_INTERVAL = Duration.seconds(5)
/** Records, dead letters and workers per sweep, at most of each. */
const SWEEP_LIMIT = 1000

/** Makes the log of a duty's failures. */
const makeReport = (outages: Outages, duty: string) => {
  const log = outages.background(duty)
  return <A>(effect: Effect.Effect<A, ReadError | BrokerError>): Effect.Effect<void> =>
    Effect.matchCauseEffect(effect, { onFailure: log.failed, onSuccess: () => log.succeeded })
}

/** Repeats a duty an interval after it is needed again, by default an interval after its last time. */
const repeatEvery =
  <A>(
    worker: WorkerState,
    interval: Duration.Duration,
    untilNeeded: (last: A) => Effect.Effect<void> = () => Effect.void
  ) =>
  (duty: Effect.Effect<A>): Effect.Effect<void, never, Scope.Scope> =>
    duty.pipe(
      Effect.flatMap(untilNeeded),
      Effect.andThen(Effect.sleep(interval)),
      Effect.forever,
      forkLoop(worker)
    )

/**
 * Runs the duties until the scope closes, then removes the worker from the registry. Returns an effect that waits for the
 * first heartbeat, which registers the worker, or has failed.
 */
export const maintain = Effect.fnUntraced(function* (
  worker: WorkerState
): Effect.fn.Return<Effect.Effect<void>, never, Scope.Scope> {
  const { backend, broker, heartbeat } = worker.settings
  yield* reportRuns(worker)
  if (broker.setAside !== undefined) {
    const report = makeReport(broker.outages, "end unknown tasks")
    yield* endSetAsideTasks(worker, broker.setAside, report).pipe(forkLoop(worker))
  }
  if (!worker.runStore.hasRecords) return Effect.void

  yield* Effect.addFinalizer(() =>
    backend
      .unregisterWorker(worker.id)
      .pipe(Effect.timeoutOption("1 second"), makeReport(backend.outages, "unregister the worker"))
  )
  const firstSent = yield* Latch.make()
  const sendHeartbeat = (ttlMillis: number) =>
    Effect.ensuring(
      sendHeartbeatOf(worker, ttlMillis, makeReport(backend.outages, "send the heartbeat")),
      firstSent.open
    )
  if (backend.capabilities.reliableHints === true) {
    const untilRunsChange = (running: number) => (running > 0 ? Effect.void : worker.hasRuns.await)
    yield* sendHeartbeat(Infinity).pipe(repeatEvery(worker, heartbeat, untilRunsChange))
    return firstSent.await
  }
  yield* sendHeartbeat(Duration.toMillis(heartbeat) * 3).pipe(repeatEvery(worker, heartbeat))
  const sweepReported = makeReport(backend.outages, "sweep the store")(sweep(worker))
  yield* Effect.andThen(Effect.sleep(SWEEP_INTERVAL), sweepReported).pipe(Effect.forever, forkLoop(worker))
  return firstSent.await
})

/** Registers the gauges of the worker, which are read when metrics are exported, until the scope closes. */
const reportRuns = (worker: WorkerState): Effect.Effect<void, never, Scope.Scope> => {
  const { context, id, runs, settings } = worker
  const { running, slots } = metrics.forWorker(settings.broker.name, id)
  const register = (gauge: Metric.Gauge<number>, value: () => number) =>
    Metric.registerUnsafe(gauge, context, {
      get: () => ({ value: value() }),
      update: () => {},
      modify: () => {}
    })
  return Effect.asVoid(
    Effect.acquireRelease(
      Effect.sync(() => [register(running, () => runs.size), register(slots, () => settings.concurrency)]),
      (registrations) => Effect.sync(() => registrations.forEach(({ remove }) => remove()))
    )
  )
}

/** Returns the number of runs that the heartbeat reports. */
const sendHeartbeatOf = (
  worker: WorkerState,
  ttlMillis: number,
  report: ReturnType<typeof makeReport>
): Effect.Effect<number> => {
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
    const sending = worker.health.heartbeat(worker.now(), backend.heartbeat(heartbeat, ttlMillis))
    return sending.pipe(report, Effect.as(running))
  })
}

const sweep = (worker: WorkerState): Effect.Effect<void, ReadError> =>
  Effect.asVoid(
    Effect.repeat(
      Effect.tap(worker.settings.backend.sweep(SWEEP_LIMIT), ({ lost }) => reportLost(worker, lost)),
      { while: ({ handled }) => handled >= SWEEP_LIMIT }
    )
  )

/** Counts and logs the tasks that a sweep has ended as `WorkerLost`: nothing else does. */
const reportLost = (worker: WorkerState, lost: ReadonlyArray<string>): Effect.Effect<void> => {
  if (lost.length === 0) return Effect.void
  const counts = new Map<string, number>()
  for (const task of lost) {
    worker.countDeadLetter(task)
    counts.set(task, (counts.get(task) ?? 0) + 1)
  }
  return workerLog.tasksLost(lost.length, Object.fromEntries(counts))
}
