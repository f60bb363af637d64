/**
 * Claims by task: sets messages aside in lanes, lists them, and claims them.
 */
import { Effect } from "effect"
import type { Batch, ClaimRequest, Delivery, SetAside, SetAsideTask } from "../../BrokerDriver.ts"
import {
  type ClaimOperations,
  type LaneOperations,
  makeClaimByTask
} from "../../internal/driver/claimByTask.ts"
import * as Lanes from "../../internal/driver/lanes.ts"
import type { Outages } from "../../internal/driver/Outages.ts"
import type { Database, StoreError } from "../Database.ts"
import type { ReadySignal } from "../notify/ReadySignal.ts"
import type { ClaimOperations as MessageClaims } from "./claim.ts"
import type { SqlLanes } from "./lanes.ts"
import { makeOldest } from "./oldest.ts"

/** What claims by task are made of. */
export interface Parts {
  readonly db: Database
  readonly messages: MessageClaims & { readonly lanes: SqlLanes }
  readonly readySignal: ReadySignal
  readonly outages: Outages
}

/** Makes a claim by task over a claim of every task. `toClaimed` makes an answer of what was claimed from a lane. */
export const makeSqlClaimByTask = <Request extends ClaimRequest, Claimed>(
  { db: { inTransaction }, messages: { claim, lanes, promote, putBack }, outages, readySignal }: Parts,
  {
    toClaimed,
    ...operations
  }: Pick<ClaimOperations<Request, Claimed, StoreError>, "claim" | "deliveryOf"> & {
    readonly toClaimed: (delivery: Delivery) => Claimed
  }
): ((request: Request) => Effect.Effect<ReadonlyArray<Claimed>, StoreError>) => {
  const laneOperations: LaneOperations<StoreError> = {
    canExist: lanes.canExist,
    find: lanes.find,
    setAside: (queue, tasks, claimed) =>
      inTransaction(
        Effect.gen(function* () {
          if (claimed.length > 0) yield* putBack(claimed.map(({ handle }) => handle))
          // a queue that is blocked is not claimed from, and a claim would do that
          yield* promote([queue], 0)
          return yield* lanes.clearHead(queue, tasks)
        })
      ),
    moveOwn: (queue, tasks) => inTransaction(lanes.moveOwn(queue, tasks))
  }
  return makeClaimByTask<Request, Claimed, StoreError>(laneOperations, {
    ...operations,
    claimLanes: (request, [first, ...others]) =>
      Effect.map(
        inTransaction(
          Effect.andThen(
            lanes.followIndexes,
            claim({ ...request, queues: [Lanes.encode(first), ...others.map(Lanes.encode)] })
          )
        ),
        ({ deliveries }) => deliveries.map(toClaimed)
      ),
    wakeAgain: (queues) => readySignal.wakeHere(new Set(queues)),
    outages
  })
}

/** Makes the operations on what was set aside. */
export const makeSetAside = ({ db, messages }: Parts): SetAside<StoreError> => {
  const { lanes } = messages
  const oldest = makeOldest(db)
  const tasks = Effect.fnUntraced(function* (
    queues: Batch<string>
  ): Effect.fn.Return<ReadonlyArray<SetAsideTask>, StoreError> {
    const listed = Lanes.limitListed(yield* lanes.list(queues))
    if (listed.length === 0) return []
    const dueSince = yield* oldest(listed.map(Lanes.encode), [])
    const now = yield* db.now
    return listed.flatMap((lane) => {
      const since = dueSince.get(Lanes.encode(lane))
      return since === undefined ? [] : [{ ...lane, waitedMillis: Math.max(0, now - since) }]
    })
  })
  return {
    tasks: (queues) => db.outsideTransaction(tasks(queues)),
    claim: (claim): Effect.Effect<ReadonlyArray<Delivery>, StoreError> =>
      db.outsideTransaction(db.inTransaction(messages.claimLane(claim)))
  }
}
