/** A producer that is faster than its store waits for it. */
import { NodeServices } from "@effect/platform-node"
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { isFullRun } from "../support/fullRun.ts"
import { print, start } from "./loadProcess.ts"
import { describeEach, postgres, rabbitmq, redis } from "./stores.ts"

/** MiB by which the live heap may differ between two measurements. */
const NOISE = 24

await describeEach([redis, postgres, rabbitmq], ({ name, location }) => {
  it.live(
    "a slow store holds callers back and bounds memory",
    () =>
      Effect.gen(function* () {
        const count = isFullRun ? 500_000 : 20_000
        const concurrency = isFullRun ? 10_000 : 4_000
        const flood = yield* start("flood.ts", yield* location, 192, { count, concurrency, latency: 50 })
        const done = yield* flood.reached("done")
        assert.isTrue(yield* flood.ended)
        yield* print(`flood of ${name}`, done)
        const { confirmed, early, later, mostOpen, mostInFlight, returned, warm } = done.figures
        assert.deepStrictEqual(
          { confirmed, early, returned },
          { confirmed: count, early: 0, returned: count }
        )
        assert.isAtMost(mostOpen!, concurrency)
        // four calls of 256 items
        assert.isAtMost(mostInFlight!, 1024)
        assert.isAtMost(later!, warm! + NOISE)
      }).pipe(Effect.provide(NodeServices.layer)),
    isFullRun ? 900_000 : 120_000
  )
})
