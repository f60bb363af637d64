/** The registry of workers. */
import { assert, describe } from "@effect/vitest"
import type { Heartbeat } from "../../../BackendDriver.ts"
import * as Suite from "../Suite.ts"
import type { Test } from "./fixture.ts"

const worker = (id: string, more?: Partial<Heartbeat>): Heartbeat => ({
  id,
  hostname: "host",
  pid: 4711,
  queues: ["default", "mail"],
  tasks: ["mail.send"],
  concurrency: 16,
  running: 3,
  ...more
})

/** Registers these tests. */
export const workers = (test: Test): void => {
  describe("workers", () => {
    test("a worker is listed as its heartbeat described it", function* (on) {
      yield* on.driver.heartbeat(worker("w"), on.time.long)
      const { seenAt, startedAt, ...rest } = yield* Suite.only(on.driver.workers)
      assert.isNumber(startedAt)
      assert.isAtLeast(seenAt, startedAt)
      assert.deepStrictEqual(rest, worker("w"))
    })

    test("a later heartbeat renews what is known, and keeps when it began", function* (on) {
      yield* on.driver.heartbeat(worker("w"), on.time.long)
      const first = yield* Suite.only(on.driver.workers)
      yield* on.time.pass(1)
      yield* on.driver.heartbeat(worker("w", { running: 9, queues: [] }), on.time.long)
      const second = yield* Suite.only(on.driver.workers)
      assert.strictEqual(second.startedAt, first.startedAt)
      assert.isAbove(second.seenAt, first.seenAt)
      assert.deepStrictEqual([second.running, second.queues], [9, []])
    })

    test("a worker that fell silent is not listed", function* (on) {
      yield* on.driver.heartbeat(worker("silent"), on.time.units(1))
      yield* on.driver.heartbeat(worker("alive"), on.time.long)
      yield* on.time.pass(2)
      assert.strictEqual((yield* Suite.only(on.driver.workers)).id, "alive")
      yield* on.sweepAll
      assert.strictEqual((yield* Suite.only(on.driver.workers)).id, "alive")
    })

    test("the sweep removes a worker that fell silent", function* (on) {
      yield* on.driver.heartbeat(worker("silent"), on.time.units(1))
      yield* on.driver.heartbeat(worker("alive"), on.time.long)
      yield* on.time.pass(2)
      assert.strictEqual(yield* on.sweepAll, 1)
    })

    test("a worker that says farewell is off the list, and may say it twice", function* (on) {
      yield* on.driver.heartbeat(worker("v"), on.time.long)
      yield* on.driver.heartbeat(worker("w"), on.time.long)
      yield* on.driver.unregisterWorker("v")
      yield* on.driver.unregisterWorker("v")
      yield* on.driver.unregisterWorker("nobody")
      assert.strictEqual((yield* Suite.only(on.driver.workers)).id, "w")
    })

    test("no worker is listed at first", function* (on) {
      assert.deepStrictEqual(yield* on.driver.workers, [])
    })
  })
}
