/**
 * Handles deliveries that no handler can run.
 *
 * A message that this worker cannot run, but another might (an unknown task), is put back: its task ends when its grace is over
 * and no live worker can run it. The task of a message that no worker can run (bytes that do not decode, an oversized body)
 * ends at once. The end leaves a dead letter that keeps the bytes, except oversized ones, and completes the waiters. No
 * delivery ends the loop that claimed it.
 */
import { Array as Arr, Cause, Duration, Effect, Option } from "effect"
import type { ClaimedMessage, Settled, Started, WorkerInfo } from "../../BackendDriver.ts"
import type { Delivery, SetAside, SetAsideTask } from "../../BrokerDriver.ts"
import type { BrokerError, ReadError } from "../../StoreError.ts"
import * as TaskFailed from "../../TaskFailed.ts"
import * as TaskMessage from "../../TaskMessage.ts"
import { toEffect } from "../concurrency/Batcher.ts"
import * as defaults from "../defaults.ts"
import { maxBatch } from "../driver/driverCalls.ts"
import { oversizedIssue } from "../driver/maxMessageBytes.ts"
import * as TaskId from "../task/TaskId.ts"
import { annotateDelivery } from "./annotateDelivery.ts"
import { reportEndedByStart, reportRejected } from "./reportRun.ts"
import { failureOutcome, isDeadLettered, type RunOutcome } from "./runOutcome.ts"
import type { StartCandidate } from "./RunStore.ts"
import { returnMessage, ackMessage, ackOrRelease, retryBriefly, release, withoutLargeBody } from "./settle.ts"
import { startRequest } from "./startRequest.ts"
import { isStoreAway, noteFailure } from "./storeOutages.ts"
import * as workerLog from "./workerLog.ts"
import type { WorkerState } from "./WorkerState.ts"

/** The shortest and the longest time for which a message is put back that this worker cannot run, in milliseconds. */
const UNRUNNABLE_BACKOFF = { min: 1000, max: 30_000 }
/** How many workers a reason names. */
const MAX_WORKERS_NAMED = 10

/** Handles a delivery instead of running it. The store may have started it already. */
export type Rejection = (worker: WorkerState, claimed: ClaimedMessage) => Effect.Effect<void>

/** What this worker lacks for a message. */
interface Unrunnable {
  /** Whether a worker that listens to the queue can run the message. */
  readonly isRunnableBy: (listener: WorkerInfo) => boolean
  /** The reason with which its task ends; `workers` listen to the queue, and cannot run it. */
  readonly reason: (workers: ReadonlyArray<string>) => TaskFailed.Reason<never>
}

const unknownTask = (task: string): Unrunnable => ({
  isRunnableBy: ({ tasks }) => tasks.includes(task),
  reason: (workers) => new TaskFailed.UnknownTask({ workers })
})

/**
 * The rule for messages that this worker cannot run, although they may decode. Another worker may be able to, as in a rolling
 * deploy: such a message waits, with nothing counted. Returns the outcome of its task once the grace is over, counted from
 * the due time, and no live worker of the queue can run it; `undefined` before that.
 */
const outcomeOfUnrunnable = (
  worker: WorkerState,
  queue: string,
  waitedMillis: number,
  unrunnable: Unrunnable
): Effect.Effect<Extract<RunOutcome, { readonly _tag: "Failure" }> | undefined> =>
  waitedMillis < Duration.toMillis(worker.settings.unknownTaskGrace)
    ? Effect.succeed(undefined)
    : Effect.flatMap(unableWorkers(worker, queue, unrunnable), (workers) =>
        workers === undefined ? Effect.succeed(undefined) : failureOutcome(unrunnable.reason(workers))
      )

/** Rejects a message of a task that this worker does not know. */
export const rejectUnknown = (message: TaskMessage.TaskMessage): Rejection =>
  rejectUnrunnable(message, unknownTask(message.task))

/** Ends the task of a message that this worker cannot run, or puts it back. */
const rejectUnrunnable =
  (message: TaskMessage.TaskMessage, unrunnable: Unrunnable): Rejection =>
  (worker, { delivery, run }) =>
    Effect.gen(function* () {
      const waited = delivery.waitedMillis ?? delivery.ageMillis
      const outcome = yield* outcomeOfUnrunnable(worker, delivery.queue, waited, unrunnable)
      if (outcome !== undefined) {
        const candidate = candidateOf(worker, delivery, message, run)
        return yield* endWithoutHandler(worker, candidate, outcome, run?.started)
      }
      const left = Duration.toMillis(worker.settings.unknownTaskGrace) - waited
      const wait = Math.ceil(
        Math.min(Math.max(waited, UNRUNNABLE_BACKOFF.min), UNRUNNABLE_BACKOFF.max, left > 0 ? left : Infinity)
      )
      yield* release(worker, delivery, wait, true)
      if (worker.logs.Debug) yield* workerLog.unknownPutBack(wait).pipe(annotateDelivery(delivery))
    })

/**
 * Ends tasks that this worker does not know, whose messages were set aside in the store, and have waited for the grace. They
 * are claimed and ended in batches: returns how many, and 0 where they wait on, or none is left.
 */
export const endUnknownTasks = (
  worker: WorkerState,
  { claim }: SetAside<BrokerError>,
  { queue, task, waitedMillis }: SetAsideTask
): Effect.Effect<number, BrokerError> =>
  Effect.gen(function* () {
    const outcome = yield* outcomeOfUnrunnable(worker, queue, waitedMillis, unknownTask(task))
    if (outcome === undefined) return 0
    const deliveries = yield* claim({
      queue,
      task,
      minWaitedMillis: Duration.toMillis(worker.settings.unknownTaskGrace),
      max: maxBatch,
      leaseMillis: worker.leaseMillis,
      worker: worker.id
    })
    const candidates = deliveries.map((delivery) =>
      candidateOf(worker, delivery, messageOfEnvelope(delivery), undefined)
    )
    if (!Arr.isReadonlyArrayNonEmpty(candidates)) return 0
    // where a batch fails, each is started alone
    const started = yield* Effect.orElseSucceed(worker.runStore.start(candidates), () => [])
    yield* Effect.forEach(
      candidates,
      (candidate, i) => endWithoutHandler(worker, candidate, outcome, started[i]),
      { concurrency: "unbounded", discard: true }
    )
    return candidates.length
  })

/**
 * Returns the ids of the live workers of a queue, if none of them can run a message; `undefined` if one can, or if that is
 * not known: the list cannot be read, or lacks this worker, and so perhaps others. Without records there is no list.
 */
const unableWorkers = (
  worker: WorkerState,
  queue: string,
  { isRunnableBy }: Unrunnable
): Effect.Effect<ReadonlyArray<string> | undefined> =>
  !worker.runStore.hasRecords
    ? Effect.succeed([worker.id])
    : Effect.map(worker.liveWorkers, (live) => {
        if (Option.isNone(live) || !live.value.some(({ id }) => id === worker.id)) return undefined
        const listeners = live.value.filter(({ queues }) => queues.includes(queue))
        if (listeners.some(isRunnableBy)) return undefined
        return listeners
          .map(({ id }) => id)
          .toSorted()
          .slice(0, MAX_WORKERS_NAMED)
      })

/** Rejects bytes that do not decode: the task that the envelope names ends; without a name the message is parked. */
export const rejectMalformed =
  (issue: string): Rejection =>
  (worker, { delivery, run }) =>
    Effect.flatMap(failureOutcome(new TaskFailed.PayloadInvalid({ issue })), (outcome) => {
      if (delivery.id === undefined || delivery.task === undefined) return park(worker, delivery, outcome)
      const candidate = candidateOf(worker, delivery, messageOfEnvelope(delivery), run)
      return endWithoutHandler(worker, candidate, outcome, run?.started)
    })

/** Returns a message for the start of a task of which the envelope is all that is known. */
const messageOfEnvelope = ({
  generation = 0,
  id = "",
  incarnation,
  queue,
  task = ""
}: Delivery): TaskMessage.TaskMessage => ({
  v: TaskMessage.version,
  id,
  task,
  ...(incarnation ? { incarnation } : {}),
  generation,
  queue,
  payload: null,
  retries: 0,
  priority: defaults.priority
})

/** Rejects a message whose body the store did not load, as it is oversized: its dead letter has no body. */
export const rejectOversized = (bytes: number): Rejection => rejectMalformed(oversizedIssue(bytes))

/** Parks a message whose task the store can never start: it cannot hold the id, or not read the record. */
export const parkUnstartable = (
  worker: WorkerState,
  delivery: Delivery,
  error: ReadError
): Effect.Effect<void> =>
  Effect.flatMap(
    failureOutcome(new TaskFailed.PayloadInvalid({ issue: `the task cannot be started: ${error.message}` })),
    (outcome) => park(worker, delivery, { ...outcome, cause: Cause.fail(error) })
  )

const candidateOf = (
  worker: WorkerState,
  delivery: Delivery,
  message: TaskMessage.TaskMessage,
  run: ClaimedMessage["run"]
): StartCandidate => ({
  delivery,
  message,
  start: startRequest(worker, delivery, message, undefined, run?.token)
})

const park = (worker: WorkerState, delivery: Delivery, outcome: RunOutcome): Effect.Effect<void> => {
  if (outcome._tag !== "Failure") return Effect.void
  const { exit, reason } = outcome
  const deadLetterId = TaskId.make(worker.clock.currentTimeMillisUnsafe())
  const parkBody = (body: Delivery["body"]) =>
    worker.runStore.parkMessage({ ...delivery, body }, { deadLetterId, reason, exit })
  return retryBriefly(
    worker,
    withoutLargeBody(delivery, parkBody(delivery.body), parkBody) as Effect.Effect<
      void,
      { readonly retryable: boolean }
    >
  ).pipe(
    Effect.tap(() => {
      worker.countDeadLetter(delivery.task)
      return workerLog.messageParked(reason, outcome.cause)
    }),
    Effect.catchCause((cause) =>
      Effect.andThen(
        workerLog.messageNotParked(isStoreAway(worker, cause), cause),
        returnMessage(worker, delivery)
      )
    ),
    annotateDelivery(delivery)
  )
}

/** Starts a run, unless the store has started it, and settles it with a failure. */
const endWithoutHandler = (
  worker: WorkerState,
  candidate: StartCandidate,
  outcome: RunOutcome,
  startedByStore?: Started
): Effect.Effect<void> =>
  Effect.gen(function* () {
    const started = startedByStore ?? (yield* worker.runStore.start([candidate]))[0]
    if (started?._tag === "Busy") return yield* release(worker, candidate.delivery, started.millis)
    if (started?._tag === "Drop" && started.ended !== undefined) {
      reportEndedByStart(worker, candidate, started.ended)
    }
    // a message of an ended task, or of an older one of its id; undecodable bytes are kept even so
    if (started?._tag !== "Run") {
      return outcome._tag === "Failure" && outcome.reason === "PayloadInvalid"
        ? yield* park(worker, candidate.delivery, outcome)
        : yield* ackMessage(worker, candidate.delivery)
    }
    const settled = yield* toEffect(worker.runStore.saveOutcome(candidate, outcome))
    yield* worker.settings.backend.outages.succeeded
    countRejected(worker, candidate, outcome, settled)
    reportRejected(worker, candidate, started.attempt, outcome, settled)
    yield* Effect.callback<void>((resume) =>
      ackOrRelease(worker, { candidate, claimed: true }, outcome, settled, () => resume(Effect.void))
    )
  }).pipe(
    // the store may accept in a dead letter what it refuses in a record
    Effect.catchIf(
      (error) => error._tag === "BackendError" && !error.retryable,
      () => park(worker, candidate.delivery, outcome)
    ),
    Effect.catchCause((cause) =>
      Effect.andThen(logNotEnded(worker, cause), returnMessage(worker, candidate.delivery)).pipe(
        annotateDelivery(candidate.delivery)
      )
    )
  )

const countRejected = (
  worker: WorkerState,
  { message }: StartCandidate,
  outcome: RunOutcome,
  settled: Settled
): void => {
  if (settled === "Lost") return
  worker.stats.failed++
  if (settled === "Stored" && outcome._tag === "Failure" && isDeadLettered(outcome)) {
    worker.countDeadLetter(message.task)
  }
}

/** Logs the failure of a call that was not repeated: a redelivery repeats it. */
const logNotEnded = (worker: WorkerState, cause: Cause.Cause<unknown>): Effect.Effect<void> =>
  Cause.hasInterruptsOnly(cause)
    ? Effect.void
    : Effect.andThen(
        noteFailure(worker, cause),
        Effect.suspend(() => workerLog.taskNotEnded(isStoreAway(worker, cause), cause))
      )
