/**
 * Who decides which delivery runs, and keeps what became of it: the record in the backend, or, without a backend,
 * the message itself. Only here do the two differ.
 *
 * The order that loses nothing: store the outcome, then ack. A redelivery that finds the outcome acks only.
 */
import { Array as Arr, Effect, Exit, Option } from "effect"
import type {
  ClaimedMessage,
  Outcome,
  Renewed,
  Settlement,
  Start,
  Started,
  StartDefaults
} from "../../BackendDriver.ts"
import type { ClaimRequest, Delivery, Envelope, Batch } from "../../BrokerDriver.ts"
import type { ReadError, BrokerError } from "../../StoreError.ts"
import * as TaskMessage from "../../TaskMessage.ts"
import { type Request, resolved } from "../concurrency/Batcher.ts"
import * as defaults from "../defaults.ts"
import type { BackendService as BackendFacade } from "../driver/BackendService.ts"
import type { BrokerService as BrokerFacade } from "../driver/BrokerService.ts"
import { fusionOf } from "../driver/fusion.ts"
import { stringify } from "../json.ts"
import { isDeadLettered, type RunOutcome } from "./runOutcome.ts"

/** A delivery that asks to run. */
export interface StartCandidate {
  readonly delivery: Delivery
  readonly message: TaskMessage.TaskMessage
  readonly start: Start
}

/** What a ledger says of a settled run. `Lost`: it was superseded, and nothing was written. */
export type Settled = "Stored" | "Cancelled" | "Lost"

/** A run's hold on its task: what there is to renew. */
export interface LeasedRun {
  readonly candidate: StartCandidate
  /** The message is still claimed: not acked yet. */
  readonly claimed: boolean
}

/** Keeps runs. */
export interface RunStore {
  /** Whether records exist: tokens, cancel requests, progress. */
  readonly hasRecords: boolean
  /** Claims, and starts at once what the store can start in the same step. */
  readonly claim: (
    claim: ClaimRequest
  ) => Effect.Effect<ReadonlyArray<ClaimedMessage>, ReadError | BrokerError>
  readonly start: (candidates: Batch<StartCandidate>) => Effect.Effect<ReadonlyArray<Started>, ReadError>
  /** The first half of an end: what makes it durable. */
  readonly saveOutcome: (candidate: StartCandidate, outcome: RunOutcome) => Request<Settled, ReadError>
  /** The end of a success, in the transaction that the calling fiber is in; `undefined`: there can be none. */
  readonly complete:
    | ((
        candidate: StartCandidate,
        outcome: RunOutcome,
        claimed: boolean
      ) => Effect.Effect<Settled, ReadError>)
    | undefined
  /** The second half: what becomes of the message. */
  readonly releaseMessage: (
    hold: LeasedRun,
    outcome: RunOutcome,
    settled: Settled
  ) => Request<unknown, BrokerError>
  /** Renews what is held. A hold without an answer failed to be renewed. */
  readonly renew: (
    holds: Batch<LeasedRun>,
    leaseMillis: number
  ) => Effect.Effect<ReadonlyArray<Renewed | undefined>>
  /** A message that no run can be made of. */
  readonly parkMessage: (
    delivery: Delivery,
    letter: { readonly deadLetterId: string; readonly reason: string; readonly exit: string }
  ) => Effect.Effect<void, ReadError | BrokerError>
}

const claimOnly =
  (broker: BrokerFacade) =>
  (claim: ClaimRequest): Effect.Effect<ReadonlyArray<ClaimedMessage>, BrokerError> =>
    Effect.map(
      broker.claim(claim),
      Arr.map((delivery) => ({ delivery, run: undefined }))
    )

const done = resolved(Exit.void)
const stored = resolved<Settled, never>(Exit.succeed("Stored"))

/** Renews claims; `undefined` where the call failed. */
const renewClaims = (broker: BrokerFacade, holds: ReadonlyArray<LeasedRun>, leaseMillis: number) => {
  const handles = holds.filter(({ claimed }) => claimed).map(({ candidate }) => candidate.delivery.handle)
  return Arr.isArrayNonEmpty(handles)
    ? Effect.map(Effect.exit(broker.renew(handles, leaseMillis)), Exit.getSuccess)
    : Effect.succeedSome<ReadonlyArray<boolean>>([])
}

/** Runs are kept by their records; tasks with start defaults may be started as they are claimed. */
const withRecords = (
  backend: BackendFacade,
  broker: BrokerFacade,
  startDefaults: ReadonlyArray<StartDefaults>
): RunStore => {
  const fusion = fusionOf({ backend, broker })
  const ledger = unfused(backend, broker)
  if (fusion === undefined) return ledger
  const { claim } = fusion
  return {
    ...ledger,
    ...(claim === undefined ? {} : { claim: (asked: ClaimRequest) => claim({ ...asked, startDefaults }) }),
    saveOutcome: ({ delivery: { handle }, start }, outcome) =>
      fusion.settle.request({ settlement: settlementOf(start, outcome), handle }),
    complete: completing(backend, true),
    releaseMessage: () => done
  }
}

/** For a message that was let go of while its task ran: the one that is on its way may come too late. */
const republishedEnvelope = (
  { delivery, message: { expires, generation, id, priority, task } }: StartCandidate,
  delayMillis: number
): Envelope => ({
  id,
  task,
  generation,
  priority,
  expiresMillis: expires,
  queue: delivery.queue,
  delayMillis,
  body: typeof delivery.body === "string" ? delivery.body : new TextDecoder().decode(delivery.body)
})

const completing = ({ complete }: BackendFacade, acks: boolean): RunStore["complete"] =>
  complete === undefined
    ? undefined
    : ({ delivery: { handle }, start }, outcome, claimed) =>
        complete({ settlement: settlementOf(start, outcome), handle: acks && claimed ? handle : undefined })

const unfused = (backend: BackendFacade, broker: BrokerFacade): RunStore => ({
  hasRecords: true,
  claim: claimOnly(broker),
  start: (candidates) => backend.start(Arr.map(candidates, ({ start }) => start)),
  saveOutcome: ({ start }, outcome) => backend.settle.request(settlementOf(start, outcome)),
  complete: completing(backend, false),
  releaseMessage: ({ candidate, claimed }, outcome, settled) => {
    const { handle } = candidate.delivery
    if (settled === "Lost") return broker.returnUnhandled.request(handle)
    if (settled === "Cancelled" || outcome._tag === "Success" || outcome._tag === "Failure")
      return broker.ack.request(handle)
    const afterMillis = outcome._tag === "Retry" ? outcome.afterMillis : 0
    return claimed || candidate.start.deliveryMode === "at-most-once"
      ? broker.release.request({ handle, afterMillis })
      : broker.publish.request(republishedEnvelope(candidate, afterMillis))
  },
  // the record decides; the claim only keeps the message from being delivered for nothing
  renew: (holds, leaseMillis) =>
    Effect.map(
      Effect.all(
        [
          backend.renew.many(
            Arr.map(holds, ({ candidate: { start } }) => ({ id: start.id, token: start.token, leaseMillis }))
          ),
          renewClaims(broker, holds, leaseMillis)
        ],
        { concurrency: 2 }
      ),
      ([answers]) => answers.map((answer) => Option.getOrUndefined(Exit.getSuccess(answer)))
    ),
  parkMessage: (delivery, { deadLetterId, exit, reason }) =>
    Effect.andThen(
      backend.parkMessage([
        {
          deadLetterId,
          queue: delivery.queue,
          reason,
          exit,
          body: delivery.body,
          retentionMillis: defaults.deadLetterRetentionMillis
        }
      ]),
      Effect.asVoid(broker.ack.one(delivery.handle))
    )
})

const settlementOf = (start: Start, outcome: RunOutcome): Settlement => ({
  id: start.id,
  token: start.token,
  outcome: outcomeOf(start, outcome)
})

const outcomeOf = ({ body, queue, retentionMillis }: Start, outcome: RunOutcome): Outcome => {
  switch (outcome._tag) {
    case "Success":
      return { _tag: "Success", exit: outcome.exit, retentionMillis }
    case "Failure":
      return {
        _tag: "Failure",
        exit: outcome.exit,
        retentionMillis,
        deadLetter: isDeadLettered(outcome.reason)
          ? { reason: outcome.reason, queue, body, retentionMillis: defaults.deadLetterRetentionMillis }
          : undefined
      }
    case "Retry":
    case "Release":
      return outcome
  }
}

/** Without a backend the message counts its own retries, and the broker parks what failed for good. */
const withoutRecords = (broker: BrokerFacade): RunStore => ({
  hasRecords: false,
  claim: claimOnly(broker),
  start: (candidates) =>
    Effect.succeed(
      Arr.map(candidates, ({ delivery, message }): Started => {
        if (message.expires !== undefined && delivery.ageMillis >= message.expires) return { _tag: "Drop" }
        const attempt = message.retries + 1
        return { _tag: "Run", fence: attempt, attempt, retries: message.retries, crashes: 0 }
      })
    ),
  saveOutcome: () => stored,
  complete: undefined,
  releaseMessage: (
    {
      candidate: {
        delivery: { handle },
        message
      }
    },
    outcome
  ) => {
    switch (outcome._tag) {
      case "Success":
        return broker.ack.request(handle)
      case "Failure":
        return isDeadLettered(outcome.reason)
          ? broker.reject.request({ handle, reason: outcome.reason })
          : broker.ack.request(handle)
      case "Retry": {
        const { payload, ...head } = message
        const text = stringify(payload)
        // it cannot be sent again
        if (Exit.isFailure(text)) return broker.reject.request({ handle, reason: "PayloadInvalid" })
        return broker.release.request({
          handle,
          afterMillis: outcome.afterMillis,
          body: TaskMessage.encode({ ...head, retries: head.retries + 1 }, text.value)
        })
      }
      case "Release":
        return broker.release.request({ handle, afterMillis: 0 })
    }
  },
  renew: (holds, leaseMillis) =>
    Effect.map(renewClaims(broker, holds, leaseMillis), (answer) => {
      let next = 0
      return holds.map(({ claimed }): Renewed | undefined => {
        if (!claimed) return "Held"
        const held = Option.isSome(answer) ? answer.value[next++] : undefined
        return held === undefined ? undefined : held ? "Held" : "Lost"
      })
    }),
  parkMessage: ({ handle }, { reason }) => broker.reject.one({ handle, reason })
})

/** Makes the run store of a worker: with records if there is a backend, and otherwise without. */
export const makeRunStore = (
  backend: BackendFacade,
  broker: BrokerFacade,
  startDefaults: ReadonlyArray<StartDefaults>
): RunStore => (backend.configured ? withRecords(backend, broker, startDefaults) : withoutRecords(broker))
