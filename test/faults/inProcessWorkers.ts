/** Workers in this process that have connections of their own, and what they tell, and when. */
import type { Worker as WorkerService } from "chicory"
import { Effect, Layer, type Scope } from "effect"
import { eventually } from "../support/storeFixture.ts"
import type { Drivers } from "../support/storeLocations.ts"
import * as Worker from "./worker.ts"
import type { Entry } from "./workerEvents.ts"

/** An entry, and when it was told, in milliseconds. */
export interface Timed {
  readonly entry: Entry
  readonly millis: number
}

/** A worker at work. */
export interface Hand {
  readonly told: ReadonlyArray<Timed>
  readonly entries: () => ReadonlyArray<Entry>
  /** Waits until so many runs have been settled. */
  readonly untilSettled: (count: number) => Effect.Effect<void>
  /** Waits until a run has begun after that time. */
  readonly untilBegunAfter: (millis: number) => Effect.Effect<void>
}

/** Nobody dies here. */
const survive = () => Effect.never

/** Starts a worker, until the scope closes. */
export const startHand = Effect.fnUntraced(function* (
  drivers: Drivers,
  options: WorkerService.Options
): Effect.fn.Return<Hand, never, Scope.Scope> {
  const told: Array<Timed> = []
  let settled = 0
  const tell = (entry: Entry): void => {
    told.push({ entry, millis: performance.now() })
    if (entry._tag === "Settled") settled++
  }
  yield* Layer.build(Worker.layer(drivers, { worker: options }, tell, survive))
  return {
    told,
    entries: () => told.map(({ entry }) => entry),
    untilSettled: (count) => eventually(Effect.sync(() => settled >= count)),
    untilBegunAfter: (after) =>
      eventually(
        Effect.sync(() => told.some(({ entry, millis }) => entry._tag === "Began" && millis > after))
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
export const heldTwice = (hands: ReadonlyArray<Hand>, leaseMillis: number): ReadonlyArray<string> => {
  const runs = new Map<string, Array<Run>>()
  for (const { told } of hands) {
    const own = new Map<string, Run>()
    for (const { entry, millis } of told) {
      if (entry._tag === "Began") {
        const run = { began: millis, retries: entry.retries, interrupted: false }
        own.set(entry.id, run)
        runs.set(entry.id, [...(runs.get(entry.id) ?? []), run])
      } else if (entry._tag === "Interrupted") {
        const run = own.get(entry.id)
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
