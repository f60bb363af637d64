/** `toLayer`: what a handler may return, fail with and need. */
import { Task, TaskContext } from "chicory"
import { type Duration, Effect, type Layer } from "effect"
import {
  Charge,
  Divide,
  DivideByZero,
  Import,
  Mailer,
  NoSuchAddress,
  type Opener,
  RateLimited,
  Reveal,
  type Sealer,
  SendMail,
  Tick
} from "./subjects.ts"
import { expectType, fits, type Store, typeOf } from "./support.ts"

// without needs
expectType(
  Divide.toLayer(({ dividend, divisor }) =>
    divisor === 0 ? Effect.fail(new DivideByZero({ dividend })) : Effect.succeed(dividend / divisor)
  )
).is<Layer.Layer<Task.Handler<"math.divide">>>(true)

// with a service; the task's context and each attempt's scope come from the worker
type SendMailLayer = Layer.Layer<Task.Handler<"mail.send">, never, Mailer>
expectType(
  SendMail.toLayer(
    Effect.fn("SendMail")(function* ({ address }) {
      expectType(address).is<string>(true)
      const context = yield* TaskContext.TaskContext
      if (context.isLastRetry) yield* Effect.logWarning("last try", context.attempt, context.remainingRetries)
      yield* Effect.addFinalizer(() => Effect.log("over", context.fence))
      const mailer = yield* Mailer
      return yield* mailer.send(address)
    })
  )
).is<SendMailLayer>(true)
expectType(SendMail.toLayer(({ address }) => Mailer.use((mailer) => mailer.send(address)))).is<SendMailLayer>(
  true
)

// schemas with services: the worker decodes the payload and encodes the result
expectType(Reveal.toLayer(({ secret }) => Effect.succeed(secret))).is<
  Layer.Layer<Task.Handler<"secret.reveal">, never, Opener | Sealer>
>(true)

// what does not fit the task
// @ts-expect-error text for a number
Divide.toLayer(() => Effect.succeed("2"))
// @ts-expect-error an error of another task
Divide.toLayer(() => Effect.fail(new NoSuchAddress({ address: "" })))
// @ts-expect-error there is no such field
Divide.toLayer(({ divident }) => Effect.succeed(divident))
// @ts-expect-error the task declares no error
Tick.toLayer(() => Effect.fail("late"))
// @ts-expect-error a promise is no effect
Divide.toLayer(() => Promise.resolve(2))
// without a success schema any value fits: an `Effect<number>` is an `Effect<void>`
fits<Layer.Layer<Task.Handler<"clock.tick">>>(Tick.toLayer(() => Effect.succeed(1)))

// a handler that enqueues has to handle the errors of enqueuing
expectType(
  Tick.toLayer(() => Divide.delay({ dividend: 1, divisor: 2 }).pipe(Effect.asVoid, Effect.orDie))
).is<Layer.Layer<Task.Handler<"clock.tick">, never, Store>>(true)
// @ts-expect-error they are no errors of the task
Tick.toLayer(() => Divide.delay({ dividend: 1, divisor: 2 }).pipe(Effect.asVoid))

// TaskContext
typeOf<TaskContext.TaskContext["Service"]>().is<{
  readonly taskId: string
  readonly taskName: string
  readonly attempt: number
  readonly retries: number
  readonly maxRetries: number
  readonly isLastRetry: boolean
  readonly remainingRetries: number
  readonly fence: number
  readonly retry: <E = never>(options?: {
    readonly countdown?: Duration.Input | undefined
    readonly error?: E
  }) => Effect.Effect<never, E>
}>(true)
expectType(
  Charge.toLayer(
    Effect.fn(function* ({ cents }) {
      const context = yield* TaskContext.TaskContext
      if (cents === 0) return yield* context.retry({ countdown: "1 hour" })
      if (cents < 0) return yield* context.retry({ error: new RateLimited({ retryAfter: 3 }) })
      if (cents > 1_000_000) return yield* context.retry()
      return "charged"
    })
  )
).is<Layer.Layer<Task.Handler<"card.charge">>>(true)
declare const context: TaskContext.TaskContext["Service"]
expectType(context.retry()).is<Effect.Effect<never>>(true)
expectType(context.retry({ error: new DivideByZero({ dividend: 1 }) })).is<
  Effect.Effect<never, DivideByZero>
>(true)
const retryOther = context.retry({ error: new NoSuchAddress({ address: "" }) })
// @ts-expect-error a retry with an error of another task
Charge.toLayer(() => retryOther)

// progress: typed by the task's schema, within its handler
expectType(Import.progress({ done: 1, total: 10 })).is<Effect.Effect<void, never, TaskContext.TaskContext>>(
  true
)
expectType(
  Import.toLayer(
    Effect.fn("Import")(function* () {
      yield* Import.progress({ done: 1, total: 10 })
      return 10
    })
  )
).is<Layer.Layer<Task.Handler<"csv.import">>>(true)
const Sealing = Task.make("sealing", { progress: Reveal.successSchema })
expectType(Sealing.progress("half")).is<Effect.Effect<void, never, TaskContext.TaskContext | Sealer>>(true)
// @ts-expect-error text for a number
Import.progress({ done: "1", total: 10 })
// @ts-expect-error the task has no progress
Tick.progress(1)
