/**
 * A worker: claims what is due, as much as it has slots free, runs it, and drains when its scope closes.
 *
 * Every loop is supervised: a store that fails is tried again with backoff, and a message that makes no sense ends
 * as a dead letter. Nothing that arrives can end a loop.
 */
import { Array as Arr, Duration, Effect, Exit, FiberSet, Latch, Option, type Scope, Stream } from "effect"
import type { Delivery } from "../BrokerDriver.ts"
import * as TaskMessage from "../TaskMessage.ts"
import type { Worker } from "../Worker.ts"
import { describe } from "./describe.ts"
import { type Engine, make, type Settings } from "./engine.ts"
import { keepLeases, loseClaims } from "./leases.ts"
import type { Candidate } from "./ledger.ts"
import { bePresent } from "./presence.ts"
import { type Refusal, refuseMalformed, refuseUnknown } from "./refusing.ts"
import { begin } from "./running.ts"
import { persist, putBack } from "./settling.ts"
import { startOf } from "./start.ts"

/** An idle worker looks this often, whatever it is told. */
const lookInterval = Duration.seconds(1)
/** Deliveries that one claim brings at most. */
const MAX_CLAIM = 256
/** How soon a stream of the broker that broke off is listened to again. */
const relisten = Duration.seconds(1)

/** Starts a worker, which ends with the scope. */
export const consume = Effect.fnUntraced(function* (
  settings: Settings
): Effect.fn.Return<Worker["Service"], never, Scope.Scope> {
  const engine = yield* make(settings)
  yield* bePresent(engine)
  yield* keepLeases(engine)
  const running = yield* FiberSet.make<void>()
  const fork = yield* FiberSet.runtime(running)<never>()
  yield* Effect.addFinalizer(() => drain(engine, running))
  yield* claimForever(engine, (effect) => fork(effect))
  return {
    id: engine.id,
    stats: Effect.sync(() => ({ running: engine.runs.size, ...engine.stats }))
  }
})

/** Lets running tasks finish, interrupts the rest, and waits until they are put back. */
const drain = (engine: Engine, running: FiberSet.FiberSet<void>): Effect.Effect<void> =>
  Effect.gen(function* () {
    const { drainTimeout } = engine.settings
    const drained = Duration.isZero(drainTimeout)
      ? Option.none()
      : yield* Effect.timeoutOption(FiberSet.awaitEmpty(running), drainTimeout)
    if (Option.isSome(drained)) return
    for (const run of engine.runs.values()) run.halt("Drained")
    engine.giveUp()
    yield* FiberSet.awaitEmpty(running)
  })

type Fork = (effect: Effect.Effect<void>) => void

/** Claims whenever there is a reason to and a slot is free. */
const claimForever = Effect.fnUntraced(function* (
  engine: Engine,
  fork: Fork
): Effect.fn.Return<void, never, Scope.Scope> {
  const { broker, queues } = engine.settings
  const reason = Latch.makeUnsafe(true)

  yield* Stream.runForEach(broker.ready(queues), () => reason.open).pipe(
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
    Effect.flatMap(restore(engine.slots.take(MAX_CLAIM)), (free) => {
      // closed before the look, so that no reason is lost
      reason.closeUnsafe()
      return Effect.matchCauseEffect(
        broker.claim({ queues, max: free, leaseMillis: engine.leaseMillis, worker: engine.id }),
        {
          onFailure: (cause) => {
            engine.slots.give(free)
            return Effect.failCause(cause)
          },
          onSuccess: (deliveries) => {
            engine.slots.give(free - deliveries.length)
            if (Arr.isReadonlyArrayNonEmpty(deliveries)) fork(receive(engine, deliveries, fork))
            // as many as were asked for: there may be more
            if (deliveries.length === free) reason.openUnsafe()
            return Effect.void
          }
        }
      )
    })
  )
  yield* Effect.timeoutOption(reason.await, lookInterval).pipe(
    Effect.andThen(claim),
    Effect.catchCause((cause) => Effect.logWarning("Claiming failed; trying again", cause)),
    Effect.forever,
    Effect.forkScoped
  )
})

/** Sorts what was claimed, asks for leave to run what can, and runs it. */
const receive = (
  engine: Engine,
  deliveries: Arr.NonEmptyReadonlyArray<Delivery>,
  fork: Fork
): Effect.Effect<void> =>
  Effect.gen(function* () {
    const candidates: Array<Candidate> = []
    for (const delivery of deliveries) {
      const { consumed, queued } = engine.queueMetrics(delivery.queue)
      consumed.updateUnsafe(1, engine.context)
      queued.updateUnsafe(delivery.ageMillis / 1000, engine.context)
      const sorted = yield* sort(engine, delivery)
      if (typeof sorted === "function") fork(freeing(engine, sorted(engine, delivery)))
      else candidates.push(sorted)
    }
    if (!Arr.isArrayNonEmpty(candidates)) return
    const sentAt = engine.now()
    const started = yield* Effect.exit(
      persist(engine, engine.ledger.start(candidates), {
        while: (error) => error._tag === "BackendError" && error.retryable && stillHeld(engine, sentAt)
      })
    )
    if (Exit.isFailure(started)) {
      yield* Effect.logError("Deliveries could not be started; they are put back", started.cause)
      for (const { delivery } of candidates) fork(freeing(engine, putBack(engine, delivery, 1000)))
      return
    }
    candidates.forEach((candidate, i) =>
      fork(freeing(engine, begin(engine, candidate, started.value[i]!, sentAt)))
    )
  })

const stillHeld = (engine: Engine, since: bigint): boolean =>
  !engine.givingUp && engine.now() - since < BigInt(engine.leaseMillis) * 1_000_000n

/** Gives the slot free when all is done, whatever became of it. */
const freeing = (engine: Engine, effect: Effect.Effect<void>): Effect.Effect<void> =>
  Effect.ensuring(
    Effect.catchCause(effect, (cause) =>
      Effect.logError("A delivery could not be handled; it will come back", cause)
    ),
    Effect.sync(() => engine.slots.give(1))
  )

const sort = (engine: Engine, delivery: Delivery): Effect.Effect<Candidate | Refusal> =>
  Effect.match(TaskMessage.decode(delivery.body), {
    onFailure: (error): Candidate | Refusal => refuseMalformed(describe(error)),
    onSuccess: (message) => {
      const known = engine.settings.tasks.get(message.task)
      return known === undefined
        ? refuseUnknown(message)
        : { delivery, message, start: startOf(engine, delivery, message, known.definition) }
    }
  })
