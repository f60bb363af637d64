/** Reports what becomes of runs. */
import { Cause, Effect } from "effect"
import type { Settled } from "../../BackendDriver.ts"
import type { Run, RunAnnotations } from "./Run.ts"
import { runFailure } from "./runFailure.ts"
import { isDeadLettered, type RunOutcome } from "./runOutcome.ts"
import type { StartCandidate } from "./RunStore.ts"
import * as workerLog from "./workerLog.ts"
import type { WorkerState } from "./WorkerState.ts"

/** Reports the end of a run: its outcome, and what the store answered to it. */
export const reportEnd = (
  worker: WorkerState,
  run: Run,
  outcome: RunOutcome,
  settled: Settled,
  seconds: number
): void => {
  const { logs } = worker
  if (settled === "Stored" && outcome._tag === "Success") {
    if (logs.Debug) log(worker, run.annotations, workerLog.taskSucceeded(seconds))
    return
  }
  if (settled === "Cancelled") {
    if (logs.Info) log(worker, run.annotations, workerLog.taskCancelled)
    return
  }
  const line = settled === "Lost" ? lostLine(worker, run, outcome) : unsuccessfulLine(run, outcome)
  if (line !== undefined) log(worker, run.annotations, line)
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
  log(
    worker,
    annotations,
    settled === "Cancelled"
      ? workerLog.taskCancelled
      : workerLog.taskFailed(outcome.cause ?? Cause.empty, endOf(outcome))
  )
}

const endOf = ({ reason }: Extract<RunOutcome, { readonly _tag: "Failure" }>) =>
  ({ _tag: "Ended", reason, deadLetter: isDeadLettered(reason) }) as const

const unsuccessfulLine = (run: Run, outcome: RunOutcome): Effect.Effect<void> | undefined => {
  switch (outcome._tag) {
    case "Success":
      return undefined
    case "Release":
      return workerLog.taskReleased
    case "Retry": {
      const { cause, isDefect } = runFailure(run, outcome)
      const { afterMillis } = outcome
      if (isDefect) return workerLog.handlerDied(cause, { _tag: "Retried", afterMillis })
      return cause.reasons.length === 0
        ? workerLog.retryRequested(afterMillis)
        : workerLog.taskFailed(cause, { _tag: "Retried", afterMillis })
    }
    case "Failure": {
      const { cause, isDefect } = runFailure(run, outcome)
      const effect = endOf(outcome)
      return isDefect ? workerLog.handlerDied(cause, effect) : workerLog.taskFailed(cause, effect)
    }
  }
}

const lostLine = (worker: WorkerState, run: Run, outcome: RunOutcome): Effect.Effect<void> | undefined => {
  if (outcome._tag === "Failure" || outcome._tag === "Retry") {
    const { cause, isDefect } = runFailure(run, outcome)
    if (isDefect) return workerLog.handlerDied(cause, { _tag: "Superseded" })
  }
  // the loss was logged when it was noticed
  if (run.interruptReason === "Lost") return undefined
  const now = worker.now()
  const idleSeconds = Number(now - run.renewedAt) / 1e9
  const why = worker.eventLoop.blockedSince(run.renewedAt, now)
  return workerLog.outcomeDropped(why, { token: run.candidate.start.token, idleSeconds })
}

/** Logs a line about a task in a fiber that the drain waits for. */
const log = (worker: WorkerState, annotations: RunAnnotations, line: Effect.Effect<void>): void =>
  worker.fork(Effect.annotateLogs(line, { ...annotations }))
