/** A producer that is killed between the steps of an enqueue: `processProducer.ts <place> <the step it dies at>`. */
import { Effect } from "effect"
import { Count, Keyed } from "./processTasks.ts"
import * as Places from "./storeLocations.ts"

const place = Places.decode(process.argv[2])
const step = process.argv[3]

const die = Effect.andThen(
  Effect.sync(() => process.kill(process.pid, "SIGKILL")),
  Effect.never
)

Effect.gen(function* () {
  const drivers = yield* Places.drivers(place)
  // overridden operations are not fused
  const { fusion: _, ...backend } = drivers.backend
  const context = yield* Places.services({
    backend: {
      ...backend,
      create: step === "create" ? () => die : backend.create,
      markPublished: step === "markPublished" ? () => die : backend.markPublished
    },
    broker: {
      ...drivers.broker,
      publish: step === "publish" ? () => die : drivers.broker.publish
    }
  })
  const sent = step === "create" ? Count.send({ n: 7, millis: 0 }) : Keyed.send(7)
  yield* Effect.provideContext(sent, context)
})
  .pipe(Effect.scoped, Effect.runPromise)
  .catch((error: unknown) => {
    process.stderr.write(`${String(error)}\n`)
    process.exitCode = 1
  })
