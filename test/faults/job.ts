/** The task of the fault suites: its payload says how it comes to its end, so that anybody can tell what is right. */
import { RetryPolicy, Task, type TaskFailed } from "chicory"
import { Option, Cause, Exit, Schema } from "effect"

/** Asks for another try. */
export class TryAgain extends Schema.TaggedError<TryAgain>()("Again", {}) {}

/** Is not tried again. */
export class Refused extends Schema.TaggedError<Refused>()("Refused", { n: Schema.Int }) {}

export const Job = Task.make("job", {
  payload: {
    n: Schema.Int,
    /** How long its first run takes. */
    millis: Schema.Int,
    /** How long a further one takes. Default: as long. */
    rerunMillis: Schema.optionalKey(Schema.Int),
    /** How often it asks for another try first. */
    retries: Schema.Int,
    ends: Schema.Literals(["Succeeds", "Fails", "Dies"])
  },
  success: Schema.Struct({ n: Schema.Int, square: Schema.Int }),
  error: Schema.Union([TryAgain, Refused]),
  retry: { ...RetryPolicy.fixed({ maxRetries: 20, delay: "100 millis" }), byTag: { Refused: "never" } },
  // how many of its workers are killed is for the tests to say
  maxCrashes: 1000
})

/** Its result is soon gone. */
export const ShortRetention = Task.make("brief", { retention: "3 seconds" })

export type Payload = typeof Job.payloadSchema.Type
export type Value = typeof Job.successSchema.Type
export type Outcome = Exit.Exit<Value, TaskFailed.TaskFailed<TryAgain | Refused>>

/** A payload; what is not given is the plainest there is. */
export const payload = (n: number, options?: Partial<Payload>): Payload => ({
  n,
  millis: 0,
  retries: 0,
  ends: "Succeeds",
  ...options
})

/** Payloads of all kinds, a third of them with retries. */
export const payloads = (count: number, millis: number, first = 0): ReadonlyArray<Payload> =>
  Array.from({ length: count }, (_, i) =>
    payload(first + i, {
      millis,
      retries: i % 3 === 1 ? 1 : 0,
      ends: i % 5 === 3 ? "Fails" : i % 11 === 7 ? "Dies" : "Succeeds"
    })
  )

/** Whether an outcome is the one that the payload asks for. */
export const isExpected = ({ ends, n }: Payload, outcome: Outcome): boolean => {
  if (Exit.isSuccess(outcome)) {
    return ends === "Succeeds" && outcome.value.n === n && outcome.value.square === n * n
  }
  const { reason } = Option.getOrThrow(Cause.findErrorOption(outcome.cause))
  if (reason._tag === "Failed")
    return ends === "Fails" && reason.error._tag === "Refused" && reason.error.n === n
  return ends === "Dies" && reason._tag === "Died"
}
