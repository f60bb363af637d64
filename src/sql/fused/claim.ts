/**
 * Claims messages and starts the runs of waiting tasks in one step.
 */
import { Effect } from "effect"
import type { ClaimedMessage } from "../../BackendDriver.ts"
import type { BackendParts } from "../backend/SqlBackendDriver.ts"
import type { BrokerParts } from "../broker/SqlBrokerDriver.ts"
import type { StoreError } from "../Database.ts"
import { type FusedClaim, makeClaim as makeClaimStatement, makeReclaim } from "./singleStatement.ts"

/** Makes the operation, for databases in which a statement can write several tables. */
export const makeClaim = (
  { db, notifier }: BackendParts,
  { messages }: BrokerParts
): ((request: FusedClaim) => Effect.Effect<ReadonlyArray<ClaimedMessage>, StoreError>) => {
  const claimStatement = makeClaimStatement(db)
  const reclaimStatement = makeReclaim(db)

  const claim = Effect.fnUntraced(function* (
    request: FusedClaim
  ): Effect.fn.Return<ReadonlyArray<ClaimedMessage>, StoreError> {
    let claimed = yield* db.retryOnDeadlock(claimStatement(request, true))
    if (claimed === undefined) {
      yield* db.inTransaction(messages.promote(request.queues, request.max))
      claimed = (yield* db.retryOnDeadlock(claimStatement(request, false))) ?? []
    }
    const started = claimed.flatMap(({ delivery, run }) => (run === undefined ? [] : (delivery.id ?? [])))
    notifier.notify(started, "step")
    return claimed
  })
  const reclaim = Effect.fnUntraced(function* (
    request: FusedClaim
  ): Effect.fn.Return<ReadonlyArray<ClaimedMessage>, StoreError> {
    const held = yield* db.retryOnDeadlock(reclaimStatement(request))
    const max = request.max - held.length
    return max <= 0 ? held : [...held, ...(yield* claim({ ...request, max, isRetry: false }))]
  })
  return (request) => db.outsideTransaction(request.isRetry === true ? reclaim(request) : claim(request))
}
