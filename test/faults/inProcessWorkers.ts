/** Workers in this process that have connections of their own, and what they tell, and when. */
import type { Worker as WorkerService } from "chicory"
import { Effect, Layer, type Scope } from "effect"
import { eventually } from "../support/storeFixture.ts"
import type { Drivers } from "../support/storeLocations.ts"
import * as Worker from "./worker.ts"
import type { WorkerEvent } from "./workerEvents.ts"

/** An entry, and when it was told, in milliseconds. */
export interface TimedEvent {
  readonly event: WorkerEvent
  readonly millis: number
}

/** A worker at work. */
export interface InProcessWorker {
  readonly timeline: ReadonlyArray<TimedEvent>
  readonly events: () => ReadonlyArray<WorkerEvent>
  /** Waits until so many runs have been settled. */
  readonly untilSettled: (count: number) => Effect.Effect<void>
  /** Waits until a run has begun after that time. */
  readonly untilBegunAfter: (millis: number) => Effect.Effect<void>
}

/** Nobody dies here. */
const neverDie = () => Effect.never

/** Starts a worker, until the scope closes. */
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

/** A run, as its worker told of it. */
interface Run {
  readonly began: number
  readonly retries: number
  interrupted: boolean
}

/**
 * The tasks of which a run began while another one held them: it is neither a retry that was asked for, nor follows one
 * that was interrupted, nor one that is older than a lease.
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
        // the store looks at another clock
        run.began - before.began < leaseMillis - 250
      )
    })
    return bad ? [id] : []
  })
}
