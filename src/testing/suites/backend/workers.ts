/** The registry of workers, by their heartbeats. */
import { assert, describe } from "@effect/vitest"
import type { Heartbeat } from "../../../BackendDriver.ts"
import * as Suite from "../Suite.ts"
import type { Test } from "./fixture.ts"

/** Makes a heartbeat. */
export const worker = (id: string, more?: Partial<Heartbeat>): Heartbeat => ({
  id,
  hostname: "host",
  pid: 4711,
  queues: ["default", "mail"],
  tasks: ["mail.send"],
  concurrency: 16,
  running: 3,
  ...more
})

/** Registers the tests. */
export const workers = (test: Test): void => {
  describe("workers", () => {
    test("a worker is listed with the fields of its heartbeat", function* (t) {
      yield* t.driver.heartbeat(worker("w"), t.time.long)
      const { seenAt, startedAt, ...rest } = yield* Suite.only(t.driver.workers)
      assert.isNumber(startedAt)
      assert.isAtLeast(seenAt, startedAt)
      assert.deepStrictEqual(rest, worker("w"))
    })

    test("a later heartbeat updates a worker, and keeps the time of its start", function* (t) {
      yield* t.driver.heartbeat(worker("w"), t.time.long)
      const first = yield* Suite.only(t.driver.workers)
      yield* t.time.pass(1)
      yield* t.driver.heartbeat(worker("w", { running: 9, queues: [] }), t.time.long)
      const second = yield* Suite.only(t.driver.workers)
      assert.strictEqual(second.startedAt, first.startedAt)
      assert.isAbove(second.seenAt, first.seenAt)
      assert.deepStrictEqual([second.running, second.queues], [9, []])
    })

    test("a worker whose heartbeat has lapsed is not listed", function* (t) {
      yield* t.driver.heartbeat(worker("silent"), t.time.units(1))
      yield* t.driver.heartbeat(worker("alive"), t.time.long)
      yield* t.time.pass(2)
      assert.strictEqual((yield* Suite.only(t.driver.workers)).id, "alive")
      yield* t.sweepAll
      assert.strictEqual((yield* Suite.only(t.driver.workers)).id, "alive")
    })

    test("the sweep removes a worker whose heartbeat has lapsed", function* (t) {
      yield* t.driver.heartbeat(worker("silent"), t.time.units(1))
      yield* t.driver.heartbeat(worker("alive"), t.time.long)
      yield* t.time.pass(2)
      assert.strictEqual(yield* t.sweepAll, 1)
    })

    test("an unregistered worker is not listed, and unregistering is safe to repeat", function* (t) {
      yield* t.driver.heartbeat(worker("v"), t.time.long)
      yield* t.driver.heartbeat(worker("w"), t.time.long)
      yield* t.driver.unregisterWorker("v")
      yield* t.driver.unregisterWorker("v")
      yield* t.driver.unregisterWorker("nobody")
      assert.strictEqual((yield* Suite.only(t.driver.workers)).id, "w")
    })

    test("a worker is listed until it is unregistered, where hints are reliable", function* (t, context) {
      if (t.driver.capabilities.reliableHints !== true)
        return yield* Suite.skip(context, "the driver's hints are not reliable")
      yield* t.driver.heartbeat(worker("w"), Infinity)
      yield* t.time.pass(1_000_000)
      yield* t.sweepAll
      assert.strictEqual((yield* Suite.only(t.driver.workers)).id, "w")
      yield* t.driver.unregisterWorker("w")
      assert.deepStrictEqual(yield* t.driver.workers, [])
    })

    test("an empty store lists no worker", function* (t) {
      assert.deepStrictEqual(yield* t.driver.workers, [])
    })
  })
}
