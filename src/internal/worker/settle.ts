/**
 * Settles runs: saves the outcome first, then releases the message.
 *
 * If saving fails after the work succeeded, it is tried again for as long as the run may still write; the work is not
 * run again. A crash between the two steps leaves a message whose redelivery finds the outcome and is acked.
 */
import { Cause, Effect, Exit } from "effect"
import type { Settled } from "../../BackendDriver.ts"
import type { Delivery } from "../../BrokerDriver.ts"
import { type BrokerError, isRetryable, type ReadError } from "../../StoreError.ts"
import { ResultInvalid } from "../../TaskFailed.ts"
import { backoff } from "../backoff.ts"
import { toEffect } from "../concurrency/Batcher.ts"
import { annotateDelivery } from "./annotateDelivery.ts"
import type { Run } from "./Run.ts"
import { failureOutcome, type RunOutcome } from "./runOutcome.ts"
import type { LeasedRun, StartCandidate } from "./RunStore.ts"
import { outagesOfError } from "./storeOutages.ts"
import * as workerLog from "./workerLog.ts"
import type { WorkerState } from "./WorkerState.ts"

/**
 * Saves the outcome of a run. `Lost`: the run lost its lease or was superseded, or its outcome could not be saved, and its
 * message is returned to the broker. A fiber is made only where the first try does not succeed.
 */
export const settle = (
  worker: WorkerState,
  run: Run,
  outcome: RunOutcome,
  onSettled: (settled: Settled) => void
): void => {
  if (run.completedOutcome !== undefined) return onSettled("Stored")
  // a lost run is left to its lease, so that the next start counts a crash: a release would count nothing
  if (outcome._tag === "Release" && run.interruptReason === "Lost") return onSettled("Lost")
  run.settling = true
  const save = worker.runStore.saveOutcome(run.candidate, outcome)
  save((first) => {
    if (Exit.isSuccess(first) && first.value !== "Lost") onSettled(first.value)
    else worker.fork(Effect.map(retrySettle(worker, run, outcome, first), onSettled))
  })
}

/** Follows up on a first try that failed, or that found the run superseded. */
const retrySettle = (
  worker: WorkerState,
  run: Run,
  outcome: RunOutcome,
  first: Exit.Exit<Settled, ReadError>
): Effect.Effect<Settled> => {
  const mayWrite = () => run.interruptReason !== "Lost" && !worker.drainExpired
  const save = (candidate: StartCandidate, outcome: RunOutcome, first?: Exit.Exit<Settled, ReadError>) =>
    retryWhile(
      worker,
      toEffect(worker.runStore.saveOutcome(candidate, outcome)),
      { while: (error) => isRetryable(error) && mayWrite() },
      first
    )
  return save(run.candidate, outcome, first).pipe(
    // an outcome that the store refuses permanently is replaced by `ResultInvalid` with the error
    Effect.catchIf(
      (error) => !isRetryable(error) && (outcome._tag === "Success" || outcome._tag === "Failure"),
      (error) =>
        Effect.flatMap(
          failureOutcome(new ResultInvalid({ side: "worker", issue: error.message.slice(0, 10_000) })),
          (replacement) => {
            const { delivery, start } = run.candidate
            return withoutLargeBody(delivery, save(run.candidate, replacement), (body) =>
              save({ ...run.candidate, start: { ...start, body } }, replacement)
            )
          }
        )
    ),
    Effect.catchCause((cause) => {
      // left to its lease
      run.isUnsaved = true
      run.interrupt("Lost")
      const { isOngoing } = worker.settings.backend.outages
      return Effect.as(workerLog.outcomeNotSaved(isOngoing, cause), "Lost" as const)
    }),
    annotateDelivery(run.candidate.delivery, run.started.attempt)
  )
}

/** Characters from which on a body may be what a store refuses. */
const LARGE_BODY = 64 * 1024

/**
 * Writes a dead letter, and writes it with an empty body where the store permanently refuses it with a large one: the limit
 * of the store was lowered, or the producer does not know it. Otherwise the task would run for ever.
 */
export const withoutLargeBody = <A, E extends ReadError | BrokerError>(
  delivery: Delivery,
  write: Effect.Effect<A, E>,
  writeBody: (body: string) => Effect.Effect<A, E>
): Effect.Effect<A, E> =>
  delivery.body.length < LARGE_BODY
    ? write
    : Effect.catchIf(
        write,
        (error) => !isRetryable(error),
        (error) => Effect.tap(writeBody(""), () => workerLog.bodyNotKept(delivery.body.length, error))
      )

/** Acks or releases the message of a settled run. If that fails for good, a redelivery finds the run settled. */
export const ackOrRelease = (
  worker: WorkerState,
  run: LeasedRun,
  outcome: RunOutcome,
  settled: Settled,
  onReleased: () => void
): void => {
  const request = worker.runStore.ackOrRelease(run, outcome, settled)
  request((first) => {
    if (Exit.isSuccess(first)) return onReleased()
    const released = retryBriefly(worker, toEffect(request), first)
    worker.fork(Effect.map(returnOnFailure(worker, run.candidate.delivery, released), onReleased))
  })
}

/** Acks a message whose task needs it no more. */
export const ackMessage = (worker: WorkerState, delivery: Delivery): Effect.Effect<void> =>
  returnOnFailure(worker, delivery, retryBriefly(worker, worker.settings.broker.ack.one(delivery.handle)))

/** Releases a message, with nothing counted. */
export const release = (
  worker: WorkerState,
  delivery: Delivery,
  afterMillis: number,
  preserveDueTime = false
): Effect.Effect<void> => {
  const { handle } = delivery
  const request = worker.settings.broker.release.one({ handle, afterMillis, preserveDueTime })
  return returnOnFailure(worker, delivery, retryBriefly(worker, request))
}

const returnOnFailure = (
  worker: WorkerState,
  delivery: Delivery,
  released: Effect.Effect<unknown, BrokerError>
): Effect.Effect<void> =>
  Effect.catchCause(Effect.asVoid(released), (cause) =>
    Effect.andThen(
      workerLog
        .messageNotAcked(worker.settings.broker.outages.isOngoing, cause)
        .pipe(annotateDelivery(delivery)),
      returnMessage(worker, delivery)
    )
  )

/** How long a message that its connection holds, and that could not be handled, is kept before it is returned. */
const RETURN_AFTER = "1 second"

/** Leaves a message to be redelivered: when its lease ends, or soon where the broker's connection holds it. */
export const returnMessage = (worker: WorkerState, { handle }: Delivery): Effect.Effect<void> => {
  const { capabilities, returnUnhandled } = worker.settings.broker
  return capabilities.lease === "store"
    ? Effect.void
    : Effect.raceFirst(Effect.sleep(RETURN_AFTER), worker.drainExpiry.await).pipe(
        Effect.andThen(returnUnhandled.one(handle)),
        Effect.ignore
      )
}

/** Retries a few times, for about a second. */
export const retryBriefly = <A, E extends { readonly retryable: boolean }>(
  worker: WorkerState,
  effect: Effect.Effect<A, E>,
  first?: Exit.Exit<A, E>
): Effect.Effect<A, E> =>
  retryWhile(worker, effect, { times: 5, while: (error) => error.retryable && !worker.drainExpired }, first)

/**
 * Retries with backoff for as long as the options allow. A worker whose drain has expired tries once more, at once.
 * `first` is the exit of a first try that was made already.
 */
export const retryWhile = <A, E>(
  worker: WorkerState,
  effect: Effect.Effect<A, E>,
  options: { readonly while: (error: E) => boolean; readonly times?: number },
  first: Effect.Effect<A, E> = effect
): Effect.Effect<A, E> =>
  // no schedule is made where the first try succeeds
  Effect.catchIf(first, options.while, (error) => {
    const outages = outagesOfError(worker, error)
    const failed = (error: E) => outages.failed(Cause.fail(error))
    const again = Effect.tapError(effect, failed)
    return failed(error).pipe(
      Effect.andThen(
        Effect.raceFirst(
          Effect.retry(Effect.delay(again, "50 millis"), { schedule: backoff, ...options }),
          Effect.andThen(worker.drainExpiry.await, effect)
        )
      ),
      Effect.tap(() => outages.succeeded)
    )
  })
