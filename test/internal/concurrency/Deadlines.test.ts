import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Scheduler } from "effect"
import { Deadline, Deadlines } from "../../../src/internal/concurrency/Deadlines.ts"
import { advance, flush } from "../../support/memoryFixture.ts"
import { eventually } from "../../support/storeFixture.ts"

class TestDeadline extends Deadline {
  readonly onDeadline: () => void
  constructor(onDeadline: () => void) {
    super()
    this.onDeadline = onDeadline
  }
}

/** Deadlines on the test's clock, those that fired and when, and the number of open sleeps. */
const make = Effect.gen(function* () {
  const clock = yield* Clock.Clock
  const sleeps = { open: 0, begun: 0 }
  const watched: Clock.Clock = {
    currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe(),
    currentTimeMillis: clock.currentTimeMillis,
    currentTimeNanosUnsafe: () => clock.currentTimeNanosUnsafe(),
    currentTimeNanos: clock.currentTimeNanos,
    monotonicTimeNanosUnsafe: () => clock.monotonicTimeNanosUnsafe(),
    monotonicTimeNanos: clock.monotonicTimeNanos,
    sleep: (duration) =>
      Effect.acquireUseRelease(
        Effect.sync(() => {
          sleeps.open++
          sleeps.begun++
        }),
        () => clock.sleep(duration),
        () => Effect.sync(() => void sleeps.open--)
      )
  }
  const deadlines = new Deadlines(watched, yield* Scheduler.Scheduler)
  const fired: Array<readonly [name: number, at: number]> = []
  const set = (name: number, millis: number): TestDeadline => {
    const deadline = new TestDeadline(() => fired.push([name, clock.currentTimeMillisUnsafe()]))
    deadlines.set(deadline, millis)
    return deadline
  }
  return { deadlines, set, sleeps, fired }
})

describe("Deadlines", () => {
  it.effect("fires in order, each at its time, also when the clock leaps over all of them", () =>
    Effect.gen(function* () {
      const { set, sleeps, fired } = yield* make
      const times = Array.from({ length: 5000 }, (_, i) => 1 + ((i * 7919) % 1000))
      times.forEach((millis, name) => set(name, millis))
      assert.strictEqual(sleeps.open, 1)
      yield* advance("1 hour")
      const expected = times.map((at, name) => [name, at] as const).toSorted(([, a], [, b]) => a - b)
      assert.deepStrictEqual(fired, expected)
      assert.strictEqual(sleeps.open, 0)
    })
  )

  it.effect("fires an earlier deadline that was set after a later one", () =>
    Effect.gen(function* () {
      const { set, fired } = yield* make
      set(1, 1000)
      yield* advance(100)
      set(2, 50)
      yield* advance(50)
      assert.deepStrictEqual(fired, [[2, 150]])
      yield* advance(849)
      assert.strictEqual(fired.length, 1)
      yield* advance(1)
      assert.deepStrictEqual(fired.at(-1), [1, 1000])
    })
  )

  it.effect("fires no cleared deadline and keeps no timer for it", () =>
    Effect.gen(function* () {
      const { deadlines, set, sleeps, fired } = yield* make
      const bells = [10, 20, 30].map((millis, name) => set(name, millis))
      deadlines.clear(bells[0]!)
      deadlines.clear(bells[2]!)
      deadlines.clear(bells[2]!)
      yield* advance(15)
      assert.deepStrictEqual(fired, [])
      assert.strictEqual(sleeps.open, 1)
      deadlines.clear(bells[1]!)
      yield* flush
      assert.strictEqual(sleeps.open, 0)
      set(7, 10)
      yield* advance(10)
      assert.deepStrictEqual(fired, [[7, 25]])
    })
  )

  it.effect("lets a callback set and clear deadlines", () =>
    Effect.gen(function* () {
      const { deadlines, set, sleeps, fired } = yield* make
      deadlines.set(
        new TestDeadline(() => {
          deadlines.clear(later)
          set(1, 0)
          set(2, 5)
        }),
        10
      )
      const later = set(3, 10)
      yield* advance(20)
      assert.deepStrictEqual(fired, [
        [1, 10],
        [2, 15]
      ])
      assert.strictEqual(sleeps.open, 0)
    })
  )

  it.effect("needs few timers for deadlines that are set one after the other for the same span", () =>
    Effect.gen(function* () {
      const { deadlines, set, sleeps, fired } = yield* make
      const last = set(0, 100_000)
      for (let i = 1; i < 1000; i++) {
        yield* advance(1)
        deadlines.clear(set(i, 100_000))
      }
      assert.strictEqual(sleeps.begun, 1)
      deadlines.clear(last)
      assert.deepStrictEqual(fired, [])
    })
  )

  it.live("follows the clock of the process", () =>
    Effect.gen(function* () {
      const { set, fired } = yield* make
      set(0, 0)
      set(1, 20)
      set(2, 40)
      yield* eventually(Effect.sync(() => fired.length === 3))
      assert.deepStrictEqual(
        fired.map(([name]) => name),
        [0, 1, 2]
      )
    })
  )
})
