/**
 * What the conformance suites share: how a driver is made for a test, and how time passes in it.
 */
import { assert, it, type TestContext } from "@effect/vitest"
import { Duration, Effect, type Scope } from "effect"
import { TestClock } from "effect/testing"

/** How a suite is run on a driver. */
export interface Options<out Driver> {
  /** A driver over a fresh, empty store; made once for each test. */
  readonly make: Effect.Effect<Driver, unknown, Scope.Scope>
  /**
   * Whether the tests run in real time, as a store with a clock of its own needs. Default `false`: they run under
   * `TestClock`, which suits a driver that takes all its times from `Clock`.
   */
  readonly live?: boolean | undefined
  /** Lets time pass. Default `TestClock.adjust`; in real time, `Effect.sleep`. */
  readonly advance?: ((duration: Duration.Duration) => Effect.Effect<void>) | undefined
  /**
   * The length in which the tests measure leases, delays and retentions. A store must answer well within it. In real
   * time this is the least: on a machine that is busy, a test measures in longer units. Default 1 second; in real time,
   * 300 millis.
   */
  readonly unit?: Duration.Input | undefined
}

/** Time as a test sees it. */
export interface Time {
  /** That many units, in milliseconds. */
  readonly units: (count: number) => number
  /** How many times longer a unit is than given in the options. 1 under `TestClock` and on an idle machine, at most 3. */
  readonly slowdown: number
  /** Longer than any test takes, in milliseconds. */
  readonly long: number
  /** Lets that many units pass. */
  readonly pass: (count: number) => Effect.Effect<void>
  /** Lets time pass until the check holds; a defect where it does not come to hold. */
  readonly eventually: <E>(what: string, check: Effect.Effect<boolean, E>) => Effect.Effect<void, E>
}

/** Registers one test. */
export type Test<in out Driver> = (
  name: string,
  body: (driver: Driver, time: Time, context: TestContext) => Effect.Effect<void, unknown, Scope.Scope>
) => void

const STEPS_PER_UNIT = 10
const PATIENCE = 40

const TICK_MILLIS = 20
/** The pauses of this process that count: those of the last four seconds. */
const PAUSES = 200
/** In real time a unit is at least so many pauses of this process, and so many calls to the store. */
const UNIT_IN_PAUSES = 4
const UNIT_IN_CALLS = 20
/** And at most so many times as long as it was meant to be, so that a test ends. */
const LONGEST = 3

/** How late the timers of this process were, in milliseconds, the last ones only. */
const pauses: Array<number> = []
let watching = false

/** Watches the pauses of this process from now on, as long as it lives. */
const watchPauses = (): void => {
  if (watching) return
  watching = true
  let last = performance.now()
  setInterval(() => {
    const now = performance.now()
    if (pauses.push(now - last - TICK_MILLIS) > PAUSES) pauses.shift()
    last = now
  }, TICK_MILLIS).unref()
}

/** The unit of a test that begins now: longer than given where the process or the store is slow at present. */
const unitNow = (least: number, probe: Effect.Effect<unknown, unknown>): Effect.Effect<number> =>
  Effect.gen(function* () {
    // the first call may connect
    yield* Effect.exit(probe)
    const begin = performance.now()
    yield* Effect.exit(probe)
    const call = performance.now() - begin
    const needed = Math.max(least, UNIT_IN_PAUSES * Math.max(0, ...pauses), UNIT_IN_CALLS * call)
    return Math.min(needed, LONGEST * least)
  })

/** What registers the tests of a suite. `probe` is a call to the store that changes nothing. */
export const make = <Driver>(
  options: Options<Driver>,
  probe: (driver: Driver) => Effect.Effect<unknown, unknown>
): Test<Driver> => {
  const live = options.live === true
  const least = Duration.toMillis(
    Duration.fromInputUnsafe(options.unit ?? (live ? "300 millis" : "1 second"))
  )
  const advance = options.advance ?? (live ? Effect.sleep : TestClock.adjust)
  if (live) watchPauses()
  const timeOf = (unit: number): Time => {
    const units = (count: number): number => Math.round(unit * count)
    const pass = (count: number): Effect.Effect<void> => advance(Duration.millis(unit * count))
    const eventually = Effect.fnUntraced(function* <E>(what: string, check: Effect.Effect<boolean, E>) {
      for (let step = 0; step < PATIENCE * STEPS_PER_UNIT; step++) {
        if (yield* check) return
        yield* pass(1 / STEPS_PER_UNIT)
      }
      assert.fail(`it did not come to pass in ${PATIENCE} units of time: ${what}`)
    })
    return { units, slowdown: unit / least, long: units(100_000), pass, eventually }
  }
  const tester = live ? it.live : it.effect
  return (name, body) =>
    tester(
      name,
      (context) =>
        Effect.gen(function* () {
          const driver = yield* options.make
          const unit = live ? yield* unitNow(least, probe(driver)) : least
          return yield* body(driver, timeOf(unit), context)
        }),
      { timeout: 60_000 }
    )
}

/** Reports a test as skipped, for a driver without what it is about. */
export const skip = (context: TestContext, why: string): Effect.Effect<void> =>
  Effect.ignore(Effect.try({ try: () => context.skip(why), catch: () => "skipped" }))

/** The answer to a batch of one. */
export const only = <A, E>(answers: Effect.Effect<ReadonlyArray<A>, E>): Effect.Effect<A, E> =>
  Effect.map(answers, (all) => {
    assert.strictEqual(all.length, 1, "a batch of one has one answer")
    return all[0] as A
  })

/** Texts as codecs make them, with what stores stumble over. */
export const texts: ReadonlyArray<readonly [what: string, text: string]> = [
  ["an escaped NUL", JSON.stringify("\u0000 before and after \u0000")],
  ["quotes and backslashes", JSON.stringify(`'single' "double" \`back\` \\ '; -- $1 ? %s`)],
  ["emoji and other scripts", JSON.stringify("🌶️ 👩‍🚒 žluťoučký 日本語 \u2028 \ufeff")],
  ["line breaks", "[\n\r\n\t1 ]"],
  ["a megabyte", JSON.stringify("é".repeat(500_000))]
]

/** All bytes there are; no text has them. */
export const bytes: Uint8Array = Uint8Array.from({ length: 256 }, (_, index) => index)
