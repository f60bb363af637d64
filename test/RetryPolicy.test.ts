import { assert, describe, it } from "@effect/vitest"
import { RetryPolicy } from "chicory"
import { Cause, Cron, DateTime, Duration, Effect, Exit, Schedule, Schema } from "effect"
import { TestClock } from "effect/testing"
import { decide, type Decision, decideUntyped, retriesLeft } from "../src/RetryPolicy.ts"

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

const defectOf = (exit: Exit.Exit<unknown, unknown>): Error => {
  assert(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
  return Cause.squash(exit.cause) as Error
}

const delays = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 1_000_000 }))
const counts = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 12 }))

class RateLimited extends Schema.TaggedError<RateLimited>()("RateLimited", { retryAfter: Schema.Number }) {}
class CardDeclined extends Schema.TaggedError<CardDeclined>()("CardDeclined", {}) {}
class Timeout extends Schema.TaggedError<Timeout>()("Timeout", {}) {}

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

  it.effect.prop(
    "jitter never undercuts the delay of a rule, and maxDelay bounds it",
    { retryAfter: delays },
    ({ retryAfter }) =>
      Effect.gen(function* () {
        const policy: RetryPolicy.RetryPolicy<RateLimited> = {
          ...RetryPolicy.fixed({ maxRetries: 1, delay: 1, jitter: true }),
          byTag: { RateLimited: (error) => error.retryAfter }
        }
        const failure = new RateLimited({ retryAfter })
        const spread = Number(millis(yield* decide(policy, failure, 0)))
        assert.isAtLeast(spread, retryAfter)
        assert.isAtMost(spread, retryAfter * 1.2 + 1)
        const constant = { ...policy, byTag: { RateLimited: retryAfter } }
        assert.isAtLeast(Number(millis(yield* decide(constant, failure, 0))), retryAfter)
        const bounded = { ...policy, maxDelay: 500 }
        assert.isAtMost(Number(millis(yield* decide(bounded, failure, 0))), 500)
      })
  )

  it.effect("a rule of discard holds whatever maxRetries and while say, and for a function's answer", () =>
    Effect.gen(function* () {
      const gaveUp = { _tag: "GiveUp", exhausted: false, discard: true } as const
      const failure = new RateLimited({ retryAfter: 1 })
      const base = RetryPolicy.fixed({ maxRetries: 3, delay: 1 })
      for (const policy of [
        { ...RetryPolicy.never, byTag: { RateLimited: "discard" } },
        { ...base, while: () => false, byTag: { RateLimited: "discard" } },
        { ...base, byTag: { RateLimited: () => "discard" } }
      ] satisfies ReadonlyArray<RetryPolicy.RetryPolicy<RateLimited>>) {
        assert.deepStrictEqual(yield* decide(RetryPolicy.check("test", policy), failure, 3), gaveUp)
      }
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

  it.effect("a delay below zero is no delay", () =>
    Effect.gen(function* () {
      for (const late of [-3, "-5 seconds", Duration.millis(-3), Duration.negativeInfinity] as const) {
        const limited: RetryPolicy.RetryPolicy<Failure> = { ...base, byTag: { RateLimited: () => late } }
        assert.strictEqual(millis(yield* decide(limited, new RateLimited({ retryAfter: 1 }), 0)), 0)
      }
    })
  )

  it.effect("a rule without a delay is a defect", () =>
    Effect.gen(function* () {
      for (const wrong of [Number.NaN, "soon" as "1 second", Number.POSITIVE_INFINITY]) {
        const limited: RetryPolicy.RetryPolicy<Failure> = { ...base, byTag: { RateLimited: () => wrong } }
        const exit = yield* Effect.exit(decide(limited, new RateLimited({ retryAfter: 1 }), 0))
        assert.include(defectOf(exit).message, "a delay of byTag must be a finite duration")
      }
    })
  )

  it.effect("a tag that every object has as a property has no rule", () =>
    Effect.gen(function* () {
      for (const _tag of ["constructor", "toString", "valueOf", "__proto__"]) {
        const byTag: object = { Timeout: "7 seconds" }
        assert.strictEqual(millis(yield* decide({ ...base, byTag }, { _tag }, 0)), 1000)
      }
    })
  )

  it.effect("a rule gives no retry after the schedule has ended", () =>
    Effect.gen(function* () {
      const ending: RetryPolicy.RetryPolicy<Failure> = {
        ...RetryPolicy.fromSchedule<Failure>(Schedule.recurs(2)),
        byTag: { Timeout: "7 seconds" }
      }
      assert.deepStrictEqual(yield* play(ending, new Timeout()), { delays: [7000, 7000], exhausted: true })
    })
  )

  it.effect("a function that throws is a defect", () =>
    Effect.gen(function* () {
      const bug = new Error("a bug")
      const fail = () => {
        throw bug
      }
      const policies: ReadonlyArray<RetryPolicy.RetryPolicy<Failure>> = [
        { ...base, while: fail },
        { ...base, byTag: { Timeout: fail } }
      ]
      for (const failing of policies) {
        assert.strictEqual(defectOf(yield* Effect.exit(decide(failing, new Timeout(), 0))), bug)
      }
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

  it.effect("gets no countdown after the schedule has ended", () =>
    Effect.gen(function* () {
      const ending = RetryPolicy.fromSchedule(Schedule.recurs(2))
      assert.strictEqual(millis(yield* decideUntyped(ending, 1, Duration.seconds(9))), 9000)
      assert.strictEqual(millis(yield* decideUntyped(ending, 2, Duration.seconds(9))), "exhausted: true")
    })
  )

  it.effect("gives the schedule no error", () =>
    Effect.gen(function* () {
      const policy = RetryPolicy.fromSchedule<RateLimited>(
        Schedule.forever.pipe(
          Schedule.setInputType<RateLimited | undefined>(),
          Schedule.modifyDelay(({ input }) => Effect.succeed(Duration.seconds(input?.retryAfter ?? 1)))
        )
      )
      assert.strictEqual(millis(yield* decide(policy, new RateLimited({ retryAfter: 42 }), 1)), 42_000)
      assert.strictEqual(millis(yield* decideUntyped(policy, 1)), 1000)
    })
  )

  it.effect("is not retried without a policy", () =>
    Effect.gen(function* () {
      assert.strictEqual(millis(yield* decideUntyped(RetryPolicy.never, 0)), "exhausted: false")
    })
  )
})

describe("the clock of a schedule", () => {
  const at = (time: string) =>
    TestClock.setTime(DateTime.toEpochMillis(DateTime.makeUnsafe(`2026-03-01T${time}Z`)))
  const minutes = Effect.fnUntraced(function* (
    schedule: Schedule.Schedule<unknown, unknown, unknown>,
    retries: number
  ) {
    const decision = yield* decide(RetryPolicy.fromSchedule(schedule), error, retries)
    return decision._tag === "Retry" ? Duration.toMinutes(decision.after) : undefined
  })

  it.effect("a cron schedule retries at its next time, however long the attempts took", () =>
    Effect.gen(function* () {
      const hourly = Schedule.cron("0 * * * *")
      const nightly = Schedule.cron(Cron.parseUnsafe("0 3 * * *", "UTC"))
      for (const retries of [0, 1, 2, 10]) {
        yield* at("11:20:00")
        assert.strictEqual(yield* minutes(hourly, retries), 40)
        assert.strictEqual(yield* minutes(nightly, retries), 15 * 60 + 40)
        yield* at("11:59:30")
        assert.strictEqual(yield* minutes(hourly, retries), 0.5)
      }
    })
  )

  it.effect("a schedule of equal intervals begins with the first failure", () =>
    Effect.gen(function* () {
      yield* at("11:20:30")
      for (const retries of [0, 1, 5]) {
        assert.strictEqual(yield* minutes(Schedule.windowed("1 minute"), retries), 1)
        assert.strictEqual(yield* minutes(Schedule.fixed("1 minute"), retries), 1)
      }
    })
  )

  it.effect("a schedule sees the present, and its own delays before it", () =>
    Effect.gen(function* () {
      yield* at("12:00:00")
      const seen: Array<readonly [now: number, elapsed: number]> = []
      const now = DateTime.toEpochMillis(yield* DateTime.now)
      const linear = RetryPolicy.linear({ maxRetries: 9, delay: "1 second" }).schedule
      const watched = Schedule.while(linear, ({ elapsed, now }) => {
        seen.push([now, elapsed])
        return true
      })
      yield* decide(RetryPolicy.fromSchedule(watched), error, 3)
      assert.deepStrictEqual(seen.slice(-4), [
        [now - 6000, 0],
        [now - 5000, 1000],
        [now - 3000, 3000],
        [now, 6000]
      ])
    })
  )

  it.effect("a schedule that ends at a time of day does not end before", () =>
    Effect.gen(function* () {
      yield* at("17:00:00")
      const closing = DateTime.toEpochMillis(yield* DateTime.now)
      const daily = Schedule.while(Schedule.spaced("1 hour"), ({ now }) => now < closing)
      yield* at("16:30:00")
      assert.strictEqual(yield* minutes(daily, 0), 60)
      assert.strictEqual(yield* minutes(daily, 5), 60)
      yield* at("17:10:00")
      assert.isUndefined(yield* minutes(daily, 0))
    })
  )

  it.effect("a delay below zero is no delay", () =>
    Effect.gen(function* () {
      for (const late of [Duration.minutes(-3), Duration.negativeInfinity]) {
        const schedule = Schedule.modifyDelay(Schedule.forever, () => Effect.succeed(late))
        assert.strictEqual(yield* minutes(schedule, 0), 0)
        assert.strictEqual(yield* minutes(schedule, 3), 0)
      }
    })
  )

  it.effect("a schedule that fails is a defect", () =>
    Effect.gen(function* () {
      const exit = yield* Effect.exit(minutes(Schedule.cron("once in a while"), 0))
      assert.isTrue(Cron.isCronParseError(defectOf(exit)))
      const bug = new Error("a bug")
      const throwing = Schedule.map(Schedule.forever, () => {
        throw bug
      })
      assert.strictEqual(defectOf(yield* Effect.exit(minutes(throwing, 2))), bug)
    })
  )
})

describe("the retries that are left", () => {
  const left = (policy: RetryPolicy.RetryPolicy, limit = 100) =>
    Effect.forEach([0, 1, 2, 3, 4], (retries) => retriesLeft(policy, retries, limit))

  it.effect("are bounded by maxRetries", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* left(RetryPolicy.never), [0, 0, 0, 0, 0])
      assert.deepStrictEqual(yield* left(RetryPolicy.fixed({ maxRetries: 3, delay: 1 })), [3, 2, 1, 0, 0])
    })
  )

  it.effect("are bounded by the end of the schedule", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* left(RetryPolicy.fromSchedule(Schedule.recurs(2))), [2, 1, 0, 0, 0])
      const bounded = Schedule.upTo(Schedule.spaced("10 seconds"), { duration: "25 seconds" })
      assert.deepStrictEqual(yield* left(RetryPolicy.fromSchedule(bounded)), [3, 2, 1, 0, 0])
    })
  )

  it.effect("are those of maxRetries for a schedule that goes on beyond the limit", () =>
    Effect.gen(function* () {
      const policy = RetryPolicy.fromSchedule(Schedule.forever, { maxRetries: 1000 })
      assert.deepStrictEqual(yield* left(policy, 3), [1000, 999, 998, 997, 996])
      assert.deepStrictEqual(yield* left(RetryPolicy.fromSchedule(Schedule.recurs(3)), 1), [
        Number.MAX_SAFE_INTEGER,
        Number.MAX_SAFE_INTEGER - 1,
        Number.MAX_SAFE_INTEGER - 2,
        0,
        0
      ])
    })
  )
})
