/** Reports what becomes of runs: in the log, to error reporters, and as events. */
import { Cause, type Context, Duration, Effect } from "effect"
import type { EndedByStart, Settled } from "../../BackendDriver.ts"
import { WorkerLost } from "../../TaskFailed.ts"
import { reportError } from "./reportError.ts"
import type { Run, RunAnnotations } from "./Run.ts"
import { type RunFailure, runFailure } from "./runFailure.ts"
import { type FailureOutcome, isDeadLettered, type RunOutcome, withoutStack } from "./runOutcome.ts"
import type { StartCandidate } from "./RunStore.ts"
import type { WorkerEvent } from "./WorkerEvents.ts"
import * as workerLog from "./workerLog.ts"
import type { WorkerState } from "./WorkerState.ts"

/** Reports that a run has begun. */
export const reportStart = ({ events }: WorkerState, { annotations }: Run): void => {
  if (events.hasListeners) events.emit({ _tag: "Started", ...annotations })
}

/** Reports the worker of an earlier run, which vanished with it or lost it, so that this run follows. */
export const reportLostWorker = (
  worker: WorkerState,
  { annotations, candidate, started }: Run,
  lostWorker: string
): void => {
  if (!worker.logs.Warn) return
  const { attempt, crashes } = started
  const { maxCrashes } = candidate.start
  const line = workerLog.workerLost({ worker: lostWorker, attempt: attempt - 1, crashes, maxCrashes })
  log(worker, annotations, line)
}

/** Reports that the handler of a run was not started, which is logged already. */
export const reportUnstarted = (worker: WorkerState, { annotations }: Run): void => {
  if (worker.events.hasListeners) emit(worker, annotations, 0, { _tag: "Released" })
}

/** Reports the end of a run: its outcome, and what the store answered to it. */
export const reportEnd = (
  worker: WorkerState,
  run: Run,
  outcome: RunOutcome,
  settled: Settled,
  seconds: number
): void => {
  const { annotations } = run
  if (settled === "Stored" && outcome._tag === "Success") {
    reportLateDefect(worker, run)
    if (worker.logs.Debug) log(worker, annotations, workerLog.taskSucceeded(seconds))
    if (worker.events.hasListeners) emit(worker, annotations, seconds, { _tag: "Succeeded" })
    return
  }
  const failure =
    outcome._tag === "Failure" || outcome._tag === "Retry" ? runFailure(run, outcome) : undefined
  const line = lineOf(worker, run, outcome, settled, failure)
  if (line !== undefined) log(worker, annotations, line)
  if (failure !== undefined && (failure.isDefect || (outcome._tag === "Failure" && settled === "Stored"))) {
    report(worker, run.task.context, failure, annotations, reasonOf(outcome))
  }
  if (worker.events.hasListeners) emit(worker, annotations, seconds, endOf(outcome, settled, failure))
}

/** Reports a defect of a handler that had stored its success before, in its own transaction. */
const reportLateDefect = (worker: WorkerState, { annotations, exitCause, task }: Run): void => {
  if (exitCause === undefined || !exitCause.reasons.some(Cause.isDieReason)) return
  log(worker, annotations, workerLog.handlerDied(exitCause, { _tag: "Completed" }))
  const failure = { cause: exitCause, isDefect: true }
  report(worker, task.context, failure, annotations, "Died")
}

/** Reports the end of a task that no handler could run. */
export const reportRejected = (
  worker: WorkerState,
  { message }: StartCandidate,
  attempt: number,
  outcome: RunOutcome,
  settled: Settled
): void => {
  if (outcome._tag !== "Failure" || settled === "Lost") return
  const annotations = { taskId: message.id, taskName: message.task, queue: message.queue, attempt }
  const failure = { cause: outcome.cause ?? Cause.empty, isDefect: false }
  if (settled === "Cancelled") log(worker, annotations, workerLog.taskCancelled)
  else {
    log(worker, annotations, workerLog.taskFailed(failure.cause, effectOf(outcome)))
    report(worker, worker.context, failure, annotations, reasonOf(outcome))
  }
  if (worker.events.hasListeners) emit(worker, annotations, 0, endOf(outcome, settled, failure))
}

/** Reports and counts the end of a task whose start has ended it: nothing else does. */
export const reportEndedByStart = (
  worker: WorkerState,
  { message }: StartCandidate,
  { attempt, crashes, reason, worker: lostWorker }: EndedByStart
): void => {
  const annotations = { taskId: message.id, taskName: message.task, queue: message.queue, attempt }
  worker.stats.failed++
  let cause: Cause.Cause<unknown> = Cause.empty
  switch (reason) {
    case "WorkerLost": {
      cause = Cause.fail(withoutStack(new WorkerLost({ worker: lostWorker ?? "unknown" })))
      worker.countDeadLetter(message.task)
      const line = workerLog.taskFailed(cause, { _tag: "Ended", reason, deadLetter: true })
      log(worker, { ...annotations, crashes }, line)
      const { context } = worker.tasks.get(message.task) ?? worker
      report(worker, context, { cause, isDefect: false }, annotations, reason)
      break
    }
    case "Cancelled":
      if (worker.logs.Info) log(worker, annotations, workerLog.taskCancelled)
      break
    case "Expired":
      if (worker.logs.Info) log(worker, annotations, workerLog.taskExpired)
  }
  if (worker.events.hasListeners) emit(worker, annotations, 0, { _tag: "Failed", reason, cause })
}

const effectOf = (outcome: FailureOutcome) =>
  ({ _tag: "Ended", reason: outcome.reason, deadLetter: isDeadLettered(outcome) }) as const

/** What becomes of a task that was to be retried, and was cancelled. */
const CANCELLED = { _tag: "Ended", reason: "Cancelled", deadLetter: false } as const

/** Returns the line about an end other than a stored success. */
const lineOf = (
  worker: WorkerState,
  run: Run,
  outcome: RunOutcome,
  settled: Settled,
  failure: RunFailure | undefined
): Effect.Effect<void> | undefined => {
  if (settled === "Cancelled") {
    if (failure?.isDefect === true) return workerLog.handlerDied(failure.cause, CANCELLED)
    return worker.logs.Info ? workerLog.taskCancelled : undefined
  }
  if (settled === "Lost") return lostLine(worker, run, failure)
  switch (outcome._tag) {
    case "Success":
      return undefined
    case "Release":
      return workerLog.taskReleased
    case "Retry":
    case "Failure": {
      const { cause, isDefect } = failure!
      const effect =
        outcome._tag === "Failure"
          ? effectOf(outcome)
          : ({ _tag: "Retried", afterMillis: outcome.afterMillis } as const)
      if (isDefect) return workerLog.handlerDied(cause, effect)
      if (effect._tag === "Ended") return workerLog.taskFailed(cause, effect)
      if (!worker.logs.Info) return undefined
      return cause.reasons.length === 0
        ? workerLog.retryRequested(effect.afterMillis)
        : workerLog.taskFailed(cause, effect)
    }
  }
}

const lostLine = (
  worker: WorkerState,
  run: Run,
  failure: RunFailure | undefined
): Effect.Effect<void> | undefined => {
  if (failure?.isDefect === true) {
    return workerLog.handlerDied(failure.cause, { _tag: run.isUnsaved ? "Unsaved" : "Superseded" })
  }
  // the loss was logged when it was noticed
  if (run.interruptReason === "Lost") return undefined
  const now = worker.now()
  const idleSeconds = Number(now - run.renewedAt) / 1e9
  const why = worker.eventLoop.blockedSince(run.renewedAt, now)
  return workerLog.outcomeDropped(why, { token: run.candidate.start.token, idleSeconds })
}

/** Logs a line about a task in a fiber that the drain waits for. */
const log = (
  worker: WorkerState,
  annotations: Readonly<Record<string, unknown>>,
  line: Effect.Effect<void>
): void => {
  // the message of an error may be a getter that throws
  const logged = Effect.catchCause(line, () => Effect.ignoreCause(workerLog.causeNotLogged))
  worker.fork(Effect.annotateLogs(logged, { ...annotations }))
}

const reasonOf = (outcome: RunOutcome): string => (outcome._tag === "Failure" ? outcome.reason : "Died")

const report = (
  worker: WorkerState,
  context: Context.Context<never>,
  failure: RunFailure,
  annotations: RunAnnotations,
  reason: string
): void => {
  const reporting = reportError(context, failure, { ...annotations, worker: worker.id, reason })
  if (reporting !== undefined) worker.fork(reporting)
}

/** How an event differs from others of the same run. */
type End<Event = WorkerEvent> = Event extends WorkerEvent
  ? Omit<Event, keyof RunAnnotations | "duration">
  : never

const endOf = (outcome: RunOutcome, settled: Settled, failure: RunFailure | undefined): End => {
  const cause = failure?.cause ?? Cause.empty
  if (settled === "Lost") return { _tag: "Lost" }
  if (settled === "Cancelled") return { _tag: "Failed", reason: "Cancelled", cause: Cause.empty }
  switch (outcome._tag) {
    case "Success":
      return { _tag: "Succeeded" }
    case "Failure":
      return { _tag: "Failed", reason: outcome.reason, cause }
    case "Retry":
      return { _tag: "Retried", delay: Duration.millis(outcome.afterMillis), cause }
    case "Release":
      return { _tag: "Released" }
  }
}

const emit = (worker: WorkerState, annotations: RunAnnotations, seconds: number, end: End): void =>
  worker.events.emit({
    ...annotations,
    duration: Duration.nanos(BigInt(Math.round(seconds * 1e9))),
    ...end
  } as WorkerEvent)
