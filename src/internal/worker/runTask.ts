/** From the leave to run to the end of a run, and what is counted of it. */
import { type Cause, Effect, Exit } from "effect"
import type { Started } from "../../BackendDriver.ts"
import type { Delivery } from "../../BrokerDriver.ts"
import type { ReadError } from "../../StoreError.ts"
import type { RunControl as RunOfHandler } from "../task/CurrentRun.ts"
import { applyRenewal } from "./leaseRenewal.ts"
import { handlerContext, execute, Run, outcomeOfValue } from "./Run.ts"
import { DecidedOutcome, type RunOutcome } from "./runOutcome.ts"
import type { StartCandidate, Settled } from "./RunStore.ts"
import { returnUnhandled, ackOnly, releaseMessage, retryBriefly, release, settle } from "./settle.ts"
import { Slot } from "./slots.ts"
import type { WorkerState } from "./WorkerState.ts"

/** Runs what may run; the others are dropped or put back. */
export const applyStart = (
  worker: WorkerState,
  candidate: StartCandidate,
  started: Started,
  sentAt: bigint
): void => {
  const { delivery, message } = candidate
  switch (started._tag) {
    case "Drop":
      worker.queueMetrics(delivery.queue).duplicates.updateUnsafe(1, worker.context)
      return handleUnrun(worker, delivery, ackOnly(worker, delivery))
    case "Busy":
      worker.queueMetrics(delivery.queue).duplicates.updateUnsafe(1, worker.context)
      return handleUnrun(worker, delivery, release(worker, delivery, started.millis))
    case "Run":
      return runTask(worker, new Run(candidate, worker.tasks.get(message.task)!, started, sentAt))
  }
}

/** Does with a delivery what is to be done without running it, then gives its slot free, whatever became of it. */
export const handleUnrun = (worker: WorkerState, delivery: Delivery, effect: Effect.Effect<void>): void =>
  worker.fork(
    Effect.ensuring(
      Effect.catchCause(effect, (cause) => leaveUnhandled(worker, delivery, cause)),
      Effect.sync(() => worker.slots.give(1))
    )
  )

const leaveUnhandled = (worker: WorkerState, delivery: Delivery, cause: Cause.Cause<unknown>) =>
  Effect.andThen(
    Effect.logError("A delivery could not be handled; it will come back", cause),
    returnUnhandled(worker, delivery)
  )

const runTask = (worker: WorkerState, run: Run): void => {
  worker.inFlight.add()
  const running = Effect.withFiber((fiber) => {
    const startedAt = worker.now()
    worker.addRun(run)
    run.attachFiber(fiber)
    return Effect.map(outcomeOf(worker, run), (outcome) => {
      if (outcome === undefined) {
        worker.fork(returnUnhandled(worker, run.candidate.delivery))
        return finishRun(worker, run)
      }
      settleRun(worker, run, run.completedOutcome ?? outcome, Number(worker.now() - startedAt) / 1e9)
    })
  })
  const context = handlerContext(run, new HandlerRun(worker, run))
  Effect.runForkWith(context)(running, { uninterruptible: true }).addObserver((exit) => {
    if (Exit.isSuccess(exit)) return
    worker.fork(leaveUnhandled(worker, run.candidate.delivery, exit.cause))
    finishRun(worker, run)
  })
}

/** `undefined`: it may not run. */
const outcomeOf = (worker: WorkerState, run: Run): Effect.Effect<RunOutcome | undefined, never, unknown> =>
  run.task.definition.delivery === "at-most-once"
    ? Effect.flatMap(ackBeforeRun(worker, run), (may) => (may ? execute(run, worker.id) : Effect.undefined))
    : execute(run, worker.id)

/**
 * Stores the outcome, then lets go of the message. With a record the slot is free as soon as the handler has ended,
 * so that the next claim goes out together with the outcome, unless as many outcomes as there are slots are still on
 * their way. Without one the message is all there is of the task.
 */
const settleRun = (worker: WorkerState, run: Run, outcome: RunOutcome, seconds: number): void => {
  const trails = worker.runStore.hasRecords && worker.settlingRuns < worker.slots.total
  if (trails) {
    worker.settlingRuns++
    worker.slots.give(1)
  }
  settle(worker, run, outcome, (settled) => {
    recordRun(worker, run, outcome, settled, seconds)
    if (worker.runStore.hasRecords) worker.removeRun(run)
    releaseMessage(worker, run, outcome, settled, () => {
      if (!trails) return finishRun(worker, run)
      worker.settlingRuns--
      worker.inFlight.done()
    })
  })
}

/** Nothing is left to do for a run. */
const finishRun = (worker: WorkerState, run: Run): void => {
  worker.removeRun(run)
  worker.slots.give(1)
  worker.inFlight.done()
}

/**
 * An at-most-once task is acked before it runs: no redelivery can run it again. Whether it may run: with a record a
 * message that comes back finds the run; without one only the ack keeps it from running twice.
 */
const ackBeforeRun = (worker: WorkerState, run: Run): Effect.Effect<boolean> =>
  Effect.suspend(() => {
    // a renewal that crosses the ack finds no claim any more, and must not take that for a loss
    run.claimed = false
    return retryBriefly(worker, worker.settings.broker.ack.one(run.candidate.delivery.handle))
  }).pipe(
    Effect.map((acked) => acked || worker.runStore.hasRecords),
    Effect.catchCause((cause) => {
      run.claimed = true
      return Effect.as(
        Effect.logWarning("An at-most-once message could not be acked", cause),
        worker.runStore.hasRecords
      )
    })
  )

/** What a handler can do with its run. */
class HandlerRun implements RunOfHandler {
  private readonly worker: WorkerState
  private readonly run: Run
  private place: Slot | undefined

  constructor(worker: WorkerState, run: Run) {
    this.worker = worker
    this.run = run
  }

  withoutSlot<A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> {
    return (this.place ??= new Slot(this.worker.slots)).without(effect)
  }

  writeProgress(progress: string): Effect.Effect<void> {
    const { worker, run } = this
    return Effect.suspend(() => {
      const { id, token } = run.candidate.start
      const sentAt = worker.now()
      return Effect.flatMap(
        worker.settings.backend.renew.one({ id, token, leaseMillis: worker.leaseMillis, progress }),
        (answer) => applyRenewal(worker, run, answer, sentAt)
      )
    }).pipe(Effect.catchCause((cause) => Effect.logWarning("Progress could not be written", cause)))
  }

  complete(value: unknown): Effect.Effect<() => void, ReadError> {
    const { worker, run } = this
    const { complete } = worker.runStore
    if (complete === undefined) {
      return Effect.die(
        new Error(
          "SqlStore.transact needs the results in the database of the transaction: provide SqlStore or SqlBackend"
        )
      )
    }
    return Effect.gen(function* () {
      const outcome = yield* outcomeOfValue(run, value, worker.id)
      if (outcome._tag !== "Success") return yield* Effect.die(new DecidedOutcome({ outcome }))
      const settled = yield* complete(run.candidate, outcome, run.claimed)
      if (settled !== "Stored") {
        run.interrupt("Lost")
        return yield* Effect.interrupt
      }
      return () => {
        run.settling = true
        run.completedOutcome = outcome
      }
    })
  }
}

const recordRun = (
  worker: WorkerState,
  run: Run,
  outcome: RunOutcome,
  settled: Settled,
  seconds: number
): void => {
  const { metrics } = run.task
  const errorType = settled === "Stored" ? (outcome._tag === "Failure" ? outcome.reason : "") : settled
  metrics.processed(errorType).updateUnsafe(seconds, worker.context)
  if (settled === "Lost") return metrics.leasesLost.updateUnsafe(1, worker.context)
  if (settled === "Cancelled" || outcome._tag === "Failure") worker.stats.failed++
  if (settled === "Cancelled") return
  if (outcome._tag === "Success") worker.stats.succeeded++
  if (outcome._tag === "Failure") metrics.deadLetters.updateUnsafe(1, worker.context)
  if (outcome._tag === "Retry") {
    worker.stats.retried++
    metrics.retries.updateUnsafe(1, worker.context)
  }
}
