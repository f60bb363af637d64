/** A long task that reports its progress, is followed by a waiter, and is cancelled while it runs. */
import { AsyncResult, MemoryStore, Task, Worker } from "chicory"
import { Effect, Layer, Option, Schema, Stream } from "effect"

const Import = Task.make("csv.import", {
  payload: { rows: Schema.Int },
  success: Schema.Int,
  progress: Schema.Struct({ done: Schema.Int, total: Schema.Int })
})

const ImportLive = Import.toLayer(
  Effect.fn("Import")(function* ({ rows }) {
    yield* Effect.addFinalizer(() => Effect.log("the file is closed"))
    for (let done = 0; done < rows; done++) {
      yield* Import.progress({ done, total: rows })
      yield* Effect.sleep("10 millis")
    }
    return rows
  })
)

const program = Effect.gen(function* () {
  const result = yield* Import.delay({ rows: 100_000 })
  yield* AsyncResult.changes(result).pipe(
    Stream.tap(({ progress, state }) =>
      Effect.log(
        Option.match(progress, {
          onNone: () => state,
          onSome: ({ done, total }) => `${state}: ${done} of ${total}`
        })
      )
    ),
    Stream.takeUntil(({ progress }) => Option.exists(progress, ({ done }) => done >= 5)),
    Stream.runDrain
  )
  yield* Effect.log(yield* AsyncResult.cancel(result))
  yield* AsyncResult.get(result).pipe(
    Effect.catchReason("TaskFailed", "Cancelled", () => Effect.log("the import was cancelled"))
  )
})

const WorkerLive = Worker.layer([Import]).pipe(
  Layer.provide(ImportLive),
  Layer.provideMerge(MemoryStore.layer())
)

await program.pipe(Effect.provide(WorkerLive), Effect.runPromise)
