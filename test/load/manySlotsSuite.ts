/** A worker with thousands of slots: all are used, kept and released. */
import { NodeServices } from "@effect/platform-node"
import { assert, it } from "@effect/vitest"
import { AsyncResult, Broker } from "chicory"
import { Effect, Layer, Option } from "effect"
import { isFullRun } from "../support/fullRun.ts"
import { eventually, timed } from "../support/storeFixture.ts"
import * as StoreLocations from "../support/storeLocations.ts"
import { print, start } from "./loadProcess.ts"
import { Wait } from "./loadTasks.ts"
import type { LoadStore } from "./stores.ts"

/** The lease in seconds: longer than a busy machine keeps a process from its processor. */
const LEASE = 8

/** Registers the test. */
export const manySlots = ({ name, location }: LoadStore): void =>
  it.live(
    "a worker with thousands of slots uses all of them, keeps their leases and releases everything when it stops",
    () =>
      Effect.flatMap(location, (storeLocation) =>
        Effect.gen(function* () {
          const count = isFullRun ? 5_000 : 2_000
          const options = {
            count,
            worker: { concurrency: count, lease: `${LEASE} seconds`, drainTimeout: "0 millis" }
          }
          const handles = yield* Wait.delayAll(Array.from({ length: count }, (_, n) => n))
          const all = (state: string, attempts: number) =>
            Effect.map(
              Effect.forEach(handles, (handle) => AsyncResult.poll(handle), { concurrency: "unbounded" }),
              (found) => {
                const others = found.flatMap((one) =>
                  Option.isSome(one) && one.value.state === state && one.value.attempts === attempts
                    ? []
                    : [one]
                )
                // the first few tell why
                assert.deepStrictEqual(
                  { count: others.length, some: others.slice(0, 3) },
                  { count: 0, some: [] }
                )
              }
            )
          const first = yield* start("worker.ts", storeLocation, 256, options)
          yield* first.reached("all wait")
          yield* Effect.sleep(`${LEASE * (isFullRun ? 4 : 1.25)} seconds`)
          // a run with a lost lease would be interrupted and started again
          yield* all("STARTED", 1)
          yield* first.signal("SIGTERM")
          const [millis, stopped] = yield* timed(first.reached("stopped"))
          assert.isTrue(yield* first.ended)
          yield* print(`${count} slots on ${name}`, { drainMillis: Math.round(millis) }, stopped)
          assert.strictEqual(stopped.figures["runs"], 0)
          assert.strictEqual(stopped.figures["mostWaiting"], count)
          assert.strictEqual(stopped.figures["interrupted"], count)
          assert.isAtMost(millis, 20_000)

          // no attempt was counted, and no message waits for a lease to end
          yield* all("PENDING", 0)
          const ready = Effect.map(Broker.counts(["default"]), ([counts]) => counts!.ready)
          yield* eventually(Effect.map(ready, (ready) => ready === count))
          const second = yield* start("worker.ts", storeLocation, 256, options)
          yield* second.reached("all wait")
          yield* second.signal("SIGUSR2")
          yield* second.reached("all ran")
          const values = yield* AsyncResult.all(handles, { timeout: "60 seconds" })
          assert.isTrue(values.every((value, n) => value === n + 1))
          yield* all("SUCCESS", 1)
          yield* second.signal("SIGTERM")
          const { distinct, interrupted, runs } = (yield* second.reached("stopped")).figures
          assert.deepStrictEqual(
            { distinct, interrupted, runs },
            { distinct: count, interrupted: 0, runs: count }
          )
          assert.isTrue(yield* second.ended)
        }).pipe(Effect.provide(Layer.merge(NodeServices.layer, StoreLocations.layer(storeLocation))))
      ),
    isFullRun ? 240_000 : 120_000
  )
