/**
 * The end of a run: first its outcome is stored, then its message is let go.
 *
 * If storing fails after the work succeeded, storing is tried again for as long as the run may still write; the
 * work is not run again. A crash between the two halves leaves a message that finds the outcome and is acked.
 */
import { Effect, Exit } from "effect"
import type { Delivery } from "../../BrokerDriver.ts"
import type { BackendError, ReadError, BrokerError } from "../../StoreError.ts"
import { ResultInvalid } from "../../TaskFailed.ts"
import { backoff } from "../backoff.ts"
import { toEffect } from "../concurrency/Batcher.ts"
import type { Run } from "./Run.ts"
import { failureOutcome, type RunOutcome } from "./runOutcome.ts"
import type { LeasedRun, Settled } from "./RunStore.ts"
import type { WorkerState } from "./WorkerState.ts"

/**
 * Stores the outcome of a run. `Lost`: it was superseded or could not be stored, and its message is left alone.
 * A fiber is made only where there is more to it than one try.
 */
export const settle = (
  worker: WorkerState,
  run: Run,
  outcome: RunOutcome,
  onSettled: (settled: Settled) => void
): void => {
  if (run.completedOutcome !== undefined) return onSettled("Stored")
  run.settling = true
  const ask = worker.runStore.saveOutcome(run.candidate, outcome)
  ask((first) => {
    if (Exit.isSuccess(first) && first.value !== "Lost") onSettled(first.value)
    else worker.fork(Effect.map(retrySettle(worker, run, outcome, first), onSettled))
  })
}

/** What follows the first try, unless it said that all is well. */
const retrySettle = (
  worker: WorkerState,
  run: Run,
  outcome: RunOutcome,
  first: Exit.Exit<Settled, ReadError>
): Effect.Effect<Settled> => {
  const mayWrite = () => run.interruptReason !== "Lost" && !worker.drainExpired
  const store = (outcome: RunOutcome, first?: Exit.Exit<Settled, ReadError>) =>
    retryWhile(
      worker,
      toEffect(worker.runStore.saveOutcome(run.candidate, outcome)),
      { while: (error) => isRetryable(error) && mayWrite() },
      first
    )
  return store(outcome, first).pipe(
    // an outcome that the store refuses is replaced by one that says so
    Effect.catchIf(
      (error) => !isRetryable(error) && (outcome._tag === "Success" || outcome._tag === "Failure"),
      (error) =>
        Effect.flatMap(
          failureOutcome(new ResultInvalid({ side: "worker", issue: error.message })),
          (instead) => store(instead)
        )
    ),
    Effect.tap((settled) => (settled === "Lost" ? logSuperseded(worker, run) : Effect.void)),
    Effect.catchCause((cause) =>
      Effect.as(
        Effect.logError("The outcome of a run could not be stored; its task will be started again", cause),
        "Lost" as const
      )
    )
  )
}

const isRetryable = (error: { readonly _tag: string }): boolean =>
  error._tag === "BackendError" && (error as BackendError).retryable

const logSuperseded = (worker: WorkerState, run: Run) =>
  Effect.logWarning(
    `A run was superseded, and its outcome dropped: token ${run.candidate.start.token}, last renewed ${Number(worker.now() - run.renewedAt) / 1e9} s ago`
  ).pipe(Effect.annotateLogs({ taskId: run.id, taskName: run.task.definition.name }))

/** Lets go of a message. If that fails for good it comes back, and is found to be settled. */
export const releaseMessage = (
  worker: WorkerState,
  hold: LeasedRun,
  outcome: RunOutcome,
  settled: Settled,
  onClosed: () => void
): void => {
  const ask = worker.runStore.releaseMessage(hold, outcome, settled)
  ask((first) => {
    if (Exit.isSuccess(first)) onClosed()
    else
      worker.fork(Effect.map(retryRelease(worker, hold.candidate.delivery, toEffect(ask), first), onClosed))
  })
}

const retryRelease = (
  worker: WorkerState,
  delivery: Delivery,
  closing: Effect.Effect<unknown, BrokerError>,
  first: Exit.Exit<unknown, BrokerError>
): Effect.Effect<void> =>
  Effect.catchCause(Effect.asVoid(retryBriefly(worker, closing, first)), (cause) =>
    Effect.andThen(
      Effect.logWarning("A settled message could not be let go; it will come back", cause),
      returnUnhandled(worker, delivery)
    )
  )

/** A message that a connection holds, and with which nothing could be done, comes back no sooner. */
const ABANDON = "1 second"

/** Leaves a message to come back: when its lease runs out, or soon where the broker's connection holds it. */
export const returnUnhandled = (worker: WorkerState, { handle }: Delivery): Effect.Effect<void> => {
  const { returnUnhandled, capabilities } = worker.settings.broker
  return capabilities.lease === "store"
    ? Effect.void
    : Effect.raceFirst(Effect.sleep(ABANDON), worker.drainExpiry.await).pipe(
        Effect.andThen(returnUnhandled.one(handle)),
        Effect.ignore
      )
}

/** Takes a message off the queue whose task needs it no more. */
export const ackOnly = (worker: WorkerState, delivery: Delivery): Effect.Effect<void> =>
  retryBriefly(worker, worker.settings.broker.ack.one(delivery.handle)).pipe(
    Effect.catchCause((cause) =>
      Effect.andThen(
        Effect.logWarning("A message could not be acked; it will come back", cause),
        returnUnhandled(worker, delivery)
      )
    )
  )

/** Puts a message back, nothing counted. */
export const release = (
  worker: WorkerState,
  delivery: Delivery,
  afterMillis: number,
  preserveDueTime = false
) =>
  retryBriefly(
    worker,
    worker.settings.broker.release.one({ handle: delivery.handle, afterMillis, preserveDueTime })
  ).pipe(
    Effect.catchCause((cause) =>
      Effect.andThen(
        Effect.logWarning("A message could not be put back; it will come back", cause),
        returnUnhandled(worker, delivery)
      )
    )
  )

/** Tries a few times, a second in all. */
export const retryBriefly = <A, E extends { readonly retryable: boolean }>(
  worker: WorkerState,
  effect: Effect.Effect<A, E>,
  first?: Exit.Exit<A, E>
): Effect.Effect<A, E> =>
  retryWhile(worker, effect, { times: 5, while: (error) => error.retryable && !worker.drainExpired }, first)

/**
 * Tries again for as long as it may. A worker that gives up waits no longer: it tries once more. The first try may
 * have been made.
 */
export const retryWhile = <A, E>(
  worker: WorkerState,
  effect: Effect.Effect<A, E>,
  options: { readonly while: (error: E) => boolean; readonly times?: number },
  first: Effect.Effect<A, E> = effect
): Effect.Effect<A, E> =>
  // where the first try succeeds, no schedule is made
  Effect.catchIf(first, options.while, () =>
    Effect.raceFirst(
      Effect.retry(Effect.delay(effect, "50 millis"), { schedule: backoff, ...options }),
      Effect.andThen(worker.drainExpiry.await, effect)
    )
  )
