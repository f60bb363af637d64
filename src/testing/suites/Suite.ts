/**
 * What the conformance suites share: how a driver is made for a test, and how time passes in it.
 *
 * A module of a suite registers the tests of one topic in one function, which may be longer than other functions.
 */
import { assert, it, type TestContext } from "@effect/vitest"
import { Duration, Effect, type Scope } from "effect"
import { TestClock } from "effect/testing"
import * as defaults from "../../internal/defaults.ts"
import { measuredUnit, measurePauses } from "./measuredUnit.ts"

/**
 * How a suite is run on a driver.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options<out Driver> {
  /** Makes a driver over a new, empty store. Runs once for each test, in the test's scope. */
  readonly make: Effect.Effect<Driver, unknown, Scope.Scope>
  /**
   * Whether the tests run in real time, as a store with its own clock needs. Default `false`: they run under `TestClock`,
   * for a driver that takes all times from `Clock`.
   */
  readonly live?: boolean | undefined
  /** Passes time. Default `TestClock.adjust`; in real time, `Effect.sleep`. */
  readonly advance?: ((duration: Duration.Duration) => Effect.Effect<void>) | undefined
  /**
   * The unit of leases, delays and retentions in the tests. The store has to answer well within it. Default 1 second; in
   * real time, 300 millis at least: a test uses a longer unit while the machine is busy.
   */
  readonly unit?: Duration.Input | undefined
}

/** The time of a test. */
export interface Time {
  /** Returns that many units in milliseconds. */
  readonly units: (count: number) => number
  /** How many times longer a unit is than given in the options: 1 under `TestClock` and on an idle machine, at most 3. */
  readonly slowdown: number
  /** Milliseconds that no test outlives. */
  readonly long: number
  /** Passes that many units. */
  readonly pass: (count: number) => Effect.Effect<void>
  /** Passes time until the check succeeds; a defect if it does not in 40 units. */
  readonly eventually: <E>(what: string, check: Effect.Effect<boolean, E>) => Effect.Effect<void, E>
}

/** Registers one test. */
export type Test<in out Driver> = (
  name: string,
  body: (driver: Driver, time: Time, context: TestContext) => Effect.Effect<void, unknown, Scope.Scope>
) => void

const STEPS_PER_UNIT = 10
const MAX_UNITS = 40

const makeTime = (
  unitMillis: number,
  slowdown: number,
  advance: (duration: Duration.Duration) => Effect.Effect<void>
): Time => {
  const units = (count: number): number => Math.round(unitMillis * count)
  const pass = (count: number): Effect.Effect<void> => advance(Duration.millis(unitMillis * count))
  const eventually = Effect.fnUntraced(function* <E>(what: string, check: Effect.Effect<boolean, E>) {
    for (let step = 0; step < MAX_UNITS * STEPS_PER_UNIT; step++) {
      if (yield* check) return
      yield* pass(1 / STEPS_PER_UNIT)
    }
    assert.fail(`did not happen in ${MAX_UNITS} units of time: ${what}`)
  })
  return { units, slowdown, long: units(100_000), pass, eventually }
}

/** Makes the function that registers the tests of a suite. `probe` is a call to the store that changes nothing. */
export const make = <Driver>(
  options: Options<Driver>,
  probe: (driver: Driver) => Effect.Effect<unknown, unknown>
): Test<Driver> => {
  const live = options.live === true
  const leastMillis = Duration.toMillis(
    Duration.fromInputUnsafe(options.unit ?? (live ? "300 millis" : "1 second"))
  )
  const advance = options.advance ?? (live ? Effect.sleep : TestClock.adjust)
  if (live) measurePauses()
  const tester = live ? it.live : it.effect
  return (name, body) =>
    tester(
      name,
      (context) =>
        Effect.gen(function* () {
          const driver = yield* options.make
          const unitMillis = live ? yield* measuredUnit(leastMillis, probe(driver)) : leastMillis
          return yield* body(driver, makeTime(unitMillis, unitMillis / leastMillis, advance), context)
        }),
      { timeout: 60_000 }
    )
}

/** Reports a test as skipped, for a driver that lacks the capability under test. */
export const skip = (context: TestContext, reason: string): Effect.Effect<void> =>
  Effect.ignore(Effect.try({ try: () => context.skip(reason), catch: () => "skipped" }))

/** Returns the only answer to a batch of one. */
export const only = <A, E>(answers: Effect.Effect<ReadonlyArray<A>, E>): Effect.Effect<A, E> =>
  Effect.map(answers, (all) => {
    assert.strictEqual(all.length, 1, "a batch of one has one answer")
    return all[0] as A
  })

/** Texts that a codec may produce, and that stores tend to change. */
export const texts: ReadonlyArray<readonly [what: string, text: string]> = [
  ["an escaped NUL", JSON.stringify("\u0000 before and after \u0000")],
  ["quotes and backslashes", JSON.stringify(`'single' "double" \`back\` \\ '; -- $1 ? %s`)],
  ["emoji and other scripts", JSON.stringify("🌶️ 👩‍🚒 žluťoučký 日本語 \u2028 \ufeff")],
  ["line breaks", "[\n\r\n\t1 ]"],
  ["a megabyte", JSON.stringify("é".repeat(500_000))]
]

/** Bytes that a message has beside its payload, at most. */
export const MESSAGE_HEAD: number = 16 * 1024

/** Returns the most bytes of an encoded value that a driver takes. */
export const maxBytesOf = ({
  capabilities
}: {
  readonly capabilities: { readonly maxBytes?: number | undefined }
}): number => Math.min(defaults.maxBytes, capabilities.maxBytes ?? Infinity)

/** Returns a text of which two fit into one answer (`maxReplySize`), and three do not. */
export const largeText = (driver: Parameters<typeof maxBytesOf>[0]): string =>
  JSON.stringify("x".repeat(Math.min(900_000, maxBytesOf(driver) - MESSAGE_HEAD)))

/**
 * Expects an answer to be one text, or no larger than about an answer may be: a store of several parts returns a text of each.
 * A store of this process alone copies nothing.
 */
export const expectBoundedAnswer = (
  driver: { readonly capabilities: { readonly reliableHints?: boolean | undefined } },
  sizes: ReadonlyArray<number>
): void => {
  if (driver.capabilities.reliableHints === true || sizes.length <= 1) return
  const total = sizes.reduce((sum, size) => sum + size, 0)
  assert.isAtMost(total, 2 * defaults.maxReplySize, "an answer of several items is bounded")
}

/** All byte values, which are not UTF-8 text. */
export const bytes: Uint8Array = Uint8Array.from({ length: 256 }, (_, index) => index)
