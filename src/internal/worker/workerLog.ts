/**
 * The log lines of a worker: their texts and their levels, in one place.
 *
 * A line about a task has the annotations `taskId`, `taskName`, `queue` and `attempt`, as far as they are known, and every
 * line has `worker`, which is in the context of the worker. A text contains no payload, result or error: those of users
 * are in the `Cause` alone.
 */
import { Cause, Context, Duration, Effect, Logger, LogLevel, References } from "effect"

/** The levels of a worker's lines. */
type Level = "Debug" | "Info" | "Warn" | "Error"

/** Which levels are logged. A line that is not logged is not made where many tasks pass. */
export type LoggedLevels = Readonly<Record<Level, boolean>>

/** Returns the levels that the loggers of a context log. */
export const loggedLevels = (context: Context.Context<never>): LoggedLevels => {
  const minimum = Context.get(context, References.MinimumLogLevel)
  const hasLoggers = Context.get(context, Logger.CurrentLoggers).size > 0
  const isLogged = (level: Level) => hasLoggers && LogLevel.isGreaterThanOrEqualTo(level, minimum)
  return {
    Debug: isLogged("Debug"),
    Info: isLogged("Info"),
    Warn: isLogged("Warn"),
    Error: isLogged("Error")
  }
}

/** Adds the id of the worker to all lines of a context. */
export const withWorkerAnnotation = <R>(context: Context.Context<R>, worker: string): Context.Context<R> =>
  Context.add(context, References.CurrentLogAnnotations, {
    ...Context.get(context, References.CurrentLogAnnotations),
    worker
  })

const millis = (count: number): string => Duration.format(Duration.millis(Math.round(count)))
const times = (count: number, noun: string): string => `${count} ${noun}${count === 1 ? "" : "s"}`

// #region The worker

/** Debug would hide which queues a process works on. */
export const workerStarted = (worker: {
  readonly queues: ReadonlyArray<string>
  readonly tasks: ReadonlyArray<string>
  readonly concurrency: number
}): Effect.Effect<void> => Effect.annotateLogs(Effect.logInfo("Started a worker"), { ...worker })

export const workerDrains = (running: number, drainTimeout: Duration.Duration): Effect.Effect<void> =>
  Effect.logInfo(
    `Stopping a worker; it claims no more, and ${times(running, "run")} may end within ${Duration.format(drainTimeout)}`
  )

/** A defect of the library or of a driver: no loop ends before the worker does. */
export const loopEnded = (cause: Cause.Cause<unknown> = Cause.empty): Effect.Effect<void> =>
  Effect.logError("A loop of the worker has ended; the process has to be restarted", cause)

export const loopBlocked = (seconds: string, leaseMillis: number): Effect.Effect<void> =>
  Effect.logWarning(
    `The event loop was blocked for ${seconds}, more than a third of the lease of ${leaseMillis / 1000} s; no lease was renewed meanwhile. Run CPU-bound work in a worker thread, or set a longer lease`
  )

export const workerStopped: Effect.Effect<void> = Effect.logInfo("Stopped a worker")

/** The store did not answer some calls of a stopping worker. */
export const callsLeft = (after: Duration.Duration): Effect.Effect<void> =>
  Effect.logWarning(
    `Failed to end all calls to the store within ${Duration.format(after)} after the drain; the worker stops without their answers`
  )

/** A run of a stopping worker did not end. */
export const runLeft = (isSettling: boolean, after: Duration.Duration): Effect.Effect<void> =>
  Effect.logWarning(
    `Failed to ${isSettling ? "store the outcome of a run" : "end an interrupted handler"} within ${Duration.format(after)} after the drain; the worker stops, and the run is left to its lease`
  )

// #endregion

// #region The end of a run

/** What became of a failed run's task. */
export type FailureEffect =
  | { readonly _tag: "Ended"; readonly reason: string; readonly deadLetter: boolean }
  | { readonly _tag: "Retried"; readonly afterMillis: number }
  | { readonly _tag: "Superseded" }
  | { readonly _tag: "Unsaved" }
  | { readonly _tag: "Completed" }

const describeEffect = (effect: FailureEffect): string => {
  switch (effect._tag) {
    case "Ended":
      return `the task has ended as ${effect.reason}${effect.deadLetter ? ", with a dead letter" : ""}`
    case "Retried":
      return `the task runs again in ${millis(effect.afterMillis)}`
    case "Completed":
      return "its success was stored before, in its own transaction, and stands"
    case "Superseded":
      return "the outcome is dropped, since the run was superseded"
    case "Unsaved":
      return "the outcome could not be saved, and the task will be started again"
  }
}

/** A handler died: a bug, whatever becomes of the task. */
export const handlerDied = (cause: Cause.Cause<unknown>, effect: FailureEffect): Effect.Effect<void> =>
  Effect.logError(`Failed to run a task, since its handler died; ${describeEffect(effect)}`, cause)

/** A task has failed for good, or is retried. */
export const taskFailed = (cause: Cause.Cause<unknown>, effect: FailureEffect): Effect.Effect<void> =>
  (effect._tag === "Ended" ? Effect.logWarning : Effect.logInfo)(
    `Failed to run a task; ${describeEffect(effect)}`,
    cause
  )

/** The handler left by `TaskContext.retry` without an error. */
export const retryRequested = (afterMillis: number): Effect.Effect<void> =>
  Effect.logInfo(`A handler asked for a retry; ${describeEffect({ _tag: "Retried", afterMillis })}`)

export const taskSucceeded = (seconds: number): Effect.Effect<void> =>
  Effect.logDebug(`Ran a task in ${millis(seconds * 1000)}`)

export const taskReleased: Effect.Effect<void> = Effect.logInfo(
  "Interrupted a handler, since the worker stops; its task is released, and nothing is counted"
)

export const taskCancelled: Effect.Effect<void> = Effect.logInfo(
  "Ended a run whose task was cancelled; the task has ended as Cancelled"
)

export const taskExpired: Effect.Effect<void> = Effect.logInfo(
  "Dropped a message whose task has expired; the task has ended as Expired"
)

/** Another worker has vanished with a run of the task, or has lost it. */
export const workerLost = (lost: {
  readonly worker: string
  readonly attempt: number
  readonly crashes: number
  readonly maxCrashes: number
}): Effect.Effect<void> =>
  Effect.annotateLogs(
    Effect.logWarning(
      `Lost attempt ${lost.attempt} of a task with its worker; the task runs again (crash ${lost.crashes} of at most ${lost.maxCrashes})`
    ),
    { lostWorker: lost.worker }
  )

/** A sweep has ended tasks; `tasks` has their number by name. */
export const tasksLost = (count: number, tasks: Readonly<Record<string, number>>): Effect.Effect<void> =>
  Effect.annotateLogs(
    Effect.logWarning(
      `Ended ${times(count, "at-most-once task")} whose workers were lost; each has ended as WorkerLost, with a dead letter`
    ),
    { tasks }
  )

export const causeNotLogged: Effect.Effect<void> = Effect.logWarning(
  "Failed to log what became of a task, since its cause cannot be printed; a logger threw"
)

export const errorNotReported = (cause: Cause.Cause<unknown>): Effect.Effect<void> =>
  Effect.logWarning("Failed to report an error, since an ErrorReporter threw; the report is lost", cause)

// #endregion

// #region Lost runs

/** A run, and when its last renewal was sent. */
interface LeaseInfo {
  readonly token: string
  readonly idleSeconds: number
}

const lastRenewed = ({ idleSeconds, token }: LeaseInfo): string =>
  `token ${token}, last renewed ${idleSeconds.toFixed(3)} s ago`

export const leaseLost = (
  why: string,
  lease: LeaseInfo & { readonly leaseMillis: number }
): Effect.Effect<void> =>
  Effect.logInfo(
    `Lost the lease of a run, since ${why}; its handler is interrupted, and the run is left to its lease (${lastRenewed(lease)}, lease ${lease.leaseMillis / 1000} s)`
  )

const since = (why: string | undefined): string => (why === undefined ? "" : `, since ${why}`)

export const outcomeDropped = (why: string | undefined, lease: LeaseInfo): Effect.Effect<void> =>
  Effect.logInfo(`A run was superseded${since(why)}; its outcome is dropped (${lastRenewed(lease)})`)

export const supersededHere = (token: string, why: string | undefined): Effect.Effect<void> =>
  Effect.logInfo(
    `A run was superseded by another run of this worker${since(why)}; its handler is interrupted (token ${token})`
  )

// #endregion

// #region Messages and outcomes

// what an outage of the store leads to is logged at Debug: the outage itself is logged once

/** A message of which no run can be made has become a dead letter. */
export const messageParked = (
  reason: string,
  cause: Cause.Cause<unknown> = Cause.empty
): Effect.Effect<void> =>
  Effect.logWarning(`Failed to run a message; it is parked as a dead letter (${reason})`, cause)

export const messageNotParked = (isStoreAway: boolean, cause: Cause.Cause<unknown>): Effect.Effect<void> =>
  (isStoreAway ? Effect.logDebug : Effect.logError)("Failed to park a message; it will be redelivered", cause)

export const taskNotEnded = (isStoreAway: boolean, cause: Cause.Cause<unknown>): Effect.Effect<void> =>
  (isStoreAway ? Effect.logDebug : Effect.logError)(
    "Failed to end a task without a handler; its message will be redelivered",
    cause
  )

/** A message that is not run is dropped or released: the store knows that its task has ended, runs elsewhere, or waits. */
export const duplicateDropped: Effect.Effect<void> = Effect.logDebug(
  "Dropped a message whose task has ended or was enqueued anew"
)

export const busyReleased = (afterMillis: number): Effect.Effect<void> =>
  Effect.logDebug(
    `Released a message for ${millis(afterMillis)}, since its task runs elsewhere or is not due yet`
  )

export const recordMissing: Effect.Effect<void> = Effect.logWarning(
  "Dropped a message whose task has no record: it was forgotten or has outlived its retention, or the backend has lost it, or is not the producer's"
)

/** A message of a task that this worker does not know waits for another worker. */
export const unknownPutBack = (afterMillis: number): Effect.Effect<void> =>
  Effect.logDebug(`Put back a message for ${millis(afterMillis)}, since this worker does not know its task`)

/** Messages of a task that this worker does not know are set aside in the store. */
export const unknownSetAside = (task: string, queue: string, grace: Duration.Duration): Effect.Effect<void> =>
  Effect.logInfo(
    `Messages of a task that this worker does not know are set aside; a worker that knows it runs them, and otherwise they end after ${Duration.format(grace)}`
  ).pipe(Effect.annotateLogs({ taskName: task, queue }))

export const deliveryNotHandled = (isStoreAway: boolean, cause: Cause.Cause<unknown>): Effect.Effect<void> =>
  (isStoreAway ? Effect.logDebug : Effect.logError)(
    "Failed to handle a delivery; it will be redelivered",
    cause
  )

export const notAckedBeforeRun = (
  isStoreAway: boolean,
  runs: boolean,
  cause: Cause.Cause<unknown>
): Effect.Effect<void> =>
  (isStoreAway ? Effect.logDebug : Effect.logWarning)(
    `Failed to ack an at-most-once message; ${runs ? "the task runs, and its message is redelivered" : "the task does not run"}`,
    cause
  )

/** Tasks of one name in one queue. */
export const notStarted = (
  isStoreAway: boolean,
  tasks: { readonly taskName: string; readonly queue: string; readonly taskIds: ReadonlyArray<string> },
  cause: Cause.Cause<unknown>
): Effect.Effect<void> => {
  const { taskIds, ...annotations } = tasks
  const ids = taskIds.length === 1 ? { taskId: taskIds[0] } : { taskIds }
  return (isStoreAway ? Effect.logDebug : Effect.logError)(
    `Failed to start ${times(taskIds.length, "task")}; ${taskIds.length === 1 ? "its message is" : "their messages are"} released`,
    cause
  ).pipe(Effect.annotateLogs({ ...ids, ...annotations }))
}

export const outcomeNotSaved = (isStoreAway: boolean, cause: Cause.Cause<unknown>): Effect.Effect<void> =>
  (isStoreAway ? Effect.logDebug : Effect.logError)(
    "Failed to save the outcome of a run; its task will be started again",
    cause
  )

export const bodyNotKept = (characters: number, error: unknown): Effect.Effect<void> =>
  Effect.logError(
    `Failed to keep the body of a message (${characters} characters); its dead letter cannot be replayed`,
    Cause.fail(error)
  )

export const messageNotAcked = (isStoreAway: boolean, cause: Cause.Cause<unknown>): Effect.Effect<void> =>
  (isStoreAway ? Effect.logDebug : Effect.logWarning)(
    "Failed to ack or release a message; it will be redelivered",
    cause
  )

export const longRunNotReleased = (isStoreAway: boolean, cause: Cause.Cause<unknown>): Effect.Effect<void> =>
  (isStoreAway ? Effect.logDebug : Effect.logWarning)(
    "Failed to release the message of a long run; trying again",
    cause
  )

export const progressRefused: Effect.Effect<void> = Effect.logWarning(
  "The progress of the run is not written, since the store is full; the handler runs on"
)

export const progressNotWritten = (isStoreAway: boolean, cause: Cause.Cause<unknown>): Effect.Effect<void> =>
  (isStoreAway ? Effect.logDebug : Effect.logWarning)("Failed to write progress; the handler runs on", cause)

// #endregion
