/**
 * Renews the leases of a worker's runs, in batches, at a third of the lease. Without runs it waits for one.
 *
 * A run is lost when the store answers so, or when the last successful renewal was sent a lease ago by this process's
 * monotonic clock; its handler is interrupted then. A lost run is no longer renewed and is not released: when its lease
 * is over, the next start of the task counts a crash. The log tells a run that was lost because the event loop was blocked
 * from one that the store lost. The answer to a renewal also reports a cancel request, and a hint of one triggers a
 * renewal at once.
 */
import { Array as Arr, Duration, Effect, Queue, Schedule, type Scope } from "effect"
import type { Renewed } from "../../BackendDriver.ts"
import { maxBatch } from "../driver/driverCalls.ts"
import { annotateDelivery } from "./annotateDelivery.ts"
import { forkLoop } from "./health.ts"
import type { Run } from "./Run.ts"
import { returnMessage } from "./settle.ts"
import * as workerLog from "./workerLog.ts"
import type { WorkerState } from "./WorkerState.ts"

/** Applies the answer to a renewal that was sent at the monotonic time `sentAt`. */
export const applyRenewal = (
  worker: WorkerState,
  run: Run,
  answer: Renewed | undefined,
  sentAt: bigint
): Effect.Effect<void> => {
  // the renewal failed, the store could not tell, or the run has ended meanwhile
  if (answer === undefined || answer === "Unknown" || worker.runs.get(run.id) !== run) return Effect.void
  // the settlement reports whether the run was superseded
  if (answer === "Lost" && run.settling) return Effect.void
  if (answer === "Lost") return loseRun(worker, run, "the store says that the run was superseded")
  run.renewedAt = sentAt
  return Effect.sync(() => {
    if (answer === "CancelRequested" && run.interruptReason === undefined) run.interrupt("Cancelled")
  })
}

const loseRun = (worker: WorkerState, run: Run, cause: string) =>
  Effect.suspend(() => {
    if (run.interruptReason === "Lost") return Effect.void
    const { delivery, start } = run.candidate
    const now = worker.now()
    const idleSeconds = Number(now - run.renewedAt) / 1e9
    const why = worker.eventLoop.blockedSince(run.renewedAt, now) ?? cause
    run.interrupt("Lost")
    const { leaseMillis } = worker
    return workerLog.leaseLost(why, { token: start.token, idleSeconds, leaseMillis }).pipe(
      annotateDelivery(delivery, run.started.attempt),
      // the next run of the task must not wait for this handler to end
      Effect.andThen(Effect.sync(() => worker.fork(returnMessage(worker, delivery))))
    )
  })

/** The maximum number of batches of renewals in flight. */
const MAX_BATCHES_IN_FLIGHT = 4

/**
 * Renews the runs that are not lost, in batches, and applies each batch when its answer arrives. Returns the runs of which
 * the store could not tell.
 */
const renew = (worker: WorkerState, runs: ReadonlyArray<Run>): Effect.Effect<ReadonlyArray<Run>> =>
  Effect.map(
    Effect.forEach(
      Arr.chunksOf(
        runs.filter((run) => run.interruptReason !== "Lost" && worker.runs.get(run.id) === run),
        maxBatch
      ),
      (batch) =>
        Effect.suspend(() => {
          const sentAt = worker.now()
          return Effect.flatMap(worker.runStore.renew(batch, worker.leaseMillis), (answers) =>
            Effect.as(
              Effect.forEach(batch, (run, i) => applyRenewal(worker, run, answers[i], sentAt), {
                discard: true
              }),
              batch.filter((_, i) => answers[i] === "Unknown")
            )
          )
        }),
      { concurrency: MAX_BATCHES_IN_FLIGHT }
    ),
    Arr.flatten
  )

/** Loses the runs whose last successful renewal is a whole lease ago. */
export const loseOverdue = (worker: WorkerState): Effect.Effect<void> =>
  Effect.suspend(() => {
    const limit = worker.now() - BigInt(worker.leaseMillis) * 1_000_000n
    const overdue = [...worker.runs.values()].filter((run) => run.renewedAt <= limit)
    return Effect.forEach(overdue, (run) => loseRun(worker, run, "no renewal succeeded within the lease"), {
      discard: true
    })
  })

/**
 * Releases the messages of runs that last longer than the broker lets a claim be held. A released message comes back
 * after a lease: it finds the task running or ended, or starts it again if this worker has crashed by then.
 */
const releaseLongRuns = (worker: WorkerState, millis: number): Effect.Effect<void> =>
  Effect.suspend(() => {
    const startedBefore = worker.now() - BigInt(Math.ceil(millis)) * 1_000_000n
    const longRuns = [...worker.runs.values()].filter((run) => run.claimed && run.startedAt < startedBefore)
    return Effect.forEach(
      longRuns,
      (run) =>
        worker.settings.broker.release
          .one({
            handle: run.candidate.delivery.handle,
            afterMillis: worker.leaseMillis,
            preserveDueTime: true
          })
          .pipe(
            Effect.map(() => {
              run.claimed = false
            }),
            Effect.catchCause((cause) =>
              workerLog.longRunNotReleased(worker.settings.broker.outages.isOngoing, cause)
            ),
            annotateDelivery(run.candidate.delivery, run.started.attempt)
          ),
      { concurrency: "unbounded", discard: true }
    )
  })

/** Renews leases until the scope closes. */
export const renewLeases = Effect.fnUntraced(function* (
  worker: WorkerState
): Effect.fn.Return<void, never, Scope.Scope> {
  const interval = Duration.millis(Math.max(1, worker.leaseMillis / 3))
  yield* forkLoop(worker)(worker.eventLoop.watch(worker))
  const unknown = yield* Queue.unbounded<ReadonlyArray<Run>>()
  const renewNoting = (runs: ReadonlyArray<Run>) =>
    Effect.map(renew(worker, runs), (some) => {
      if (some.length > 0) Queue.offerUnsafe(unknown, some)
    })
  const renewAll = Effect.suspend(() => renewNoting([...worker.runs.values()])).pipe(
    // a store that does not answer must not delay the loss of overdue runs
    Effect.timeoutOption(Duration.times(interval, 2)),
    Effect.andThen(Effect.suspend(() => loseOverdue(worker)))
  )
  // the interval is counted from the beginning of a round, which may take a while
  const round = Effect.all([renewAll, Effect.sleep(interval)], { concurrency: "unbounded", discard: true })
  const renewWhileRunning = Effect.whileLoop({
    while: () => worker.runs.size > 0,
    body: () => round,
    step: () => undefined
  })
  yield* worker.hasRuns.await.pipe(
    Effect.andThen(Effect.sleep(interval)),
    Effect.andThen(renewWhileRunning),
    Effect.forever,
    forkLoop(worker)
  )

  // once more, before the next round
  yield* Effect.flatMap(Queue.take(unknown), (runs) =>
    Effect.andThen(Effect.sleep(Duration.divideUnsafe(interval, 3)), renew(worker, runs))
  ).pipe(Effect.forever, forkLoop(worker))

  const { maxClaimMillis } = worker.settings.broker.capabilities
  if (maxClaimMillis !== undefined && worker.runStore.hasRecords) {
    yield* Effect.suspend(() => releaseLongRuns(worker, maxClaimMillis / 2)).pipe(
      Effect.repeat(Schedule.spaced(Duration.millis(maxClaimMillis / 8))),
      forkLoop(worker)
    )
  }

  const { subscriptions } = worker.settings.backend
  if (subscriptions === undefined) return
  const hinted = yield* Queue.unbounded<ReadonlyArray<Run>>()
  yield* Effect.acquireRelease(
    Effect.sync(() =>
      subscriptions.onHint((ids) => {
        if (worker.runs.size === 0) return
        const runs =
          ids === undefined
            ? [...worker.runs.values()]
            : ids.flatMap((id) => {
                const run = worker.runs.get(id)
                return run === undefined ? [] : [run]
              })
        if (runs.length > 0) Queue.offerUnsafe(hinted, runs)
      })
    ),
    (stop) => Effect.sync(stop)
  )
  yield* Effect.flatMap(Queue.take(hinted), renewNoting).pipe(Effect.forever, forkLoop(worker))
})

/** Loses the runs of claims that the broker lost, where no record holds them. */
export const onClaimsLost = (worker: WorkerState, handles: ReadonlyArray<string>): Effect.Effect<void> => {
  if (worker.runStore.hasRecords) return Effect.void
  const lost = new Set(handles)
  const runs = [...worker.runs.values()].filter(
    (run) => run.claimed && lost.has(run.candidate.delivery.handle)
  )
  return Effect.forEach(runs, (run) => loseRun(worker, run, "the broker lost the claim"), { discard: true })
}
