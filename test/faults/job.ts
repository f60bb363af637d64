/** The task of the fault suites: its payload determines its outcome, so that every outcome can be checked. */
import { RetryPolicy, Task, type TaskFailed } from "chicory"
import { Option, Cause, Exit, Schema } from "effect"

/** Fails an attempt that is retried. */
export class TryAgain extends Schema.TaggedError<TryAgain>()("Again", {}) {}

/** Fails an attempt that is not retried. */
export class Refused extends Schema.TaggedError<Refused>()("Refused", { n: Schema.Int }) {}

export const Job = Task.make("job", {
  payload: {
    n: Schema.Int,
    /** Duration of the first run. */
    millis: Schema.Int,
    /** Duration of later runs. Default: `millis`. */
    rerunMillis: Schema.optionalKey(Schema.Int),
    /** How many attempts fail before the last. */
    retries: Schema.Int,
    ends: Schema.Literals(["Succeeds", "Fails", "Dies"])
  },
  success: Schema.Struct({ n: Schema.Int, square: Schema.Int }),
  error: Schema.Union([TryAgain, Refused]),
  retry: { ...RetryPolicy.fixed({ maxRetries: 20, delay: "100 millis" }), byTag: { Refused: "never" } },
  // the tests decide how many workers are killed
  maxCrashes: 1000
})

/** A task with a short retention. */
export const ShortRetention = Task.make("brief", { retention: "3 seconds" })

export type Payload = typeof Job.payloadSchema.Type
export type Value = typeof Job.successSchema.Type
export type Outcome = Exit.Exit<Value, TaskFailed.TaskFailed<TryAgain | Refused>>

/** Makes a payload that succeeds at once, unless the options say otherwise. */
export const payload = (n: number, options?: Partial<Payload>): Payload => ({
  n,
  millis: 0,
  retries: 0,
  ends: "Succeeds",
  ...options
})

/** Makes payloads of all kinds, a third of them with retries. */
export const payloads = (count: number, millis: number, first = 0): ReadonlyArray<Payload> =>
  Array.from({ length: count }, (_, i) =>
    payload(first + i, {
      millis,
      retries: i % 3 === 1 ? 1 : 0,
      ends: i % 5 === 3 ? "Fails" : i % 11 === 7 ? "Dies" : "Succeeds"
    })
  )

/** Whether an outcome is the one that the payload determines. */
export const isExpected = ({ ends, n }: Payload, outcome: Outcome): boolean => {
  if (Exit.isSuccess(outcome)) {
    return ends === "Succeeds" && outcome.value.n === n && outcome.value.square === n * n
  }
  const { reason } = Option.getOrThrow(Cause.findErrorOption(outcome.cause))
  if (reason._tag === "Failed")
    return ends === "Fails" && reason.error._tag === "Refused" && reason.error.n === n
  return ends === "Dies" && reason._tag === "Died"
}
