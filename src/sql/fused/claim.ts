/**
 * Claims messages and starts the runs of waiting tasks in one step.
 */
import { Array as Arr, Effect } from "effect"
import type { ClaimedMessage, Settlement } from "../../BackendDriver.ts"
import { RowLimit } from "../answerSize.ts"
import type { BackendParts } from "../backend/SqlBackendDriver.ts"
import { sizeOf } from "../broker/claim.ts"
import { makeSqlClaimByTask } from "../broker/setAside.ts"
import { type BrokerParts, wakeAgain } from "../broker/SqlBrokerDriver.ts"
import type { StoreError } from "../Database.ts"
import {
  type ClaimedMessages,
  type FusedClaim,
  makeClaim as makeClaimStatement,
  makeReclaim
} from "./singleStatement.ts"

const NOTHING: ClaimedMessages = { claimed: [], leftSome: false }

/**
 * Prepares the undoing of claims and starts: the tasks wait again, with nothing counted (T3), and their messages are ready
 * again.
 */
const makeUndo = ({ db, notifier, settle }: BackendParts, { messages }: BrokerParts) =>
  Effect.fnUntraced(function* (claimed: ReadonlyArray<ClaimedMessage>): Effect.fn.Return<void, StoreError> {
    const runs = claimed.flatMap(({ delivery: { id }, run }): ReadonlyArray<Settlement> =>
      id === undefined || run === undefined ? [] : [{ id, token: run.token, outcome: { _tag: "Release" } }]
    )
    const changed = yield* db.inTransaction(
      Effect.gen(function* () {
        const changed = Arr.isReadonlyArrayNonEmpty(runs) ? (yield* settle(runs)).changed : []
        yield* messages.putBack(claimed.map(({ delivery }) => delivery.handle))
        yield* notifier.recordChanges(changed)
        return changed
      })
    )
    notifier.notify(changed, "end")
  })

/** Makes the operation, for databases in which a statement can write several tables. */
export const makeClaim = (
  backend: BackendParts,
  broker: BrokerParts
): ((request: FusedClaim) => Effect.Effect<ReadonlyArray<ClaimedMessage>, StoreError>) => {
  const { db, notifier } = backend
  const undo = makeUndo(backend, broker)
  const claimStatement = makeClaimStatement(db)
  const reclaimStatement = makeReclaim(db)
  const limit = new RowLimit()

  const claim = Effect.fnUntraced(function* (
    request: FusedClaim,
    taken: number
  ): Effect.fn.Return<ReadonlyArray<ClaimedMessage>, StoreError> {
    const { max, queues } = request
    const asked = limit.of(max)
    const limited = { ...request, max: asked }
    const once = (checksDue: boolean) => db.retryOnDeadlock(claimStatement(limited, { checksDue, taken }))
    let found = yield* once(true)
    if (found === undefined) {
      yield* db.inTransaction(broker.messages.promote(queues, max))
      found = (yield* once(false)) ?? NOTHING
    }
    const { claimed, leftSome } = found
    limit.adapt(leftSome ? claimed.length + 1 : claimed.length, claimed.length)
    if (leftSome || (asked < max && claimed.length === asked)) wakeAgain(broker, queues)
    const started = claimed.flatMap(({ delivery, run }) => (run === undefined ? [] : (delivery.id ?? [])))
    notifier.notify(started, "step")
    return claimed
  })
  const putBack = (
    claimed: ReadonlyArray<ClaimedMessage>,
    { queues }: FusedClaim
  ): Effect.Effect<void, StoreError> =>
    claimed.length === 0
      ? Effect.void
      : Effect.tap(undo(claimed), () => Effect.sync(() => wakeAgain(broker, queues)))

  const reclaim = Effect.fnUntraced(function* (
    request: FusedClaim
  ): Effect.fn.Return<ReadonlyArray<ClaimedMessage>, StoreError> {
    const found = yield* db.retryOnDeadlock(reclaimStatement(request))
    const held = found.slice(0, request.max)
    yield* putBack(found.slice(request.max), request)
    const max = request.max - held.length
    if (max <= 0) return held
    const taken = sizeOf(held.map(({ delivery }) => delivery))
    const claimed = [...held, ...(yield* claim({ ...request, max, isRetry: false }, taken))]
    // an earlier attempt that was given up may have been carried out after this one began
    const all = yield* db.retryOnDeadlock(reclaimStatement({ ...request, max: 0 }))
    const handles = new Set(claimed.map(({ delivery }) => delivery.handle))
    yield* putBack(
      all.filter(({ delivery }) => !handles.has(delivery.handle)),
      request
    )
    return claimed
  })
  const claimByTask = makeSqlClaimByTask<FusedClaim, ClaimedMessage>(broker, {
    claim: (request) => (request.isRetry === true ? reclaim(request) : claim(request, 0)),
    deliveryOf: ({ delivery }) => delivery,
    // the worker starts what comes without a run
    toClaimed: (delivery) => ({ delivery, run: undefined })
  })
  return (request) => db.outsideTransaction(claimByTask(request))
}
