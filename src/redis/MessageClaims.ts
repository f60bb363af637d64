/** Claims messages from the shards of a store, one shard after the other. */
import { Effect, Exit } from "effect"
import type { RedisError } from "effect/persistence/Redis"
import type { ClaimedMessage } from "../BackendDriver.ts"
import type { ClaimRequest } from "../BrokerDriver.ts"
import * as defaults from "../internal/defaults.ts"
import * as ClaimHandle from "./ClaimHandle.ts"
import * as MessageText from "./MessageText.ts"
import type { ProcessChannel } from "./ProcessChannel.ts"
import type { ReadySignal } from "./ReadySignal.ts"
import type { RefusalLog } from "./RefusalLog.ts"
import type { Script } from "./Script.ts"
import type { ScriptRunner } from "./ScriptRunner.ts"
import { type ClaimAnswer, decodeClaimed, encodeClaim } from "./scripts/lib/claims.ts"
import { messageBytes } from "./scripts/messageBytes.ts"

/** Claims of one process. */
export interface MessageClaims {
  /**
   * Claims with a script, whose arguments are the claim and what `encodeRest` returns for its distinct queues. A fused script
   * starts runs too. What was claimed is returned even where another shard fails.
   */
  readonly claim: (
    script: Script<ClaimAnswer>,
    request: ClaimRequest,
    encodeRest: (queues: ReadonlyArray<string>) => ReadonlyArray<string>,
    isFused?: boolean
  ) => Effect.Effect<ReadonlyArray<ClaimedMessage>, RedisError>
}

/** Shows that a reply was not UTF-8. */
const REPLACEMENT_CHARACTER = "\ufffd"

const isMangled = ({ delivery: { body } }: ClaimedMessage): boolean =>
  typeof body === "string" && body.includes(REPLACEMENT_CHARACTER)

/** Whether messages of one claim are as large as an answer may be. */
const isFull = (claimed: ReadonlyArray<ClaimedMessage>): boolean =>
  claimed.reduce((size, { delivery }) => size + delivery.body.length, 0) >= defaults.maxReplySize

/** Makes the claims of a process. */
export const make = (
  runner: ScriptRunner,
  channel: ProcessChannel,
  readySignal: ReadySignal,
  refusals: RefusalLog
): MessageClaims => {
  const { keyspace, run } = runner
  const bytesOf = messageBytes(runner)
  /** Counts the claims of each script: each begins with the next shard. */
  const claims = new Map<Script<ClaimAnswer>, number>()
  /** Replaces the messages whose text was mangled on the way by what their bytes say. */
  const withBytes = (shard: number, claimed: ReadonlyArray<ClaimedMessage>) => {
    const mangled = claimed.filter(isMangled)
    if (mangled.length === 0) return Effect.succeed(claimed)
    const handles = mangled.map(({ delivery }) => ClaimHandle.decode(delivery.handle, keyspace.shards)!)
    return Effect.map(bytesOf(shard, handles), (texts) => {
      const hexOf = new Map(mangled.map((one, i) => [one, texts[i]!]))
      return claimed.map((one) => {
        const hex = hexOf.get(one)
        return hex === undefined
          ? one
          : { ...one, delivery: { ...one.delivery, ...MessageText.decodeHex(hex) } }
      })
    })
  }

  const claimFrom = (
    shard: number,
    script: Script<ClaimAnswer>,
    request: ClaimRequest & { readonly claimId: string },
    encodeRest: (queues: ReadonlyArray<string>) => ReadonlyArray<string>,
    isFused: boolean
  ): Effect.Effect<ReadonlyArray<ClaimedMessage>, RedisError> => {
    const queues = [...new Set(request.queues)]
    const args = encodeClaim({
      ...request,
      process: channel.process,
      isSubscribed: readySignal.hasSubscribers(queues)
    })
    return Effect.flatMap(run(script, shard, [...args, ...encodeRest(queues)]), (answer) => {
      if (answer === null) return Effect.as(refusals.onRefused(shard), [])
      refusals.onAccepted(shard)
      const nextDue = answer[1]
      if (nextDue >= 0) readySignal.wakeAfter(queues, nextDue)
      return withBytes(shard, decodeClaimed(shard, queues, answer, isFused))
    })
  }

  return {
    claim: Effect.fnUntraced(function* (
      script,
      { claimId = crypto.randomUUID(), ...request },
      encodeRest,
      isFused = false
    ) {
      const first = claims.get(script) ?? 0
      claims.set(script, first + 1)
      let claimed: ReadonlyArray<ClaimedMessage> = []
      const claimAll = Effect.fnUntraced(function* (isRetry: boolean) {
        for (let i = 0; i < keyspace.shards && claimed.length < request.max; i++) {
          // a repetition returns all that the claim took, which was within its bound
          if (!isRetry && isFull(claimed)) return readySignal.wakeAfter(request.queues, 0)
          const shard = (first + i) % keyspace.shards
          const max = request.max - claimed.length
          const more = yield* Effect.exit(
            claimFrom(shard, script, { ...request, max, claimId, isRetry }, encodeRest, isFused)
          )
          if (Exit.isSuccess(more)) claimed = claimed.length === 0 ? more.value : [...claimed, ...more.value]
          else if (claimed.length === 0) yield* more
          else break
        }
      })
      if (request.isRetry === true) yield* claimAll(true)
      yield* claimAll(false)
      return claimed
    })
  }
}
