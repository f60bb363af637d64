/**
 * The claim loop of a worker: claims due messages, at most as many as it has free slots, and passes them on.
 *
 * Every loop here is supervised: a store that fails is tried again with backoff, and nothing that arrives ends a loop.
 */
import { Duration, Effect, Latch, Schedule, type Scope, Stream } from "effect"
import type { ClaimedMessage, HandedOver } from "../../BackendDriver.ts"
import type { BrokerError, ReadError } from "../../StoreError.ts"
import { backoff } from "../backoff.ts"
import { completedSync } from "../concurrency/completedSync.ts"
import type { BackgroundTask } from "../driver/Outages.ts"
import { closeClaim, takeHandedOver } from "./handOver.ts"
import { forkLoop } from "./health.ts"
import { onClaimsLost } from "./leaseRenewal.ts"
import { startDeliveries } from "./startDeliveries.ts"
import type { WorkerState } from "./WorkerState.ts"

/** An idle worker claims this often where the broker may lose hints of messages. */
const CLAIM_INTERVAL = Duration.seconds(1)
/** Messages per claim, at most. */
const MAX_CLAIM = 256
/** How long to wait before a broken stream of the broker is run again. */
const RESTART_STREAM_AFTER = Duration.seconds(1)

/**
 * Two turns of the scheduler: requests of one turn are sent in the next. A claim that may not have been the last one is
 * followed by the next claim before its messages are started, which takes a while, so that the store does not idle.
 */
const untilNextClaimIsSent = Effect.andThen(Effect.yieldNow, Effect.yieldNow)

class ClaimLoop {
  private readonly worker: WorkerState
  /** Open when there may be messages to claim. */
  private readonly mayClaim = Latch.makeUnsafe(true)
  /** Slots that one claim fills at most. */
  private maxPerClaim: number
  /** The id of a claim that failed: the next one repeats it and returns what it took. */
  private failedClaimId: string | undefined
  /** Whether a claim is on its way, with slots that it may not fill. */
  private isClaiming = false

  constructor(worker: WorkerState) {
    this.worker = worker
    this.maxPerClaim = this.allSlots
  }

  private get allSlots(): number {
    return Math.min(MAX_CLAIM, this.worker.slots.total)
  }

  /** While the worker waits for an asynchronous store, the other half of its slots has work. */
  private get halfOfSlots(): number {
    return Math.min(MAX_CLAIM, Math.ceil(this.worker.slots.total / 2))
  }

  private request(max: number): Effect.Effect<ReadonlyArray<ClaimedMessage>, ReadError | BrokerError> {
    return Effect.suspend(() => {
      const { worker } = this
      const { broker, queues } = worker.settings
      const isRetry = this.failedClaimId !== undefined
      const claimId = this.failedClaimId ?? worker.nextClaimId()
      this.failedClaimId = claimId
      const { claimedTasks: tasks, id, leaseMillis } = worker
      return completedSync(
        worker.runStore.claim(
          { queues, max, leaseMillis, worker: id, claimId, isRetry, tasks },
          this.onHandedOver
        ),
        (sync) => {
          this.failedClaimId = undefined
          // a store that answers synchronously, or prefers large batches, does best with few large claims
          const fillsAll = sync || broker.capabilities.prefersLargeBatches === true
          this.maxPerClaim = fillsAll ? this.allSlots : this.halfOfSlots
        }
      )
    })
  }

  private readonly onHandedOver = (handedOver: HandedOver): boolean =>
    takeHandedOver(this.worker, handedOver, this.isClaiming)

  // uninterruptible from the claim on: messages that were claimed and not passed on would wait for their lease to end
  private readonly claim = Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(restore(Effect.suspend(() => this.worker.slots.take(this.maxPerClaim))), (slots) => {
      const { worker } = this
      // closed before the claim, so that hints that come meanwhile are kept
      this.mayClaim.closeUnsafe()
      const sentAt = worker.now()
      worker.health.onClaimSent(sentAt)
      this.isClaiming = true
      return Effect.matchCauseEffect(this.request(slots), {
        onFailure: (cause) => {
          this.isClaiming = false
          worker.health.onClaimFailed()
          worker.slots.give(slots)
          return Effect.failCause(cause)
        },
        onSuccess: (claimed) => {
          this.isClaiming = false
          worker.health.onClaimAnswered()
          worker.slots.give(slots - claimed.length)
          const mayBeMore = claimed.length === slots
          if (!mayBeMore) startDeliveries(worker, claimed, sentAt)
          else {
            this.mayClaim.openUnsafe()
            worker.fork(
              Effect.andThen(
                untilNextClaimIsSent,
                Effect.sync(() => startDeliveries(worker, claimed, sentAt))
              )
            )
          }
          return worker.settings.broker.outages.succeeded
        }
      })
    })
  )

  readonly claimForever = Effect.suspend(() => this.mayClaim.await).pipe(
    Effect.andThen(this.claim),
    Effect.catchCause((cause) => {
      this.mayClaim.openUnsafe()
      return Effect.andThen(this.worker.settings.broker.outages.failed(cause), Effect.fail("claim failed"))
    }),
    Effect.retry(Schedule.min([backoff, Schedule.spaced(CLAIM_INTERVAL)])),
    Effect.forever,
    Effect.ensuring(Effect.suspend(() => closeClaim(this.worker)))
  )

  readonly claimRegularly = Effect.andThen(
    Effect.sync(() => {
      const { health, slots } = this.worker
      health.onTick(this.worker.now(), slots.free > 0)
      this.mayClaim.openUnsafe()
    }),
    Effect.sleep(CLAIM_INTERVAL)
  ).pipe(Effect.forever)

  readonly followHints = Effect.suspend(() => {
    const { setAsideChanged, settings, slots } = this.worker
    const { capabilities, ready } = settings.broker
    // for its next hint a store may have to be asked, for which a full worker has no use; in this process it costs nothing
    const hints = this.worker.settings.broker.outages.background("receive hints of ready messages", {
      mayBeSilent: true
    })
    const untilFree = capabilities.reliableHints === true ? Effect.void : slots.untilFree
    return Stream.runForEach(ready(settings.queues, slots.total), () =>
      Effect.suspend(() => {
        setAsideChanged.openUnsafe()
        this.mayClaim.openUnsafe()
        return Effect.andThen(hints.succeeded, untilFree)
      })
    ).pipe(restarted(hints))
  })

  readonly followLostClaims = Effect.suspend(() => {
    const { lost, outages } = this.worker.settings.broker
    return Stream.runForEach(lost, (handles) => onClaimsLost(this.worker, handles)).pipe(
      restarted(outages.background("receive lost claims", { mayBeSilent: true }))
    )
  })
}

/** Runs an effect again and again, and logs its failures. */
function restarted(task: BackgroundTask) {
  return <E>(effect: Effect.Effect<void, E>): Effect.Effect<never> =>
    Effect.catchCause(effect, task.failed).pipe(
      Effect.andThen(Effect.sleep(RESTART_STREAM_AFTER)),
      Effect.forever
    )
}

/** Claims messages until the scope closes. */
export const claimMessages = Effect.fnUntraced(function* (
  worker: WorkerState
): Effect.fn.Return<void, never, Scope.Scope> {
  const loop = new ClaimLoop(worker)
  const fork = forkLoop(worker)
  yield* fork(loop.followHints)
  yield* fork(loop.followLostClaims)
  if (worker.settings.broker.capabilities.reliableHints !== true) yield* fork(loop.claimRegularly)
  yield* fork(loop.claimForever)
})
