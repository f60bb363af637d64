/**
 * Where the runs of a worker are kept: in the backend's records, or, without a backend, in the messages themselves.
 * Only this module knows which.
 *
 * The order of the two steps of an end loses nothing: save the outcome, then ack the message. A redelivery that finds
 * the outcome saved is acked and not run.
 */
import { Array as Arr, Effect, Exit, Option } from "effect"
import type {
  ClaimedMessage,
  FusedClaimRequest,
  NewRecord,
  Outcome,
  Renewed,
  Settled,
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
import type { BackendService } from "../driver/BackendService.ts"
import type { BrokerService } from "../driver/BrokerService.ts"
import { fusionOf } from "../driver/fusion.ts"
import type { Outages } from "../driver/Outages.ts"
import { stringify } from "../json.ts"
import * as attemptHistory from "../task/attemptHistory.ts"
import { isDeadLettered, type RunOutcome } from "./runOutcome.ts"

/** A decoded delivery and its start request. */
export interface StartCandidate {
  readonly delivery: Delivery
  readonly message: TaskMessage.TaskMessage
  readonly start: Start
}

/** A started run, as far as its leases go. */
export interface LeasedRun {
  readonly candidate: StartCandidate
  /** Whether the message is still claimed, so neither acked nor released. */
  readonly claimed: boolean
}

/** The operations on runs. */
export interface RunStore {
  /** Whether tasks have records, and with them tokens, cancel requests and progress. */
  readonly hasRecords: boolean
  /** Claims messages, and starts those that the store can start in the same step. The store may hand others over later. */
  readonly claim: (
    claim: ClaimRequest,
    onHandedOver: NonNullable<FusedClaimRequest["onHandedOver"]>
  ) => Effect.Effect<ReadonlyArray<ClaimedMessage>, ReadError | BrokerError>
  /**
   * Ends the wait of a worker's claims for what is handed over, and returns what it did not take. `undefined`: nothing is
   * handed over.
   */
  readonly closeClaim:
    | ((worker: string) => Effect.Effect<ReadonlyArray<ClaimedMessage>, ReadError>)
    | undefined
  readonly start: (candidates: Batch<StartCandidate>) => Effect.Effect<ReadonlyArray<Started>, ReadError>
  /** Makes the outcome of a run durable: the first step of its end. */
  readonly saveOutcome: (candidate: StartCandidate, outcome: RunOutcome) => Request<Settled, ReadError>
  /** Saves a success in the transaction of the calling fiber; `undefined` where the store joins no transactions. */
  readonly complete:
    | ((
        candidate: StartCandidate,
        outcome: RunOutcome,
        claimed: boolean
      ) => Effect.Effect<Settled, ReadError>)
    | undefined
  /** Acks the message, or releases it for another attempt: the second step. */
  readonly ackOrRelease: (
    run: LeasedRun,
    outcome: RunOutcome,
    settled: Settled
  ) => Request<unknown, BrokerError>
  /** Renews the leases of runs. `undefined`: the renewal of that run failed. */
  readonly renew: (
    runs: Batch<LeasedRun>,
    leaseMillis: number
  ) => Effect.Effect<ReadonlyArray<Renewed | undefined>>
  /** Parks a message that no run can be made of. */
  readonly parkMessage: (
    delivery: Delivery,
    letter: { readonly deadLetterId: string; readonly reason: string; readonly exit: string }
  ) => Effect.Effect<void, ReadError | BrokerError>
}

const claimWithoutStart =
  (broker: BrokerService) =>
  (claim: ClaimRequest): Effect.Effect<ReadonlyArray<ClaimedMessage>, BrokerError> =>
    Effect.map(
      broker.claim(claim),
      Arr.map((delivery) => ({ delivery, run: undefined }))
    )

const nothingToRelease = resolved(Exit.void)
const stored = resolved<Settled, never>(Exit.succeed("Stored"))

/** Notes in the outages of a store whether a call was answered. */
const noted = (outages: Outages, exit: Exit.Exit<unknown, unknown> | undefined): Effect.Effect<void> =>
  exit !== undefined && Exit.isFailure(exit) ? outages.failed(exit.cause) : outages.succeeded

/** Renews the claims of messages; `undefined` where the call failed. */
const renewClaims = (broker: BrokerService, runs: ReadonlyArray<LeasedRun>, leaseMillis: number) => {
  const handles = runs.filter(({ claimed }) => claimed).map(({ candidate }) => candidate.delivery.handle)
  return Arr.isArrayNonEmpty(handles)
    ? broker.renew(handles, leaseMillis).pipe(
        Effect.exit,
        Effect.tap((exit) => noted(broker.outages, exit)),
        Effect.map(Exit.getSuccess)
      )
    : Effect.succeedSome<ReadonlyArray<boolean | undefined>>([])
}

/** Keeps runs in records. Tasks with start defaults may be started as they are claimed. */
const withRecords = (
  backend: BackendService,
  broker: BrokerService,
  startDefaults: ReadonlyArray<StartDefaults>
): RunStore => {
  const fusion = fusionOf({ backend, broker })
  const runStore = unfused(backend, broker)
  if (fusion === undefined) return runStore
  const { claim, closeClaim } = fusion
  return {
    ...runStore,
    ...(claim === undefined
      ? {}
      : {
          claim: (request: ClaimRequest, onHandedOver: FusedClaimRequest["onHandedOver"]) =>
            claim({ ...request, startDefaults, onHandedOver })
        }),
    closeClaim,
    saveOutcome: ({ delivery: { handle }, start }, outcome) =>
      fusion.settle.request({ settlement: settlementOf(start, outcome), handle }),
    complete: completing(backend, true),
    ackOrRelease: () => nothingToRelease
  }
}

/** Returns a new message for a task whose message was released during its run, and may come too late. */
const republishedEnvelope = (
  { delivery, message: { generation, id, incarnation, priority, task } }: StartCandidate,
  delayMillis: number
): Envelope => ({
  id,
  task,
  incarnation,
  generation,
  priority,
  queue: delivery.queue,
  delayMillis,
  body: typeof delivery.body === "string" ? delivery.body : new TextDecoder().decode(delivery.body)
})

const completing = ({ complete }: BackendService, acks: boolean): RunStore["complete"] =>
  complete === undefined
    ? undefined
    : ({ delivery: { handle }, start }, outcome, claimed) =>
        complete({ settlement: settlementOf(start, outcome), handle: acks && claimed ? handle : undefined })

/** Creates the records of tasks whose producers have no backend. */
const createUnrecorded = (backend: BackendService, candidates: ReadonlyArray<StartCandidate>) =>
  Effect.flatMap(
    backend.create.many(
      candidates.map(({ message, start }): NewRecord => ({
        id: start.id,
        task: start.task,
        incarnation: start.incarnation,
        queue: start.queue,
        key: undefined,
        payloadHash: "",
        delayMillis: 0,
        expiresMillis: message.expires,
        retentionMillis: start.retentionMillis,
        reservedMillis: undefined
      }))
    ),
    Effect.forEach((created) => created, { discard: true })
  )

const unfused = (backend: BackendService, broker: BrokerService): RunStore => ({
  hasRecords: true,
  claim: claimWithoutStart(broker),
  closeClaim: undefined,
  start: (candidates) => {
    const starts = backend.start(Arr.map(candidates, ({ start }) => start))
    const unrecorded = candidates.filter(({ message }) => message.unrecorded === true)
    return unrecorded.length === 0 ? starts : Effect.andThen(createUnrecorded(backend, unrecorded), starts)
  },
  saveOutcome: ({ start }, outcome) => backend.settle.request(settlementOf(start, outcome)),
  complete: completing(backend, false),
  ackOrRelease: ({ candidate, claimed }, outcome, settled) => {
    const { handle } = candidate.delivery
    if (settled === "Lost") return broker.returnUnhandled.request(handle)
    if (settled === "Cancelled" || outcome._tag === "Success" || outcome._tag === "Failure")
      return broker.ack.request(handle)
    const afterMillis = outcome._tag === "Retry" ? outcome.afterMillis : 0
    return claimed || candidate.start.deliveryMode === "at-most-once"
      ? broker.release.request({ handle, afterMillis })
      : broker.publish.request(republishedEnvelope(candidate, afterMillis))
  },
  // the record decides; the claim only spares a redelivery that would be dropped
  renew: (runs, leaseMillis) =>
    Effect.map(
      Effect.all(
        [
          Effect.tap(
            backend.renew.many(
              Arr.map(runs, ({ candidate: { start } }) => ({ id: start.id, token: start.token, leaseMillis }))
            ),
            (exits) => noted(backend.outages, exits.find(Exit.isFailure))
          ),
          renewClaims(broker, runs, leaseMillis)
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

const outcomeOf = (start: Start, outcome: RunOutcome): Outcome => {
  const { body, queue, retentionMillis } = start
  switch (outcome._tag) {
    case "Success":
      return { _tag: "Success", exit: outcome.exit, retentionMillis }
    case "Failure":
      return {
        _tag: "Failure",
        exit: outcome.exit,
        retentionMillis,
        deadLetter: isDeadLettered(outcome)
          ? { reason: outcome.reason, queue, body, retentionMillis: defaults.deadLetterRetentionMillis }
          : undefined
      }
    case "Retry": {
      const { afterMillis, failure } = outcome
      return { _tag: "Retry", afterMillis, failure: attemptHistory.encode(failure, start) }
    }
    case "Release":
      return outcome
  }
}

/** Keeps runs in their messages: a message counts its retries, and the broker parks it after the last one. */
const withoutRecords = (broker: BrokerService): RunStore => ({
  hasRecords: false,
  claim: claimWithoutStart(broker),
  closeClaim: undefined,
  start: (candidates) =>
    Effect.succeed(
      Arr.map(candidates, ({ delivery, message }): Started => {
        if (message.expires !== undefined && delivery.ageMillis >= message.expires) {
          const ended = { reason: "Expired", attempt: message.retries, crashes: 0, worker: null } as const
          return { _tag: "Drop", ended }
        }
        const attempt = message.retries + 1
        return { _tag: "Run", fence: attempt, attempt, retries: message.retries, crashes: 0 }
      })
    ),
  saveOutcome: () => stored,
  complete: undefined,
  ackOrRelease: (
    {
      candidate: {
        delivery: { handle },
        message
      }
    },
    outcome,
    settled
  ) => {
    if (settled === "Lost") return broker.returnUnhandled.request(handle)
    switch (outcome._tag) {
      case "Success":
        return broker.ack.request(handle)
      case "Failure":
        return isDeadLettered(outcome)
          ? broker.reject.request({ handle, reason: outcome.reason })
          : broker.ack.request(handle)
      case "Retry": {
        const { payload, ...head } = message
        const text = stringify(payload)
        // a payload that does not encode cannot be published again
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
  renew: (runs, leaseMillis) =>
    Effect.map(renewClaims(broker, runs, leaseMillis), (answer) => {
      let next = 0
      return runs.map(({ claimed }): Renewed | undefined => {
        if (!claimed) return "Held"
        const held = Option.isSome(answer) ? answer.value[next++] : undefined
        return held === undefined ? undefined : held ? "Held" : "Lost"
      })
    }),
  parkMessage: ({ handle }, { reason }) => broker.reject.one({ handle, reason })
})

/** Makes the run store of a worker: with records if there is a backend, and otherwise without. */
export const makeRunStore = (
  backend: BackendService,
  broker: BrokerService,
  startDefaults: ReadonlyArray<StartDefaults>
): RunStore => (backend.configured ? withRecords(backend, broker, startDefaults) : withoutRecords(broker))
