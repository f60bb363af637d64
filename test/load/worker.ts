/**
 * A worker process: `worker.ts <location> <options as JSON>`. Runs until a signal and then reports what it has run.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Worker } from "chicory"
import { Effect, Latch, Layer, Logger, References } from "effect"
import * as StoreLocations from "../support/storeLocations.ts"
import { alive, memory, report } from "./figures.ts"
import { Copy, Mark, textOf, Wait } from "./loadTasks.ts"

/** The worker's options. */
export interface Options {
  readonly worker: Worker.Options
  /** The number of tasks. */
  readonly count: number
}

const location = StoreLocations.decode(process.argv[2])
const { count, worker } = JSON.parse(process.argv[3]!) as Options

/** Marks the tasks that have run. */
const ran = new Uint8Array(count)
let runs = 0
let distinct = 0
let wrong = 0
let waiting = 0
let mostWaiting = 0
let interrupted = 0
/** Live MiB after a third of the tasks, and their peak from then on. */
let warm = 0
let later = 0
const gate = Latch.makeUnsafe(false)
process.on("SIGUSR2", () => gate.openUnsafe())

const mark = (n: number): void => {
  runs++
  if (ran[n] === 0) distinct++
  ran[n] = 1
  if (runs === Math.ceil(count / 3)) warm = alive()
  else if (runs > count / 3 && runs % Math.ceil(count / 10) === 0) later = Math.max(later, alive())
  if (runs === count) report("all ran", figures())
}

const figures = () => ({ runs, distinct, wrong, mostWaiting, interrupted, warm, later, ...memory() })

const handlers = Layer.mergeAll(
  Mark.toLayer((n) =>
    Effect.sync(() => {
      mark(n)
      return n + 1
    })
  ),
  Copy.toLayer((payload) =>
    Effect.sync(() => {
      if (payload.text !== textOf(payload.n, payload.text.length)) wrong++
      mark(payload.n)
      return payload
    })
  ),
  Wait.toLayer((n) =>
    Effect.suspend(() => {
      mostWaiting = Math.max(mostWaiting, ++waiting)
      if (waiting === count) report("all wait", figures())
      return gate.await.pipe(
        Effect.onInterrupt(() => Effect.sync(() => interrupted++)),
        Effect.ensuring(Effect.sync(() => waiting--)),
        Effect.map(() => {
          mark(n)
          return n + 1
        })
      )
    })
  )
)

Layer.effectDiscard(
  Effect.acquireRelease(
    Effect.sync(() => report("ready")),
    () => Effect.sync(() => report("stopping"))
  )
).pipe(
  Layer.provideMerge(Worker.layer([Mark, Copy, Wait], worker)),
  Layer.provide(handlers),
  Layer.provide(StoreLocations.layer(location)),
  Layer.provide(
    Layer.effectDiscard(Effect.addFinalizer(() => Effect.sync(() => report("stopped", figures()))))
  ),
  Layer.provide(
    // stdout is for reports
    Layer.merge(
      Logger.layer([Logger.withConsoleError(Logger.formatLogFmt)]),
      Layer.succeed(References.MinimumLogLevel, "Warn")
    )
  ),
  Layer.launch,
  NodeRuntime.runMain
)
