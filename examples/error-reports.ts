/** Reports defects and final failures of tasks to an error tracker, such as Sentry, with a layer. */
import { AsyncResult, MemoryStore, Task, Worker } from "chicory"
import { Effect, ErrorReporter, Layer, Schema } from "effect"

/** Stands for the client of the error tracker. */
const tracker = {
  captureException: (error: Error, options: { readonly level: string; readonly tags: object }) =>
    console.log(`reported: ${error.name}: ${error.message}`, options)
}

const ErrorTracker = ErrorReporter.layer([
  ErrorReporter.make(({ attributes, error, severity }) => {
    const level = severity === "Error" || severity === "Fatal" ? "error" : "warning"
    tracker.captureException(error, { level, tags: attributes })
  })
])

const Invoice = Task.make("invoice", { payload: { cents: Schema.Int } })

const InvoiceLive = Invoice.toLayer(({ cents }) =>
  cents < 0 ? Effect.die(new RangeError("cents are never negative")) : Effect.void
)

const WorkerLive = Worker.layer([Invoice]).pipe(
  Layer.provide(InvoiceLive),
  Layer.provideMerge(MemoryStore.layer()),
  Layer.provide(ErrorTracker)
)

await Effect.gen(function* () {
  const invoice = yield* Invoice.delay({ cents: -1 })
  const error = yield* Effect.flip(AsyncResult.get(invoice, { timeout: "5 seconds" }))
  yield* Effect.log(`the invoice ended with ${error._tag}`)
}).pipe(Effect.provide(WorkerLive), Effect.runPromise)
