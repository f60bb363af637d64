/**
 * Handles deliveries that no handler can run.
 *
 * A message that this worker cannot run, but another might (an unknown task), is put back: its task ends when its grace is over
 * and no live worker can run it. The task of a message that no worker can run (bytes that do not decode, an oversized body)
 * ends at once. The end leaves a dead letter that keeps the bytes, except oversized ones, and completes the waiters. No
 * delivery ends the loop that claimed it.
 */
import { Cause, Duration, Effect, Option } from "effect"
import type { ClaimedMessage, Started, WorkerInfo } from "../../BackendDriver.ts"
import type { Delivery } from "../../BrokerDriver.ts"
import type { ReadError } from "../../StoreError.ts"
import * as TaskFailed from "../../TaskFailed.ts"
import * as TaskMessage from "../../TaskMessage.ts"
import { toEffect } from "../concurrency/Batcher.ts"
import * as defaults from "../defaults.ts"
import { oversizedIssue } from "../driver/maxMessageBytes.ts"
import * as TaskId from "../task/TaskId.ts"
import { annotateDelivery } from "./annotateDelivery.ts"
import { reportRejected } from "./reportRun.ts"
import { failureOutcome, type RunOutcome } from "./runOutcome.ts"
import type { StartCandidate } from "./RunStore.ts"
import { returnMessage, ackMessage, ackOrRelease, retryBriefly, release, withoutLargeBody } from "./settle.ts"
import { startRequest } from "./startRequest.ts"
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

/** Rejects a message of a task that this worker does not know. */
export const rejectUnknown = (message: TaskMessage.TaskMessage): Rejection =>
  rejectUnrunnable(message, {
    isRunnableBy: ({ tasks }) => tasks.includes(message.task),
    reason: (workers) => new TaskFailed.UnknownTask({ workers })
  })

/**
 * Rejects a message that this worker cannot run, although it decodes. Another worker may be able to, as in a rolling deploy:
 * the message is put back, with nothing counted. Its task ends only when the grace is over, counted from the due time, and no
 * live worker of the queue can run it.
 */
const rejectUnrunnable =
  (message: TaskMessage.TaskMessage, unrunnable: Unrunnable): Rejection =>
  (worker, { delivery, run }) =>
    Effect.gen(function* () {
      const waited = delivery.waitedMillis ?? delivery.ageMillis
      const left = Duration.toMillis(worker.settings.unknownTaskGrace) - waited
      const putBack = (atMost: number) => {
        const wait = Math.min(Math.max(waited, UNRUNNABLE_BACKOFF.min), UNRUNNABLE_BACKOFF.max, atMost)
        return release(worker, delivery, Math.ceil(wait), true)
      }
      if (left > 0) return yield* putBack(left)
      const workers = yield* unableWorkers(worker, delivery.queue, unrunnable)
      if (workers === undefined) return yield* putBack(Infinity)
      const outcome = yield* failureOutcome(unrunnable.reason(workers))
      return yield* endWithoutHandler(
        worker,
        candidateOf(worker, delivery, message, run),
        outcome,
        run?.started
      )
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
      const { id, task } = delivery
      if (id === undefined || task === undefined) return park(worker, delivery, outcome)
      const message: TaskMessage.TaskMessage = {
        v: TaskMessage.version,
        id,
        task,
        ...(delivery.incarnation ? { incarnation: delivery.incarnation } : {}),
        generation: delivery.generation ?? 0,
        queue: delivery.queue,
        payload: null,
        retries: 0,
        priority: defaults.priority
      }
      return endWithoutHandler(worker, candidateOf(worker, delivery, message, run), outcome, run?.started)
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
    Effect.tap(workerLog.messageParked(reason, outcome.cause)),
    Effect.catchCause((cause) =>
      Effect.andThen(workerLog.messageNotParked(cause), returnMessage(worker, delivery))
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
    // a message of an ended task, or of an older one of its id; undecodable bytes are kept even so
    if (started?._tag !== "Run") {
      return outcome._tag === "Failure" && outcome.reason === "PayloadInvalid"
        ? yield* park(worker, candidate.delivery, outcome)
        : yield* ackMessage(worker, candidate.delivery)
    }
    const settled = yield* toEffect(worker.runStore.saveOutcome(candidate, outcome))
    reportRejected(worker, candidate, started.attempt, outcome, settled)
    yield* Effect.callback<void>((resume) =>
      ackOrRelease(worker, { candidate, claimed: true }, outcome, settled, () => resume(Effect.void))
    )
    worker.stats.failed++
  }).pipe(
    // the store may accept in a dead letter what it refuses in a record
    Effect.catchIf(
      (error) => error._tag === "BackendError" && !error.retryable,
      () => park(worker, candidate.delivery, outcome)
    ),
    Effect.catchCause((cause) =>
      Effect.andThen(
        Cause.hasInterruptsOnly(cause) ? Effect.void : workerLog.taskNotEnded(cause),
        returnMessage(worker, candidate.delivery)
      ).pipe(annotateDelivery(candidate.delivery))
    )
  )
