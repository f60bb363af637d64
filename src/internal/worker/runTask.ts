/** From the leave to run to the end of a run, and what is counted of it. */
import { type Cause, Effect, Exit } from "effect"
import type { Started } from "../../BackendDriver.ts"
import type { Delivery } from "../../BrokerDriver.ts"
import type { ReadError } from "../../StoreError.ts"
import type { Run as RunOfHandler } from "../task/CurrentRun.ts"
import { applyRenewal } from "./leaseRenewal.ts"
import { contextOf, execute, Run, verdictOn } from "./Run.ts"
import { Decided, type Verdict } from "./runOutcome.ts"
import type { Candidate, Settled } from "./RunStore.ts"
import { abandon, ackOnly, close, insist, putBack, settle } from "./settle.ts"
import { Place } from "./slots.ts"
import type { Engine } from "./WorkerState.ts"

/** Runs what may run; the others are dropped or put back. */
export const begin = (engine: Engine, candidate: Candidate, started: Started, sentAt: bigint): void => {
  const { delivery, message } = candidate
  switch (started._tag) {
    case "Drop":
      engine.queueMetrics(delivery.queue).duplicates.updateUnsafe(1, engine.context)
      return handle(engine, delivery, ackOnly(engine, delivery))
    case "Busy":
      engine.queueMetrics(delivery.queue).duplicates.updateUnsafe(1, engine.context)
      return handle(engine, delivery, putBack(engine, delivery, started.millis))
    case "Run":
      return runToEnd(engine, new Run(candidate, engine.tasks.get(message.task)!, started, sentAt))
  }
}

/** Does with a delivery what is to be done without running it, then gives its slot free, whatever became of it. */
export const handle = (engine: Engine, delivery: Delivery, effect: Effect.Effect<void>): void =>
  engine.fork(
    Effect.ensuring(
      Effect.catchCause(effect, (cause) => leaveUnhandled(engine, delivery, cause)),
      Effect.sync(() => engine.slots.give(1))
    )
  )

const leaveUnhandled = (engine: Engine, delivery: Delivery, cause: Cause.Cause<unknown>) =>
  Effect.andThen(
    Effect.logError("A delivery could not be handled; it will come back", cause),
    abandon(engine, delivery)
  )

const runToEnd = (engine: Engine, run: Run): void => {
  engine.underway.begin()
  const running = Effect.withFiber((fiber) => {
    const startedAt = engine.now()
    engine.opened(run)
    run.ranBy(fiber)
    return Effect.map(verdictOf(engine, run), (verdict) => {
      if (verdict === undefined) {
        engine.fork(abandon(engine, run.candidate.delivery))
        return gone(engine, run)
      }
      end(engine, run, run.completed ?? verdict, Number(engine.now() - startedAt) / 1e9)
    })
  })
  const context = contextOf(run, new HandlersRun(engine, run))
  Effect.runForkWith(context)(running, { uninterruptible: true }).addObserver((exit) => {
    if (Exit.isSuccess(exit)) return
    engine.fork(leaveUnhandled(engine, run.candidate.delivery, exit.cause))
    gone(engine, run)
  })
}

/** `undefined`: it may not run. */
const verdictOf = (engine: Engine, run: Run): Effect.Effect<Verdict | undefined, never, unknown> =>
  run.known.definition.delivery === "at-most-once"
    ? Effect.flatMap(ackFirst(engine, run), (may) => (may ? execute(run, engine.id) : Effect.undefined))
    : execute(run, engine.id)

/**
 * Stores the outcome, then lets go of the message. With a record the slot is free as soon as the handler has ended,
 * so that the next claim goes out together with the outcome, unless as many outcomes as there are slots are still on
 * their way. Without one the message is all there is of the task.
 */
const end = (engine: Engine, run: Run, verdict: Verdict, seconds: number): void => {
  const trails = engine.ledger.recorded && engine.trailing < engine.slots.total
  if (trails) {
    engine.trailing++
    engine.slots.give(1)
  }
  settle(engine, run, verdict, (settled) => {
    count(engine, run, verdict, settled, seconds)
    if (engine.ledger.recorded) engine.closed(run)
    close(engine, run, verdict, settled, () => {
      if (!trails) return gone(engine, run)
      engine.trailing--
      engine.underway.end()
    })
  })
}

/** Nothing is left to do for a run. */
const gone = (engine: Engine, run: Run): void => {
  engine.closed(run)
  engine.slots.give(1)
  engine.underway.end()
}

/**
 * An at-most-once task is acked before it runs: no redelivery can run it again. Whether it may run: with a record a
 * message that comes back finds the run; without one only the ack keeps it from running twice.
 */
const ackFirst = (engine: Engine, run: Run): Effect.Effect<boolean> =>
  Effect.suspend(() => {
    // a renewal that crosses the ack finds no claim any more, and must not take that for a loss
    run.claimed = false
    return insist(engine, engine.settings.broker.ack.one(run.candidate.delivery.handle))
  }).pipe(
    Effect.map((acked) => acked || engine.ledger.recorded),
    Effect.catchCause((cause) => {
      run.claimed = true
      return Effect.as(
        Effect.logWarning("An at-most-once message could not be acked", cause),
        engine.ledger.recorded
      )
    })
  )

/** What a handler can do with its run. */
class HandlersRun implements RunOfHandler {
  private readonly engine: Engine
  private readonly run: Run
  private place: Place | undefined

  constructor(engine: Engine, run: Run) {
    this.engine = engine
    this.run = run
  }

  withoutSlot<A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> {
    return (this.place ??= new Place(this.engine.slots)).without(effect)
  }

  writeProgress(progress: string): Effect.Effect<void> {
    const { engine, run } = this
    return Effect.suspend(() => {
      const { id, token } = run.candidate.start
      const sentAt = engine.now()
      return Effect.flatMap(
        engine.settings.backend.renew.one({ id, token, leaseMillis: engine.leaseMillis, progress }),
        (answer) => applyRenewal(engine, run, answer, sentAt)
      )
    }).pipe(Effect.catchCause((cause) => Effect.logWarning("Progress could not be written", cause)))
  }

  complete(value: unknown): Effect.Effect<() => void, ReadError> {
    const { engine, run } = this
    const { complete } = engine.ledger
    if (complete === undefined) {
      return Effect.die(
        new Error(
          "SqlStore.transact needs the results in the database of the transaction: provide SqlStore or SqlBackend"
        )
      )
    }
    return Effect.gen(function* () {
      const verdict = yield* verdictOn(run, value, engine.id)
      if (verdict._tag !== "Success") return yield* Effect.die(new Decided({ verdict }))
      const settled = yield* complete(run.candidate, verdict, run.claimed)
      if (settled !== "Stored") {
        run.halt("Lost")
        return yield* Effect.interrupt
      }
      return () => {
        run.settling = true
        run.completed = verdict
      }
    })
  }
}

const count = (engine: Engine, run: Run, verdict: Verdict, settled: Settled, seconds: number): void => {
  const { metrics } = run.known
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
