/** The life of a worker: it starts its loops, and drains when its scope closes. */
import { Duration, Effect, Option, type Scope } from "effect"
import { claimMessages } from "./claimLoop.ts"
import { loseOverdue, renewLeases } from "./leaseRenewal.ts"
import { maintain } from "./maintenance.ts"
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
}

/**
 * Starts a worker that stops with the scope.
 *
 * Finalizers run in reverse: claiming stops first, then the drain waits for running tasks while their leases are still
 * renewed, and the worker leaves the registry last.
 */
export const startWorker = Effect.fnUntraced(function* (
  settings: WorkerSettings
): Effect.fn.Return<WorkerService, never, Scope.Scope> {
  const worker = yield* make(settings)
  yield* maintain(worker)
  yield* renewLeases(worker)
  yield* Effect.addFinalizer(() => drain(worker))
  yield* claimMessages(worker)
  return {
    id: worker.id,
    stats: Effect.sync(() => ({ running: worker.runs.size, ...worker.stats }))
  }
})

/** Lets running tasks finish within `drainTimeout`, interrupts the rest, and waits until they are released. */
const drain = (worker: WorkerState): Effect.Effect<void> =>
  Effect.gen(function* () {
    const { drainTimeout } = worker.settings
    const drained = Duration.isZero(drainTimeout)
      ? Option.none()
      : yield* Effect.timeoutOption(worker.inFlight.wait, drainTimeout)
    if (Option.isSome(drained)) return
    // a run that held up its process for a whole lease is no run to put back uncounted
    yield* loseOverdue(worker)
    for (const run of worker.runs.values()) run.interrupt("Drained")
    worker.expireDrain()
    yield* worker.inFlight.wait
  })
