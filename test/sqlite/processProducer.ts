/** A producer that is killed between the steps of an enqueue: `processProducer.ts <database> <the step it dies at>`. */
import { Backend, Broker } from "chicory"
import { SqliteStore } from "chicory/sqlite"
import { Context, Effect } from "effect"
import { Count, Keyed } from "./processTasks.ts"

const [filename = "", step] = process.argv.slice(2)

const die = Effect.andThen(
  Effect.sync(() => process.kill(process.pid, "SIGKILL")),
  Effect.never
)

Effect.gen(function* () {
  const drivers = yield* SqliteStore.makeDrivers({ filename })
  // overridden operations are not fused
  const { fusion: _, ...backend } = drivers.backend
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
        ...drivers.broker,
        publish: step === "publish" ? () => die : drivers.broker.publish
      })
    )
  )
  const sent = step === "create" ? Count.send({ n: 7, millis: 0 }) : Keyed.send(7)
  yield* Effect.provideContext(sent, context)
})
  .pipe(Effect.scoped, Effect.runPromise)
  .catch((error: unknown) => {
    process.stderr.write(`${String(error)}\n`)
    process.exitCode = 1
  })
