/**
 * A worker: claims what is due, as much as it has slots free, runs it, and drains when its scope closes.
 *
 * Every loop is supervised: a store that fails is tried again with backoff, and a message that makes no sense ends
 * as a dead letter. Nothing that arrives can end a loop.
 */
import {
  Array as Arr,
  Cause,
  Duration,
  Effect,
  Exit,
  Latch,
  Option,
  Schedule,
  type Scope,
  Stream
} from "effect"
import type { ClaimedMessage } from "../../BackendDriver.ts"
import type { Delivery } from "../../BrokerDriver.ts"
import type { ReadError } from "../../StoreError.ts"
import * as TaskMessage from "../../TaskMessage.ts"
import { backoff } from "../backoff.ts"
import { completedSync } from "../concurrency/completedSync.ts"
import { formatError } from "../formatError.ts"
import { renewLeases, onClaimsLost } from "./leaseRenewal.ts"
import { maintain } from "./maintenance.ts"
import { parkUnstartable, type Rejection, rejectMalformed, rejectUnknown } from "./rejectDelivery.ts"
import type { StartCandidate } from "./RunStore.ts"
import { applyStart, handleUnrun } from "./runTask.ts"
import { retryWhile, release } from "./settle.ts"
import { startRequest } from "./startRequest.ts"
import { type WorkerState, make, type WorkerSettings } from "./WorkerState.ts"

/** An idle worker looks this often, whatever it is told. */
const lookInterval = Duration.seconds(1)
/** Deliveries that one claim brings at most. */
const MAX_CLAIM = 256
/** How soon a stream of the broker that broke off is listened to again. */
const relisten = Duration.seconds(1)

/**
 * Where there may be more, the next claim is sent before what this one brought is run, which may take a while: so the
 * store is not idle meanwhile. What is asked for in one turn is written in the next.
 */
const sending = Effect.andThen(Effect.yieldNow, Effect.yieldNow)

/**
 * Counts of a worker's runs since it started.
 *
 * @category models
 * @since 0.1.0
 */
export interface Stats {
  /** Tasks that it runs now. */
  readonly running: number
  /** Tasks that it ended with a success. */
  readonly succeeded: number
  /** Tasks that it ended with a failure. */
  readonly failed: number
  /** Runs that it ended with a retry. */
  readonly retried: number
}

/**
 * A running worker.
 *
 * @category models
 * @since 0.1.0
 */
export interface WorkerService {
  /** Unique for each worker that was ever started. */
  readonly id: string
  readonly stats: Effect.Effect<Stats>
}

/** Starts a worker, which ends with the scope. */
export const startWorker = Effect.fnUntraced(function* (
  settings: WorkerSettings
): Effect.fn.Return<WorkerService, never, Scope.Scope> {
  const worker = yield* make(settings)
  yield* maintain(worker)
  yield* renewLeases(worker)
  yield* Effect.addFinalizer(() => drain(worker))
  yield* claimLoop(worker)
  return {
    id: worker.id,
    stats: Effect.sync(() => ({ running: worker.runs.size, ...worker.stats }))
  }
})

/** Lets running tasks finish, interrupts the rest, and waits until they are put back. */
const drain = (worker: WorkerState): Effect.Effect<void> =>
  Effect.gen(function* () {
    const { drainTimeout } = worker.settings
    const drained = Duration.isZero(drainTimeout)
      ? Option.none()
      : yield* Effect.timeoutOption(worker.inFlight.wait, drainTimeout)
    if (Option.isSome(drained)) return
    for (const run of worker.runs.values()) run.interrupt("Drained")
    worker.expireDrain()
    yield* worker.inFlight.wait
  })

/** Claims whenever there is a reason to and a slot is free. */
const claimLoop = Effect.fnUntraced(function* (
  worker: WorkerState
): Effect.fn.Return<void, never, Scope.Scope> {
  const { broker, queues } = worker.settings
  const reason = Latch.makeUnsafe(true)
  const all = Math.min(MAX_CLAIM, worker.slots.total)
  const half = Math.min(MAX_CLAIM, Math.ceil(worker.slots.total / 2))
  // While a store is waited for, the other half of the slots has work. One that answers at once leaves nothing to
  // overlap, and does best with few large claims; so does one whose calls are dear.
  let portion = all
  /** The claim that failed last: what it took is asked for again. */
  let failed: string | undefined
  const ask = (max: number) =>
    Effect.suspend(() => {
      const isRetry = failed !== undefined
      const claimId = failed ?? worker.nextClaimId()
      failed = claimId
      const { id, leaseMillis } = worker
      return completedSync(
        worker.runStore.claim({ queues, max, leaseMillis, worker: id, claimId, isRetry }),
        (atOnce) => {
          failed = undefined
          portion = atOnce || broker.capabilities.prefersLargeBatches === true ? all : half
        }
      )
    })

  yield* Stream.runForEach(broker.ready(queues, worker.slots.total), () =>
    Effect.sync(() => reason.openUnsafe())
  ).pipe(
    Effect.catchCause((cause) =>
      Effect.logWarning("The broker no longer says what is ready; asking again", cause)
    ),
    Effect.andThen(Effect.sleep(relisten)),
    Effect.forever,
    Effect.forkScoped
  )
  yield* Stream.runForEach(broker.lost, (handles) => onClaimsLost(worker, handles)).pipe(
    Effect.catchCause((cause) =>
      Effect.logWarning("The broker no longer says what it lost; asking again", cause)
    ),
    Effect.andThen(Effect.sleep(relisten)),
    Effect.forever,
    Effect.forkScoped
  )

  // claimed and not handed over would be lost until its lease runs out: so this part is not interrupted
  const claim = Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(restore(Effect.suspend(() => worker.slots.take(portion))), (free) => {
      // closed before the look, so that no reason is lost
      reason.closeUnsafe()
      const sentAt = worker.now()
      return Effect.matchCauseEffect(ask(free), {
        onFailure: (cause) => {
          worker.slots.give(free)
          return Effect.failCause(cause)
        },
        onSuccess: (claimed) => {
          worker.slots.give(free - claimed.length)
          // as many as were asked for: there may be more
          if (claimed.length === free) reason.openUnsafe()
          if (claimed.length < free) receiveClaimed(worker, claimed, sentAt)
          else
            worker.fork(
              Effect.andThen(
                sending,
                Effect.sync(() => receiveClaimed(worker, claimed, sentAt))
              )
            )
          return Effect.void
        }
      })
    })
  )
  yield* Effect.andThen(
    Effect.sleep(lookInterval),
    Effect.sync(() => reason.openUnsafe())
  ).pipe(Effect.forever, Effect.forkScoped)
  yield* reason.await.pipe(
    Effect.andThen(claim),
    Effect.catchCause((cause) => {
      reason.openUnsafe()
      return Effect.andThen(
        Effect.logWarning("Claiming failed; trying again", cause),
        Effect.fail("claiming failed")
      )
    }),
    Effect.retry(Schedule.min([backoff, Schedule.spaced(lookInterval)])),
    Effect.forever,
    Effect.forkScoped
  )
})

/** Sorts what was claimed, asks for leave to run what can and was not started yet, and runs it. */
const receiveClaimed = (
  worker: WorkerState,
  claimed: ReadonlyArray<ClaimedMessage>,
  sentAt: bigint
): void => {
  const candidates: Array<StartCandidate> = []
  for (const one of claimed) {
    const { delivery, run } = one
    const { consumed, queued } = worker.queueMetrics(delivery.queue)
    consumed.updateUnsafe(1, worker.context)
    queued.updateUnsafe(delivery.ageMillis / 1000, worker.context)
    const sorted = sort(worker, one)
    if (typeof sorted === "function") handleUnrun(worker, delivery, sorted(worker, one))
    else if (run === undefined) candidates.push(sorted)
    else applyStart(worker, sorted, run.started, sentAt)
  }
  if (candidates.length > 0) worker.fork(start(worker, candidates))
}

/** What cannot be started through the fault of one is tried again in halves, so that only that one is given up. */
const start = (worker: WorkerState, candidates: ReadonlyArray<StartCandidate>): Effect.Effect<void> => {
  if (!Arr.isReadonlyArrayNonEmpty(candidates)) return Effect.void
  const sentAt = worker.now()
  return retryWhile(worker, worker.runStore.start(candidates), {
    while: (error) => error._tag === "BackendError" && error.retryable && stillHeld(worker, sentAt)
  }).pipe(
    Effect.matchCauseEffect({
      onSuccess: (started) => {
        candidates.forEach((candidate, i) => applyStart(worker, candidate, started[i]!, sentAt))
        return Effect.void
      },
      onFailure: (cause) => {
        const failure = Cause.findError(cause)
        if (failure._tag === "Success" && isPermanent(failure.success)) {
          const half = candidates.length >> 1
          if (half > 0) {
            return Effect.andThen(
              start(worker, candidates.slice(0, half)),
              start(worker, candidates.slice(half))
            )
          }
          const { delivery } = candidates[0]
          handleUnrun(worker, delivery, parkUnstartable(worker, delivery, failure.success))
          return Effect.logError("A task cannot be started; its message becomes a dead letter", cause)
        }
        for (const { delivery } of candidates) handleUnrun(worker, delivery, release(worker, delivery, 1000))
        return Effect.logError("Deliveries could not be started; they are put back", cause)
      }
    })
  )
}

const isPermanent = (error: ReadError): boolean => error._tag === "BackendError" && !error.retryable

const stillHeld = (worker: WorkerState, since: bigint): boolean =>
  !worker.drainExpired && worker.now() - since < BigInt(worker.leaseMillis) * 1_000_000n

const sort = (worker: WorkerState, { delivery, run }: ClaimedMessage): StartCandidate | Rejection => {
  const decoded = TaskMessage.decode(delivery.body)
  if (Exit.isFailure(decoded)) return rejectMalformed(formatError(Cause.squash(decoded.cause)))
  const message = decoded.value
  if (!isOf(delivery, message)) return rejectMalformed("its envelope names another task")
  const known = worker.tasks.get(message.task)
  return known === undefined
    ? rejectUnknown(message)
    : { delivery, message, start: startRequest(worker, delivery, message, known.definition, run?.token) }
}

/** Whether a message is what its envelope says, by which the store may have started it. */
const isOf = ({ generation, id, task }: Delivery, message: TaskMessage.TaskMessage): boolean =>
  id === undefined ||
  (id === message.id &&
    task === message.task &&
    (generation === undefined || generation === message.generation))
