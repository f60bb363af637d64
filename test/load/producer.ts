/**
 * A producer process: `producer.ts <location> <options as JSON>`. It enqueues tasks, half of them in bulk and half by
 * concurrent calls, and ends.
 */
import { NodeRuntime } from "@effect/platform-node"
import type { AsyncResult } from "chicory"
import { Effect } from "effect"
import * as StoreLocations from "../support/storeLocations.ts"
import { memory, report } from "./figures.ts"
import { Copy, Mark, sampleInterval, textOf } from "./loadTasks.ts"

/** What the producer enqueues. */
export interface Options {
  readonly count: number
  /** Concurrent calls. */
  readonly concurrency: number
  /** Tasks of one bulk call. */
  readonly chunk: number
  /** Characters of a payload; `undefined`: a number alone. */
  readonly size?: number | undefined
}

const location = StoreLocations.decode(process.argv[2])
const { chunk, concurrency, count, size } = JSON.parse(process.argv[3]!) as Options
const half = Math.floor(count / 2)

/** Ids of sampled tasks, whose results are checked afterwards. */
const ids: Array<string> = []
const every = sampleInterval(count)
const note =
  (n: number) =>
  ({ taskId }: AsyncResult.AsyncResult<unknown>): void => {
    if (n % every === 0) ids[n / every] = taskId
  }

function* numbers(from: number, to: number): Generator<number> {
  for (let n = from; n < to; n++) yield n
}
function* payloads(from: number, to: number): Generator<{ readonly n: number; readonly text: string }> {
  for (const n of numbers(from, to)) yield { n, text: textOf(n, size ?? 0) }
}

const enqueueAll = (from: number, to: number) =>
  size === undefined ? Mark.delayAll(numbers(from, to)) : Copy.delayAll(payloads(from, to))
const enqueue = (n: number) =>
  size === undefined
    ? Effect.map(Mark.delay(n), note(n))
    : Effect.map(Copy.delay({ n, text: textOf(n, size) }), note(n))

const inBulk = Effect.gen(function* () {
  for (let from = 0; from < half; from += chunk) {
    const handles = yield* enqueueAll(from, Math.min(half, from + chunk))
    handles.forEach((handle, i) => note(from + i)(handle))
  }
})
const concurrently = Effect.forEach(numbers(half, count), enqueue, { concurrency, discard: true })

const timed = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.suspend(() => {
    const begin = performance.now()
    return Effect.map(effect, () => Math.round(performance.now() - begin) / 1000)
  })

Effect.gen(function* () {
  const inBulkSeconds = yield* timed(inBulk)
  report("in bulk", { inBulkSeconds, ...memory() })
  const concurrentlySeconds = yield* timed(concurrently)
  report("done", { inBulkSeconds, concurrentlySeconds, ...memory() }, ids)
}).pipe(Effect.provide(StoreLocations.layer(location)), NodeRuntime.runMain)
