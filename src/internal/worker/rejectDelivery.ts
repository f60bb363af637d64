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
import { awaited } from "../concurrency/Batcher.ts"
import * as defaults from "../defaults.ts"
import * as TaskId from "../task/TaskId.ts"
import { failure, type Verdict } from "./runOutcome.ts"
import type { Candidate } from "./RunStore.ts"
import { abandon, ackOnly, close, insist, putBack } from "./settle.ts"
import { startOf } from "./startRequest.ts"
import type { Engine } from "./WorkerState.ts"

/** How soon a message of an unknown task is looked at again, and how late at most. */
const unknownBackoff = { min: 1000, max: 5000 }

/** What is done instead of running a delivery, which may have been started already. */
export type Refusal = (engine: Engine, claimed: ClaimedMessage) => Effect.Effect<void>

/** A message of a task that this worker does not know: another may, in a rolling deploy. */
export const refuseUnknown =
  (message: TaskMessage.TaskMessage): Refusal =>
  (engine, { delivery, run }) =>
    Effect.suspend(() => {
      const waited = delivery.waitedMillis ?? delivery.ageMillis
      const left = Duration.toMillis(engine.settings.unknownTaskGrace) - waited
      if (left > 0) {
        const wait = Math.min(Math.max(waited, unknownBackoff.min), unknownBackoff.max)
        return putBack(engine, delivery, Math.ceil(Math.min(wait, left)), true)
      }
      return Effect.flatMap(failure(new UnknownTask()), (verdict) =>
        endWithoutHandler(engine, candidateOf(engine, delivery, message, run), verdict, run?.started)
      )
    })

/** Bytes that are no message. Where their task is known by the envelope, it ends, and whoever waits is told. */
export const refuseMalformed =
  (issue: string): Refusal =>
  (engine, { delivery, run }) =>
    Effect.flatMap(failure(new PayloadInvalid({ issue })), (verdict) => {
      const { id, task } = delivery
      if (id === undefined || task === undefined) return park(engine, delivery, verdict)
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
      return endWithoutHandler(engine, candidateOf(engine, delivery, message, run), verdict, run?.started)
    })

/** A message whose task the store refuses to start, however often it is asked: it cannot hold the id, or read the record. */
export const parkUnstartable = (engine: Engine, delivery: Delivery, error: ReadError): Effect.Effect<void> =>
  Effect.flatMap(
    failure(new PayloadInvalid({ issue: `the task cannot be started: ${error.message}` })),
    (verdict) => park(engine, delivery, verdict)
  )

const candidateOf = (
  engine: Engine,
  delivery: Delivery,
  message: TaskMessage.TaskMessage,
  run: ClaimedMessage["run"]
): Candidate => ({ delivery, message, start: startOf(engine, delivery, message, undefined, run?.token) })

const park = (engine: Engine, delivery: Delivery, verdict: Verdict): Effect.Effect<void> =>
  verdict._tag !== "Failure"
    ? Effect.void
    : insist(
        engine,
        engine.ledger.park(delivery, {
          deadLetterId: TaskId.make(engine.clock.currentTimeMillisUnsafe()),
          reason: verdict.reason,
          exit: verdict.exit
        }) as Effect.Effect<void, { readonly retryable: boolean }>
      ).pipe(
        Effect.catchCause((cause) =>
          Effect.andThen(
            Effect.logError("A message that is none could not be parked; it will come back", cause),
            abandon(engine, delivery)
          )
        )
      )

/** Starts a run, unless it is started, only to end it. */
const endWithoutHandler = (
  engine: Engine,
  candidate: Candidate,
  verdict: Verdict,
  already?: Started
): Effect.Effect<void> =>
  Effect.gen(function* () {
    const started = already ?? (yield* engine.ledger.start([candidate]))[0]
    if (started?._tag === "Busy") return yield* putBack(engine, candidate.delivery, started.millis)
    // a message of an older generation, or of a task that has ended: its bytes are kept all the same if they are odd
    if (started?._tag !== "Run") {
      return verdict._tag === "Failure" && verdict.reason === "PayloadInvalid"
        ? yield* park(engine, candidate.delivery, verdict)
        : yield* ackOnly(engine, candidate.delivery)
    }
    const settled = yield* awaited(engine.ledger.store(candidate, verdict))
    yield* Effect.callback<void>((resume) =>
      close(engine, { candidate, claimed: true }, verdict, settled, () => resume(Effect.void))
    )
    engine.stats.failed++
  }).pipe(
    // what the store will not have in a record it may have in a letter
    Effect.catchIf(
      (error) => error._tag === "BackendError" && !error.retryable,
      () => park(engine, candidate.delivery, verdict)
    ),
    Effect.catchCause((cause) =>
      Effect.andThen(
        Cause.hasInterruptsOnly(cause)
          ? Effect.void
          : Effect.logError("A message without a handler could not be ended; it will come back", cause),
        abandon(engine, candidate.delivery)
      )
    )
  )
