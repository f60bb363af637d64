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
import { tellAtOnce } from "../concurrency/completedSync.ts"
import { describe } from "../formatError.ts"
import { keepLeases, loseClaims } from "./leaseRenewal.ts"
import { bePresent } from "./maintenance.ts"
import { parkUnstartable, type Refusal, refuseMalformed, refuseUnknown } from "./rejectDelivery.ts"
import type { Candidate } from "./RunStore.ts"
import { begin, handle } from "./runTask.ts"
import { persist, putBack } from "./settle.ts"
import { startOf } from "./startRequest.ts"
import { type Engine, make, type Settings } from "./WorkerState.ts"

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

/** What a worker has done since it started. */
export interface Stats {
  readonly running: number
  readonly succeeded: number
  readonly failed: number
  readonly retried: number
}

/** A worker that runs. */
export interface WorkerService {
  readonly id: string
  readonly stats: Effect.Effect<Stats>
}

/** Starts a worker, which ends with the scope. */
export const consume = Effect.fnUntraced(function* (
  settings: Settings
): Effect.fn.Return<WorkerService, never, Scope.Scope> {
  const engine = yield* make(settings)
  yield* bePresent(engine)
  yield* keepLeases(engine)
  yield* Effect.addFinalizer(() => drain(engine))
  yield* claimForever(engine)
  return {
    id: engine.id,
    stats: Effect.sync(() => ({ running: engine.runs.size, ...engine.stats }))
  }
})

/** Lets running tasks finish, interrupts the rest, and waits until they are put back. */
const drain = (engine: Engine): Effect.Effect<void> =>
  Effect.gen(function* () {
    const { drainTimeout } = engine.settings
    const drained = Duration.isZero(drainTimeout)
      ? Option.none()
      : yield* Effect.timeoutOption(engine.underway.none, drainTimeout)
    if (Option.isSome(drained)) return
    for (const run of engine.runs.values()) run.halt("Drained")
    engine.giveUp()
    yield* engine.underway.none
  })

/** Claims whenever there is a reason to and a slot is free. */
const claimForever = Effect.fnUntraced(function* (
  engine: Engine
): Effect.fn.Return<void, never, Scope.Scope> {
  const { broker, queues } = engine.settings
  const reason = Latch.makeUnsafe(true)
  const all = Math.min(MAX_CLAIM, engine.slots.total)
  const half = Math.min(MAX_CLAIM, Math.ceil(engine.slots.total / 2))
  // While a store is waited for, the other half of the slots has work. One that answers at once leaves nothing to
  // overlap, and does best with few large claims; so does one whose calls are dear.
  let portion = all
  /** The claim that failed last: what it took is asked for again. */
  let failed: string | undefined
  const ask = (max: number) =>
    Effect.suspend(() => {
      const isRetry = failed !== undefined
      const claimId = failed ?? engine.nextClaim()
      failed = claimId
      const { id: worker, leaseMillis } = engine
      return tellAtOnce(
        engine.ledger.claim({ queues, max, leaseMillis, worker, claimId, isRetry }),
        (atOnce) => {
          failed = undefined
          portion = atOnce || broker.capabilities.prefersLargeBatches === true ? all : half
        }
      )
    })

  yield* Stream.runForEach(broker.ready(queues, engine.slots.total), () =>
    Effect.sync(() => reason.openUnsafe())
  ).pipe(
    Effect.catchCause((cause) =>
      Effect.logWarning("The broker no longer says what is ready; asking again", cause)
    ),
    Effect.andThen(Effect.sleep(relisten)),
    Effect.forever,
    Effect.forkScoped
  )
  yield* Stream.runForEach(broker.lost, (handles) => loseClaims(engine, handles)).pipe(
    Effect.catchCause((cause) =>
      Effect.logWarning("The broker no longer says what it lost; asking again", cause)
    ),
    Effect.andThen(Effect.sleep(relisten)),
    Effect.forever,
    Effect.forkScoped
  )

  // claimed and not handed over would be lost until its lease runs out: so this part is not interrupted
  const claim = Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(restore(Effect.suspend(() => engine.slots.take(portion))), (free) => {
      // closed before the look, so that no reason is lost
      reason.closeUnsafe()
      const sentAt = engine.now()
      return Effect.matchCauseEffect(ask(free), {
        onFailure: (cause) => {
          engine.slots.give(free)
          return Effect.failCause(cause)
        },
        onSuccess: (claimed) => {
          engine.slots.give(free - claimed.length)
          // as many as were asked for: there may be more
          if (claimed.length === free) reason.openUnsafe()
          if (claimed.length < free) receive(engine, claimed, sentAt)
          else
            engine.fork(
              Effect.andThen(
                sending,
                Effect.sync(() => receive(engine, claimed, sentAt))
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
const receive = (engine: Engine, claimed: ReadonlyArray<ClaimedMessage>, sentAt: bigint): void => {
  const candidates: Array<Candidate> = []
  for (const one of claimed) {
    const { delivery, run } = one
    const { consumed, queued } = engine.queueMetrics(delivery.queue)
    consumed.updateUnsafe(1, engine.context)
    queued.updateUnsafe(delivery.ageMillis / 1000, engine.context)
    const sorted = sort(engine, one)
    if (typeof sorted === "function") handle(engine, delivery, sorted(engine, one))
    else if (run === undefined) candidates.push(sorted)
    else begin(engine, sorted, run.started, sentAt)
  }
  if (candidates.length > 0) engine.fork(start(engine, candidates))
}

/** What cannot be started through the fault of one is tried again in halves, so that only that one is given up. */
const start = (engine: Engine, candidates: ReadonlyArray<Candidate>): Effect.Effect<void> => {
  if (!Arr.isReadonlyArrayNonEmpty(candidates)) return Effect.void
  const sentAt = engine.now()
  return persist(engine, engine.ledger.start(candidates), {
    while: (error) => error._tag === "BackendError" && error.retryable && stillHeld(engine, sentAt)
  }).pipe(
    Effect.matchCauseEffect({
      onSuccess: (started) => {
        candidates.forEach((candidate, i) => begin(engine, candidate, started[i]!, sentAt))
        return Effect.void
      },
      onFailure: (cause) => {
        const failure = Cause.findError(cause)
        if (failure._tag === "Success" && isPermanent(failure.success)) {
          const half = candidates.length >> 1
          if (half > 0) {
            return Effect.andThen(
              start(engine, candidates.slice(0, half)),
              start(engine, candidates.slice(half))
            )
          }
          const { delivery } = candidates[0]
          handle(engine, delivery, parkUnstartable(engine, delivery, failure.success))
          return Effect.logError("A task cannot be started; its message becomes a dead letter", cause)
        }
        for (const { delivery } of candidates) handle(engine, delivery, putBack(engine, delivery, 1000))
        return Effect.logError("Deliveries could not be started; they are put back", cause)
      }
    })
  )
}

const isPermanent = (error: ReadError): boolean => error._tag === "BackendError" && !error.retryable

const stillHeld = (engine: Engine, since: bigint): boolean =>
  !engine.givingUp && engine.now() - since < BigInt(engine.leaseMillis) * 1_000_000n

const sort = (engine: Engine, { delivery, run }: ClaimedMessage): Candidate | Refusal => {
  const decoded = TaskMessage.decode(delivery.body)
  if (Exit.isFailure(decoded)) return refuseMalformed(describe(Cause.squash(decoded.cause)))
  const message = decoded.value
  if (!isOf(delivery, message)) return refuseMalformed("its envelope names another task")
  const known = engine.tasks.get(message.task)
  return known === undefined
    ? refuseUnknown(message)
    : { delivery, message, start: startOf(engine, delivery, message, known.definition, run?.token) }
}

/** Whether a message is what its envelope says, by which the store may have started it. */
const isOf = ({ generation, id, task }: Delivery, message: TaskMessage.TaskMessage): boolean =>
  id === undefined ||
  (id === message.id &&
    task === message.task &&
    (generation === undefined || generation === message.generation))
