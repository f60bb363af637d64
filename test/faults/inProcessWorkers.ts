/** Workers in this process with their own connections, and a timeline of their events. */
import type { Worker as WorkerService } from "chicory"
import { Effect, Layer, type Scope } from "effect"
import { eventually } from "../support/storeFixture.ts"
import type { Drivers } from "../support/storeLocations.ts"
import * as Worker from "./worker.ts"
import type { WorkerEvent } from "./workerEvents.ts"

/** An event and its time in milliseconds. */
export interface TimedEvent {
  readonly event: WorkerEvent
  readonly millis: number
}

/** A running worker. */
export interface InProcessWorker {
  readonly timeline: ReadonlyArray<TimedEvent>
  readonly events: () => ReadonlyArray<WorkerEvent>
  /** Waits until that many runs are settled. */
  readonly untilSettled: (count: number) => Effect.Effect<void>
  /** Waits until a run has begun after that time. */
  readonly untilBegunAfter: (millis: number) => Effect.Effect<void>
}

/** No worker dies here. */
const neverDie = () => Effect.never

/** Starts a worker, which stops with the scope. */
export const startInProcessWorker = Effect.fnUntraced(function* (
  drivers: Drivers,
  options: WorkerService.Options
): Effect.fn.Return<InProcessWorker, never, Scope.Scope> {
  const timeline: Array<TimedEvent> = []
  let settled = 0
  const emit = (event: WorkerEvent): void => {
    timeline.push({ event, millis: performance.now() })
    if (event._tag === "Settled") settled++
  }
  yield* Layer.build(Worker.layer(drivers, { worker: options }, emit, neverDie))
  return {
    timeline,
    events: () => timeline.map(({ event }) => event),
    untilSettled: (count) => eventually(Effect.sync(() => settled >= count)),
    untilBegunAfter: (after) =>
      eventually(
        Effect.sync(() => timeline.some(({ event, millis }) => event._tag === "Began" && millis > after))
      )
  }
})

/** A run, by its worker's events. */
interface Run {
  readonly began: number
  readonly retries: number
  interrupted: boolean
}

/**
 * Returns the tasks with overlapping runs: a run that is no retry, follows no interrupted run, and began within a
 * lease of the one before.
 */
export const overlappingRuns = (
  workers: ReadonlyArray<InProcessWorker>,
  leaseMillis: number
): ReadonlyArray<string> => {
  const runs = new Map<string, Array<Run>>()
  for (const { timeline } of workers) {
    const own = new Map<string, Run>()
    for (const { event, millis } of timeline) {
      if (event._tag === "Began") {
        const run = { began: millis, retries: event.retries, interrupted: false }
        own.set(event.id, run)
        runs.set(event.id, [...(runs.get(event.id) ?? []), run])
      } else if (event._tag === "Interrupted") {
        const run = own.get(event.id)
        if (run !== undefined) run.interrupted = true
      }
    }
  }
  return [...runs].flatMap(([id, all]) => {
    const sorted = all.sort((a, b) => a.began - b.began)
    const bad = sorted.some((run, i) => {
      const before = sorted[i - 1]
      return (
        before !== undefined &&
        run.retries !== before.retries + 1 &&
        !before.interrupted &&
        // the store uses another clock
        run.began - before.began < leaseMillis - 250
      )
    })
    return bad ? [id] : []
  })
}
