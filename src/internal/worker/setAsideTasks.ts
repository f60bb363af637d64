/**
 * Ends tasks that no worker knows, whose messages claims have set aside.
 *
 * A store that claims by task keeps these messages out of the way, so no claim brings them to be rejected one by one. The
 * worker lists them from time to time instead, and applies the rule of `rejectDelivery` to each task. It ends one batch after
 * the other, with pauses, so that a million of them leave the store to the tasks that can run.
 *
 * Where the store loses no hint, the worker lists them after a hint, and when the next grace is over, so that it has no timer
 * while nothing happens.
 */
import { Duration, Effect } from "effect"
import type { SetAside, SetAsideTask } from "../../BrokerDriver.ts"
import type { BrokerError } from "../../StoreError.ts"
import { endUnknownTasks } from "./rejectDelivery.ts"
import * as workerLog from "./workerLog.ts"
import type { WorkerState } from "./WorkerState.ts"

/** The time between two listings, in milliseconds: a sixtieth of the grace, within these bounds. */
const INTERVAL = { min: 1000, max: 60_000 }

/** Ends the tasks that are to be ended, and ends those that are to be ended later, forever. `report` reports failures. */
export const endSetAsideTasks = (
  worker: WorkerState,
  setAside: SetAside<BrokerError>,
  report: (round: Effect.Effect<void, BrokerError>) => Effect.Effect<void>
): Effect.Effect<never> => {
  const { broker, heartbeat, unknownTaskGrace } = worker.settings
  const graceMillis = Duration.toMillis(unknownTaskGrace)
  const interval = Math.min(Math.max(graceMillis / 60, INTERVAL.min), INTERVAL.max)
  const logNew = makeLogNew(worker)
  /** Milliseconds until the next listing, or after a hint before that; `undefined`: after a hint alone. */
  let next: number | undefined

  const round = Effect.suspend(() => setAside.tasks(worker.settings.queues)).pipe(
    Effect.map((found) => found.filter(({ task }) => !worker.tasks.has(task))),
    Effect.tap(logNew),
    Effect.flatMap((unknown) => {
      const ages = unknown.map(({ waitedMillis }) => waitedMillis)
      next = unknown.length === 0 ? undefined : Math.max(graceMillis - Math.max(...ages), interval)
      return Effect.forEach(
        unknown.filter(({ waitedMillis }) => waitedMillis >= graceMillis),
        (task) => endBatches(worker, endUnknownTasks(worker, setAside, task)),
        { discard: true }
      )
    })
  )

  if (broker.capabilities.reliableHints !== true) {
    return Effect.andThen(Effect.sleep(interval), report(round)).pipe(Effect.forever)
  }
  const changed = worker.setAsideChanged
  const pause = Math.min(interval, Duration.toMillis(heartbeat))
  const untilNext = Effect.suspend(() =>
    next === undefined ? changed.await : Effect.raceFirst(changed.await, Effect.sleep(next - pause))
  ).pipe(Effect.andThen(Effect.sleep(pause)))
  const roundAfterHint = Effect.suspend(() => {
    // closed before the listing, so that a change during it leads to another one
    changed.closeUnsafe()
    next = interval
    return report(round)
  })
  return Effect.forever(Effect.andThen(roundAfterHint, untilNext))
}

/** Ends batches until none is left or the worker stops. It pauses for as long as each batch took. */
const endBatches = (
  worker: WorkerState,
  endBatch: Effect.Effect<number, BrokerError>
): Effect.Effect<void, BrokerError> =>
  Effect.suspend(() => {
    const startedAt = worker.now()
    return Effect.flatMap(Effect.uninterruptible(endBatch), (ended) =>
      ended === 0 || worker.health.isStopping
        ? Effect.void
        : Effect.andThen(Effect.sleep(Duration.nanos(worker.now() - startedAt)), endBatches(worker, endBatch))
    )
  })

/** Makes the function that logs the tasks which it was not given the last time. */
const makeLogNew = ({ settings }: WorkerState) => {
  let logged: ReadonlySet<string> = new Set()
  return (unknown: ReadonlyArray<SetAsideTask>): Effect.Effect<void> => {
    const keyOf = ({ queue, task }: SetAsideTask) => JSON.stringify([queue, task])
    const added = unknown.filter((one) => !logged.has(keyOf(one)))
    logged = new Set(unknown.map(keyOf))
    return Effect.forEach(
      added,
      ({ queue, task }) => workerLog.unknownSetAside(task, queue, settings.unknownTaskGrace),
      { discard: true }
    )
  }
}
