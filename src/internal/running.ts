/** From the leave to run to the end of a run, and what is counted of it. */
import { Effect } from "effect"
import type { Started } from "../BackendDriver.ts"
import type { Engine } from "./engine.ts"
import { applyRenewal } from "./leases.ts"
import type { Candidate } from "./ledger.ts"
import { forTask } from "./metrics.ts"
import { execute, Run } from "./run.ts"
import { ackOnly, insist, putBack, settle } from "./settling.ts"
import { Place } from "./slots.ts"
import type { Verdict } from "./verdict.ts"

/** Runs what may run; the others are dropped or put back. */
export const begin = (
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
