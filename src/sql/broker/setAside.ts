/**
 * Claims by task: sets messages aside in lanes, lists them, and claims them.
 */
import { Array as Arr, Effect } from "effect"
import type { Batch, ClaimRequest, Delivery, SetAside, SetAsideTask } from "../../BrokerDriver.ts"
import {
  type ClaimOperations,
  type LaneOperations,
  makeClaimByTask
} from "../../internal/driver/claimByTask.ts"
import * as Lanes from "../../internal/driver/lanes.ts"
import type { Database, StoreError } from "../Database.ts"
import type { ClaimOperations as MessageClaims } from "./claim.ts"
import type { SqlLanes } from "./lanes.ts"
import { makeOldest } from "./oldest.ts"

/** How many tasks of a queue are listed at most. */
const LISTED_TASKS = 100

/** What claims by task are made of. */
export interface Parts {
  readonly db: Database
  readonly messages: MessageClaims & { readonly lanes: SqlLanes }
}

/** Claims from queues, which may be lanes. */
type ClaimFrom<Claimed> = (request: ClaimRequest) => Effect.Effect<ReadonlyArray<Claimed>, StoreError>

/** Makes a claim by task, over claims of every task. `claimFrom` claims from lanes too, of which `claim` need not know. */
export const makeSqlClaimByTask = <Request extends ClaimRequest, Claimed>(
  { db: { inTransaction }, messages: { lanes, putBack } }: Parts,
  {
    claimFrom,
    ...operations
  }: Omit<ClaimOperations<Request, Claimed, StoreError>, "claimAround"> & {
    readonly claimFrom: ClaimFrom<Claimed>
  }
): ((request: Request) => Effect.Effect<ReadonlyArray<Claimed>, StoreError>) => {
  const laneOperations: LaneOperations<StoreError> = {
    canExist: lanes.canExist,
    list: lanes.list,
    setAside: (queue, tasks, claimed) =>
      inTransaction(
        Effect.andThen(
          claimed.length === 0 ? Effect.void : putBack(claimed.map(({ handle }) => handle)),
          lanes.clearHead(queue, tasks)
        )
      ),
    bring: (queue, tasks) => inTransaction(lanes.bring(queue, tasks))
  }
  return makeClaimByTask<Request, Claimed, StoreError>(laneOperations, {
    ...operations,
    claimAround: (request, queues, around) => {
      const names = [...queues, ...around.map(Lanes.encode)]
      return Arr.isReadonlyArrayNonEmpty(names)
        ? claimFrom({ ...request, queues: names })
        : Effect.succeed([])
    }
  })
}

/** Makes the operations on what was set aside. */
export const makeSetAside = ({ db, messages }: Parts): SetAside<StoreError> => {
  const { lanes } = messages
  const oldest = makeOldest(db)
  const tasks = Effect.fnUntraced(function* (
    queues: Batch<string>
  ): Effect.fn.Return<ReadonlyArray<SetAsideTask>, StoreError> {
    const ofQueues = Map.groupBy(yield* lanes.list(queues), ({ queue }) => queue)
    const listed = Array.from(ofQueues.values(), (ofQueue) => ofQueue.slice(0, LISTED_TASKS)).flat()
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
      db.outsideTransaction(db.inTransaction(messages.claimSetAside(claim)))
  }
}
