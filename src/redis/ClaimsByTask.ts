/** Claims by task over one keyspace. */
import { Array as Arr, Effect } from "effect"
import type { RedisError } from "effect/persistence/Redis"
import type { ClaimedMessage } from "../BackendDriver.ts"
import type { ClaimRequest, SetAside } from "../BrokerDriver.ts"
import { makeClaimByTask } from "../internal/driver/claimByTask.ts"
import { limitListed } from "../internal/driver/lanes.ts"
import type { Outages } from "../internal/driver/Outages.ts"
import type { MessageClaims } from "./MessageClaims.ts"
import type { ReadySignal } from "./ReadySignal.ts"
import type { ScriptRunner } from "./ScriptRunner.ts"
import { claimSetAside } from "./scripts/claimSetAside.ts"
import { findLanes, listSetAside } from "./scripts/listSetAside.ts"
import { setAside } from "./scripts/setAside.ts"

/** Claims by task over one keyspace. */
export interface ClaimsByTask {
  /** Makes a claim by task over a claim of every task. */
  readonly over: <Request extends ClaimRequest>(
    claim: (request: Request) => Effect.Effect<ReadonlyArray<ClaimedMessage>, RedisError>
  ) => (request: Request) => Effect.Effect<ReadonlyArray<ClaimedMessage>, RedisError>
  readonly setAside: SetAside<RedisError>
}

/** Makes the operations. */
export const make = (
  runner: ScriptRunner,
  claims: MessageClaims,
  readySignal: ReadySignal,
  outages: Outages
): ClaimsByTask => {
  const list = listSetAside(runner)
  const claimFromLanes = claimSetAside(runner, claims)
  const lanes = { canExist: () => true, find: findLanes(runner), setAside: setAside(runner) }
  return {
    over: <Request extends ClaimRequest>(
      claim: (request: Request) => Effect.Effect<ReadonlyArray<ClaimedMessage>, RedisError>
    ) =>
      makeClaimByTask<Request, ClaimedMessage, RedisError>(lanes, {
        claim,
        claimLanes: ({ claimId, leaseMillis, max, worker }, lanes) =>
          claimFromLanes({ lanes, max, leaseMillis, worker, claimId, minWaitedMillis: 0 }),
        deliveryOf: ({ delivery }) => delivery,
        wakeAgain: (queues) => readySignal.wakeAfter(queues, 0),
        outages
      }),
    setAside: {
      tasks: (queues) => Effect.map(list(queues), limitListed),
      claim: ({ queue, task, ...claim }) =>
        Effect.map(
          claimFromLanes({ ...claim, lanes: [{ queue, task }] }),
          Arr.map(({ delivery }) => delivery)
        )
    }
  }
}
