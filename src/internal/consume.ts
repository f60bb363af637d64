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
  FiberSet,
  Latch,
  Option,
  type Scope,
  Stream
} from "effect"
import type { Start, Started } from "../BackendDriver.ts"
import type { Delivery } from "../BrokerDriver.ts"
import { PayloadInvalid, UnknownTask } from "../TaskFailed.ts"
import * as TaskMessage from "../TaskMessage.ts"
import type { Worker } from "../Worker.ts"
import * as defaults from "./defaults.ts"
import type { Definition } from "./definition.ts"
import { describe } from "./describe.ts"
import { type Engine, make, type Settings } from "./engine.ts"
import { applyRenewal, keepLeases, loseClaims } from "./leases.ts"
import type { Candidate } from "./ledger.ts"
import { forTask } from "./metrics.ts"
import { bePresent } from "./presence.ts"
import { backoff } from "./retrying.ts"
import { execute, Run } from "./run.ts"
import { close, insist, persist, settle } from "./settling.ts"
import { Place } from "./slots.ts"
import * as TaskId from "./taskId.ts"
import { failure, type Verdict } from "./verdict.ts"

/** An idle worker looks this often, whatever it is told. */
const lookInterval = Duration.seconds(1)
/** Deliveries that one claim brings at most. */
const MAX_CLAIM = 256
/** How soon a message of an unknown task is looked at again, and how late at most. */
const unknownBackoff = { min: 1000, max: 5000 }

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
    Effect.repeat(backoff),
    Effect.forkScoped
  )
  yield* Stream.runForEach(broker.lost, (handles) => loseClaims(engine, handles)).pipe(
    Effect.catchCause((cause) =>
      Effect.logWarning("The broker no longer says what it lost; asking again", cause)
    ),
    Effect.repeat(backoff),
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

/** A delivery that cannot run: what is to be done instead. */
type Refused = {
  readonly delivery: Delivery
  readonly refuse: (engine: Engine, delivery: Delivery) => Effect.Effect<void>
}

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
      if ("refuse" in sorted) fork(freeing(engine, sorted.refuse(engine, delivery)))
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

const putBack = (engine: Engine, { handle }: Delivery, afterMillis: number, keepDue = false) =>
  insist(engine, engine.settings.broker.release.one({ handle, afterMillis, keepDue })).pipe(
    Effect.catchCause((cause) =>
      Effect.logWarning("A message could not be put back; its lease will run out", cause)
    )
  )

const sort = (engine: Engine, delivery: Delivery): Effect.Effect<Candidate | Refused> =>
  Effect.match(TaskMessage.decode(delivery.body), {
    onFailure: (error) => ({ delivery, refuse: refuseMalformed(describe(error)) }),
    onSuccess: (message) => {
      const known = engine.settings.tasks.get(message.task)
      return known === undefined
        ? { delivery, refuse: refuseUnknown(message) }
        : { delivery, message, start: startOf(engine, delivery, message, known.definition) }
    }
  })

const letterRetentionMillis = Duration.toMillis(defaults.letterRetention)

const startOf = (
  engine: Engine,
  { body, queue }: Delivery,
  { expires, generation, id, task }: Pick<TaskMessage.TaskMessage, "id" | "task" | "generation" | "expires">,
  definition?: Definition
): Start => ({
  id,
  task,
  generation,
  token: engine.nextToken(),
  worker: engine.id,
  queue,
  body,
  leaseMillis: engine.leaseMillis,
  delivery: definition?.delivery ?? "at-least-once",
  maxCrashes: definition?.maxCrashes ?? defaults.maxCrashes,
  expiresMillis: expires,
  retentionMillis:
    definition === undefined ? Duration.toMillis(defaults.retention) : definition.retentionMillis,
  letterRetentionMillis
})

/** Runs what may run; the others are dropped or put back. */
const begin = (
  engine: Engine,
  candidate: Candidate,
  started: Started,
  sentAt: bigint
): Effect.Effect<void> => {
  const { delivery, message } = candidate
  switch (started._tag) {
    case "Drop":
      engine.queueMetrics(delivery.queue).duplicates.updateUnsafe(1, engine.context)
      return ackOnly(engine, delivery)
    case "Busy":
      engine.queueMetrics(delivery.queue).duplicates.updateUnsafe(1, engine.context)
      return putBack(engine, delivery, started.millis)
    case "Run":
      return runToEnd(engine, new Run(candidate, engine.settings.tasks.get(message.task)!, started, sentAt))
  }
}

const ackOnly = (engine: Engine, { handle }: Delivery): Effect.Effect<void> =>
  insist(engine, engine.settings.broker.ack.one(handle)).pipe(
    Effect.catchCause((cause) => Effect.logWarning("A message could not be acked; it will come back", cause))
  )

const runToEnd = (engine: Engine, run: Run): Effect.Effect<void> =>
  Effect.uninterruptible(
    Effect.withFiber((fiber) => {
      const startedAt = engine.now()
      engine.opened(run)
      run.ranBy(fiber)
      return Effect.flatMap(mayRun(engine, run), (may) => {
        if (!may) return Effect.sync(() => engine.closed(run))
        return Effect.flatMap(execute(run, ofHandler(engine, run), engine.id), (verdict) => {
          const seconds = Number(engine.now() - startedAt) / 1e9
          return Effect.map(settle(engine, run, verdict), (settled) => {
            engine.closed(run)
            count(engine, run, verdict, settled, seconds)
          })
        })
      })
    })
  )

/** An at-most-once task is acked before it runs: no redelivery can run it again. */
const mayRun = (engine: Engine, run: Run): Effect.Effect<boolean> => {
  if (run.known.definition.delivery !== "at-most-once") return Effect.succeed(true)
  return insist(engine, engine.settings.broker.ack.one(run.candidate.delivery.handle)).pipe(
    Effect.tap(() =>
      Effect.sync(() => {
        run.claimed = false
      })
    ),
    // with a record a message that comes back finds the run; without one only the ack keeps it from running twice
    Effect.map((acked) => acked || engine.ledger.recorded),
    Effect.catchCause((cause) =>
      Effect.as(
        Effect.logWarning("An at-most-once message could not be acked", cause),
        engine.ledger.recorded
      )
    )
  )
}

const ofHandler = (engine: Engine, run: Run, place = new Place(engine.slots)) => ({
  withoutSlot: <A, E, R>(effect: Effect.Effect<A, E, R>) => place.without(effect),
  writeProgress: (progress: string) =>
    Effect.suspend(() => {
      const { id, token } = run.candidate.start
      const sentAt = engine.now()
      return Effect.flatMap(
        engine.settings.backend.renew.one({ id, token, leaseMillis: engine.leaseMillis, progress }),
        (answer) => applyRenewal(engine, run, answer, sentAt)
      )
    }).pipe(Effect.catchCause((cause) => Effect.logWarning("Progress could not be written", cause)))
})

const count = (engine: Engine, run: Run, verdict: Verdict, settled: string, seconds: number): void => {
  const metrics = forTask(run.known.definition.name)
  const errorType = settled === "Stored" ? (verdict._tag === "Failure" ? verdict.reason : "") : settled
  metrics.processed(errorType).updateUnsafe(seconds, engine.context)
  if (settled === "Lost") return metrics.leasesLost.updateUnsafe(1, engine.context)
  if (settled === "Cancelled" || verdict._tag === "Failure") engine.stats.failed++
  if (settled === "Cancelled") return
  if (verdict._tag === "Success") engine.stats.succeeded++
  if (verdict._tag === "Failure") metrics.deadLetters.updateUnsafe(1, engine.context)
  if (verdict._tag === "Retry") {
    engine.stats.retried++
    metrics.retries.updateUnsafe(1, engine.context)
  }
}

/** A message of a task that this worker does not know: another may, in a rolling deploy. */
const refuseUnknown =
  (message: TaskMessage.TaskMessage): Refused["refuse"] =>
  (engine, delivery) =>
    Effect.suspend(() => {
      const left = Duration.toMillis(engine.settings.unknownTaskGrace) - delivery.ageMillis
      if (left > 0) {
        const wait = Math.min(Math.max(delivery.ageMillis, unknownBackoff.min), unknownBackoff.max)
        return putBack(engine, delivery, Math.ceil(Math.min(wait, left)), true)
      }
      return Effect.flatMap(failure(new UnknownTask()), (verdict) =>
        endWithoutHandler(engine, { delivery, message, start: startOf(engine, delivery, message) }, verdict)
      )
    })

/** Bytes that are no message. Where their task is known by the envelope, it ends, and whoever waits is told. */
const refuseMalformed =
  (issue: string): Refused["refuse"] =>
  (engine, delivery) =>
    Effect.flatMap(failure(new PayloadInvalid({ issue })), (verdict) => {
      const { id, task } = delivery
      if (id === undefined || task === undefined) return park(engine, delivery, verdict)
      const message: TaskMessage.TaskMessage = {
        v: TaskMessage.version,
        id,
        task,
        generation: 0,
        queue: delivery.queue,
        payload: null,
        retries: 0,
        priority: defaults.priority
      }
      return endWithoutHandler(
        engine,
        { delivery, message, start: startOf(engine, delivery, message) },
        verdict
      )
    })

const park = (engine: Engine, delivery: Delivery, verdict: Verdict): Effect.Effect<void> =>
  verdict._tag !== "Failure"
    ? Effect.void
    : insist(
        engine,
        engine.ledger.park(delivery, {
          letterId: TaskId.make(engine.clock.currentTimeMillisUnsafe()),
          reason: verdict.reason,
          exit: verdict.exit
        }) as Effect.Effect<void, { readonly retryable: boolean }>
      ).pipe(
        Effect.catchCause((cause) => Effect.logError("A message that is none could not be parked", cause))
      )

/** Starts a run only to end it. */
const endWithoutHandler = (engine: Engine, candidate: Candidate, verdict: Verdict): Effect.Effect<void> =>
  Effect.gen(function* () {
    const [started] = yield* engine.ledger.start([candidate])
    if (started?._tag === "Busy") return yield* putBack(engine, candidate.delivery, started.millis)
    // a message of an older generation, or of a task that has ended: its bytes are kept all the same if they are odd
    if (started?._tag !== "Run") {
      return verdict._tag === "Failure" && verdict.reason === "PayloadInvalid"
        ? yield* park(engine, candidate.delivery, verdict)
        : yield* ackOnly(engine, candidate.delivery)
    }
    const settled = yield* engine.ledger.store(candidate, verdict)
    yield* close(engine, candidate, verdict, settled)
    engine.stats.failed++
  }).pipe(
    Effect.catchCause((cause) =>
      Cause.hasInterruptsOnly(cause)
        ? Effect.void
        : Effect.logError("A message without a handler could not be ended; it will come back", cause)
    )
  )
