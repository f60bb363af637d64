/**
 * Replays retry schedules. The retries of a task are decided in different processes, so each decision steps the schedule
 * from its beginning.
 */
import { Clock, Duration, Effect, Option, Pull, Schedule } from "effect"
import { longestMillis } from "./millis.ts"

/** Steps a schedule at a time, and returns its delay in milliseconds; none if the schedule has ended. */
type Step = (now: number) => Effect.Effect<Option.Option<number>>

/** Starts a schedule. Its errors are defects. A delay below zero is zero. */
const start = <I>(schedule: Schedule.Schedule<unknown, I, unknown>, input: I): Effect.Effect<Step> =>
  Effect.map(
    Schedule.toStep(schedule),
    (step) => (now) =>
      Effect.suspend(() => step(now, input)).pipe(
        Effect.map(([, delay]) =>
          Option.some(Math.min(Math.max(0, Duration.toMillis(delay)), longestMillis))
        ),
        Pull.catchDone(() => Effect.succeedNone),
        Effect.orDie
      )
  )

/**
 * Replays a schedule up to the present. The steps of the given number of retries happen in the past, apart by the delays
 * alone; the next one is at the time of `Clock`. Returns the delay of that step; none if the schedule has ended.
 */
const replay = Effect.fnUntraced(function* <I>(
  schedule: Schedule.Schedule<unknown, I, unknown>,
  input: I,
  retries: number
) {
  const now = yield* Clock.currentTimeMillis
  // how long the past was is known once the schedule was stepped through it, on a clock that begins now
  const past: Array<number> = []
  let time = now
  const rehearsal = yield* start(schedule, input)
  while (past.length < retries) {
    const delay = yield* rehearsal(time)
    if (Option.isNone(delay)) break
    past.push(delay.value)
    time += delay.value
  }
  const step = yield* start(schedule, input)
  time = now - (time - now)
  for (let i = 0; i < retries; i++) {
    if (Option.isNone(yield* step(time))) return { now, step, delay: Option.none<number>() }
    time += past[i] ?? 0
  }
  return { now, step, delay: yield* step(now) }
})

/** Returns the delay before the next retry, in milliseconds; none if the schedule has ended. */
export const nextDelay = <I>(
  schedule: Schedule.Schedule<unknown, I, unknown>,
  input: I,
  retries: number
): Effect.Effect<Option.Option<number>> => Effect.map(replay(schedule, input, retries), ({ delay }) => delay)

/** Returns how many retries the schedule still grants, counted up to `limit`. */
export const delaysLeft = Effect.fnUntraced(function* <I>(
  schedule: Schedule.Schedule<unknown, I, unknown>,
  input: I,
  retries: number,
  limit: number
) {
  const { delay, now, step } = yield* replay(schedule, input, retries)
  let count = 0
  let time = now
  for (let next = delay; Option.isSome(next); next = yield* step(time)) {
    if (++count === limit) break
    time += next.value
  }
  return count
})
