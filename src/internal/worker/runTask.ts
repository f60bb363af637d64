/** Runs a started task to completion, settles it, and records metrics. */
import { Cause, Effect, Exit } from "effect"
import type { Settled, Started } from "../../BackendDriver.ts"
import type { Delivery } from "../../BrokerDriver.ts"
import { Died } from "../../TaskFailed.ts"
import type { RunControl } from "../task/CurrentRun.ts"
import { annotateDelivery } from "./annotateDelivery.ts"
import { HandlerRun } from "./HandlerRun.ts"
import { endProcessSpan, makeProcessSpan, withProducerSpan } from "./processSpan.ts"
import { reportEnd, reportEndedByStart, reportLostWorker, reportStart, reportUnstarted } from "./reportRun.ts"
import { execute, outcomeOfExit, Run, runContext } from "./Run.ts"
import { runFailure } from "./runFailure.ts"
import { errorTypeOfOutcome, failureOutcome, isDeadLettered, type RunOutcome } from "./runOutcome.ts"
import type { StartCandidate } from "./RunStore.ts"
import { ackMessage, release, ackOrRelease, retryBriefly, returnMessage, settle } from "./settle.ts"
import { isStoreAway } from "./storeOutages.ts"
import * as workerLog from "./workerLog.ts"
import type { WorkerState } from "./WorkerState.ts"

/** Carries out the answer to a start: runs the task, acks its message, or releases it. */
export const applyStart = (
  worker: WorkerState,
  candidate: StartCandidate,
  started: Started,
  sentAt: bigint
): void => {
  const { delivery, message } = candidate
  switch (started._tag) {
    case "Drop":
      if (started.ended !== undefined) reportEndedByStart(worker, candidate, started.ended)
      else {
        worker.queueMetrics(delivery.queue).duplicates.updateUnsafe(1, worker.context)
        if (worker.logs.Debug) worker.fork(annotateDelivery(delivery)(workerLog.duplicateDropped))
      }
      return finishUnrun(worker, delivery, ackMessage(worker, delivery))
    case "NoRecord":
      return finishUnrun(
        worker,
        delivery,
        Effect.andThen(annotateDelivery(delivery)(workerLog.recordMissing), ackMessage(worker, delivery))
      )
    case "Busy":
      worker.queueMetrics(delivery.queue).duplicates.updateUnsafe(1, worker.context)
      if (worker.logs.Debug) worker.fork(annotateDelivery(delivery)(workerLog.busyReleased(started.millis)))
      return finishUnrun(worker, delivery, release(worker, delivery, started.millis))
    case "Run": {
      const run = new Run(candidate, worker.tasks.get(message.task)!, started, sentAt)
      if (started.lostWorker !== undefined) reportLostWorker(worker, run, started.lostWorker)
      return runTask(worker, run)
    }
  }
}

/** Handles a delivery that is not run, then frees its slot, however the effect ends. */
export const finishUnrun = (worker: WorkerState, delivery: Delivery, effect: Effect.Effect<void>): void =>
  worker.fork(
    Effect.ensuring(
      Effect.catchCause(effect, (cause) => logAndReturn(worker, delivery, cause)),
      Effect.sync(() => worker.slots.give(1))
    )
  )

const logAndReturn = (worker: WorkerState, delivery: Delivery, cause: Cause.Cause<unknown>) =>
  Effect.andThen(
    workerLog.deliveryNotHandled(isStoreAway(worker, cause), cause),
    returnMessage(worker, delivery)
  ).pipe(annotateDelivery(delivery))

const runTask = (worker: WorkerState, run: Run): void => {
  worker.inFlight.add()
  const startedAt = worker.now()
  run.begunAt = startedAt
  const control = new HandlerRun(worker, run)
  const settleWith = (outcome: RunOutcome) => {
    const end = run.completedOutcome ?? outcome
    endSpan(run, end)
    settleRun(worker, run, end, Number(worker.now() - startedAt) / 1e9)
  }
  const running = Effect.withFiber((fiber) => {
    worker.addRun(run, startedAt)
    reportStart(worker, run)
    run.attachFiber(fiber)
    return Effect.map(executeOnce(worker, run, control), (outcome) => {
      control.slot.end()
      if (outcome !== undefined) return settleWith(outcome)
      reportUnstarted(worker, run)
      worker.fork(returnMessage(worker, run.candidate.delivery))
      finishRun(worker, run)
    })
  })
  const context = runContext(run, control)
  Effect.runForkWith(context)(running, { uninterruptible: true }).addObserver((exit) => {
    if (Exit.isSuccess(exit)) return
    control.slot.end()
    classifyKilled(worker, run, exit, settleWith)
  })
}

/**
 * Classifies the exit of a fiber that was killed: a value in place of an effect ends a fiber at once, past every handler
 * of its exit. Where the classification is killed too, by a codec of the task or its retry policy, the run has died.
 */
const classifyKilled = (
  worker: WorkerState,
  run: Run,
  exit: Exit.Failure<unknown, unknown>,
  onClassified: (outcome: RunOutcome) => void
): void => {
  const classifying = outcomeOfExit(run, exit, worker.id)
  Effect.runForkWith(run.task.context)(classifying).addObserver((classified) => {
    if (Exit.isSuccess(classified)) return onClassified(classified.value)
    const died = new Died({ defect: Cause.squash(classified.cause) })
    worker.fork(Effect.map(failureOutcome(died), onClassified))
  })
}

/** Executes the handler; an at-most-once task only after its ack. `undefined`: the task may not run. */
const executeOnce = (
  worker: WorkerState,
  run: Run,
  control: RunControl
): Effect.Effect<RunOutcome | undefined, never, unknown> => {
  if (run.task.definition.delivery !== "at-most-once") return executeTraced(worker, run, control)
  // interrupted already, by a worker that stops: once acked, the task could only be lost
  if (run.interruptReason !== undefined) return Effect.succeed({ _tag: "Release" })
  return Effect.flatMap(ackBeforeRun(worker, run), (mayRun) =>
    mayRun ? executeTraced(worker, run, control) : Effect.undefined
  )
}

/** Executes the handler, in a span where a tracer is installed. */
const executeTraced = (
  worker: WorkerState,
  run: Run,
  control: RunControl
): Effect.Effect<RunOutcome, never, unknown> => {
  const { candidate, started, task } = run
  const executing = execute(run, control, worker.id)
  const { tracing } = task
  if (tracing === undefined) return withProducerSpan(candidate, executing)
  return Effect.flatMap(makeProcessSpan(tracing, candidate, started.attempt), (span) => {
    run.span = span
    return Effect.withParentSpan(executing, span, { captureStackTrace: false })
  })
}

const endSpan = (run: Run, outcome: RunOutcome): void => {
  const { tracing } = run.task
  if (tracing === undefined || run.span === undefined) return
  try {
    endProcessSpan(tracing, run.span, outcome, causeOf(run, outcome))
  } catch {
    // a tracer is the program's code: a run whose span it cannot end is settled all the same
  }
}

/** Returns what an outcome other than a success came of. */
const causeOf = (run: Run, outcome: RunOutcome): Cause.Cause<unknown> => {
  if (outcome._tag === "Success") return Cause.empty
  return outcome._tag === "Release" ? (run.exitCause ?? Cause.empty) : runFailure(run, outcome).cause
}

/**
 * Acks an at-most-once task before it runs, so that no redelivery runs it again. Returns whether it may run: with a
 * record a redelivery finds the run, so a failed ack does no harm; without one only the ack keeps it from running twice.
 */
const ackBeforeRun = (worker: WorkerState, run: Run): Effect.Effect<boolean> =>
  Effect.suspend(() => {
    // a renewal that crosses the ack finds no claim, and must not take that for a loss
    run.claimed = false
    return retryBriefly(worker, worker.settings.broker.ack.one(run.candidate.delivery.handle))
  }).pipe(
    Effect.map((acked) => acked || worker.runStore.hasRecords),
    Effect.catchCause((cause) => {
      run.claimed = true
      const { hasRecords } = worker.runStore
      return workerLog
        .notAckedBeforeRun(isStoreAway(worker, cause), hasRecords, cause)
        .pipe(annotateDelivery(run.candidate.delivery, run.started.attempt), Effect.as(hasRecords))
    })
  )

/**
 * Saves the outcome, then releases the message.
 *
 * With a record the slot is free as soon as the handler has ended, so that the next claim goes out together with the
 * outcome, unless as many outcomes as there are slots are still on their way. Without a record the message is all that
 * exists of the task, and the slot is held until it is released.
 */
const settleRun = (worker: WorkerState, run: Run, outcome: RunOutcome, seconds: number): void => {
  const { hasRecords } = worker.runStore
  const freesSlotEarly = hasRecords && worker.settlingRuns < worker.slots.total
  if (freesSlotEarly) {
    worker.settlingRuns++
    worker.slots.give(1)
  }
  settle(worker, run, outcome, (settled) => {
    recordMetrics(worker, run, outcome, settled, seconds)
    reportEnd(worker, run, outcome, settled, seconds)
    if (hasRecords) worker.removeRun(run)
    ackOrRelease(worker, run, outcome, settled, () => {
      if (!freesSlotEarly) return finishRun(worker, run)
      worker.settlingRuns--
      worker.inFlight.done()
    })
  })
}

const finishRun = (worker: WorkerState, run: Run): void => {
  worker.removeRun(run)
  worker.slots.give(1)
  worker.inFlight.done()
}

/** Returns the type of a run's error for its metrics; empty for a success. */
const errorTypeOfRun = (outcome: RunOutcome, settled: Settled): string => {
  if (settled !== "Stored") return settled
  return outcome._tag === "Release" ? "Released" : errorTypeOfOutcome(outcome)
}

const recordMetrics = (
  worker: WorkerState,
  run: Run,
  outcome: RunOutcome,
  settled: Settled,
  seconds: number
): void => {
  const { metrics } = run.task
  const process = metrics.processed(run.candidate.delivery.queue)(errorTypeOfRun(outcome, settled))
  process.updateUnsafe(seconds, worker.context)
  if (settled === "Lost") return metrics.leasesLost.updateUnsafe(1, worker.context)
  if (settled === "Cancelled" || outcome._tag === "Failure") worker.stats.failed++
  if (settled === "Cancelled") return
  if (outcome._tag === "Success") worker.stats.succeeded++
  if (outcome._tag === "Failure" && isDeadLettered(outcome))
    metrics.deadLetters.updateUnsafe(1, worker.context)
  if (outcome._tag === "Retry") {
    worker.stats.retried++
    metrics.retries.updateUnsafe(1, worker.context)
  }
}
