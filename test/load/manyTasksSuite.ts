/** Many tasks, or tasks with large payloads, with small heaps for the producer and the worker. */
import { isDeepStrictEqual } from "node:util"
import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { AsyncResult, Broker } from "chicory"
import { Effect, Layer } from "effect"
import { isFullRun } from "../support/fullRun.ts"
import { poll } from "../support/processes.ts"
import { eventually } from "../support/storeFixture.ts"
import * as StoreLocations from "../support/storeLocations.ts"
import { withoutAges } from "../support/withoutAges.ts"
import { print, start } from "./loadProcess.ts"
import { Copy, Mark, sampleInterval, textOf } from "./loadTasks.ts"
import { spyOn } from "./operationSpy.ts"
import type * as Producer from "./producer.ts"
import type { LoadStore } from "./stores.ts"
import type * as Worker from "./worker.ts"

const MEBIBYTE = 1024 * 1024
/** MiB by which the live heap may differ between two measurements. */
const NOISE = 24

/** The load, and the resources for it. */
interface Load {
  readonly producer: Producer.Options
  readonly worker: Worker.Options["worker"]
  /** The size of both heaps in MiB. */
  readonly heap: number
}

/** Enqueues all tasks, then runs them, and checks a sample of their results. */
const run = Effect.fnUntraced(function* (name: string, location: StoreLocations.StoreLocation, load: Load) {
  const { count, size } = load.producer
  const producer = yield* start("producer.ts", location, load.heap, load.producer)
  const sent = yield* producer.reached("in bulk")
  const done = yield* producer.reached("done")
  assert.isTrue(yield* producer.ended)
  assert.isAtMost(done.figures["alive"]!, sent.figures["alive"]! + NOISE)
  const counts = Effect.map(Broker.counts(["default"]), (counts) => withoutAges(counts)[0]!)
  assert.deepStrictEqual(yield* counts, { ready: count, delayed: 0, claimed: 0 })

  const worker = yield* start("worker.ts", location, load.heap, { count, worker: load.worker })
  yield* worker.reached("all ran")
  yield* eventually(Effect.map(counts, ({ claimed, delayed, ready }) => ready + delayed + claimed === 0))
  yield* worker.signal("SIGTERM")
  const stopped = yield* worker.reached("stopped")
  assert.isTrue(yield* worker.ended)
  yield* print(name, done, stopped)
  const { distinct, later, runs, warm, wrong } = stopped.figures
  assert.deepStrictEqual({ distinct, runs, wrong }, { distinct: count, runs: count, wrong: 0 })

  const ids = done.ids ?? []
  const every = sampleInterval(count)
  assert.strictEqual(ids.length, Math.ceil(count / every))
  const looked = ids
    .map((id, i) => ({ id, n: i * every }))
    .filter((_, i) => size === undefined || i % 8 === 0)
  yield* Effect.forEach(looked, ({ id, n }) =>
    Effect.gen(function* () {
      const handle: AsyncResult.AsyncResult<unknown> = size === undefined ? Mark.result(id) : Copy.result(id)
      const { attempts, state } = yield* poll(handle)
      assert.deepStrictEqual({ attempts, state }, { attempts: 1, state: "SUCCESS" })
      const right = size === undefined ? n + 1 : { n, text: textOf(n, size) }
      assert.isTrue(isDeepStrictEqual(yield* AsyncResult.get(handle), right))
    })
  )
  return { later: later!, warm: warm! }
})

const environment = (location: StoreLocations.StoreLocation) =>
  Layer.merge(NodeServices.layer, StoreLocations.layer(location))

/** Registers the test with many small tasks. */
export const manyTasks = ({ name, location }: LoadStore): void =>
  it.live(
    "more tasks than fit into memory are enqueued and run once each",
    () =>
      Effect.gen(function* () {
        const storeLocation = yield* location
        const { later, warm } = yield* Effect.provide(
          run(`many tasks on ${name}`, storeLocation, {
            producer: { count: isFullRun ? 1_000_000 : 20_000, concurrency: 1_000, chunk: 2_000 },
            worker: { concurrency: 128 },
            heap: 128
          }),
          environment(storeLocation)
        )
        assert.isAtMost(later, warm + NOISE)
      }),
    isFullRun ? 1_800_000 : 120_000
  )

/** Registers the tests with large payloads. */
export const largePayloads = ({ name, location }: LoadStore): void => {
  describe("payloads and results of 1 MiB", () => {
    it.live(
      "many are enqueued and run within a small heap",
      () =>
        Effect.gen(function* () {
          const storeLocation = yield* location
          yield* Effect.provide(
            run(`large payloads on ${name}`, storeLocation, {
              producer: { count: isFullRun ? 1_000 : 80, concurrency: 12, chunk: 1_000, size: MEBIBYTE },
              worker: { concurrency: 4 },
              heap: 144
            }),
            environment(storeLocation)
          )
        }),
      isFullRun ? 600_000 : 120_000
    )

    it.live(
      "concurrent calls are split by size",
      () =>
        Effect.gen(function* () {
          const drivers = spyOn(yield* Effect.flatMap(location, StoreLocations.drivers))
          const store = yield* StoreLocations.services(drivers)
          const text = textOf(1, MEBIBYTE)
          yield* Effect.forEach(
            Array.from({ length: isFullRun ? 256 : 64 }),
            (_, n) => Copy.delay({ n, text }),
            {
              concurrency: "unbounded"
            }
          ).pipe(Effect.provideContext(store))
          assert.isAtMost(drivers.sent.largest, 8 * MEBIBYTE)
        }),
      60_000
    )
  })
}
