/**
 * The leases of a worker's runs: renewed in batches at a third of the lease, and given up when they are lost.
 *
 * A run is lost when the store says so, or when this process's monotonic clock says that the last successful
 * renewal was sent a lease ago. Its handler is interrupted. A renewal also tells of a cancel request; a hint of one
 * leads to a renewal at once.
 */
import { Array as Arr, Duration, Effect, Queue, Schedule, type Scope } from "effect"
import type { Renewed } from "../../BackendDriver.ts"
import { maxBatch } from "../driver/driverCalls.ts"
import type { Run } from "./Run.ts"
import { returnUnhandled } from "./settle.ts"
import type { WorkerState } from "./WorkerState.ts"

/** Takes in the answer to a renewal that was sent at `sentAt`. */
export const applyRenewal = (
  worker: WorkerState,
  run: Run,
  answer: Renewed | undefined,
  sentAt: bigint
): Effect.Effect<void> => {
  // a run that has ended meanwhile has nothing to lose
  if (answer === undefined || worker.runs.get(run.id) !== run) return Effect.void
  // settling tells whether it was superseded, and must be told so by its own answer
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
    const idle = Number(worker.now() - run.renewedAt) / 1e9
    run.interrupt("Lost")
    return Effect.logWarning(
      `A lease was lost, the handler is interrupted: ${cause} (token ${run.candidate.start.token}, last renewed ${idle.toFixed(3)} s ago, lease ${worker.leaseMillis / 1000} s)`
    ).pipe(
      Effect.annotateLogs({ taskId: run.id, taskName: run.task.definition.name }),
      // the handler may take its time to end, and whoever runs the task next shall not wait for that
      Effect.andThen(Effect.sync(() => worker.fork(returnUnhandled(worker, run.candidate.delivery))))
    )
  })

/** Batches of renewals that are on their way at most. */
const RENEWALS = 4

/** A batch at a time: what was answered counts, however long the rest takes. */
const renew = (worker: WorkerState, runs: ReadonlyArray<Run>): Effect.Effect<void> =>
  Effect.forEach(
    Arr.chunksOf(runs, maxBatch),
    (some) =>
      Effect.suspend(() => {
        const sentAt = worker.now()
        return Effect.flatMap(worker.runStore.renew(some, worker.leaseMillis), (answers) =>
          Effect.forEach(some, (run, i) => applyRenewal(worker, run, answers[i], sentAt), { discard: true })
        )
      }),
    { concurrency: RENEWALS, discard: true }
  )

/** Gives up what has gone without a successful renewal for a whole lease. */
const loseOverdue = (worker: WorkerState): Effect.Effect<void> =>
  Effect.suspend(() => {
    const limit = worker.now() - BigInt(worker.leaseMillis) * 1_000_000n
    const overdue = [...worker.runs.values()].filter((run) => run.renewedAt <= limit)
    return Effect.forEach(overdue, (run) => loseRun(worker, run, "no renewal succeeded within the lease"), {
      discard: true
    })
  })

/**
 * Puts back the messages of runs that go on for longer than a broker lets a claim be held. They come back in a while,
 * and find their task running, or its end; if this worker has vanished by then, they start it again.
 */
const releaseLongRuns = (worker: WorkerState, millis: number): Effect.Effect<void> =>
  Effect.suspend(() => {
    const before = worker.now() - BigInt(Math.ceil(millis)) * 1_000_000n
    const old = [...worker.runs.values()].filter((run) => run.claimed && run.startedAt < before)
    return Effect.forEach(
      old,
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
              Effect.logWarning("The message of a long run could not be put back; trying again", cause)
            )
          ),
      { concurrency: "unbounded", discard: true }
    )
  })

/** Renews until the scope closes. */
export const renewLeases = Effect.fnUntraced(function* (
  worker: WorkerState
): Effect.fn.Return<void, never, Scope.Scope> {
  const interval = Duration.millis(Math.max(1, worker.leaseMillis / 3))
  const round = Effect.suspend(() => renew(worker, [...worker.runs.values()])).pipe(
    // a store that does not answer must not hold up the watch over the leases
    Effect.timeoutOption(Duration.times(interval, 2)),
    Effect.andThen(Effect.suspend(() => loseOverdue(worker)))
  )
  // the pause is counted from the beginning of a round, which may take a while
  yield* Effect.all([round, Effect.sleep(interval)], { concurrency: "unbounded", discard: true }).pipe(
    Effect.forever,
    Effect.delay(interval),
    Effect.forkScoped
  )

  const { maxClaimMillis } = worker.settings.broker.capabilities
  if (maxClaimMillis !== undefined && worker.runStore.hasRecords) {
    yield* Effect.suspend(() => releaseLongRuns(worker, maxClaimMillis / 2)).pipe(
      Effect.repeat(Schedule.spaced(Duration.millis(maxClaimMillis / 8))),
      Effect.forkScoped
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
    (deafen) => Effect.sync(deafen)
  )
  yield* Effect.flatMap(Queue.take(hinted), (runs) => renew(worker, runs)).pipe(
    Effect.forever,
    Effect.forkScoped
  )
})

/** Claims that the broker lost: without a record they were all that held the run. */
export const onClaimsLost = (worker: WorkerState, handles: ReadonlyArray<string>): Effect.Effect<void> => {
  if (worker.runStore.hasRecords) return Effect.void
  const lost = new Set(handles)
  const runs = [...worker.runs.values()].filter(
    (run) => run.claimed && lost.has(run.candidate.delivery.handle)
  )
  return Effect.forEach(runs, (run) => loseRun(worker, run, "the broker lost the claim"), { discard: true })
}
