/**
 * Puts back the runs that only wait for other tasks, while the worker drains: what they wait for may take longer than the
 * drain, and is left alone.
 */
import { Duration, Effect } from "effect"
import type { Run } from "./Run.ts"
import type { WorkerState } from "./WorkerState.ts"

/** From then on a run that only waits is put back while others of the worker run. */
const RELEASE_AFTER_NANOS = 5_000_000_000n
const CHECK_INTERVAL = Duration.millis(100)
/** Checks in a row that find a run waiting before it is put back: the end of an awaited task takes a read to arrive. */
const CHECKS = 10

/** Returns the runs that only wait for other tasks, and that may run again. */
const waitingRuns = (worker: WorkerState): ReadonlyArray<Run> =>
  [...worker.runs.values()].filter(
    (run) =>
      run.slot?.isWaiting === true &&
      run.interruptReason === undefined &&
      run.task.definition.delivery === "at-least-once"
  )

/** Puts back runs that only wait: once nothing else runs in the worker, and after 5 seconds whatever else runs. */
export const releaseWaitingRuns = (worker: WorkerState): Effect.Effect<never> =>
  Effect.gen(function* () {
    const end = worker.now() + RELEASE_AFTER_NANOS
    /** How many checks in a row have found each run waiting. */
    let found = new Map<Run, number>()
    /** How many checks in a row have found nothing else. */
    let foundAlone = 0
    while (true) {
      yield* Effect.sleep(CHECK_INTERVAL)
      const waiting = waitingRuns(worker)
      found = new Map(waiting.map((run) => [run, (found.get(run) ?? 0) + 1]))
      foundAlone = worker.inFlight.size === waiting.length ? foundAlone + 1 : 0
      const mayRelease = foundAlone >= CHECKS || worker.now() >= end
      if (!mayRelease) continue
      for (const [run, checks] of found) if (checks >= CHECKS) run.interrupt("Drained")
    }
  })
