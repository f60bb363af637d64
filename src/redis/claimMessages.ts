/** Claiming from the shards, one after the other, alone or together with starts. */
import { Effect, Exit } from "effect"
import type { RedisError } from "effect/persistence/Redis"
import type { ClaimedMessage } from "../BackendDriver.ts"
import type { ClaimRequest, Delivery } from "../BrokerDriver.ts"
import { decode, encode } from "./ClaimHandle.ts"
import * as MessageText from "./MessageText.ts"
import type { ProcessChannel } from "./ProcessChannel.ts"
import type { ReadySignal } from "./ReadySignal.ts"
import * as Record from "./RecordText.ts"
import { type ScriptRunner, millis, script, type Script } from "./ScriptRunner.ts"
import * as messages from "./scripts/messages.ts"
import { toStarted } from "./startCodec.ts"

/** What a script answers: see `claim` in `lua/claiming.ts`, and in `lua/fusion.ts` with a fourth text a message. */
export type Answer = readonly [now: number, next: number, ...messages: Array<number | string>]

/** Claims of one process. */
export interface Claiming {
  /** With that script; terms of starts may follow its other arguments. */
  readonly claim: (
    script: Script<Answer>,
    claim: ClaimRequest,
    terms?: ReadonlyArray<string>
  ) => Effect.Effect<ReadonlyArray<ClaimedMessage>, RedisError>
}

/** When a message became due, from its member. */
const dueOf = (member: string): number => {
  const start = member.indexOf(":") + 1
  return Number(member.slice(start, member.indexOf(":", start)))
}

const bytesOf = script<ReadonlyArray<string>>(messages.bytes)

/** Over one keyspace. */
export const make = (
  { keyspace, run }: ScriptRunner,
  channel: ProcessChannel,
  readiness: ReadySignal
): Claiming => {
  /** The shard that is claimed from first, in turn. */
  let turn = 0

  /** What was mangled on the way is fetched again, as bytes. */
  const withBytes = (shard: number, claimed: Array<ClaimedMessage>) =>
    Effect.gen(function* () {
      const mangled = claimed.filter(({ delivery }) => delivery.body.includes("\ufffd" as never))
      if (mangled.length === 0) return claimed
      const args = mangled.flatMap(({ delivery: { handle, queue } }) => [
        queue,
        decode(handle, keyspace.shards)!.member
      ])
      const hex = yield* run(bytesOf, shard, args)
      const whole = new Map(mangled.map((one, i) => [one, hex[i]!]))
      return claimed.map((one) => {
        const bytes = whole.get(one)
        return bytes === undefined
          ? one
          : { ...one, delivery: { ...one.delivery, ...MessageText.decodeHex(bytes) } }
      })
    })

  const claimFrom = (
    shard: number,
    script: Script<Answer>,
    {
      isRetry,
      leaseMillis,
      max,
      claimId,
      queues: asked,
      worker
    }: ClaimRequest & { readonly claimId: string },
    terms: ReadonlyArray<string> | undefined
  ): Effect.Effect<ReadonlyArray<ClaimedMessage>, RedisError> => {
    const queues = [...new Set(asked)]
    const args = [
      `${max}`,
      millis(leaseMillis),
      Record.encode(worker),
      channel.process,
      readiness.hasSubscribers(queues) ? "1" : "",
      claimId,
      isRetry === true ? "1" : ""
    ]
    if (terms !== undefined) args.push(`${queues.length}`)
    return Effect.flatMap(run(script, shard, [...args, ...queues, ...(terms ?? [])]), (answer) => {
      const [now, next] = answer
      if (next >= 0) readiness.wakeAfter(queues, next)
      const claimed: Array<ClaimedMessage> = []
      const width = terms === undefined ? 3 : 4
      for (let i = 2; i < answer.length; i += width) {
        const queue = queues[Number(answer[i]) - 1]!
        const member = String(answer[i + 1])
        const delivery: Delivery = {
          handle: encode(shard, member, queue),
          queue,
          ageMillis: Math.max(0, now - dueOf(member)),
          ...MessageText.decode(String(answer[i + 2]))
        }
        const started = width === 4 ? String(answer[i + 3]) : ""
        claimed.push({
          delivery,
          run: started === "" ? undefined : { token: member, started: toStarted(started) }
        })
      }
      return withBytes(shard, claimed)
    })
  }

  return {
    claim: Effect.fnUntraced(function* (script, { claimId = crypto.randomUUID(), ...asked }, terms) {
      const first = turn++
      let taken: ReadonlyArray<ClaimedMessage> = []
      const claimAll = Effect.fnUntraced(function* (isRetry: boolean) {
        for (let i = 0; i < keyspace.shards && taken.length < asked.max; i++) {
          const shard = (first + i) % keyspace.shards
          const max = asked.max - taken.length
          const more = yield* Effect.exit(
            claimFrom(shard, script, { ...asked, max, claimId, isRetry }, terms)
          )
          if (Exit.isSuccess(more)) taken = taken.length === 0 ? more.value : [...taken, ...more.value]
          // what was claimed before is not given up for a shard that fails
          else if (taken.length === 0) yield* more
          else break
        }
      })
      if (asked.isRetry === true) yield* claimAll(true)
      yield* claimAll(false)
      return taken
    })
  }
}
