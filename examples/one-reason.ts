/** Handles the reasons for which a task can fail, each in its own way. */
import { AsyncResult, MemoryStore, Task, Worker } from "chicory"
import { Effect, Layer, Schema } from "effect"

class CardDeclined extends Schema.TaggedError<CardDeclined>()("CardDeclined", { code: Schema.String }) {}

const Charge = Task.make("card.charge", {
  payload: { cents: Schema.Int },
  success: Schema.String,
  error: CardDeclined
})

const ChargeLive = Charge.toLayer(({ cents }) =>
  cents > 100_00
    ? Effect.fail(new CardDeclined({ code: "limit" }))
    : cents < 0
      ? Effect.die("cents are never negative")
      : Effect.succeed(`charged ${cents}`)
)

const charge = (cents: number) =>
  Charge.delay({ cents }).pipe(
    Effect.flatMap(AsyncResult.get({ timeout: "5 seconds" })),
    Effect.catchReasons("TaskFailed", {
      Failed: ({ error }) => Effect.succeed(`declined: ${error.code}`),
      Died: ({ defect }) => Effect.succeed(`a bug: ${String(defect)}`),
      WorkerLost: (_, { attempts, taskId }) => Effect.succeed(`${taskId} was lost after ${attempts} attempts`)
    })
  )

const WorkerLive = Worker.layer([Charge]).pipe(
  Layer.provide(ChargeLive),
  Layer.provideMerge(MemoryStore.layer())
)

await Effect.forEach([5_00, 500_00, -1], (cents) => Effect.flatMap(charge(cents), Effect.log)).pipe(
  Effect.provide(WorkerLive),
  Effect.runPromise
)
