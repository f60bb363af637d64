/**
 * Messages in Redis: each operation is one script for a batch.
 */
import { Array as Arr, Effect, Number as Num } from "effect"
import type { RedisError } from "effect/persistence/Redis"
import type { BrokerDriver, QueueCounts, Envelope } from "../BrokerDriver.ts"
import { type ClaimHandle, decode } from "./ClaimHandle.ts"
import type * as Claiming from "./claimMessages.ts"
import { isPermanent } from "./isPermanent.ts"
import * as MessageText from "./MessageText.ts"
import type * as Readiness from "./ReadySignal.ts"
import { type ScriptRunner, encodeGroups, millis, script, type Script } from "./ScriptRunner.ts"
import { claim as claimLua } from "./scripts/claim.ts"
import * as messages from "./scripts/messages.ts"
import type { ServerInfo } from "./ServerInfo.ts"

/** Writes claims as scripts take them: groups of one queue. */
const writeClaims = (claims: ReadonlyArray<ClaimHandle>): ReadonlyArray<string> =>
  encodeGroups(
    claims,
    ({ queue }) => [queue],
    (args, { member }) => args.push(member)
  )

/** What a message may have in common with others. */
export const headOf = ({ delayMillis, priority, queue }: Envelope): ReadonlyArray<string> => [
  queue,
  `${Math.round(priority)}`,
  millis(delayMillis)
]

const writeMessages = (envelopes: ReadonlyArray<Envelope>): ReadonlyArray<string> =>
  encodeGroups(envelopes, headOf, (args, envelope) => args.push(MessageText.encode(envelope)))

/** Scores are exact for so long: some 400 years from now. */
const MAX_DELAY_MILLIS = 12_000_000_000_000

/** Over one keyspace; wake-ups come over the process's channel. */
export const make = (
  calls: ScriptRunner,
  claiming: Claiming.Claiming,
  readiness: Readiness.ReadySignal,
  { clustered }: ServerInfo
): BrokerDriver<RedisError> => {
  const { keyspace, run, sharded } = calls
  const shards = Arr.range(0, keyspace.shards - 1)
  const publish = script(messages.publish(clustered))
  const claim = script<Claiming.Answer>(claimLua(clustered))
  const renew = script<string>(messages.renew)
  const ack = script<string>(messages.ack)
  const release = script(messages.release(clustered))
  const reject = script(messages.reject)
  const counts = script<ReadonlyArray<number>>(messages.counts)
  const purge = script<ReadonlyArray<string>>(messages.purge)
  const claims = (handles: ReadonlyArray<string>) => handles.map((handle) => decode(handle, keyspace.shards))

  /** The same script for a batch of handles, one digit for each. */
  const ofHandles = (
    handles: ReadonlyArray<string>,
    of: Script<string>,
    head: ReadonlyArray<string> = []
  ) => {
    const known = claims(handles)
    const groups = Map.groupBy(
      known.filter((one) => one !== undefined),
      ({ shard }) => shard
    )
    const held = new Map<ClaimHandle, boolean>()
    return Effect.as(
      Effect.forEach(
        groups,
        ([shard, some]) =>
          Effect.map(run(of, shard, [...head, ...writeClaims(some)]), (answers) =>
            some.forEach((one, i) => held.set(one, answers[i] === "1"))
          ),
        { concurrency: "unbounded", discard: true }
      ),
      known
    ).pipe(Effect.map((all) => all.map((one) => one !== undefined && held.get(one) === true)))
  }

  /** The same, where the items say more than their handle; those of foreign handles are passed over. */
  const ofItems = <In extends { readonly handle: string }>(
    items: ReadonlyArray<In>,
    of: Script<null>,
    write: (item: In, claim: ClaimHandle) => ReadonlyArray<string>
  ) => {
    const groups = new Map<number, Array<string>>()
    for (const item of items) {
      const one = decode(item.handle, keyspace.shards)
      if (one === undefined) continue
      const args = groups.get(one.shard)
      if (args === undefined) groups.set(one.shard, [...write(item, one)])
      else args.push(...write(item, one))
    }
    return Effect.forEach(groups, ([shard, args]) => run(of, shard, args), {
      concurrency: "unbounded",
      discard: true
    })
  }

  return {
    name: "redis",
    capabilities: {
      priorities: 256,
      ordered: keyspace.shards === 1,
      repeatableClaims: true,
      lease: "store",
      maxDelayMillis: MAX_DELAY_MILLIS
    },
    isPermanent,
    publish: (envelopes) =>
      Effect.asVoid(
        sharded(
          envelopes,
          ({ id }) => id,
          (shard, some) => Effect.as(run(publish, shard, writeMessages(some)), some)
        )
      ),
    claim: (asked) =>
      Effect.map(
        claiming.claim(claim, asked),
        Arr.map(({ delivery }) => delivery)
      ),
    ready: readiness.ready,
    renew: (handles, leaseMillis) => ofHandles(handles, renew, [millis(leaseMillis)]),
    ack: (handles) => ofHandles(handles, ack),
    release: (releases) =>
      ofItems(releases, release, ({ afterMillis, body, preserveDueTime }, { member, queue }) => [
        queue,
        member,
        millis(afterMillis),
        preserveDueTime === true ? "1" : "0",
        body === undefined ? "0" : "1",
        body ?? ""
      ]),
    reject: (rejections) =>
      ofItems(rejections, reject, ({ reason }, { member, queue }) => [queue, member, reason]),
    counts: (queues) =>
      Effect.map(
        Effect.forEach(shards, (shard) => run(counts, shard, queues), { concurrency: "unbounded" }),
        (found) =>
          queues.map((_, i): QueueCounts => {
            const sum = (at: number) => Num.sumAll(found.map((one) => one[3 * i + at]!))
            return { ready: sum(0), delayed: sum(1), claimed: sum(2) }
          })
      ),
    purge: Effect.fnUntraced(function* (queue, limit) {
      const texts: Array<string> = []
      for (const shard of shards) {
        if (texts.length < limit)
          texts.push(...(yield* run(purge, shard, [queue, `${limit - texts.length}`])))
      }
      return texts.map((text) => MessageText.decode(text).id ?? "")
    })
  }
}
