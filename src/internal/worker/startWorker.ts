/** The life of a worker: it starts its loops, and drains when its scope closes. */
import { type Context, Duration, Effect, Exit, Fiber, Option, Scope, type Stream } from "effect"
import * as metrics from "../metrics.ts"
import { untraced } from "../tracing.ts"
import { annotateDelivery } from "./annotateDelivery.ts"
import { checkConnections } from "./checkConnections.ts"
import { claimMessages } from "./claimLoop.ts"
import type { Health } from "./health.ts"
import { loseOverdue, renewLeases } from "./leaseRenewal.ts"
import { maintain } from "./maintenance.ts"
import { releaseWaitingRuns } from "./releaseWaitingRuns.ts"
import { returnMessage } from "./settle.ts"
import type { WorkerEvent } from "./WorkerEvents.ts"
import * as workerLog from "./workerLog.ts"
import { make, type WorkerSettings, type WorkerState } from "./WorkerState.ts"

/**
 * Counts of a worker's runs since it started.
 *
 * @category models
 * @since 0.1.0
 */
export interface Stats {
  /** Tasks that it runs now. */
  readonly running: number
  /** Tasks that it ended with a success. */
  readonly succeeded: number
  /** Tasks that it ended with a failure. */
  readonly failed: number
  /** Runs that it ended with a retry. */
  readonly retried: number
}

/**
 * A running worker.
 *
 * @category models
 * @since 0.1.0
 */
export interface WorkerService {
  /** Unique for each worker that was ever started. */
  readonly id: string
  readonly stats: Effect.Effect<Stats>
  /** Whether it works. Makes no call to the store. */
  readonly health: Effect.Effect<Health>
  /**
   * What becomes of its runs, from when the stream is run until the worker has stopped.
   *
   * **Details**
   *
   * Events of several runs come in the order in which they happened. Nothing is made while no stream is run.
   *
   * **Gotchas**
   *
   * A listener does not hold up the worker: one that is 4,096 events behind loses the oldest of them. The events are those
   * of this worker alone, and are not kept: what counts is the task's record.
   */
  readonly events: Stream.Stream<WorkerEvent>
}

/** How long the start waits for the worker to be registered: a store that does not answer must not keep it from starting. */
const REGISTER_TIMEOUT = Duration.seconds(5)
/** How long interrupted runs and calls to the store may take to end after the drain. */
const INTERRUPT_TIMEOUT = Duration.seconds(4)
/** How long the worker's duties and its removal from the registry may take at the very end. */
const UNREGISTER_TIMEOUT = Duration.seconds(2)

/** Starts a worker that stops with the scope, within `drainTimeout` and 6 seconds. Only its handlers make spans. */
export const startWorker = (settings: WorkerSettings): Effect.Effect<WorkerService, never, Scope.Scope> =>
  Effect.contextWith((handlers: Context.Context<never>) => untraced(makeAndStart(settings, handlers)))

const makeAndStart = Effect.fnUntraced(function* (
  settings: WorkerSettings,
  handlers: Context.Context<never>
): Effect.fn.Return<WorkerService, never, Scope.Scope> {
  yield* checkConnections(settings)
  const worker = yield* make(settings, handlers)
  return yield* Effect.annotateLogs(start(worker), { worker: worker.id })
})

const start = Effect.fnUntraced(function* (
  worker: WorkerState
): Effect.fn.Return<WorkerService, never, Scope.Scope> {
  const claiming = yield* Scope.make("parallel")
  const duties = yield* Scope.make()
  yield* Effect.addFinalizer(() => Effect.annotateLogs(stop(worker, claiming, duties), { worker: worker.id }))
  const { concurrency, queues, tasks } = worker.settings
  metrics.beginCounters(worker.settings.broker.name, tasks.keys(), worker.context)
  yield* workerLog.workerStarted({ queues, tasks: [...tasks.keys()], concurrency })
  const registered = yield* Scope.provide(maintain(worker), duties)
  yield* Scope.provide(renewLeases(worker), duties)
  yield* Scope.provide(claimMessages(worker), claiming)
  yield* Effect.timeoutOption(registered, REGISTER_TIMEOUT)
  return {
    id: worker.id,
    stats: Effect.sync(() => ({ running: worker.runs.size, ...worker.stats })),
    health: Effect.sync(() => worker.health.read(worker.now())),
    events: worker.events.stream
  }
})

/**
 * Stops claiming, drains while leases are still renewed, and unregisters the worker last. Each step is bounded, since a
 * handler may be uninterruptible, and a driver may never answer.
 */
const stop = (worker: WorkerState, claiming: Scope.Closeable, duties: Scope.Closeable): Effect.Effect<void> =>
  Effect.gen(function* () {
    worker.health.isStopping = true
    // a claim on its way is awaited with what it brings
    worker.fork(Scope.close(claiming, Exit.void))
    yield* drain(worker)
    const closing = yield* Effect.forkDetach(Scope.close(duties, Exit.void), { startImmediately: true })
    yield* Effect.timeoutOption(Fiber.await(closing), UNREGISTER_TIMEOUT)
    worker.events.end()
    yield* workerLog.workerStopped
  })

/**
 * Lets running tasks finish within `drainTimeout`, and puts back those that only wait for others meanwhile. Then
 * interrupts the rest, and waits until they are released.
 */
const drain = (worker: WorkerState): Effect.Effect<void> =>
  Effect.gen(function* () {
    const { drainTimeout } = worker.settings
    if (worker.runs.size > 0) yield* workerLog.workerDrains(worker.runs.size, drainTimeout)
    if (yield* Effect.raceFirst(isIdleWithin(worker, drainTimeout), releaseWaitingRuns(worker))) return
    // a run that was not renewed for a whole lease is left to its lease, and counts a crash
    yield* loseOverdue(worker)
    for (const run of worker.runs.values()) run.interrupt("Drained")
    worker.expireDrain()
    if (!(yield* isIdleWithin(worker, INTERRUPT_TIMEOUT))) yield* leaveRest(worker)
  })

/** Waits until nothing is in flight; returns `false` once the time is up. */
const isIdleWithin = ({ inFlight }: WorkerState, time: Duration.Duration): Effect.Effect<boolean> =>
  Duration.isZero(time)
    ? Effect.succeed(false)
    : Effect.map(Effect.timeoutOption(inFlight.wait, time), Option.isSome)

/** Leaves the runs that have not ended to their leases. */
const leaveRest = (worker: WorkerState): Effect.Effect<void> =>
  Effect.gen(function* () {
    if (worker.runs.size === 0) return yield* workerLog.callsLeft(INTERRUPT_TIMEOUT)
    for (const run of worker.runs.values()) {
      run.interrupt("Lost")
      worker.fork(returnMessage(worker, run.candidate.delivery))
      yield* workerLog
        .runLeft(run.settling, INTERRUPT_TIMEOUT)
        .pipe(annotateDelivery(run.candidate.message, run.started.attempt))
    }
  })
