import { assert, describe, it } from "@effect/vitest"
import { Task } from "chicory"
import { Array as Arr, type Duration, Effect, Latch, Schema } from "effect"
import * as MemoryFixture from "../../support/memoryFixture.ts"

const Work = Task.make("work", { payload: { n: Schema.Number } })

/** Runs that are renewed together. */
const BATCH = 256

/** A worker with more runs than one call renews, and those that were interrupted. Tells how long renewals take. */
const make = Effect.fnUntraced(function* (takes: (call: number) => Duration.Input) {
  /** When renewals were sent. */
  const sent: Array<number> = []
  const over = yield* Latch.make(false)
  const fixture = yield* MemoryFixture.make({
    hints: false,
    backend: (driver) => ({
      renew: (renewals) =>
        Effect.clockWith((clock) => {
          const time = takes(sent.push(clock.currentTimeMillisUnsafe()))
          return Effect.andThen(Effect.raceFirst(Effect.sleep(time), over.await), driver.renew(renewals))
        })
    })
  })
  const interrupted = new Set<number>()
  yield* MemoryFixture.startWorker(
    fixture,
    Work,
    Work.toLayer(({ n }) => Effect.onInterrupt(Effect.never, () => Effect.sync(() => interrupted.add(n)))),
    { concurrency: 2 * BATCH, lease: "9 seconds" }
  )
  yield* Effect.addFinalizer(() => over.open)
  const payloads = Arr.makeBy(2 * BATCH, (n) => ({ n }))
  yield* Effect.provideContext(Work.delayAll(payloads), fixture.context)
  yield* MemoryFixture.advance("2 seconds")
  return { interrupted, sent }
})

describe("lease renewal of many runs", () => {
  it.effect("loses only the batch whose renewal is not answered", () =>
    Effect.gen(function* () {
      const { interrupted } = yield* make((call) => (call % 2 === 0 ? "1 hour" : 0))
      for (let second = 0; second < 9; second++) yield* MemoryFixture.advance("1 second")
      assert.strictEqual(interrupted.size, BATCH)
    })
  )

  it.effect("sends renewals at a third of the lease, whatever the last ones took", () =>
    Effect.gen(function* () {
      const { interrupted, sent } = yield* make(() => "2 seconds")
      for (let second = 0; second < 30; second++) yield* MemoryFixture.advance("1 second")
      const gaps = Arr.dedupe(sent).map((time, i, all) => time - (all[i - 1] ?? 0))
      assert.deepStrictEqual(Arr.dedupe(gaps), [3000])
      assert.strictEqual(interrupted.size, 0)
    })
  )
})
