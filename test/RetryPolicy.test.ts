import { assert, describe, it } from "@effect/vitest"
import { RetryPolicy } from "chicory"
import { Duration, Effect, Schedule, Schema } from "effect"
import { decide, type Decision, decideUntyped } from "../src/RetryPolicy.ts"

const error = new Error("no")

/** Collects a policy's delays in milliseconds, and its last decision. */
const play = Effect.fnUntraced(function* <E>(policy: RetryPolicy.RetryPolicy<E>, failure: E, most = 10) {
  const delays: Array<number> = []
  for (let retries = 0; retries < most; retries++) {
    const decision = yield* decide(policy, failure, retries)
    if (decision._tag === "GiveUp") return { delays, exhausted: decision.exhausted }
    delays.push(Duration.toMillis(decision.after))
  }
  return { delays, exhausted: undefined }
})

const millis = (decision: Decision): number | string =>
  decision._tag === "Retry" ? Duration.toMillis(decision.after) : `exhausted: ${decision.exhausted}`

const delays = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 1_000_000 }))
const counts = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 12 }))

describe("delays", () => {
  it.effect("fixed waits the same time before each retry", () =>
    Effect.gen(function* () {
      const policy = RetryPolicy.fixed({ maxRetries: 3, delay: "5 seconds" })
      assert.deepStrictEqual(yield* play(policy, error), { delays: [5000, 5000, 5000], exhausted: true })
    })
  )

  it.effect("linear waits n times its delay", () =>
    Effect.gen(function* () {
      const policy = RetryPolicy.linear({ maxRetries: 4, delay: "5 seconds" })
      assert.deepStrictEqual((yield* play(policy, error)).delays, [5000, 10_000, 15_000, 20_000])
    })
  )

  it.effect("exponential doubles its delay", () =>
    Effect.gen(function* () {
      const policy = RetryPolicy.exponential({ maxRetries: 5, delay: "1 second" })
      assert.deepStrictEqual((yield* play(policy, error)).delays, [1000, 2000, 4000, 8000, 16_000])
    })
  )

  it.effect("exponential multiplies its delay by its factor", () =>
    Effect.gen(function* () {
      const policy = RetryPolicy.exponential({ maxRetries: 4, delay: "1 second", factor: 3 })
      assert.deepStrictEqual((yield* play(policy, error)).delays, [1000, 3000, 9000, 27_000])
    })
  )

  it.effect("maxDelay bounds every delay", () =>
    Effect.gen(function* () {
      const policy = RetryPolicy.exponential({ maxRetries: 5, delay: "1 second", maxDelay: "5 seconds" })
      assert.deepStrictEqual((yield* play(policy, error)).delays, [1000, 2000, 4000, 5000, 5000])
    })
  )

  it.effect("a schedule is replayed from its first step on a separate clock", () =>
    Effect.gen(function* () {
      const schedule = Schedule.max([Schedule.fibonacci("1 second"), Schedule.recurs(5)])
      const policy = RetryPolicy.fromSchedule(schedule)
      const all = yield* play(policy, error)
      assert.deepStrictEqual(all, { delays: [1000, 1000, 2000, 3000, 5000], exhausted: true })
      // an earlier retry gets the same answer again
      assert.strictEqual(millis(yield* decide(policy, error, 3)), 3000)
      assert.strictEqual(millis(yield* decide(policy, error, 0)), 1000)
    })
  )

  it.effect("a schedule that measures elapsed time sees the delays pass", () =>
    Effect.gen(function* () {
      const policy = RetryPolicy.fromSchedule(
        Schedule.upTo(Schedule.spaced("10 seconds"), { duration: "35 seconds" })
      )
      const { delays } = yield* play(policy, error)
      assert.isAtLeast(delays.length, 3)
      assert.isAtMost(delays.length, 5)
    })
  )

  it.effect("maxRetries bounds a schedule", () =>
    Effect.gen(function* () {
      const policy = RetryPolicy.fromSchedule(Schedule.forever, { maxRetries: 2 })
      assert.deepStrictEqual(yield* play(policy, error), { delays: [0, 0], exhausted: true })
    })
  )

  it.effect("never allows no retry and reports none exhausted", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* play(RetryPolicy.never, error), { delays: [], exhausted: false })
    })
  )

  it.effect.prop(
    "a policy allows as many retries as maxRetries",
    { delay: delays, maxRetries: counts },
    ({ delay, maxRetries }) =>
      Effect.gen(function* () {
        for (const make of [RetryPolicy.fixed, RetryPolicy.linear, RetryPolicy.exponential]) {
          const played = yield* play(make({ maxRetries, delay }), error, 20)
          assert.lengthOf(played.delays, maxRetries)
          assert.strictEqual(played.exhausted, maxRetries > 0)
        }
      })
  )

  it.effect.prop(
    "linear and exponential follow their formulas",
    { delay: delays, retries: counts },
    ({ delay, retries }) =>
      Effect.gen(function* () {
        const maxRetries = 20
        const linear = yield* decide(RetryPolicy.linear({ maxRetries, delay }), error, retries)
        assert.strictEqual(millis(linear), delay * (retries + 1))
        const exponential = yield* decide(RetryPolicy.exponential({ maxRetries, delay }), error, retries)
        assert.strictEqual(millis(exponential), delay * 2 ** retries)
      })
  )

  it.effect.prop(
    "jitter stays between 80 % and 120 % of the delay and within maxDelay",
    { delay: delays, retries: counts },
    ({ delay, retries }) =>
      Effect.gen(function* () {
        const maxDelay = 500_000
        const free = RetryPolicy.linear({ maxRetries: 20, delay, jitter: true })
        const bounded = { ...free, maxDelay }
        const plain = delay * (retries + 1)
        const spread = Number(millis(yield* decide(free, error, retries)))
        assert.isAtLeast(spread, plain * 0.8 - 1)
        assert.isAtMost(spread, plain * 1.2 + 1)
        assert.isAtMost(Number(millis(yield* decide(bounded, error, retries))), maxDelay)
      })
  )

  it.effect("jitter spreads the delays", () =>
    Effect.gen(function* () {
      const policy = RetryPolicy.fixed({ maxRetries: 1, delay: "1 second", jitter: true })
      const seen = yield* Effect.forEach(Array.from({ length: 50 }), () => decide(policy, error, 0))
      assert.isAbove(new Set(seen.map(millis)).size, 10)
    })
  )
})

class RateLimited extends Schema.TaggedError<RateLimited>()("RateLimited", { retryAfter: Schema.Number }) {}
class CardDeclined extends Schema.TaggedError<CardDeclined>()("CardDeclined", {}) {}
class Timeout extends Schema.TaggedError<Timeout>()("Timeout", {}) {}
type Failure = RateLimited | CardDeclined | Timeout

describe("rules", () => {
  const base = RetryPolicy.fixed({ maxRetries: 3, delay: "1 second" })
  const policy: RetryPolicy.RetryPolicy<Failure> = {
    ...base,
    byTag: {
      RateLimited: ({ retryAfter }) => (retryAfter > 100 ? "never" : Duration.seconds(retryAfter)),
      CardDeclined: "never"
    }
  }

  it.effect("a function of the error returns its delay", () =>
    Effect.gen(function* () {
      assert.strictEqual(millis(yield* decide(policy, new RateLimited({ retryAfter: 42 }), 0)), 42_000)
    })
  )

  it.effect("a function of the error may return never", () =>
    Effect.gen(function* () {
      const decision = yield* decide(policy, new RateLimited({ retryAfter: 101 }), 0)
      assert.strictEqual(millis(decision), "exhausted: false")
    })
  )

  it.effect("never allows no retry and reports none exhausted", () =>
    Effect.gen(function* () {
      for (const retries of [0, 2, 3]) {
        assert.strictEqual(millis(yield* decide(policy, new CardDeclined(), retries)), "exhausted: false")
      }
    })
  )

  it.effect("a duration is the delay of its tag", () =>
    Effect.gen(function* () {
      const fixed: RetryPolicy.RetryPolicy<Failure> = { ...base, byTag: { Timeout: "7 seconds" } }
      assert.strictEqual(millis(yield* decide(fixed, new Timeout(), 0)), 7000)
    })
  )

  it.effect("a tag without a rule follows the schedule", () =>
    Effect.gen(function* () {
      assert.strictEqual(millis(yield* decide(policy, new Timeout(), 0)), 1000)
    })
  )

  it.effect("maxRetries bounds a rule", () =>
    Effect.gen(function* () {
      const decision = yield* decide(policy, new RateLimited({ retryAfter: 1 }), 3)
      assert.strictEqual(millis(decision), "exhausted: true")
    })
  )

  it.effect("maxDelay bounds the delay of a rule", () =>
    Effect.gen(function* () {
      const bounded = { ...policy, maxDelay: "30 seconds" } as const
      assert.strictEqual(millis(yield* decide(bounded, new RateLimited({ retryAfter: 42 }), 0)), 30_000)
    })
  )

  it.effect("a rule without a delay is a defect", () =>
    Effect.gen(function* () {
      const wrong: RetryPolicy.RetryPolicy<Failure> = { ...base, byTag: { RateLimited: () => -1 } }
      const exit = yield* Effect.exit(decide(wrong, new RateLimited({ retryAfter: 1 }), 0))
      assert.strictEqual(exit._tag, "Failure")
    })
  )

  it.effect("while prevents retries when it is false and reports none exhausted", () =>
    Effect.gen(function* () {
      const narrowed: RetryPolicy.RetryPolicy<Failure> = { ...base, while: (e) => e._tag === "Timeout" }
      assert.strictEqual(millis(yield* decide(narrowed, new CardDeclined(), 0)), "exhausted: false")
      assert.strictEqual(millis(yield* decide(narrowed, new Timeout(), 0)), 1000)
      assert.strictEqual(millis(yield* decide(narrowed, new Timeout(), 3)), "exhausted: true")
    })
  )
})

describe("a failure without a typed error", () => {
  const policy: RetryPolicy.RetryPolicy<Failure> = {
    ...RetryPolicy.exponential({ maxRetries: 2, delay: "1 second" }),
    while: () => false,
    byTag: { Timeout: "never" }
  }

  it.effect("follows the schedule alone", () =>
    Effect.gen(function* () {
      assert.strictEqual(millis(yield* decideUntyped(policy, 0)), 1000)
      assert.strictEqual(millis(yield* decideUntyped(policy, 1)), 2000)
      assert.strictEqual(millis(yield* decideUntyped(policy, 2)), "exhausted: true")
    })
  )

  it.effect("waits for the requested countdown", () =>
    Effect.gen(function* () {
      assert.strictEqual(millis(yield* decideUntyped(policy, 1, Duration.seconds(9))), 9000)
      assert.strictEqual(millis(yield* decideUntyped(policy, 2, Duration.seconds(9))), "exhausted: true")
    })
  )

  it.effect("is not retried without a policy", () =>
    Effect.gen(function* () {
      assert.strictEqual(millis(yield* decideUntyped(RetryPolicy.never, 0)), "exhausted: false")
    })
  )
})
