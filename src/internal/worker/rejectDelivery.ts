/**
 * Deliveries that no handler can take: of a task that this worker does not know, or no message at all. They end as
 * dead letters with their bytes, and whoever waits is told; they never end the loop that claimed them.
 */
import { Cause, Duration, Effect } from "effect"
import type { ClaimedMessage, Started } from "../../BackendDriver.ts"
import type { Delivery } from "../../BrokerDriver.ts"
import type { ReadError } from "../../StoreError.ts"
import { PayloadInvalid, UnknownTask } from "../../TaskFailed.ts"
import * as TaskMessage from "../../TaskMessage.ts"
import { toEffect } from "../concurrency/Batcher.ts"
import * as defaults from "../defaults.ts"
import * as TaskId from "../task/TaskId.ts"
import { failureOutcome, type RunOutcome } from "./runOutcome.ts"
import type { StartCandidate } from "./RunStore.ts"
import { returnUnhandled, ackOnly, releaseMessage, retryBriefly, release } from "./settle.ts"
import { startRequest } from "./startRequest.ts"
import type { WorkerState } from "./WorkerState.ts"

/** How soon a message of an unknown task is looked at again, and how late at most. */
const unknownBackoff = { min: 1000, max: 5000 }

/** What is done instead of running a delivery, which may have been started already. */
export type Rejection = (worker: WorkerState, claimed: ClaimedMessage) => Effect.Effect<void>

/** A message of a task that this worker does not know: another may, in a rolling deploy. */
export const rejectUnknown =
  (message: TaskMessage.TaskMessage): Rejection =>
  (worker, { delivery, run }) =>
    Effect.suspend(() => {
      const waited = delivery.waitedMillis ?? delivery.ageMillis
      const left = Duration.toMillis(worker.settings.unknownTaskGrace) - waited
      if (left > 0) {
        const wait = Math.min(Math.max(waited, unknownBackoff.min), unknownBackoff.max)
        return release(worker, delivery, Math.ceil(Math.min(wait, left)), true)
      }
      return Effect.flatMap(failureOutcome(new UnknownTask()), (outcome) =>
        endWithoutHandler(worker, candidateOf(worker, delivery, message, run), outcome, run?.started)
      )
    })

/** Bytes that are no message. Where their task is known by the envelope, it ends, and whoever waits is told. */
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
        generation: delivery.generation ?? 0,
        queue: delivery.queue,
        payload: null,
        retries: 0,
        priority: defaults.priority
      }
      return endWithoutHandler(worker, candidateOf(worker, delivery, message, run), outcome, run?.started)
    })

/** A message whose task the store refuses to start, however often it is asked: it cannot hold the id, or read the record. */
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

const park = (worker: WorkerState, delivery: Delivery, outcome: RunOutcome): Effect.Effect<void> =>
  outcome._tag !== "Failure"
    ? Effect.void
    : retryBriefly(
        worker,
        worker.runStore.parkMessage(delivery, {
          deadLetterId: TaskId.make(worker.clock.currentTimeMillisUnsafe()),
          reason: outcome.reason,
          exit: outcome.exit
        }) as Effect.Effect<void, { readonly retryable: boolean }>
      ).pipe(
        Effect.catchCause((cause) =>
          Effect.andThen(
            Effect.logError("A message that is none could not be parked; it will come back", cause),
            returnUnhandled(worker, delivery)
          )
        )
      )

/** Starts a run, unless it is started, only to end it. */
const endWithoutHandler = (
  worker: WorkerState,
  candidate: StartCandidate,
  outcome: RunOutcome,
  already?: Started
): Effect.Effect<void> =>
  Effect.gen(function* () {
    const started = already ?? (yield* worker.runStore.start([candidate]))[0]
    if (started?._tag === "Busy") return yield* release(worker, candidate.delivery, started.millis)
    // a message of an older generation, or of a task that has ended: its bytes are kept all the same if they are odd
    if (started?._tag !== "Run") {
      return outcome._tag === "Failure" && outcome.reason === "PayloadInvalid"
        ? yield* park(worker, candidate.delivery, outcome)
        : yield* ackOnly(worker, candidate.delivery)
    }
    const settled = yield* toEffect(worker.runStore.saveOutcome(candidate, outcome))
    yield* Effect.callback<void>((resume) =>
      releaseMessage(worker, { candidate, claimed: true }, outcome, settled, () => resume(Effect.void))
    )
    worker.stats.failed++
  }).pipe(
    // what the store will not have in a record it may have in a letter
    Effect.catchIf(
      (error) => error._tag === "BackendError" && !error.retryable,
      () => park(worker, candidate.delivery, outcome)
    ),
    Effect.catchCause((cause) =>
      Effect.andThen(
        Cause.hasInterruptsOnly(cause)
          ? Effect.void
          : Effect.logError("A message without a handler could not be ended; it will come back", cause),
        returnUnhandled(worker, candidate.delivery)
      )
    )
  )
