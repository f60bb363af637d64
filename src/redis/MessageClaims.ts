/** Claims messages from the shards of a store, one shard after the other. */
import { Effect, Exit } from "effect"
import type { RedisError } from "effect/persistence/Redis"
import type { ClaimedMessage, FusedClaimRequest } from "../BackendDriver.ts"
import type { ClaimRequest } from "../BrokerDriver.ts"
import * as defaults from "../internal/defaults.ts"
import * as ClaimHandle from "./ClaimHandle.ts"
import * as MessageText from "./MessageText.ts"
import type { ProcessChannel } from "./ProcessChannel.ts"
import type { ReadySignal } from "./ReadySignal.ts"
import type { RefusalLog } from "./RefusalLog.ts"
import type { Script } from "./Script.ts"
import type { ScriptRunner } from "./ScriptRunner.ts"
import { type ClaimAnswer, decodeClaimed, encodeClaim, leftOf } from "./scripts/lib/claims.ts"
import { noWait, type Wait } from "./scripts/lib/handOver.ts"
import { messageBytes } from "./scripts/messageBytes.ts"
import type { WaitingClaims } from "./WaitingClaims.ts"

/** What a fused claim has besides: it starts runs, and may wait for more. */
export type FusedPart = Pick<FusedClaimRequest, "onHandedOver" | "startDefaults">

/** Encodes what comes behind the claim, for its distinct queues. */
type EncodeRest = (queues: ReadonlyArray<string>, wait: Wait) => ReadonlyArray<string>

/** Claims of one process. */
export interface MessageClaims {
  /**
   * Claims with a script, whose arguments are the claim and what `encodeRest` returns for its distinct queues. A fused script
   * starts runs too. What was claimed is returned even where another shard fails.
   */
  readonly claim: (
    script: Script<ClaimAnswer>,
    request: ClaimRequest,
    encodeRest: EncodeRest,
    fused?: FusedPart
  ) => Effect.Effect<ReadonlyArray<ClaimedMessage>, RedisError>
  /** Ends the claims of a worker that wait, with a fused script, and returns what was handed over and not received. */
  readonly close: (
    script: Script<ClaimAnswer>,
    worker: string,
    encodeRest: (fused: FusedPart) => EncodeRest
  ) => Effect.Effect<ReadonlyArray<ClaimedMessage>, RedisError>
}

/** How many messages are returned at most that were handed over last. */
const MAX_CLOSED = 1024

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
  refusals: RefusalLog,
  waitingClaims: WaitingClaims
): MessageClaims => {
  const { clustered, keyspace, run } = runner
  // with several shards a claim would wait in each for all that it did not find; on a cluster no one knows who is subscribed
  const mayWait = keyspace.shards === 1 && !clustered
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

  /** Returns how a claim waits, and which claims it ends. */
  const waitOf = (
    request: ClaimRequest & { readonly claimId: string },
    isSubscribed: boolean,
    fused: FusedPart | undefined
  ): Wait => {
    if (!mayWait || fused === undefined || request.isRetry === true) return noWait
    const { onHandedOver, startDefaults } = fused
    return onHandedOver !== undefined && startDefaults.length > 0 && isSubscribed
      ? waitingClaims.add({ ...request, startDefaults, onHandedOver })
      : { ...noWait, ended: waitingClaims.endedBy(request.worker) }
  }

  const claimFrom = (
    shard: number,
    script: Script<ClaimAnswer>,
    request: ClaimRequest & { readonly claimId: string },
    encodeRest: EncodeRest,
    fused: FusedPart | undefined
  ): Effect.Effect<ReadonlyArray<ClaimedMessage>, RedisError> => {
    const queues = [...new Set(request.queues)]
    const isSubscribed = readySignal.hasSubscribers(queues)
    const args = encodeClaim({ ...request, process: channel.process, isSubscribed })
    const wait = waitOf(request, isSubscribed, fused)
    return Effect.flatMap(run(script, shard, [...args, ...encodeRest(queues, wait)]), (answer) => {
      if (answer === null) {
        waitingClaims.onRefused(wait)
        return Effect.as(refusals.onRefused(shard), [])
      }
      refusals.onAccepted(shard)
      const nextDue = answer[1]
      if (nextDue >= 0) readySignal.wakeAfter(queues, nextDue)
      const claimed = decodeClaimed(shard, queues, answer, fused !== undefined)
      if (wait === noWait) return withBytes(shard, claimed)
      const added = waitingClaims.onAnswer(wait, claimed, claimed.length < request.max, leftOf(answer))
      // the server counted what was received in the meantime
      if (added.length < claimed.length) readySignal.wakeAfter(queues, 0)
      return withBytes(shard, added)
    })
  }

  return {
    claim: Effect.fnUntraced(function* (
      script,
      { claimId = crypto.randomUUID(), ...request },
      encodeRest,
      fused
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
            claimFrom(shard, script, { ...request, max, claimId, isRetry }, encodeRest, fused)
          )
          if (Exit.isSuccess(more)) claimed = claimed.length === 0 ? more.value : [...claimed, ...more.value]
          else if (claimed.length === 0) yield* more
          else break
        }
      })
      if (request.isRetry === true) yield* claimAll(true)
      yield* claimAll(false)
      return claimed
    }),
    close: (script, worker, encodeRest) =>
      Effect.suspend(() => {
        const last = waitingClaims.last(worker)
        if (last === undefined) return Effect.succeed([])
        const wait: Wait = { ...noWait, ended: waitingClaims.endedBy(worker) }
        const args = encodeClaim({ ...last, max: MAX_CLOSED, process: channel.process, isSubscribed: false })
        return Effect.map(run(script, 0, [...args, ...encodeRest(last)([], wait)]), (answer) =>
          answer === null ? [] : waitingClaims.onAnswer(wait, decodeClaimed(0, [], answer, true), false, 0)
        )
      })
  }
}
