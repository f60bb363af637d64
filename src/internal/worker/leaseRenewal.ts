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
import { abandon } from "./settle.ts"
import type { Engine } from "./WorkerState.ts"

/** Takes in the answer to a renewal that was sent at `sentAt`. */
export const applyRenewal = (
  engine: Engine,
  run: Run,
  answer: Renewed | undefined,
  sentAt: bigint
): Effect.Effect<void> => {
  // a run that has ended meanwhile has nothing to lose
  if (answer === undefined || engine.runs.get(run.id) !== run) return Effect.void
  // settling tells whether it was superseded, and must be told so by its own answer
  if (answer === "Lost" && run.settling) return Effect.void
  if (answer === "Lost") return lose(engine, run, "the store says that the run was superseded")
  run.renewedAt = sentAt
  return Effect.sync(() => {
    if (answer === "CancelRequested" && run.stop === undefined) run.halt("Cancelled")
  })
}

const lose = (engine: Engine, run: Run, cause: string) =>
  Effect.suspend(() => {
    if (run.stop === "Lost") return Effect.void
    const idle = Number(engine.now() - run.renewedAt) / 1e9
    run.halt("Lost")
    return Effect.logWarning(
      `A lease was lost, the handler is interrupted: ${cause} (token ${run.candidate.start.token}, last renewed ${idle.toFixed(3)} s ago, lease ${engine.leaseMillis / 1000} s)`
    ).pipe(
      Effect.annotateLogs({ taskId: run.id, taskName: run.known.definition.name }),
      // the handler may take its time to end, and whoever runs the task next shall not wait for that
      Effect.andThen(Effect.sync(() => engine.fork(abandon(engine, run.candidate.delivery))))
    )
  })

/** Batches of renewals that are on their way at most. */
const RENEWALS = 4

/** A batch at a time: what was answered counts, however long the rest takes. */
const renew = (engine: Engine, runs: ReadonlyArray<Run>): Effect.Effect<void> =>
  Effect.forEach(
    Arr.chunksOf(runs, maxBatch),
    (some) =>
      Effect.suspend(() => {
        const sentAt = engine.now()
        return Effect.flatMap(engine.ledger.renew(some, engine.leaseMillis), (answers) =>
          Effect.forEach(some, (run, i) => applyRenewal(engine, run, answers[i], sentAt), { discard: true })
        )
      }),
    { concurrency: RENEWALS, discard: true }
  )

/** Gives up what has gone without a successful renewal for a whole lease. */
const loseOverdue = (engine: Engine): Effect.Effect<void> =>
  Effect.suspend(() => {
    const limit = engine.now() - BigInt(engine.leaseMillis) * 1_000_000n
    const overdue = [...engine.runs.values()].filter((run) => run.renewedAt <= limit)
    return Effect.forEach(overdue, (run) => lose(engine, run, "no renewal succeeded within the lease"), {
      discard: true
    })
  })

/**
 * Puts back the messages of runs that go on for longer than a broker lets a claim be held. They come back in a while,
 * and find their task running, or its end; if this worker has vanished by then, they start it again.
 */
const releaseOld = (engine: Engine, millis: number): Effect.Effect<void> =>
  Effect.suspend(() => {
    const before = engine.now() - BigInt(Math.ceil(millis)) * 1_000_000n
    const old = [...engine.runs.values()].filter((run) => run.claimed && run.startedAt < before)
    return Effect.forEach(
      old,
      (run) =>
        engine.settings.broker.release
          .one({
            handle: run.candidate.delivery.handle,
            afterMillis: engine.leaseMillis,
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
export const keepLeases = Effect.fnUntraced(function* (
  engine: Engine
): Effect.fn.Return<void, never, Scope.Scope> {
  const interval = Duration.millis(Math.max(1, engine.leaseMillis / 3))
  const round = Effect.suspend(() => renew(engine, [...engine.runs.values()])).pipe(
    // a store that does not answer must not hold up the watch over the leases
    Effect.timeoutOption(Duration.times(interval, 2)),
    Effect.andThen(Effect.suspend(() => loseOverdue(engine)))
  )
  // the pause is counted from the beginning of a round, which may take a while
  yield* Effect.all([round, Effect.sleep(interval)], { concurrency: "unbounded", discard: true }).pipe(
    Effect.forever,
    Effect.delay(interval),
    Effect.forkScoped
  )

  const { maxClaimMillis } = engine.settings.broker.capabilities
  if (maxClaimMillis !== undefined && engine.ledger.recorded) {
    yield* Effect.suspend(() => releaseOld(engine, maxClaimMillis / 2)).pipe(
      Effect.repeat(Schedule.spaced(Duration.millis(maxClaimMillis / 8))),
      Effect.forkScoped
    )
  }

  const { subscriptions } = engine.settings.backend
  if (subscriptions === undefined) return
  const hinted = yield* Queue.unbounded<ReadonlyArray<Run>>()
  yield* Effect.acquireRelease(
    Effect.sync(() =>
      subscriptions.hear((ids) => {
        if (engine.runs.size === 0) return
        const runs =
          ids === undefined
            ? [...engine.runs.values()]
            : ids.flatMap((id) => {
                const run = engine.runs.get(id)
                return run === undefined ? [] : [run]
              })
        if (runs.length > 0) Queue.offerUnsafe(hinted, runs)
      })
    ),
    (deafen) => Effect.sync(deafen)
  )
  yield* Effect.flatMap(Queue.take(hinted), (runs) => renew(engine, runs)).pipe(
    Effect.forever,
    Effect.forkScoped
  )
})

/** Claims that the broker lost: without a record they were all that held the run. */
export const loseClaims = (engine: Engine, handles: ReadonlyArray<string>): Effect.Effect<void> => {
  if (engine.ledger.recorded) return Effect.void
  const lost = new Set(handles)
  const runs = [...engine.runs.values()].filter(
    (run) => run.claimed && lost.has(run.candidate.delivery.handle)
  )
  return Effect.forEach(runs, (run) => lose(engine, run, "the broker lost the claim"), { discard: true })
}
