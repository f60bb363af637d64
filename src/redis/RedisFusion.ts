/**
 * Record and message, outcome and acknowledgement, each pair in one script: a task and its message lie in one shard.
 */
import { Effect } from "effect"
import type { RedisError } from "effect/persistence/Redis"
import type { BackendDriver, Created, Fusion, NewRecord, Settlement } from "../BackendDriver.ts"
import type { BrokerDriver, Envelope, Batch } from "../BrokerDriver.ts"
import { redeliveryDelay } from "../internal/driver/redeliveryDelay.ts"
import { type ClaimHandle, decode } from "./ClaimHandle.ts"
import type * as Claiming from "./claimMessages.ts"
import * as Creating from "./createRecords.ts"
import type { StoreError } from "./fieldDecoding.ts"
import * as MessageText from "./MessageText.ts"
import { headOf, toSettled, writeSettlement } from "./RedisBackendDriver.ts"
import * as Messages from "./RedisBrokerDriver.ts"
import { type ScriptRunner, encodeGroups, groupByHead, script } from "./ScriptRunner.ts"
import * as fusion from "./scripts/fusion.ts"
import type { ServerInfo } from "./ServerInfo.ts"
import { writeTerms } from "./startCodec.ts"

interface Enqueued {
  readonly record: NewRecord
  readonly message: Envelope
}

interface Fused {
  readonly settlement: Settlement
  readonly handle: string
}

const writeRecord = Creating.writeRecord(false)

/** Groups: the head of the records, their number, the records, the head of the messages, the messages. */
const writeEnqueued = (items: ReadonlyArray<Enqueued>): ReadonlyArray<string> => {
  const args: Array<string> = []
  const groups = groupByHead(items, ({ message, record }) => [
    ...Creating.headOf(record),
    ...Messages.headOf(message)
  ])
  for (const { items: some } of groups) {
    const [{ message, record }] = some as Batch<Enqueued>
    args.push(...Creating.headOf(record), `${some.length}`)
    for (const item of some) writeRecord(args, item.record)
    args.push(...Messages.headOf(message))
    for (const item of some) args.push(MessageText.encode(item.message))
  }
  return args
}

/** Over a backend and a broker in the same keyspace. */
export const make = (
  calls: ScriptRunner,
  backend: BackendDriver<StoreError>,
  broker: BrokerDriver<RedisError>,
  claiming: Claiming.Claiming,
  { clustered }: ServerInfo,
  store: object
): Fusion<StoreError> => {
  const { keyspace, run, sharded } = calls
  const enqueue = script<ReadonlyArray<string>>(fusion.enqueue(clustered))
  const claim = script<Claiming.Answer>(fusion.claim(clustered))
  const settle = script<string>(fusion.settle(clustered))

  /** A key may lie in another shard than its task: the record first, then the message. */
  const enqueueApart = ({ message, record }: Enqueued): Effect.Effect<Created, StoreError> =>
    Effect.flatMap(
      backend.create([{ ...record, published: false }]),
      ([created]): Effect.Effect<Created, StoreError> =>
        created!._tag !== "Created"
          ? Effect.succeed(created!)
          : broker
              .publish([message])
              .pipe(Effect.andThen(backend.markPublished([record.id])), Effect.as(created!))
    )

  /** A handle of another store, or of another shard than its task's. */
  const settleApart = Effect.fnUntraced(function* ({ handle, settlement }: Fused) {
    const [settled] = yield* backend.settle([settlement])
    if (settled === "Lost") return settled
    const afterMillis = redeliveryDelay(settlement, settled!)
    if (afterMillis === undefined) yield* broker.ack([handle])
    else yield* broker.release([{ handle, afterMillis }])
    return settled!
  })

  const settleTogether = (shard: number, items: ReadonlyArray<readonly [ClaimHandle, Settlement]>) => {
    const args = encodeGroups(
      items,
      ([{ queue }, settlement]) => [...headOf(settlement), queue],
      (written, [{ member }, settlement]) => {
        written.push(member)
        // the token of a run that was claimed and started in one is its claim
        writeSettlement(written, settlement, settlement.token === member ? "" : undefined)
      }
    )
    return Effect.map(run(settle, shard, args), (answers) => Array.from(answers, toSettled))
  }

  return {
    store,
    enqueue: (items) =>
      keyspace.shards > 1 && items.some(({ record }) => record.key !== undefined)
        ? Effect.forEach(items, enqueueApart, { concurrency: 16 })
        : sharded(
            items,
            ({ record }) => record.id,
            (shard, some) =>
              Effect.map(run(enqueue, shard, writeEnqueued(some)), (answers) =>
                answers.map(Creating.readCreated)
              )
          ),
    claim: ({ startDefaults, ...asked }) => claiming.claim(claim, asked, startDefaults.flatMap(writeTerms)),
    settle: (items) => {
      const claims = items.map(({ handle }) => decode(handle, keyspace.shards))
      const together = items.every(
        ({ settlement }, i) => claims[i]?.shard === keyspace.shardOf(settlement.id)
      )
      if (!together) return Effect.forEach(items, settleApart)
      return sharded(
        items.map(({ settlement }, i) => [claims[i]!, settlement] as const),
        ([, { id }]) => id,
        settleTogether
      )
    }
  }
}
