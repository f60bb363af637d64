/**
 * Who decides which delivery runs, and keeps what became of it: the record in the backend, or, without a backend,
 * the message itself. Only here do the two differ.
 *
 * The order that loses nothing: store the outcome, then ack. A redelivery that finds the outcome acks only.
 */
import { Array as Arr, Effect, Exit, Option } from "effect"
import type { BackendService as BackendFacade } from "../../Backend.ts"
import type {
  ClaimedMessage,
  Outcome,
  Renewed,
  Settlement,
  Start,
  Started,
  StartDefaults
} from "../../BackendDriver.ts"
import type { BrokerService as BrokerFacade } from "../../Broker.ts"
import type { ClaimRequest, Delivery, Envelope, Batch } from "../../BrokerDriver.ts"
import type { ReadError, BrokerError } from "../../StoreError.ts"
import * as TaskMessage from "../../TaskMessage.ts"
import { type Ask, known } from "../concurrency/Batcher.ts"
import * as defaults from "../defaults.ts"
import { fusionOf } from "../driver/fusion.ts"
import { stringify } from "../json.ts"
import { leavesLetter, type Verdict } from "./runOutcome.ts"

/** A delivery that asks to run. */
export interface Candidate {
  readonly delivery: Delivery
  readonly message: TaskMessage.TaskMessage
  readonly start: Start
}

/** What a ledger says of a settled run. `Lost`: it was superseded, and nothing was written. */
export type Settled = "Stored" | "Cancelled" | "Lost"

/** A run's hold on its task: what there is to renew. */
export interface Hold {
  readonly candidate: Candidate
  /** The message is still claimed: not acked yet. */
  readonly claimed: boolean
}

/** Keeps runs. */
export interface Ledger {
  /** Whether records exist: tokens, cancel requests, progress. */
  readonly recorded: boolean
  /** Claims, and starts at once what the store can start in the same step. */
  readonly claim: (
    claim: ClaimRequest
  ) => Effect.Effect<ReadonlyArray<ClaimedMessage>, ReadError | BrokerError>
  readonly start: (candidates: Batch<Candidate>) => Effect.Effect<ReadonlyArray<Started>, ReadError>
  /** The first half of an end: what makes it durable. */
  readonly store: (candidate: Candidate, verdict: Verdict) => Ask<Settled, ReadError>
  /** The end of a success, in the transaction that the calling fiber is in; `undefined`: there can be none. */
  readonly complete:
    | ((candidate: Candidate, verdict: Verdict, claimed: boolean) => Effect.Effect<Settled, ReadError>)
    | undefined
  /** The second half: what becomes of the message. */
  readonly close: (hold: Hold, verdict: Verdict, settled: Settled) => Ask<unknown, BrokerError>
  /** Renews what is held. A hold without an answer failed to be renewed. */
  readonly renew: (
    holds: Batch<Hold>,
    leaseMillis: number
  ) => Effect.Effect<ReadonlyArray<Renewed | undefined>>
  /** A message that no run can be made of. */
  readonly park: (
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

const done = known(Exit.void)
const stored = known<Settled, never>(Exit.succeed("Stored"))

/** Renews claims; `undefined` where the call failed. */
const renewClaims = (broker: BrokerFacade, holds: ReadonlyArray<Hold>, leaseMillis: number) => {
  const handles = holds.filter(({ claimed }) => claimed).map(({ candidate }) => candidate.delivery.handle)
  return Arr.isArrayNonEmpty(handles)
    ? Effect.map(Effect.exit(broker.renew(handles, leaseMillis)), Exit.getSuccess)
    : Effect.succeedSome<ReadonlyArray<boolean>>([])
}

/** Runs are kept by their records; tasks with start defaults may be started as they are claimed. */
export const recorded = (
  backend: BackendFacade,
  broker: BrokerFacade,
  startDefaults: ReadonlyArray<StartDefaults>
): Ledger => {
  const fusion = fusionOf({ backend, broker })
  const ledger = twoSteps(backend, broker)
  if (fusion === undefined) return ledger
  const { claim } = fusion
  return {
    ...ledger,
    ...(claim === undefined ? {} : { claim: (asked: ClaimRequest) => claim({ ...asked, startDefaults }) }),
    store: ({ delivery: { handle }, start }, verdict) =>
      fusion.settle.ask({ settlement: settlementOf(start, verdict), handle }),
    complete: completing(backend, true),
    close: () => done
  }
}

/** For a message that was let go of while its task ran: the one that is on its way may come too late. */
const envelopeAgain = (
  { delivery, message: { expires, generation, id, priority, task } }: Candidate,
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

const completing = ({ complete }: BackendFacade, acks: boolean): Ledger["complete"] =>
  complete === undefined
    ? undefined
    : ({ delivery: { handle }, start }, verdict, claimed) =>
        complete({ settlement: settlementOf(start, verdict), handle: acks && claimed ? handle : undefined })

const twoSteps = (backend: BackendFacade, broker: BrokerFacade): Ledger => ({
  recorded: true,
  claim: claimOnly(broker),
  start: (candidates) => backend.start(Arr.map(candidates, ({ start }) => start)),
  store: ({ start }, verdict) => backend.settle.ask(settlementOf(start, verdict)),
  complete: completing(backend, false),
  close: ({ candidate, claimed }, verdict, settled) => {
    const { handle } = candidate.delivery
    if (settled === "Lost") return broker.returnUnhandled.ask(handle)
    if (settled === "Cancelled" || verdict._tag === "Success" || verdict._tag === "Failure")
      return broker.ack.ask(handle)
    const afterMillis = verdict._tag === "Retry" ? verdict.afterMillis : 0
    return claimed || candidate.start.deliveryMode === "at-most-once"
      ? broker.release.ask({ handle, afterMillis })
      : broker.publish.ask(envelopeAgain(candidate, afterMillis))
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
  park: (delivery, { deadLetterId, exit, reason }) =>
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

const settlementOf = (start: Start, verdict: Verdict): Settlement => ({
  id: start.id,
  token: start.token,
  outcome: outcomeOf(start, verdict)
})

const outcomeOf = ({ body, queue, retentionMillis }: Start, verdict: Verdict): Outcome => {
  switch (verdict._tag) {
    case "Success":
      return { _tag: "Success", exit: verdict.exit, retentionMillis }
    case "Failure":
      return {
        _tag: "Failure",
        exit: verdict.exit,
        retentionMillis,
        deadLetter: leavesLetter(verdict.reason)
          ? { reason: verdict.reason, queue, body, retentionMillis: defaults.deadLetterRetentionMillis }
          : undefined
      }
    case "Retry":
    case "Release":
      return verdict
  }
}

/** Without a backend the message counts its own retries, and the broker parks what failed for good. */
export const messageOnly = (broker: BrokerFacade): Ledger => ({
  recorded: false,
  claim: claimOnly(broker),
  start: (candidates) =>
    Effect.succeed(
      Arr.map(candidates, ({ delivery, message }): Started => {
        if (message.expires !== undefined && delivery.ageMillis >= message.expires) return { _tag: "Drop" }
        const attempt = message.retries + 1
        return { _tag: "Run", fence: attempt, attempt, retries: message.retries, crashes: 0 }
      })
    ),
  store: () => stored,
  complete: undefined,
  close: (
    {
      candidate: {
        delivery: { handle },
        message
      }
    },
    verdict
  ) => {
    switch (verdict._tag) {
      case "Success":
        return broker.ack.ask(handle)
      case "Failure":
        return leavesLetter(verdict.reason)
          ? broker.reject.ask({ handle, reason: verdict.reason })
          : broker.ack.ask(handle)
      case "Retry": {
        const { payload, ...head } = message
        const text = stringify(payload)
        // it cannot be sent again
        if (Exit.isFailure(text)) return broker.reject.ask({ handle, reason: "PayloadInvalid" })
        return broker.release.ask({
          handle,
          afterMillis: verdict.afterMillis,
          body: TaskMessage.encode({ ...head, retries: head.retries + 1 }, text.value)
        })
      }
      case "Release":
        return broker.release.ask({ handle, afterMillis: 0 })
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
  park: ({ handle }, { reason }) => broker.reject.one({ handle, reason })
})
