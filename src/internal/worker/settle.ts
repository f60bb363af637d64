/**
 * The end of a run: first its outcome is stored, then its message is let go.
 *
 * If storing fails after the work succeeded, storing is tried again for as long as the run may still write; the
 * work is not run again. A crash between the two halves leaves a message that finds the outcome and is acked.
 */
import { Effect, Exit } from "effect"
import type { Delivery } from "../../BrokerDriver.ts"
import type { BackendError, ReadError, BrokerError } from "../../StoreError.ts"
import { ResultInvalid } from "../../TaskFailed.ts"
import { backoff } from "../backoff.ts"
import { awaited } from "../concurrency/Batcher.ts"
import type { Run } from "./Run.ts"
import { failure, type Verdict } from "./runOutcome.ts"
import type { Hold, Settled } from "./RunStore.ts"
import type { Engine } from "./WorkerState.ts"

/**
 * Stores the outcome of a run. `Lost`: it was superseded or could not be stored, and its message is left alone.
 * A fiber is made only where there is more to it than one try.
 */
export const settle = (
  engine: Engine,
  run: Run,
  verdict: Verdict,
  onSettled: (settled: Settled) => void
): void => {
  if (run.completed !== undefined) return onSettled("Stored")
  run.settling = true
  const ask = engine.ledger.store(run.candidate, verdict)
  ask((first) => {
    if (Exit.isSuccess(first) && first.value !== "Lost") onSettled(first.value)
    else engine.fork(Effect.map(settleAgain(engine, run, verdict, first), onSettled))
  })
}

/** What follows the first try, unless it said that all is well. */
const settleAgain = (
  engine: Engine,
  run: Run,
  verdict: Verdict,
  first: Exit.Exit<Settled, ReadError>
): Effect.Effect<Settled> => {
  const mayWrite = () => run.stop !== "Lost" && !engine.givingUp
  const store = (verdict: Verdict, first?: Exit.Exit<Settled, ReadError>) =>
    persist(
      engine,
      awaited(engine.ledger.store(run.candidate, verdict)),
      { while: (error) => isRetryable(error) && mayWrite() },
      first
    )
  return store(verdict, first).pipe(
    // an outcome that the store refuses is replaced by one that says so
    Effect.catchIf(
      (error) => !isRetryable(error) && (verdict._tag === "Success" || verdict._tag === "Failure"),
      (error) =>
        Effect.flatMap(failure(new ResultInvalid({ side: "worker", issue: error.message })), (instead) =>
          store(instead)
        )
    ),
    Effect.tap((settled) => (settled === "Lost" ? sayLost(engine, run) : Effect.void)),
    Effect.catchCause((cause) =>
      Effect.as(
        Effect.logError("The outcome of a run could not be stored; its task will be started again", cause),
        "Lost" as const
      )
    )
  )
}

const isRetryable = (error: { readonly _tag: string }): boolean =>
  error._tag === "BackendError" && (error as BackendError).retryable

const sayLost = (engine: Engine, run: Run) =>
  Effect.logWarning(
    `A run was superseded, and its outcome dropped: token ${run.candidate.start.token}, last renewed ${Number(engine.now() - run.renewedAt) / 1e9} s ago`
  ).pipe(Effect.annotateLogs({ taskId: run.id, taskName: run.known.definition.name }))

/** Lets go of a message. If that fails for good it comes back, and is found to be settled. */
export const close = (
  engine: Engine,
  hold: Hold,
  verdict: Verdict,
  settled: Settled,
  onClosed: () => void
): void => {
  const ask = engine.ledger.close(hold, verdict, settled)
  ask((first) => {
    if (Exit.isSuccess(first)) onClosed()
    else engine.fork(Effect.map(closeAgain(engine, hold.candidate.delivery, awaited(ask), first), onClosed))
  })
}

const closeAgain = (
  engine: Engine,
  delivery: Delivery,
  closing: Effect.Effect<unknown, BrokerError>,
  first: Exit.Exit<unknown, BrokerError>
): Effect.Effect<void> =>
  Effect.catchCause(Effect.asVoid(insist(engine, closing, first)), (cause) =>
    Effect.andThen(
      Effect.logWarning("A settled message could not be let go; it will come back", cause),
      abandon(engine, delivery)
    )
  )

/** A message that a connection holds, and with which nothing could be done, comes back no sooner. */
const ABANDON = "1 second"

/** Leaves a message to come back: when its lease runs out, or soon where the broker's connection holds it. */
export const abandon = (engine: Engine, { handle }: Delivery): Effect.Effect<void> => {
  const { returnUnhandled, capabilities } = engine.settings.broker
  return capabilities.lease === "store"
    ? Effect.void
    : Effect.raceFirst(Effect.sleep(ABANDON), engine.gaveUp.await).pipe(
        Effect.andThen(returnUnhandled.one(handle)),
        Effect.ignore
      )
}

/** Takes a message off the queue whose task needs it no more. */
export const ackOnly = (engine: Engine, delivery: Delivery): Effect.Effect<void> =>
  insist(engine, engine.settings.broker.ack.one(delivery.handle)).pipe(
    Effect.catchCause((cause) =>
      Effect.andThen(
        Effect.logWarning("A message could not be acked; it will come back", cause),
        abandon(engine, delivery)
      )
    )
  )

/** Puts a message back, nothing counted. */
export const putBack = (engine: Engine, delivery: Delivery, afterMillis: number, preserveDueTime = false) =>
  insist(
    engine,
    engine.settings.broker.release.one({ handle: delivery.handle, afterMillis, preserveDueTime })
  ).pipe(
    Effect.catchCause((cause) =>
      Effect.andThen(
        Effect.logWarning("A message could not be put back; it will come back", cause),
        abandon(engine, delivery)
      )
    )
  )

/** Tries a few times, a second in all. */
export const insist = <A, E extends { readonly retryable: boolean }>(
  engine: Engine,
  effect: Effect.Effect<A, E>,
  first?: Exit.Exit<A, E>
): Effect.Effect<A, E> =>
  persist(engine, effect, { times: 5, while: (error) => error.retryable && !engine.givingUp }, first)

/**
 * Tries again for as long as it may. A worker that gives up waits no longer: it tries once more. The first try may
 * have been made.
 */
export const persist = <A, E>(
  engine: Engine,
  effect: Effect.Effect<A, E>,
  options: { readonly while: (error: E) => boolean; readonly times?: number },
  first: Effect.Effect<A, E> = effect
): Effect.Effect<A, E> =>
  // where the first try succeeds, no schedule is made
  Effect.catchIf(first, options.while, () =>
    Effect.raceFirst(
      Effect.retry(Effect.delay(effect, "50 millis"), { schedule: backoff, ...options }),
      Effect.andThen(engine.gaveUp.await, effect)
    )
  )
