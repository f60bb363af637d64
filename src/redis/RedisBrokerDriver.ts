/**
 * Messages in Redis: each operation is one script for a batch.
 */
import { Array as Arr, Clock, Effect, Exit, Number as Num, Option, Schema } from "effect"
import type { RedisError } from "effect/persistence/Redis"
import type { Driver as BrokerDriver, Counts, Delivery, Envelope } from "../BrokerDriver.ts"
import { type Calls, grouped, millis, script, type Script } from "./Calls.ts"
import type { Channel } from "./Channel.ts"
import { isPermanent } from "./isPermanent.ts"
import * as messages from "./lua/messages.ts"
import * as Readiness from "./Readiness.ts"
import type { Server } from "./Server.ts"

/** A claim: where its message lies. The text of it is the handle. */
export interface Claim {
  readonly handle: string
  readonly shard: number
  readonly queue: string
  readonly member: string
}

const handleOf = (shard: number, member: string, queue: string): string => `${shard}/${member}/${queue}`

/** The claim of a handle; `undefined` for a text that is none of this store's handles. */
export const claimOf = (handle: string, shards: number): Claim | undefined => {
  const first = handle.indexOf("/")
  const second = handle.indexOf("/", first + 1)
  const shard = Number(handle.slice(0, first))
  if (first < 1 || second < 0 || !(shard < shards)) return undefined
  return { handle, shard, member: handle.slice(first + 1, second), queue: handle.slice(second + 1) }
}

/** Writes claims as scripts take them: groups of one queue. */
const writeClaims = (claims: ReadonlyArray<Claim>): ReadonlyArray<string> =>
  grouped(
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
  grouped(envelopes, headOf, (args, envelope) => args.push(textOf(envelope)))

/** A message as it is stored: a line that says whose it is, and its body. */
export const textOf = ({ body, id, task }: Envelope): string => `${JSON.stringify([id, task])}\n${body}`

const Head = Schema.fromJsonString(Schema.Tuple([Schema.String, Schema.String]))
const decodeHead = Schema.decodeUnknownExit(Head)

/** Whose a message is, and its body; foreign bytes are all body. */
const parse = (text: string): Pick<Delivery, "id" | "task" | "body"> => {
  const end = text.indexOf("\n")
  const head = end < 0 ? undefined : Exit.getSuccess(decodeHead(text.slice(0, end)))
  if (head === undefined || Option.isNone(head)) return { id: undefined, task: undefined, body: text }
  const [id, task] = head.value
  return { id, task, body: text.slice(end + 1) }
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

/** The same of bytes in hexadecimal, which may be no text. */
const parseBytes = (hex: string): Pick<Delivery, "id" | "task" | "body"> => {
  const bytes = Uint8Array.from(Buffer.from(hex, "hex"))
  const text = Effect.runSyncExit(Effect.try(() => utf8.decode(bytes)))
  if (Exit.isSuccess(text)) return parse(text.value)
  const end = bytes.indexOf(10)
  const { id, task } = parse(Buffer.from(bytes.subarray(0, end + 1)).toString())
  return id === undefined ? { id, task, body: bytes } : { id, task, body: bytes.slice(end + 1) }
}

/** When a message became due, from its member. */
const dueOf = (member: string): number => Number(member.split(":")[1])

/** Scores are exact for so long: some 400 years from now. */
const MAX_DELAY_MILLIS = 12_000_000_000_000

type Claimed = readonly [now: number, next: number, ...messages: Array<number | string>]

/** Over one keyspace; wake-ups come over the process's channel. */
export const make = Effect.fnUntraced(function* (
  calls: Calls,
  channel: Channel,
  { clustered, durable }: Server
): Effect.fn.Return<BrokerDriver<RedisError>> {
  const { keyspace, run, runOrLate, sharded } = calls
  const shards = Arr.range(0, keyspace.shards - 1)
  const publish = script(messages.publish(clustered))
  const claim = script<Claimed>(messages.claim(clustered))
  const bytesOf = script<ReadonlyArray<string>>(messages.bytes)
  const renew = script<string>(messages.renew)
  const ack = script<string>(messages.ack)
  const release = script(messages.release(clustered))
  const reject = script(messages.reject)
  const counts = script<ReadonlyArray<number>>(messages.counts)
  const purge = script<ReadonlyArray<string>>(messages.purge)
  const readiness = Readiness.make(channel, yield* Clock.Clock)
  /** The shard that is claimed from first, in turn. */
  let turn = 0

  const claims = (handles: ReadonlyArray<string>) => handles.map((handle) => claimOf(handle, keyspace.shards))

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
    const held = new Map<Claim, boolean>()
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
    write: (item: In, claim: Claim) => ReadonlyArray<string>
  ) => {
    const groups = new Map<number, Array<string>>()
    for (const item of items) {
      const one = claimOf(item.handle, keyspace.shards)
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

  const putBack = (shard: number, queues: ReadonlyArray<string>, claimed: Claimed) => {
    const args: Array<string> = []
    for (let i = 2; i < claimed.length; i += 3) {
      args.push(queues[Number(claimed[i]) - 1]!, String(claimed[i + 1]), "0", "1", "0", "")
    }
    return args.length === 0 ? Effect.void : run(release, shard, args)
  }

  /** What was mangled on the way is fetched again, as bytes. */
  const withBytes = (shard: number, deliveries: Array<Delivery>) =>
    Effect.gen(function* () {
      const mangled = deliveries.filter(({ body }) => body.includes("\ufffd" as never))
      if (mangled.length === 0) return deliveries
      const args = mangled.flatMap(({ handle, queue }) => [queue, claimOf(handle, keyspace.shards)!.member])
      const hex = yield* run(bytesOf, shard, args)
      const whole = new Map(mangled.map((delivery, i) => [delivery, hex[i]!]))
      return deliveries.map((delivery) => {
        const bytes = whole.get(delivery)
        return bytes === undefined ? delivery : { ...delivery, ...parseBytes(bytes) }
      })
    })

  const claimFrom = (
    shard: number,
    { leaseMillis, queues: asked }: Parameters<BrokerDriver["claim"]>[0],
    max: number
  ): Effect.Effect<ReadonlyArray<Delivery>, RedisError> => {
    const queues = [...new Set(asked)]
    const asker = readiness.isHeard(queues) ? channel.name : ""
    return runOrLate(claim, shard, [`${max}`, millis(leaseMillis), asker, ...queues], (late) =>
      putBack(shard, queues, late)
    ).pipe(
      Effect.flatMap(([now, next, ...rest]) => {
        if (next >= 0) readiness.expect(queues, next)
        const deliveries: Array<Delivery> = []
        for (let i = 0; i < rest.length; i += 3) {
          const queue = queues[Number(rest[i]) - 1]!
          const member = String(rest[i + 1])
          deliveries.push({
            handle: handleOf(shard, member, queue),
            queue,
            ageMillis: Math.max(0, now - dueOf(member)),
            ...parse(String(rest[i + 2]))
          })
        }
        return withBytes(shard, deliveries)
      })
    )
  }

  return {
    name: "redis",
    capabilities: {
      priorities: 256,
      ordered: keyspace.shards === 1,
      lease: "store",
      maxDelayMillis: MAX_DELAY_MILLIS,
      durable,
      transactional: false
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
    claim: (options) =>
      Effect.gen(function* () {
        const first = turn++
        let taken = yield* claimFrom(first % keyspace.shards, options, options.max)
        for (let i = 1; i < keyspace.shards && taken.length < options.max; i++) {
          const more = yield* Effect.exit(
            claimFrom((first + i) % keyspace.shards, options, options.max - taken.length)
          )
          // what was claimed before is not given up for a shard that fails
          if (Exit.isFailure(more)) {
            if (taken.length === 0) return yield* more
            break
          }
          taken = [...taken, ...more.value]
        }
        return taken
      }),
    ready: readiness.ready,
    renew: (handles, leaseMillis) => ofHandles(handles, renew, [millis(leaseMillis)]),
    ack: (handles) => ofHandles(handles, ack),
    release: (releases) =>
      ofItems(releases, release, ({ afterMillis, body, keepDue }, { member, queue }) => [
        queue,
        member,
        millis(afterMillis),
        keepDue === true ? "1" : "0",
        body === undefined ? "0" : "1",
        body ?? ""
      ]),
    reject: (rejections) =>
      ofItems(rejections, reject, ({ reason }, { member, queue }) => [queue, member, reason]),
    counts: (queues) =>
      Effect.map(
        Effect.forEach(shards, (shard) => run(counts, shard, queues), { concurrency: "unbounded" }),
        (found) =>
          queues.map((_, i): Counts => {
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
      return texts.map((text) => parse(text).id ?? "")
    })
  }
})
