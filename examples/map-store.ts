/** Runs a task over the drivers of map-store/, which docs/writing-a-store.md explains. */
import { AsyncResult, Backend, Broker, Task, Worker } from "chicory"
import { Effect, Layer, Schema } from "effect"
import { makeMapBackend } from "./map-store/MapBackendDriver.ts"
import { makeMapBroker } from "./map-store/MapBrokerDriver.ts"

const MapStoreLive = Layer.merge(Backend.layer(makeMapBackend), Broker.layer(makeMapBroker))

const Greet = Task.make("greet", { payload: { name: Schema.String }, success: Schema.String })

const GreetLive = Greet.toLayer(({ name }) => Effect.succeed(`Hello, ${name}`))

const program = Effect.gen(function* () {
  const result = yield* Greet.delay({ name: "Map" })
  yield* Effect.log(yield* AsyncResult.get(result, { timeout: "5 seconds" }))
})

await program.pipe(
  Effect.provide(Worker.layer([Greet]).pipe(Layer.provide(GreetLive))),
  Effect.provide(MapStoreLive),
  Effect.runPromise
)
