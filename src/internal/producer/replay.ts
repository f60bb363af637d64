/** Replays dead letters: the steps are those of an enqueue in `enqueue.ts`, with the record opened again. */
import { Clock, Effect } from "effect"
import type { DeadLetter } from "../../BackendDriver.ts"
import type { Envelope } from "../../BrokerDriver.ts"
import type { BrokerError, ReadError } from "../../StoreError.ts"
import * as defaults from "../defaults.ts"
import { mayHaveLapsed, type Stores } from "./enqueue.ts"

/** What became of a dead letter; `Refused`: another task has the id now; `Missing`: there is no such dead letter. */
export type Replayed = "Sent" | "Refused" | "Missing"

/**
 * Opens the task of a dead letter as a reservation, publishes its message, marks the reservation, and removes the dead
 * letter. If that took so long that the reservation may have been removed, and its record is gone, it starts over, since the
 * message is dropped. What was begun is finished.
 */
export const reopenThenPublish = (
  stores: Stores,
  letter: DeadLetter,
  message: Envelope & { readonly generation: number }
): Effect.Effect<Replayed, BrokerError | ReadError> =>
  Effect.gen(function* (): Effect.fn.Return<Replayed, BrokerError | ReadError> {
    const { backend, broker } = stores
    const since = yield* Clock.monotonicTimeNanos
    const [reopened] = yield* backend.reopen([letter.id], defaults.reservedMillis)
    if (reopened === undefined) return "Missing"
    if (!reopened.replayable) return "Refused"
    yield* broker.publish.one(message)
    // a parked message has no task that was opened
    if (letter.taskId !== null) {
      const { generation, id, incarnation = "" } = message
      const isMarked = yield* backend.markPublished.one({ id, incarnation, generation })
      if (!isMarked && (yield* mayHaveLapsed(since))) return yield* reopenThenPublish(stores, letter, message)
    }
    yield* backend.removeDeadLetters([letter.id])
    return "Sent"
  }).pipe(Effect.uninterruptible)
