/** `Task.make`, and what enqueues: `delay`, `send`, `delayAll`. */
import { AsyncResult, type Backend, Task } from "chicory"
import { Array as Arr, DateTime, Duration, Effect, type Layer, Schema } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import {
  type CardDeclined,
  Charge,
  type ChargeError,
  Divide,
  type DivideByZero,
  Import,
  type NoSuchAddress,
  type RateLimited,
  type Reveal,
  type Sealer,
  SendMail,
  Tick
} from "./subjects.ts"
import { expectType, fits, type GetError, type Services, type Store, typeOf } from "./support.ts"

// make: the type of the task
expectType(Divide).is<
  Task.Task<
    "math.divide",
    Schema.Struct<{ readonly dividend: Schema.Number; readonly divisor: Schema.Number }>,
    Schema.Number,
    typeof DivideByZero
  >
>(true)
expectType(Tick).is<Task.Task<"clock.tick", Schema.Void, Schema.Void, Schema.Never, Schema.Never>>(true)
expectType(Charge).is<
  Task.Task<"card.charge", Schema.Struct<{ readonly cents: Schema.Int }>, Schema.String, typeof ChargeError>
>(true)
fits<Task.Any>(Divide)
expectType(Divide.name).is<"math.divide">(true)
expectType(Divide.queue).is<string>(true)
typeOf<Task.HandlerOf<typeof Divide | typeof Tick>>().is<
  Task.Handler<"math.divide"> | Task.Handler<"clock.tick">
>(true)
typeOf<Task.HandlerOf<Task.Any>>().is<never>(true)
typeOf<Task.PayloadSchema<Schema.String>>().is<Schema.String>(true)
typeOf<Task.PayloadSchema<{ a: Schema.String }>>().is<Schema.Struct<{ a: Schema.String }>>(true)
// @ts-expect-error an option of no task
Task.make("a", { retries: 3 })
// @ts-expect-error a task needs a name
Task.make({ payload: Schema.String })
// @ts-expect-error the third way does not exist
Task.make("a", { delivery: "exactly-once" })

// delay: a handle, every error of enqueuing, both services
type DivideHandle = AsyncResult.AsyncResult<number, DivideByZero, never, never>
expectType(Divide.delay({ dividend: 6, divisor: 3 })).is<
  Effect.Effect<DivideHandle, Task.EnqueueError, Store>
>(true)
expectType(Divide.send({ dividend: 6, divisor: 3 }, { priority: 255 })).is<
  Effect.Effect<string, Task.EnqueueError, Store>
>(true)
expectType(Tick.delay()).is<
  Effect.Effect<AsyncResult.AsyncResult<void, never, never, never>, Task.EnqueueError, Store>
>(true)
expectType(Tick.delay({ delay: "1 minute", priority: 200 })).is<ReturnType<typeof Tick.delay>>(true)
expectType(Tick.send({ at: DateTime.makeUnsafe("2026-01-01") })).is<
  Effect.Effect<string, Task.EnqueueError, Store>
>(true)
expectType(Import.delay({ url: "…" }, { id: "import-1", queue: "slow", expires: Duration.hours(1) })).is<
  Effect.Effect<
    AsyncResult.AsyncResult<number, never, never, { readonly done: number; readonly total: number }>,
    Task.EnqueueError,
    Store
  >
>(true)
const quickStart = Effect.gen(function* () {
  const result = yield* Divide.delay({ dividend: 6, divisor: 3 })
  return yield* AsyncResult.get(result, { timeout: "5 seconds", pollInterval: "100 millis" })
})
expectType(quickStart).is<Effect.Effect<number, GetError<DivideByZero> | Task.EnqueueError, Store>>(true)

// payloads that do not fit
// @ts-expect-error text for a number
Divide.delay({ dividend: "6", divisor: 3 })
// @ts-expect-error a field is missing
Divide.delay({ dividend: 6 })
// @ts-expect-error a field too many
Divide.delay({ dividend: 6, divisor: 3, remainder: 0 })
// @ts-expect-error nothing at all
Divide.delay()
// @ts-expect-error a payload for a task that takes none
Tick.delay({ now: true })
// @ts-expect-error a misspelt option
Divide.send({ dividend: 6, divisor: 3 }, { delai: "1 second" })
// @ts-expect-error no duration
Tick.delay({ delay: "tomorrow" })
// @ts-expect-error a misspelt option of a task without a payload
Tick.send({ delai: "1 second" })
// @ts-expect-error options in place of the payload
Divide.delay({ delay: "1 minute" })

// a class as payload: an instance, or its fields
class Parcel extends Schema.Class<Parcel>("Parcel")({ id: Schema.String, grams: Schema.Number }) {}
const Ship = Task.make("parcel.ship", { payload: Parcel, success: Schema.Void })
Ship.delay(new Parcel({ id: "1", grams: 300 }))
Ship.delay({ id: "1", grams: 300 })
Ship.toLayer((parcel) => {
  expectType(parcel).is<Parcel>(true)
  return Effect.void
})
// @ts-expect-error text for a number
Ship.delay({ id: "1", grams: "300" })

// a union as payload
const Sms = Schema.TaggedStruct("Sms", { number: Schema.String })
const Push = Schema.TaggedStruct("Push", { device: Schema.String })
const Notify = Task.make("notify", { payload: Schema.Union([Sms, Push]) })
Notify.delay({ _tag: "Push", device: "phone" })
// the tag may be left out: the first member that fits is taken
Notify.delay({ number: "+49" })
Notify.toLayer((message) =>
  message._tag === "Sms" ? Effect.log(message.number) : Effect.log(message.device)
)
// @ts-expect-error the field of another member
Notify.delay({ _tag: "Sms", device: "phone" })

// defaults and optional fields; a scalar
const Resize = Task.make("image.resize", {
  payload: {
    width: Schema.Number.pipe(Schema.withConstructorDefault(Effect.succeed(100))),
    alt: Schema.optionalKey(Schema.String)
  }
})
Resize.delay({})
Resize.delay({ width: 3, alt: "a cat" })
Resize.toLayer((payload) => {
  expectType(payload).is<{ readonly width: number; readonly alt?: string }>(true)
  return Effect.void
})
const Echo = Task.make("echo", { payload: Schema.String, success: Schema.String })
typeOf<Parameters<typeof Echo.delay>[0]>().is<string>(true)

// delayAll: many handles; the error has the accepted ids
const DaySync = Task.make("user.sync", {
  idempotencyKey: (payload) => {
    expectType(payload).is<{ readonly user: string; readonly day: Date }>(true)
    return `${payload.user} ${payload.day.toISOString()}`
  },
  payload: { user: Schema.String, day: Schema.Date },
  retention: "7 days",
  expires: "1 day",
  delivery: "at-most-once"
})
const users = Arr.map(["ada", "bob"], (user) => ({ user, day: new Date() }))
expectType(DaySync.delayAll(users, { queue: "bulk", delay: "1 minute" })).is<
  Effect.Effect<Array<AsyncResult.AsyncResult<void, never, never, never>>, Task.PartialEnqueue, Store>
>(true)
expectType(Divide.delayAll(new Set([{ dividend: 1, divisor: 2 }]))).is<
  Effect.Effect<Array<DivideHandle>, Task.PartialEnqueue, Store>
>(true)
DaySync.delayAll(users, (payload, index) => {
  expectType(payload).is<{ readonly user: string; readonly day: Date }>(true)
  return { id: `${payload.user} ${index}`, delay: Duration.seconds(index) }
})
Tick.delayAll([undefined, undefined], (_, index) => ({ priority: index }))
// @ts-expect-error a function that returns no options
DaySync.delayAll(users, () => ({ delay: true }))
// @ts-expect-error one id for all of them
DaySync.delayAll(users, { id: "sync" })
// @ts-expect-error one payload that does not fit
Divide.delayAll([{ dividend: 1, divisor: 2 }, { dividend: 1 }])
// @ts-expect-error a key of a field that is not there
Task.make("a", { payload: { user: Schema.String }, idempotencyKey: (payload) => payload.usr })

// schemas with services: the producer encodes, the reader of the result decodes
typeOf<Services<ReturnType<typeof Reveal.delay>>>().is<Store | Sealer>(true)
typeOf<Services<ReturnType<typeof Reveal.send>>>().is<Store | Sealer>(true)
typeOf<Services<ReturnType<typeof Reveal.delayAll>>>().is<Store | Sealer>(true)

// a check of the stores, for a program that only enqueues
expectType(Task.layerCheck([Divide, Tick], { delay: "30 days", priority: 200 })).is<
  Layer.Layer<never, never, Store>
>(true)
// @ts-expect-error an option of single calls
Task.layerCheck([Divide], { id: "a" })

// within a transaction of the caller
const signUp = Effect.fn("signUp")(function* (address: string) {
  const sql = yield* SqlClient.SqlClient
  return yield* sql.withTransaction(
    Effect.gen(function* () {
      yield* sql`INSERT INTO users ${sql.insert({ address })}`
      return yield* SendMail.delay({ address })
    })
  )
})
expectType(signUp("ada@example.org")).is<
  Effect.Effect<
    AsyncResult.AsyncResult<Date, NoSuchAddress, never, never>,
    SqlError.SqlError | Task.EnqueueError,
    Store | SqlClient.SqlClient
  >
>(true)

// code over any task
const delayAndGet = <
  Name extends string,
  Payload extends Schema.Constraint,
  Success extends Schema.Constraint,
  Err extends Schema.Constraint
>(
  task: Task.Task<Name, Payload, Success, Err>,
  payload: Payload["~type.make.in"]
) => task.delay(payload).pipe(Effect.flatMap(AsyncResult.get))
expectType(delayAndGet(Divide, { dividend: 1, divisor: 2 })).is<typeof quickStart>(true)
delayAndGet(Tick, undefined)
const sendLater = <Name extends string, Payload extends Schema.Constraint>(
  task: Task.Task<Name, Payload, Schema.Void, Schema.Never>,
  payload: Payload["~type.make.in"]
) => task.send(payload, { delay: "1 minute" })
sendLater(Tick, undefined)

// a task's error, as it comes out of `get`
expectType(AsyncResult.get(Charge.result("0190"))).is<
  Effect.Effect<string, GetError<RateLimited | CardDeclined>, Backend.Backend>
>(true)
