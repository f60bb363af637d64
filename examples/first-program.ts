import { AsyncResult, RetryPolicy, Task, Worker } from "chicory"
import { SqliteStore } from "chicory/sqlite"
import { Effect, Layer, Schema } from "effect"

class DivideByZero extends Schema.TaggedError<DivideByZero>()("DivideByZero", { dividend: Schema.Number }) {}

const Divide = Task.make("math.divide", {
  payload: { dividend: Schema.Number, divisor: Schema.Number },
  success: Schema.Number,
  error: DivideByZero,
  retry: {
    ...RetryPolicy.exponential({ maxRetries: 3, delay: "1 second" }),
    byTag: { DivideByZero: "never" }
  }
})

const DivideLive = Divide.toLayer(({ dividend, divisor }) =>
  divisor === 0 ? Effect.fail(new DivideByZero({ dividend })) : Effect.succeed(dividend / divisor)
)

const WorkerLive = Worker.layer([Divide], { concurrency: 32 }).pipe(Layer.provide(DivideLive))

const program = Effect.gen(function* () {
  const result = yield* Divide.delay({ dividend: 6, divisor: 3 })
  const two = yield* AsyncResult.get(result, { timeout: "5 seconds" })
  yield* Effect.log(`6 / 3 = ${two}`)

  const doomed = yield* Divide.delay({ dividend: 6, divisor: 0 })
  yield* AsyncResult.get(doomed, { timeout: "5 seconds" }).pipe(
    Effect.catchReason("TaskFailed", "Failed", (reason) =>
      Effect.log(`${reason.error.dividend} / 0 is refused`)
    )
  )
})

await program.pipe(
  Effect.provide(WorkerLive),
  Effect.provide(SqliteStore.layer({ filename: "tasks.db" })),
  Effect.runPromise
)
