/** A producer that is killed between the steps of an enqueue: `processProducer.ts <place> <the step it dies at>`. */
import { Backend, Broker } from "chicory"
import { Context, Effect } from "effect"
import * as RabbitBroker from "../../src/rabbitmq/RabbitBroker.ts"
import * as Migrations from "../../src/sql/Migrations.ts"
import * as SqlDrivers from "../../src/sql/SqlDrivers.ts"
import * as Places from "./places.ts"
import { Count, Keyed } from "./processTasks.ts"

const place = Places.decode(process.argv[2])
const step = process.argv[3]

const die = Effect.andThen(
  Effect.sync(() => process.kill(process.pid, "SIGKILL")),
  Effect.never
)

Effect.gen(function* () {
  yield* Migrations.run(place)
  const drivers = yield* SqlDrivers.make({ prefix: place.prefix })
  // overridden operations are not fused
  const { fusion: _, ...backend } = drivers.backend
  const broker: Broker.Driver =
    "rabbitmq" in place ? yield* RabbitBroker.makeDriver(place.rabbitmq) : drivers.broker
  const context = Context.make(
    Backend.Backend,
    yield* Backend.make({
      ...backend,
      create: step === "create" ? () => die : backend.create,
      markPublished: step === "markPublished" ? () => die : backend.markPublished
    })
  ).pipe(
    Context.add(
      Broker.Broker,
      yield* Broker.make({
        ...broker,
        publish: step === "publish" ? () => die : broker.publish
      })
    )
  )
  const sent = step === "create" ? Count.send({ n: 7, millis: 0 }) : Keyed.send(7)
  yield* Effect.provideContext(sent, context)
})
  .pipe(Effect.scoped, Effect.provide(Places.clientLayer(place)), Effect.runPromise)
  .catch((error: unknown) => {
    process.stderr.write(`${String(error)}\n`)
    process.exitCode = 1
  })
