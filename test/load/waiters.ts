/**
 * A process with many waiters: `waiters.ts <location> <options as JSON>`. They wait for tasks that a worker runs,
 * then for tasks that no worker runs until they time out, and at last until they are interrupted.
 */
import { NodeRuntime } from "@effect/platform-node"
import { AsyncResult } from "chicory"
import { Effect, Fiber } from "effect"
import { eventually } from "../support/storeFixture.ts"
import * as StoreLocations from "../support/storeLocations.ts"
import { peakOf, memory, report } from "./figures.ts"
import { Mark } from "./loadTasks.ts"
import { spyOn, withoutHints } from "./operationSpy.ts"

/** The waiters. */
export interface Options {
  readonly count: number
  readonly hints: boolean
}

const location = StoreLocations.decode(process.argv[2])
const { count, hints } = JSON.parse(process.argv[3]!) as Options
const numbers = Array.from({ length: count }, (_, n) => n)

Effect.gen(function* () {
  const drivers = yield* StoreLocations.drivers(location)
  const spied = spyOn(hints ? drivers : withoutHints(drivers))
  const { read, watched } = spied
  const store = yield* StoreLocations.services(spied)
  /** Returns the figures since the last report. */
  const takeFigures = () => {
    const figures = { calls: read.calls, items: read.items, watched: watched.size, ...memory() }
    read.reset()
    return figures
  }
  const seconds = () => Math.round(performance.now()) / 1000

  yield* Effect.gen(function* () {
    const handles = yield* Mark.delayAll(numbers)
    report("enqueued", takeFigures())
    let right = 0
    const getting = yield* Effect.forkChild(
      peakOf(
        Effect.forEach(
          handles,
          (handle, n) =>
            Effect.map(AsyncResult.get(handle), (value) => {
              if (value === n + 1) right++
            }),
          { concurrency: "unbounded", discard: true }
        )
      )
    )
    yield* eventually(Effect.sync(() => read.items >= count))
    report("waiting", takeFigures())
    const [most] = yield* Fiber.join(getting)
    report("completed", { right, most, ...takeFigures() })
  }).pipe(Effect.provideContext(store))

  yield* Effect.gen(function* () {
    const handles = yield* Mark.delayAll(numbers, { delay: "1 hour" })
    report("delayed", takeFigures())
    const begin = seconds()
    let firstEnd = 0
    let right = 0
    const [most] = yield* peakOf(
      Effect.forEach(
        handles,
        (handle) =>
          Effect.map(Effect.flip(AsyncResult.get(handle, { timeout: "3 seconds" })), (error) => {
            if (firstEnd === 0) firstEnd = seconds()
            if (error._tag === "TimeoutError" && error.cause === undefined) right++
          }),
        { concurrency: "unbounded", discard: true }
      )
    )
    const end = seconds()
    report("timed out", { right, most, first: firstEnd - begin, last: end - begin, ...takeFigures() })

    const waiting = yield* Effect.forkChild(
      Effect.forEach(handles, (handle) => AsyncResult.get(handle), {
        concurrency: "unbounded",
        discard: true
      })
    )
    yield* eventually(Effect.sync(() => read.items >= count))
    report("waiting again", takeFigures())
    yield* Fiber.interrupt(waiting)
    yield* eventually(Effect.sync(() => watched.size === 0))
    report("interrupted", takeFigures())
    // without waiters there are no calls
    yield* Effect.sleep("1 second")
    report("quiet", takeFigures())
  }).pipe(Effect.provideContext(store))
}).pipe(Effect.scoped, NodeRuntime.runMain)
