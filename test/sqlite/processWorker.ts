/** A worker process: `processWorker.ts <database> <options of Worker.layer as JSON>`. It works until a signal. */
import { NodeRuntime } from "@effect/platform-node"
import { Worker } from "chicory"
import { SqliteStore } from "chicory/sqlite"
import { Effect, Layer } from "effect"
import { Count, Keyed, Order, OutOfStock, tell } from "./processTasks.ts"

const [filename = "", options = "{}"] = process.argv.slice(2)

const handlers = Layer.mergeAll(
  Count.toLayer(({ millis, n }) =>
    Effect.sync(() => tell({ _tag: "Began", n })).pipe(
      Effect.andThen(Effect.sleep(millis)),
      Effect.as({ n, pid: process.pid }),
      Effect.onInterrupt(() => Effect.sync(() => tell({ _tag: "Interrupted", n })))
    )
  ),
  Order.toLayer((item) => Effect.fail(new OutOfStock({ item, since: new Date(0) }))),
  Keyed.toLayer((n) => {
    tell({ _tag: "Began", n })
    return Effect.succeed(n)
  })
)

Layer.effectDiscard(
  Effect.acquireRelease(
    Effect.sync(() => tell({ _tag: "Ready" })),
    () => Effect.sync(() => tell({ _tag: "Stopping" }))
  )
).pipe(
  Layer.provideMerge(Worker.layer([Count, Order, Keyed], JSON.parse(options) as Worker.Options)),
  Layer.provide(handlers),
  Layer.provide(SqliteStore.layer({ filename })),
  Layer.launch,
  NodeRuntime.runMain
)
