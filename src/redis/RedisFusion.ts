/**
 * Two operations in one script: record and message, outcome and acknowledgement. A task and its message lie in one shard.
 */
import { Effect } from "effect"
import type { RedisError } from "effect/persistence/Redis"
import type { BackendDriver, Created, Fusion, Settlement } from "../BackendDriver.ts"
import type { BrokerDriver } from "../BrokerDriver.ts"
import * as defaults from "../internal/defaults.ts"
import { redeliveryDelay } from "../internal/driver/redeliveryDelay.ts"
import * as ClaimHandle from "./ClaimHandle.ts"
import type { ClaimsByTask } from "./ClaimsByTask.ts"
import type { MessageClaims } from "./MessageClaims.ts"
import type { RedisStoreError } from "./RedisStoreError.ts"
import type { ScriptRunner } from "./ScriptRunner.ts"
import { fusedClaim } from "./scripts/fusedClaim.ts"
import { type Enqueued, fusedEnqueue } from "./scripts/fusedEnqueue.ts"
import { fusedSettle, type FusedSettlement } from "./scripts/fusedSettle.ts"
import { publishReserved } from "./scripts/publishReserved.ts"
import type { ServerSubscriptions } from "./ServerSubscriptions.ts"

type Backend = BackendDriver<RedisStoreError>
type Broker = BrokerDriver<RedisError>

/**
 * Creates the record and then publishes, where the key of a record may lie in another shard than its task. A record that was
 * removed between the two is created again.
 */
const enqueueInSteps = (runner: ScriptRunner, backend: Backend) => {
  const publish = publishReserved(runner)
  const enqueue = ({ message, record }: Enqueued): Effect.Effect<Created, RedisStoreError> =>
    Effect.flatMap(
      backend.create([{ ...record, reservedMillis: defaults.reservedMillis }]),
      ([created]): Effect.Effect<Created, RedisStoreError> =>
        created!._tag !== "Created"
          ? Effect.succeed(created!)
          : Effect.flatMap(publish(message), (exists) =>
              exists ? Effect.succeed(created!) : enqueue({ message, record })
            )
    )
  return enqueue
}

/** Settles and then acks or releases, where a handle is of another store, or of another shard than its task. */
const settleInSteps = (backend: Backend, broker: Broker) =>
  Effect.fnUntraced(function* ({
    handle,
    settlement
  }: {
    readonly handle: string
    readonly settlement: Settlement
  }) {
    const [settled] = yield* backend.settle([settlement])
    if (settled === "Lost") return settled
    const afterMillis = redeliveryDelay(settlement, settled!)
    if (afterMillis === undefined) yield* broker.ack([handle])
    else yield* broker.release([{ handle, afterMillis }])
    return settled!
  })

/** What is fused. */
export interface Parts {
  readonly backend: Backend
  readonly broker: Broker
  readonly claims: MessageClaims
  readonly claimByTask: ClaimsByTask
  /** Identifies the store. */
  readonly store: object
}

/** Makes the fusion of a backend and a broker over the same keyspace, for a process. */
export const make = (
  runner: ScriptRunner,
  process: string,
  subscriptions: ServerSubscriptions,
  { backend, broker, claimByTask, claims, store }: Parts
): Fusion<RedisStoreError> => {
  const { keyspace } = runner
  const enqueueTogether = fusedEnqueue(runner, process)
  const enqueueApart = enqueueInSteps(runner, backend)
  const { claim, closeClaim } = fusedClaim(runner, claims)
  const settleTogether = fusedSettle(runner)
  const settleApart = settleInSteps(backend, broker)
  return {
    store,
    enqueue: (items) =>
      Effect.suspend(() => {
        subscriptions.addCreated(items.map(({ record }) => record))
        return keyspace.shards > 1 && items.some(({ record }) => record.key !== undefined)
          ? Effect.forEach(items, enqueueApart, { concurrency: 16 })
          : enqueueTogether(items)
      }),
    claim: claimByTask.over(claim),
    closeClaim,
    settle: (items) => {
      const decoded = items.map(({ handle, settlement }) => ({
        handle: ClaimHandle.decode(handle, keyspace.shards),
        settlement
      }))
      const isInShard = (item: (typeof decoded)[number]): item is FusedSettlement =>
        item.handle?.shard === keyspace.shardOf(item.settlement.id)
      return decoded.every(isInShard) ? settleTogether(decoded) : Effect.forEach(items, settleApart)
    }
  }
}
