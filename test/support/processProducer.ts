/**
 * A producer that is killed between the steps of an enqueue:
 * `processProducer.ts <location> <the step it dies at> <given or generated id>`.
 */
import { Effect } from "effect"
import { Count, Keyed } from "./processTasks.ts"
import * as StoreLocations from "./storeLocations.ts"

const location = StoreLocations.decode(process.argv[2])
const step = process.argv[3]
const id = process.argv[4]

const die = Effect.andThen(
  Effect.sync(() => process.kill(process.pid, "SIGKILL")),
  Effect.never
)

Effect.gen(function* () {
  const drivers = yield* StoreLocations.drivers(location)
  // overridden operations are not fused
  const { fusion: _, ...backend } = drivers.backend
  const context = yield* StoreLocations.services({
    backend: {
      ...backend,
      markPublished: step === "markPublished" ? () => die : backend.markPublished
    },
    broker: {
      ...drivers.broker,
      publish: step === "publish" ? () => die : drivers.broker.publish
    }
  })
  const sent = id === "generated" ? Count.send({ n: 7, millis: 0 }) : Keyed.send(7)
  yield* Effect.provideContext(sent, context)
})
  .pipe(Effect.scoped, Effect.runPromise)
  .catch((error: unknown) => {
    process.stderr.write(`${String(error)}\n`)
    process.exitCode = 1
  })
