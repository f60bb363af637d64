/** Tasks, errors and services that several type tests use. */
import { RetryPolicy, Task } from "chicory"
import { Context, Duration, Effect, Schema, SchemaGetter } from "effect"
import { expectType, typeOf } from "./support.ts"

export class DivideByZero extends Schema.TaggedError<DivideByZero>()("DivideByZero", {
  dividend: Schema.Number
}) {}
export class NoSuchAddress extends Schema.TaggedError<NoSuchAddress>()("NoSuchAddress", {
  address: Schema.String
}) {}
export class RateLimited extends Schema.TaggedError<RateLimited>()("RateLimited", {
  retryAfter: Schema.Number
}) {}
export class CardDeclined extends Schema.TaggedError<CardDeclined>()("CardDeclined", {
  code: Schema.String
}) {}

/** Sends mail; a service of the application. */
export class Mailer extends Context.Service<
  Mailer,
  { readonly send: (address: string) => Effect.Effect<Date, NoSuchAddress> }
>()("app/Mailer") {}

/** Quick, and fails with one error. */
export const Divide = Task.make("math.divide", {
  payload: { dividend: Schema.Number, divisor: Schema.Number },
  success: Schema.Number,
  error: DivideByZero,
  retry: RetryPolicy.exponential({ maxRetries: 3, delay: "1 second" })
})

/** Its handler needs a service. */
export const SendMail = Task.make("mail.send", {
  payload: { address: Schema.String },
  success: Schema.Date,
  error: NoSuchAddress,
  timeout: "10 seconds"
})

/** Has no payload, no success and no error. */
export const Tick = Task.make("clock.tick")

/** Fails with a union. */
export const ChargeError = Schema.Union([RateLimited, CardDeclined])
export const Charge = Task.make("card.charge", {
  payload: { cents: Schema.Int },
  success: Schema.String,
  error: ChargeError,
  retry: {
    ...RetryPolicy.exponential({ maxRetries: 5, delay: "1 second", maxDelay: "1 minute", jitter: true }),
    byTag: {
      RateLimited: (error) => {
        expectType(error).is<RateLimited>(true)
        return Duration.seconds(error.retryAfter)
      },
      CardDeclined: "never"
    }
  }
})

/** Has progress. */
export const Import = Task.make("csv.import", {
  payload: { url: Schema.String },
  success: Schema.Int,
  progress: Schema.Struct({ done: Schema.Int, total: Schema.Int })
})

/** The service that decodes a `Secret`. */
export class Opener extends Context.Service<
  Opener,
  { readonly open: (sealed: string) => Effect.Effect<string> }
>()("app/Opener") {}

/** The service that encodes a `Secret`. */
export class Sealer extends Context.Service<
  Sealer,
  { readonly seal: (plain: string) => Effect.Effect<string> }
>()("app/Sealer") {}

/** A schema that needs a service in each direction. */
export const Secret = Schema.String.pipe(
  Schema.decodeTo(Schema.String, {
    decode: SchemaGetter.transformEffect((sealed: string) =>
      Effect.flatMap(Opener, ({ open }) => open(sealed))
    ),
    encode: SchemaGetter.transformEffect((plain: string) => Effect.flatMap(Sealer, ({ seal }) => seal(plain)))
  })
)
typeOf<(typeof Secret)["DecodingServices"]>().is<Opener>(true)
typeOf<(typeof Secret)["EncodingServices"]>().is<Sealer>(true)

/** Its schemas need services. */
export const Reveal = Task.make("secret.reveal", { payload: { secret: Secret }, success: Secret })
