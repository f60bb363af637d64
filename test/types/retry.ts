/** `RetryPolicy`: plain data, narrowed by a spread, typed on the task's error. */
import { RetryPolicy, Task } from "chicory"
import { type Duration, Schedule, Schema } from "effect"
import { type CardDeclined, ChargeError, NoSuchAddress, RateLimited } from "./subjects.ts"
import { expectType, fits, typeOf } from "./support.ts"

// every constructor makes a policy for any error
expectType(RetryPolicy.never).is<RetryPolicy.RetryPolicy>(true)
expectType(RetryPolicy.fixed({ maxRetries: 1, delay: "1 second" })).is<RetryPolicy.RetryPolicy<unknown>>(true)
expectType(RetryPolicy.linear({ maxRetries: 1, delay: 1, maxDelay: "1 minute" })).is<RetryPolicy.RetryPolicy>(
  true
)
expectType(
  RetryPolicy.exponential({ maxRetries: 1, delay: 1, factor: 3, jitter: true })
).is<RetryPolicy.RetryPolicy>(true)
expectType(RetryPolicy.fromSchedule(Schedule.recurs(3))).is<RetryPolicy.RetryPolicy>(true)
declare const ofRateLimits: Schedule.Schedule<number, RateLimited | undefined>
expectType(RetryPolicy.fromSchedule(ofRateLimits, { maxRetries: 3 })).is<
  RetryPolicy.RetryPolicy<RateLimited>
>(true)
// @ts-expect-error a timeout and a defect have no error of the task
RetryPolicy.fromSchedule<RateLimited>(null! as Schedule.Schedule<number, RateLimited>)
RetryPolicy.fromSchedule(Schedule.cron("0 3 * * *"))
// @ts-expect-error how often?
RetryPolicy.fixed({ delay: "1 second" })
// @ts-expect-error only an exponential delay has a factor
RetryPolicy.linear({ maxRetries: 1, delay: 1, factor: 2 })
// @ts-expect-error a misspelt option
RetryPolicy.exponential({ maxRetries: 1, delay: 1, maxDeley: "1 minute" })

// while: sees the task's error, wherever the options stand
Task.make("a", {
  retry: {
    ...RetryPolicy.fixed({ maxRetries: 1, delay: 1 }),
    while: (error) => {
      expectType(error).is<RateLimited | CardDeclined>(true)
      return error._tag === "RateLimited"
    }
  },
  error: ChargeError
})
Task.make("a", {
  error: Schema.String,
  retry: { ...RetryPolicy.never, while: (error) => error.startsWith("temporary") }
})

// byTag: a delay, "never", "discard", or a function of that very error
typeOf<RetryPolicy.Rule<RateLimited>>().is<
  "never" | "discard" | Duration.Input | ((error: RateLimited) => Duration.Input | "never" | "discard")
>(true)
typeOf<Exclude<keyof RetryPolicy.ByTag<RateLimited | CardDeclined>, "~rules">>().is<
  "RateLimited" | "CardDeclined"
>(true)
const spread = RetryPolicy.fixed({ maxRetries: 1, delay: 1 })
Task.make("a", { error: ChargeError, retry: { ...spread, byTag: { RateLimited: "1 minute" } } })
Task.make("a", {
  error: ChargeError,
  retry: {
    ...spread,
    byTag: {
      RateLimited: ({ retryAfter }) => retryAfter * 1000,
      CardDeclined: (error) => {
        expectType(error).is<CardDeclined>(true)
        return error.code === "later" ? "1 hour" : error.code === "lost" ? "discard" : "never"
      }
    }
  }
})
Task.make("a", { error: ChargeError, retry: { ...RetryPolicy.never, byTag: { CardDeclined: "discard" } } })
Task.make("a", { error: ChargeError, deadLetter: "discard" })
// @ts-expect-error no such choice
Task.make("a", { error: ChargeError, deadLetter: "drop" })
// @ts-expect-error the task has no such error
Task.make("a", { error: ChargeError, retry: { ...spread, byTag: { Refused: "never" } } })
// @ts-expect-error no rule
Task.make("a", { error: ChargeError, retry: { ...spread, byTag: { RateLimited: "always" } } })
Task.make("a", {
  error: ChargeError,
  // @ts-expect-error a field of the other error
  retry: { ...spread, byTag: { CardDeclined: (error) => error.retryAfter } }
})
// @ts-expect-error a task without an error has no tags
Task.make("a", { retry: { ...spread, byTag: { RateLimited: "never" } } })
// @ts-expect-error nor has one whose error is text
Task.make("a", { error: Schema.String, retry: { ...spread, byTag: { RateLimited: "never" } } })

// a custom policy fits every task whose error it covers
const onlyRateLimits: RetryPolicy.RetryPolicy<RateLimited | CardDeclined> = {
  ...RetryPolicy.linear({ maxRetries: 5, delay: "1 second" }),
  while: (error) => error._tag === "RateLimited"
}
Task.make("a", { error: ChargeError, retry: onlyRateLimits })
Task.make("a", { error: RateLimited, retry: onlyRateLimits })
Task.make("a", { error: NoSuchAddress, retry: RetryPolicy.fromSchedule(Schedule.recurs(3)) })
// @ts-expect-error it knows nothing of that error
Task.make("a", { error: NoSuchAddress, retry: onlyRateLimits })
fits<RetryPolicy.RetryPolicy<RateLimited>>(onlyRateLimits)
