import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Fiber, Metric, Scheduler } from "effect"
import { CurrentRun, type RunControl } from "../../../src/internal/task/CurrentRun.ts"
import { type AnyFiber, type Forks, observed } from "../../../src/internal/worker/observeFibers.ts"
import { RunSlot } from "../../../src/internal/worker/RunSlot.ts"
import { Slots } from "../../../src/internal/worker/slots.ts"
import { advance, assertPending, exitOf, flush } from "../../support/memoryFixture.ts"

/** A run of a worker with one slot, which the run holds. */
const make = Effect.fnUntraced(function* () {
  const slots = new Slots(1)
  yield* slots.take(1)
  const forks: Forks = new Map()
  const slot = new RunSlot(slots, forks)
  const control: RunControl = {
    maxBytes: Infinity,
    withoutSlot: (effect, deadline) => slot.without(effect, deadline),
    onFiberStart: (parent) => slot.onFiberStart(parent?.getRef(CurrentRun) === control ? parent : undefined),
    onFiberEnd: () => slot.onFiberEnd(),
    writeProgress: () => Effect.void,
    complete: () => Effect.die("unused")
  }
  const context = Context.add(observed(yield* Effect.context<never>(), forks), CurrentRun, control)
  /** Runs an effect in a fiber of the run. */
  const run = <A, E>(effect: Effect.Effect<A, E>): Effect.Effect<Fiber.Fiber<A, E>> =>
    Effect.andThen(
      Effect.sync(() => Effect.runForkWith(context)(effect)),
      (fiber) => Effect.as(flush, fiber)
    )
  /** Waits for another task for that long. */
  const wait = (millis = 1000, deadline?: bigint) => slot.without(Effect.sleep(millis), deadline)
  return { run, slot, slots, wait, forks }
})

const work = (millis = 1000) => Effect.sleep(millis)
const succeeded = (fiber: AnyFiber) => assert.isTrue(Exit.isSuccess(exitOf(fiber)))

describe("the slot of a run", () => {
  it.effect("is free while its fiber waits", () =>
    Effect.gen(function* () {
      const { run, slots, wait } = yield* make()
      const waiting = yield* run(Effect.andThen(wait(), work()))
      assert.strictEqual(slots.free, 1)
      yield* advance("1 second")
      assert.strictEqual(slots.free, 0)
      yield* advance("1 second")
      succeeded(waiting)
    })
  )

  it.effect("is taken again before the fiber continues", () =>
    Effect.gen(function* () {
      const { run, slots, wait } = yield* make()
      const waiting = yield* run(wait())
      yield* slots.take(1)
      yield* advance("1 second")
      assertPending(waiting)
      slots.give(1)
      yield* flush
      succeeded(waiting)
      assert.strictEqual(slots.free, 0)
    })
  )

  it.effect("is not freed for a wait that is over at once", () =>
    Effect.gen(function* () {
      const { run, slot, slots } = yield* make()
      const waiting = yield* run(slot.without(Effect.void))
      succeeded(waiting)
      assert.strictEqual(slots.free, 0)
    })
  )

  it.effect("is held while one of its fibers works beside a fiber that waits", () =>
    Effect.gen(function* () {
      const { run, slots, wait } = yield* make()
      const racing = yield* run(Effect.raceFirst(wait(5000), work()))
      assert.strictEqual(slots.free, 0)
      yield* advance("1 second")
      succeeded(racing)
      assert.strictEqual(slots.free, 0)
    })
  )

  it.effect("is free once the last fiber that worked has ended", () =>
    Effect.gen(function* () {
      const { run, slots, wait } = yield* make()
      yield* run(Effect.all([wait(5000), work()], { concurrency: 2 }))
      assert.strictEqual(slots.free, 0)
      yield* advance("1 second")
      assert.strictEqual(slots.free, 1)
      yield* advance("4 seconds")
      assert.strictEqual(slots.free, 0)
    })
  )

  for (const [name, combined] of [
    ["Effect.all", (waits: ReadonlyArray<Effect.Effect<void>>) => Effect.all(waits, { concurrency: 3 })],
    [
      "Effect.forEach, after some work",
      (waits: ReadonlyArray<Effect.Effect<void>>) =>
        Effect.forEach(waits, (wait) => Effect.andThen(work(10), wait), { concurrency: "unbounded" })
    ],
    ["Effect.raceAll", (waits: ReadonlyArray<Effect.Effect<void>>) => Effect.raceAll(waits)],
    [
      "nested combinators",
      ([first, ...rest]: ReadonlyArray<Effect.Effect<void>>) =>
        Effect.all([first!, Effect.all(rest, { concurrency: 2 })], { concurrency: 2 })
    ]
  ] as const) {
    it.effect(`is free, once, while all fibers of ${name} wait`, () =>
      Effect.gen(function* () {
        const { run, slots, wait } = yield* make()
        const waiting = yield* run(combined([wait(), wait(2000), wait(3000)]))
        yield* advance(100)
        assert.strictEqual(slots.free, 1)
        yield* advance(4000)
        succeeded(waiting)
        assert.strictEqual(slots.free, 0)
      })
    )
  }

  it.effect("is held while the fiber that forked a waiting one works", () =>
    Effect.gen(function* () {
      for (const startImmediately of [false, true]) {
        for (const forking of [Effect.forkChild, Effect.forkDetach]) {
          const { run, slots, wait } = yield* make()
          yield* run(
            Effect.andThen(forking(wait(9000), { startImmediately }), Effect.andThen(work(), wait()))
          )
          assert.strictEqual(slots.free, 0)
          yield* advance("1 second")
          assert.strictEqual(slots.free, 1, "all fibers wait")
        }
      }
    })
  )

  it.effect("is held by a fiber that works on after it forked, whatever its operations are", () =>
    Effect.gen(function* () {
      const { run, slots, wait } = yield* make()
      const after = (operations: number, effect: Effect.Effect<unknown>): Effect.Effect<unknown> =>
        operations === 0 ? effect : Effect.suspend(() => after(operations - 1, effect))
      const forking = after(30, Effect.forkDetach(wait(60_000), { startImmediately: true }))
      // suspends after ever more operations, and so once after as many as it had forked
      const steps = Effect.forEach(
        Array.from({ length: 60 }, (_, n) => n),
        (n) => after(n, work(10))
      )
      yield* run(Effect.andThen(forking, steps))
      for (let step = 0; step < 59; step++) {
        // the end of a fiber has the slot checked
        yield* run(Effect.void)
        assert.strictEqual(slots.free, 0)
        yield* advance(10)
      }
    })
  )

  it.effect("is held where nothing tells whether a fiber continues", () =>
    Effect.gen(function* () {
      const { run, slots, wait } = yield* make()
      yield* run(
        Effect.provideService(
          Effect.all([wait(), wait()], { concurrency: 2 }),
          Scheduler.PreventSchedulerYield,
          true
        )
      )
      assert.strictEqual(slots.free, 0)
    })
  )

  it.effect("is held for a fiber that a callback from outside starts meanwhile", () =>
    Effect.gen(function* () {
      const { run, slots, wait } = yield* make()
      yield* run(wait(5000))
      assert.strictEqual(slots.free, 1)
      yield* run(work())
      assert.strictEqual(slots.free, 0)
      yield* advance("1 second")
      assert.strictEqual(slots.free, 1)
    })
  )

  it.effect("counts the fibers beside the metrics that the program has enabled", () =>
    Effect.gen(function* () {
      let started = 0
      const metrics: Metric.FiberRuntimeMetricsService = {
        recordFiberStart: () => void started++,
        recordFiberEnd: () => {}
      }
      yield* Effect.gen(function* () {
        const { run } = yield* make()
        started = 0
        yield* run(Effect.all([work(), work()], { concurrency: 2 }))
        assert.isAtLeast(started, 3)
      }).pipe(Effect.provideService(Metric.FiberRuntimeMetrics, metrics))
    })
  )
})

describe("the slot of a run that resumes while all slots are taken", () => {
  /** A run whose fiber waits, and whose slot another run has taken. */
  const taken = Effect.fnUntraced(function* (millis?: number, deadline?: bigint) {
    const made = yield* make()
    const waiting = yield* made.run(made.wait(millis, deadline))
    yield* made.slots.take(1)
    return { ...made, waiting }
  })

  it.effect("is taken beyond the total when its fiber is interrupted during its wait", () =>
    Effect.gen(function* () {
      const { slots, waiting } = yield* taken()
      yield* Fiber.interrupt(waiting)
      assert.strictEqual(slots.free, -1)
    })
  )

  it.effect("is taken beyond the total when its fiber is interrupted while it waits for the slot", () =>
    Effect.gen(function* () {
      const { slots, waiting } = yield* taken()
      yield* advance("1 second")
      assertPending(waiting)
      yield* Fiber.interrupt(waiting)
      assert.strictEqual(slots.free, -1)
      slots.give(1)
      assert.strictEqual(slots.free, 0, "the request of the slot is withdrawn")
    })
  )

  it.effect("is taken beyond the total when the wait fails", () =>
    Effect.gen(function* () {
      const { run, slot, slots } = yield* make()
      const waiting = yield* run(slot.without(Effect.delay(Effect.fail("too late"), "1 second")))
      yield* slots.take(1)
      yield* advance("1 second")
      assert.deepStrictEqual(exitOf(waiting), Exit.fail("too late"))
      assert.strictEqual(slots.free, -1)
    })
  )

  it.effect("is taken beyond the total at the deadline of the wait", () =>
    Effect.gen(function* () {
      const { slots, waiting } = yield* taken(1000, 3_000_000_000n)
      yield* advance("2 seconds")
      assertPending(waiting)
      yield* advance("1 second")
      succeeded(waiting)
      assert.strictEqual(slots.free, -1)
    })
  )

  it.effect("is there for all fibers as soon as one has taken it", () =>
    Effect.gen(function* () {
      const { run, slots, wait, waiting } = yield* taken()
      const other = yield* run(wait(2000))
      yield* advance("1 second")
      assertPending(waiting)
      yield* Fiber.interrupt(other)
      yield* flush
      succeeded(waiting)
      assert.strictEqual(slots.free, -1)
    })
  )

  it.effect("stays free for a fiber that begins to wait while another is about to continue", () =>
    Effect.gen(function* () {
      const { run, slots, wait, waiting } = yield* taken()
      yield* advance("1 second")
      const second = yield* run(wait())
      // its start resumed the run
      succeeded(waiting)
      assert.strictEqual(slots.free, 0)
      slots.give(1)
      yield* advance("1 second")
      succeeded(second)
      assert.strictEqual(slots.free, 0)
    })
  )
})

describe("the fibers of a run that have forked others", () => {
  it.effect("are kept until they end", () =>
    Effect.gen(function* () {
      const { forks, run, slot, slots, wait } = yield* make()
      const items = Array.from({ length: 100 }, () => Effect.timeout(Effect.yieldNow, "1 minute"))
      const handler = yield* run(
        Effect.andThen(
          Effect.all(items, { concurrency: 10 }),
          Effect.all([wait(), wait(2000)], { concurrency: 2 })
        )
      )
      yield* advance(100)
      // of all that have forked, the handler's own fiber alone has not ended
      assert.strictEqual(slot["parents"]?.size, 1)
      assert.strictEqual(forks.size, 1)
      assert.strictEqual(slots.free, 1)
      yield* advance("2 seconds")
      succeeded(handler)
      assert.strictEqual(slot["parents"]?.size, 0)
      assert.strictEqual(forks.size, 0)
    })
  )
})

describe("the slot of a run that has ended", () => {
  it.effect("is held, although a fiber of the run waits on", () =>
    Effect.gen(function* () {
      const { forks, run, slot, slots, wait } = yield* make()
      const left = yield* run(Effect.andThen(wait(), wait()))
      assert.strictEqual(slots.free, 1)
      slot.end()
      assert.strictEqual(slots.free, 0)
      yield* advance("2 seconds")
      succeeded(left)
      assert.strictEqual(slots.free, 0)
      assert.strictEqual(forks.size, 0)
    })
  )

  it.effect("is not freed by a fiber that begins to wait then", () =>
    Effect.gen(function* () {
      const { run, slot, slots, wait } = yield* make()
      yield* run(Effect.andThen(work(), wait()))
      slot.end()
      yield* advance("1500 millis")
      assert.strictEqual(slots.free, 0)
    })
  )
})
