/**
 * Handles deliveries that no handler can run: an unknown task, bytes that do not decode, or an oversized message. Their tasks
 * end with a dead letter that keeps the bytes, except oversized ones, and so complete their waiters. No delivery ends the
 * loop that claimed it.
 */
import { Cause, Duration, Effect } from "effect"
import type { ClaimedMessage, Started } from "../../BackendDriver.ts"
import type { Delivery } from "../../BrokerDriver.ts"
import type { ReadError } from "../../StoreError.ts"
import { PayloadInvalid, UnknownTask } from "../../TaskFailed.ts"
import * as TaskMessage from "../../TaskMessage.ts"
import { toEffect } from "../concurrency/Batcher.ts"
import * as defaults from "../defaults.ts"
import { oversizedIssue } from "../driver/maxMessageBytes.ts"
import * as TaskId from "../task/TaskId.ts"
import { annotateDelivery } from "./annotateDelivery.ts"
import { failureOutcome, type RunOutcome } from "./runOutcome.ts"
import type { StartCandidate } from "./RunStore.ts"
import { returnMessage, ackMessage, ackOrRelease, retryBriefly, release, withoutLargeBody } from "./settle.ts"
import { startRequest } from "./startRequest.ts"
import type { WorkerState } from "./WorkerState.ts"

/** The shortest and the longest delay of a message with an unknown task, in milliseconds. */
const UNKNOWN_BACKOFF = { min: 1000, max: 5000 }

/** Handles a delivery instead of running it. The store may have started it already. */
export type Rejection = (worker: WorkerState, claimed: ClaimedMessage) => Effect.Effect<void>

/**
 * Rejects a message of a task that this worker does not know: it is released until the grace is over, since another
 * worker may know the task in a rolling deploy, and then ended.
 */
export const rejectUnknown =
  (message: TaskMessage.TaskMessage): Rejection =>
  (worker, { delivery, run }) =>
    Effect.suspend(() => {
      const waited = delivery.waitedMillis ?? delivery.ageMillis
      const left = Duration.toMillis(worker.settings.unknownTaskGrace) - waited
      if (left > 0) {
        const wait = Math.min(Math.max(waited, UNKNOWN_BACKOFF.min), UNKNOWN_BACKOFF.max)
        return release(worker, delivery, Math.ceil(Math.min(wait, left)), true)
      }
      return Effect.flatMap(failureOutcome(new UnknownTask()), (outcome) =>
        endWithoutHandler(worker, candidateOf(worker, delivery, message, run), outcome, run?.started)
      )
    })

/** Rejects bytes that do not decode: the task that the envelope names ends; without a name the message is parked. */
export const rejectMalformed =
  (issue: string): Rejection =>
  (worker, { delivery, run }) =>
    Effect.flatMap(failureOutcome(new PayloadInvalid({ issue })), (outcome) => {
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
    failureOutcome(new PayloadInvalid({ issue: `the task cannot be started: ${error.message}` })),
    (outcome) => park(worker, delivery, outcome)
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
    Effect.catchCause((cause) =>
      Effect.andThen(
        Effect.logError("Failed to park a message; it will be redelivered", cause),
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
    // a message of an ended task, or of an older one of its id; undecodable bytes are kept even so
    if (started?._tag !== "Run") {
      return outcome._tag === "Failure" && outcome.reason === "PayloadInvalid"
        ? yield* park(worker, candidate.delivery, outcome)
        : yield* ackMessage(worker, candidate.delivery)
    }
    const settled = yield* toEffect(worker.runStore.saveOutcome(candidate, outcome))
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
        Cause.hasInterruptsOnly(cause)
          ? Effect.void
          : Effect.logError("Failed to end a task without a handler; its message will be redelivered", cause),
        returnMessage(worker, candidate.delivery)
      ).pipe(annotateDelivery(candidate.delivery))
    )
  )
