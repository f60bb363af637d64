/**
 * The claims of this process that wait for messages to be handed over: see `scripts/lib/handOver.ts`.
 *
 * A message that is handed over comes over the channel of the process, which may lose it, or may bring it before the answer to the
 * claim that waits. The next claim of the worker also returns it, unless it says that it was received.
 */
import type { Clock } from "effect"
import type { ClaimedMessage, HandedOver, StartDefaults } from "../BackendDriver.ts"
import * as ClaimHandle from "./ClaimHandle.ts"
import * as MessageText from "./MessageText.ts"
import type { HandedOverText } from "./ProcessChannel.ts"
import type { Wait } from "./scripts/lib/handOver.ts"
import { decodeStarted } from "./scripts/lib/starts.ts"

/** What hand-over needs to know of a claim. */
export interface WaitingRequest {
  readonly worker: string
  readonly claimId: string
  readonly leaseMillis: number
  readonly startDefaults: ReadonlyArray<StartDefaults>
  readonly onHandedOver: (handedOver: HandedOver) => boolean
}

/** A claim that may wait. */
interface WaitingClaim extends WaitingRequest {
  /** When it was sent, in monotonic nanoseconds. */
  readonly sentAt: bigint
  /** How many messages were received one after the other, from the first on. */
  received: number
  /** The numbers of messages that were received after one that was not. */
  readonly later: Set<number>
  /** The handles of all messages that were received. */
  readonly handles: Set<string>
}

/** The one shard of a store that hands messages over. */
const SHARD = 0
/** Claims of a worker that are named at most, where many of them failed. By then the first of them are long over. */
const MAX_NAMED = 32

/** The claims that wait, of all workers of a process. */
export class WaitingClaims {
  private readonly clock: Clock.Clock
  private readonly claims = new Map<string, WaitingClaim>()
  private sent = 0

  constructor(clock: Clock.Clock) {
    this.clock = clock
  }

  /** Adds a claim that is about to be sent. The claims of its worker before it end with it. */
  add(request: WaitingRequest): Wait {
    const ended = this.endedBy(request.worker)
    if (ended.length >= MAX_NAMED) this.claims.delete(ended[0]![0])
    const id = `${request.claimId}.${++this.sent}`
    this.claims.set(id, {
      ...request,
      sentAt: this.clock.monotonicTimeNanosUnsafe(),
      received: 0,
      later: new Set(),
      handles: new Set()
    })
    return { id, ended }
  }

  /** Returns the last claim of a worker that may wait. */
  last(worker: string): WaitingRequest | undefined {
    return [...this.claims.values()].findLast((claim) => claim.worker === worker)
  }

  /** Returns the claims of a worker that may wait, as a claim names them. */
  endedBy(worker: string): Wait["ended"] {
    const ended: Array<readonly [string, number]> = []
    for (const [id, claim] of this.claims) if (claim.worker === worker) ended.push([id, claim.received])
    return ended
  }

  /**
   * Notes the answer to a claim: what it claimed, whether it still waits, and how many messages of the claims that it ended are
   * left. Returns what was not received already.
   */
  onAnswer(
    { ended, id }: Wait,
    claimed: ReadonlyArray<ClaimedMessage>,
    waits: boolean,
    left: number
  ): ReadonlyArray<ClaimedMessage> {
    if (!waits) this.claims.delete(id)
    let added = claimed
    for (const [endedId] of ended) {
      const claim = this.claims.get(endedId)
      if (claim === undefined) continue
      const { handles } = claim
      if (handles.size > 0) added = added.filter(({ delivery }) => !handles.has(delivery.handle))
      if (left === 0) this.claims.delete(endedId)
      else for (const message of claimed) if (isOf(endedId, message)) receive(claim, message.delivery.handle)
    }
    return added
  }

  /** Notes that a claim was refused: it does not wait, and ended none. */
  onRefused({ id }: Wait): void {
    this.claims.delete(id)
  }

  /** Passes on a message that came over the channel. Returns the queue whose workers have to claim if it is the last of its claim. */
  onMessage({
    claimId,
    elapsedMillis,
    isLast,
    member,
    number,
    queue,
    text
  }: HandedOverText): string | undefined {
    const claim = this.claims.get(claimId)
    if (claim === undefined || number <= claim.received || claim.later.has(number)) return undefined
    const handle = ClaimHandle.encode(SHARD, member, queue)
    const message: ClaimedMessage = {
      delivery: { handle, queue, ageMillis: 0, ...MessageText.decode(text) },
      run: { token: member, started: decodeStarted("R") }
    }
    // the server has counted whole milliseconds between the two
    const leasedAt = claim.sentAt + BigInt(Math.max(0, Math.floor(elapsedMillis) - 1)) * 1_000_000n
    const leased = this.clock.monotonicTimeNanosUnsafe() - leasedAt
    const isTaken = claim.onHandedOver({ message, leasedMillis: Math.max(0, Number(leased) / 1e6) })
    if (isTaken) receive(claim, handle, number)
    return isLast ? queue : undefined
  }
}

const isOf = (id: string, { delivery, run }: ClaimedMessage): boolean =>
  (run?.token ?? delivery.handle.split("/")[1])?.endsWith(`:${id}`) === true

/** Notes a message as received: that of a number, or the next one. */
const receive = (claim: WaitingClaim, handle: string, number = claim.received + 1): void => {
  claim.handles.add(handle)
  claim.later.add(number)
  while (claim.later.delete(claim.received + 1)) claim.received++
}
