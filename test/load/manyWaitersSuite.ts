/** Many waiters in one process: their cost for it and the store, and that they leave nothing behind. */
import { NodeServices } from "@effect/platform-node"
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { isFullRun } from "../support/fullRun.ts"
import { print, start } from "./loadProcess.ts"
import type { LoadStore } from "./stores.ts"

/** MiB by which the live heap may differ between two measurements. */
const NOISE = 24
/** Maximum of ids in one call. */
const BATCH = 256

/** Registers the test, with or without the store's hints. */
export const manyWaiters = ({ name, location }: LoadStore, hints: boolean): void => {
  const count = isFullRun ? 20_000 : 5_000
  const heap = hints ? 256 : isFullRun ? 512 : 256
  it.live(
    `waiters ${hints ? "with hints" : "that poll"} all receive their results and leave nothing behind`,
    () =>
      Effect.gen(function* () {
        const storeLocation = yield* location
        const waiters = yield* start("waiters.ts", storeLocation, heap, { count, hints })
        const waiting = yield* waiters.reached("waiting")
        const worker = yield* start("worker.ts", storeLocation, 256, { count, worker: { concurrency: 64 } })
        const completed = yield* waiters.reached("completed")
        yield* worker.signal("SIGTERM")
        assert.isTrue(yield* worker.ended)
        const delayed = yield* waiters.reached("delayed")
        const timedOut = yield* waiters.reached("timed out")
        yield* waiters.reached("waiting again")
        const interrupted = yield* waiters.reached("interrupted")
        const quiet = yield* waiters.reached("quiet")
        assert.isTrue(yield* waiters.ended)
        const all = [waiting, completed, delayed, timedOut, interrupted]
        yield* print(`${count} waiters on ${name}, ${hints ? "hints" : "polling"}`, ...all)

        assert.strictEqual(completed.figures["right"], count)
        assert.strictEqual(timedOut.figures["right"], count)
        // waiters of one turn are read together
        assert.isAtMost(waiting.figures["calls"]!, 2 * Math.ceil(count / BATCH) + 20)
        if (hints) {
          assert.isAtMost(completed.figures["calls"]!, count / 5)
          assert.isAtMost(timedOut.figures["calls"]!, 3 * Math.ceil(count / BATCH) + 50)
          assert.isAtMost(timedOut.figures["items"]!, 4 * count)
        } else {
          const { calls, items } = completed.figures
          assert.isAtLeast(items! / calls!, BATCH / 8)
        }
        // their deadlines are the same, so that they end together
        assert.isAtMost(timedOut.figures["last"]!, 20)
        assert.strictEqual(interrupted.figures["watched"], 0)
        assert.strictEqual(quiet.figures["calls"], 0)
        assert.isAtMost(delayed.figures["alive"]!, waiting.figures["alive"]!)
        assert.isAtMost(quiet.figures["alive"]!, delayed.figures["alive"]! + NOISE)
      }).pipe(Effect.provide(NodeServices.layer)),
    isFullRun ? 300_000 : 120_000
  )
}
