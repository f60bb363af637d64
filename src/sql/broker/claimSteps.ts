/**
 * Claims with several statements, in a transaction, and repeats claims whose effect is unknown. What else is to be done with
 * each claimed message is done in the same transaction.
 */
import { Effect } from "effect"
import type { Batch, ClaimRequest, Delivery } from "../../BrokerDriver.ts"
import type { Database, StoreError } from "../Database.ts"
import { type ClaimOperations, type PutBack, sizeOf } from "./claim.ts"
import type { QueueStatus } from "./queueStatus.ts"

/** What claims are made of. */
export interface Parts {
  readonly db: Database
  readonly messages: ClaimOperations
  readonly queueStatus: (queues: Batch<string>) => Effect.Effect<QueueStatus, StoreError>
}

/** What follows a claim in its transaction. */
export interface FollowUp<in Request extends ClaimRequest, Claimed> {
  /** Makes an answer of each message that was claimed, in order. */
  readonly onClaimed: (
    request: Request,
    deliveries: ReadonlyArray<Delivery>
  ) => Effect.Effect<ReadonlyArray<Claimed>, StoreError>
  /** Undoes that for messages that are ready again. */
  readonly onPutBack: (putBack: ReadonlyArray<PutBack>) => Effect.Effect<void, StoreError>
  readonly deliveryOf: (claimed: Claimed) => Delivery
}

/** What a claim came to. */
export interface Answer<Claimed> {
  readonly claimed: ReadonlyArray<Claimed>
  /** Messages that an earlier attempt of the claim had taken. */
  readonly putBack: ReadonlyArray<PutBack>
  /** Whether messages that are due were left. */
  readonly leftSome: boolean
}

const NOTHING: Answer<never> = { claimed: [], putBack: [], leftSome: false }

/** Makes a claim. It reads the status of the queues first: a claim that finds nothing then takes no lock. */
export const makeClaimSteps = <Request extends ClaimRequest, Claimed>(
  { db: { inTransaction }, messages, queueStatus }: Parts,
  { deliveryOf, onClaimed, onPutBack }: FollowUp<Request, Claimed>
): ((request: Request) => Effect.Effect<Answer<Claimed>, StoreError>) => {
  const claimReady = Effect.fnUntraced(function* (
    request: Request,
    taken: number | undefined
  ): Effect.fn.Return<Answer<Claimed>, StoreError> {
    const { deliveries, leftSome } = yield* messages.claim(request, taken)
    return { claimed: yield* onClaimed(request, deliveries), putBack: [], leftSome }
  })
  const claim = (request: Request, taken?: number): Effect.Effect<Answer<Claimed>, StoreError> =>
    Effect.flatMap(queueStatus(request.queues), ({ due, ready }) => {
      if (due) {
        return inTransaction(
          Effect.andThen(messages.promote(request.queues, request.max), claimReady(request, taken))
        )
      }
      return ready ? inTransaction(claimReady(request, taken)) : Effect.succeed(NOTHING)
    })

  const claimHeld = Effect.fnUntraced(function* (
    request: Request
  ): Effect.fn.Return<Answer<Claimed>, StoreError> {
    const { deliveries, putBack } = yield* messages.reclaim(request)
    if (putBack.length > 0) yield* onPutBack(putBack)
    return { claimed: yield* onClaimed(request, deliveries), putBack, leftSome: putBack.length > 0 }
  })
  const putBackOthers = Effect.fnUntraced(function* (
    request: Request,
    deliveries: ReadonlyArray<Delivery>
  ): Effect.fn.Return<ReadonlyArray<PutBack>, StoreError> {
    const putBack = yield* messages.putBackOthers(request, deliveries)
    if (putBack.length > 0) yield* onPutBack(putBack)
    return putBack
  })
  const reclaim = Effect.fnUntraced(function* (
    request: Request
  ): Effect.fn.Return<Answer<Claimed>, StoreError> {
    const held = yield* inTransaction(claimHeld(request))
    const max = request.max - held.claimed.length
    if (held.leftSome || max <= 0) return held
    const more = yield* claim({ ...request, max }, sizeOf(held.claimed.map(deliveryOf)))
    const claimed = [...held.claimed, ...more.claimed]
    const putBack = yield* inTransaction(putBackOthers(request, claimed.map(deliveryOf)))
    return { claimed, putBack, leftSome: more.leftSome || putBack.length > 0 }
  })

  return (request) => (request.isRetry === true ? reclaim(request) : claim(request))
}
