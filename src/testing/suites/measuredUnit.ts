/**
 * The unit of time of a test that runs in real time: longer than given while this process or the store is slow, so that
 * leases and delays of a few units do not lapse in a pause.
 */
import { Effect } from "effect"

const TICK_MILLIS = 20
/** How many ticks are remembered: those of the last four seconds. */
const REMEMBERED_TICKS = 200
/** A unit is at least this many times the longest pause of this process, and this many calls to the store. */
const PAUSES_PER_UNIT = 4
const CALLS_PER_UNIT = 20
/** A unit is at most this many times as long as given, so that a test ends. */
const MAX_STRETCH = 3

/** How many milliseconds late the last ticks were. */
const pauses: Array<number> = []
let isMeasuring = false

/** Measures the pauses of this process from now on, as long as it lives. */
export const measurePauses = (): void => {
  if (isMeasuring) return
  isMeasuring = true
  let last = performance.now()
  setInterval(() => {
    const now = performance.now()
    if (pauses.push(now - last - TICK_MILLIS) > REMEMBERED_TICKS) pauses.shift()
    last = now
  }, TICK_MILLIS).unref()
}

/** Returns the unit, in milliseconds, of a test that starts now. `probe` is a call to the store that changes nothing. */
export const measuredUnit = (
  leastMillis: number,
  probe: Effect.Effect<unknown, unknown>
): Effect.Effect<number> =>
  Effect.gen(function* () {
    // not measured, as the first call may connect
    yield* Effect.exit(probe)
    const startedAt = performance.now()
    yield* Effect.exit(probe)
    const callMillis = performance.now() - startedAt
    const needed = Math.max(
      leastMillis,
      PAUSES_PER_UNIT * Math.max(0, ...pauses),
      CALLS_PER_UNIT * callMillis
    )
    return Math.min(needed, MAX_STRETCH * leastMillis)
  })
