/** `Worker`: asks for a handler of each task, and for both services. */
import { AsyncResult, Backend, Broker, type Task, Worker } from "chicory"
import type { Heartbeat } from "chicory/driver"
import { SqliteStore } from "chicory/sqlite"
import { type DateTime, Effect, Layer, type Stream } from "effect"
import { Charge, Divide, Import, type Mailer, Reveal, SendMail, Tick } from "./subjects.ts"
import { expectType, fits, type ReadError, type Services, type Store, typeOf } from "./support.ts"

declare const DivideLive: Layer.Layer<Task.Handler<"math.divide">>
declare const SendMailLive: Layer.Layer<Task.Handler<"mail.send">, never, Mailer>
declare const TickLive: Layer.Layer<Task.Handler<"clock.tick">>
declare const MailerLive: Layer.Layer<Mailer>

// one task
const divideWorker = Worker.layer([Divide], { concurrency: 32 }).pipe(Layer.provide(DivideLive))
expectType(divideWorker).is<Layer.Layer<Worker.Worker, never, Store>>(true)
// @ts-expect-error a misspelt option
Worker.layer([Divide], { concurency: 32 })
// @ts-expect-error a name is no task
Worker.layer(["math.divide"])

// several: a handler of each, and what the handlers need
const bare = Worker.layer([SendMail, Tick, Divide])
expectType(bare).is<
  Layer.Layer<
    Worker.Worker,
    never,
    Store | Task.Handler<"mail.send"> | Task.Handler<"clock.tick"> | Task.Handler<"math.divide">
  >
>(true)
const oneMissing = bare.pipe(Layer.provide(Layer.mergeAll(SendMailLive, TickLive)))
expectType(oneMissing).is<Layer.Layer<Worker.Worker, never, Store | Mailer | Task.Handler<"math.divide">>>(
  true
)
const store = SqliteStore.layer({ filename: "tasks.db" })
// @ts-expect-error nobody handles "math.divide"
void Effect.runPromise(Layer.launch(oneMissing.pipe(Layer.provide([MailerLive, store]))))
const complete = bare.pipe(
  Layer.provide([SendMailLive, TickLive, DivideLive]),
  Layer.provide([MailerLive, store])
)
expectType(complete).is<Layer.Layer<Worker.Worker, Backend.BackendError>>(true)

// a program and its worker in one process: nothing is left to provide
const program = Divide.delay({ dividend: 6, divisor: 3 }).pipe(Effect.flatMap(AsyncResult.get))
const provided = program.pipe(Effect.provide(divideWorker), Effect.provide(store))
typeOf<Services<typeof provided>>().is<never>(true)
fits<Promise<number>>(Effect.runPromise(provided))
const providedAtOnce = Effect.provide(program, divideWorker.pipe(Layer.provideMerge(store)))
typeOf<Services<typeof providedAtOnce>>().is<never>(true)
const inMemory = Layer.merge(Backend.layerMemory, Broker.layerMemory)
const providedMemory = Effect.provide(program, Layer.provideMerge(divideWorker, inMemory))
typeOf<Services<typeof providedMemory>>().is<never>(true)
// @ts-expect-error there is no store
void Effect.runPromise(program)
// @ts-expect-error there is no broker
void Effect.runPromise(program.pipe(Effect.provide(Backend.layerMemory)))

// an array made at run time: its names are not seen, so no handler is asked for
const registry: Array<Task.Any> = [Divide, SendMail, Tick, Charge, Import, Reveal]
expectType(Worker.layer(registry.filter(({ queue }) => queue === "default"))).is<
  Layer.Layer<Worker.Worker, never, Store>
>(true)
const known: Array<typeof Divide | typeof Tick> = [Divide, Tick]
expectType(Worker.layer(known)).is<
  Layer.Layer<Worker.Worker, never, Store | Task.Handler<"math.divide"> | Task.Handler<"clock.tick">>
>(true)

// without a backend
expectType(
  Worker.layer([Divide]).pipe(Layer.provide([DivideLive, Backend.layerNotConfigured, Broker.layerMemory]))
).is<Layer.Layer<Worker.Worker>>(true)

// a process that only works
const main = Layer.launch(
  Worker.layer([Divide, SendMail], {
    queues: ["default"],
    concurrency: 8,
    lease: "1 minute",
    drainTimeout: "30 seconds",
    heartbeat: "5 seconds",
    unknownTaskGrace: 0
  }).pipe(Layer.provide([DivideLive, SendMailLive]), Layer.provide([MailerLive, store]))
)
expectType(main).is<Effect.Effect<never, Backend.BackendError>>(true)

// workers, and their stats
expectType(Worker.active).is<Effect.Effect<ReadonlyArray<Worker.WorkerInfo>, ReadError, Backend.Backend>>(
  true
)
typeOf<Worker.WorkerInfo["startedAt" | "seenAt"]>().is<DateTime.Utc>(true)
typeOf<Omit<Worker.WorkerInfo, "startedAt" | "seenAt">>().is<Heartbeat>(true)
typeOf<keyof Worker.Stats>().is<"running" | "succeeded" | "failed" | "retried">(true)
typeOf<Worker.Worker["Service"]>().is<{
  readonly id: string
  readonly stats: Effect.Effect<Worker.Stats>
  readonly health: Effect.Effect<Worker.Health>
  readonly events: Stream.Stream<Worker.WorkerEvent>
}>(true)
typeOf<Worker.WorkerEvent["_tag"]>().is<"Started" | "Succeeded" | "Failed" | "Retried" | "Released" | "Lost">(
  true
)
typeOf<Worker.WorkerEvent["taskId" | "taskName" | "queue"]>().is<string>(true)
typeOf<keyof Extract<Worker.WorkerEvent, { readonly _tag: "Retried" }>>().is<
  "_tag" | "taskId" | "taskName" | "queue" | "attempt" | "duration" | "delay" | "cause"
>(true)
typeOf<keyof Worker.Health>().is<"live" | "ready" | "code">(true)
expectType(Effect.all([Worker.active, Worker.Worker.use((worker) => worker.stats)])).is<
  Effect.Effect<[ReadonlyArray<Worker.WorkerInfo>, Worker.Stats], ReadError, Backend.Backend | Worker.Worker>
>(true)
