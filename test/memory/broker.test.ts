import { assert, describe, it } from "@effect/vitest"
import { BrokerSuite } from "chicory/testing/suites"
import { Effect, Stream } from "effect"
import { TestClock } from "effect/testing"
import type { BrokerDriver, Envelope } from "../../src/BrokerDriver.ts"
import { makeMemoryBroker } from "../../src/memory/MemoryBrokerDriver.ts"
import { withoutAges } from "../support/withoutAges.ts"

BrokerSuite.suite("memory", { make: makeMemoryBroker })

const envelope = (id: string, delayMillis = 0): Envelope => ({
  id,
  task: "mail",
  queue: "default",
  priority: 0,
  delayMillis,
  body: "{}"
})

/** Counts the ready signals. */
const follow = Effect.fnUntraced(function* (driver: BrokerDriver<never>) {
  const reasons = { count: 0 }
  yield* Effect.forkScoped(
    Stream.runForEach(driver.ready(["default"], 100), () => Effect.sync(() => void reasons.count++))
  )
  yield* TestClock.adjust(0)
  return reasons
})

describe("memory broker ready signals", () => {
  it.effect("fire once at first and not while nothing happens", () =>
    Effect.gen(function* () {
      const driver = yield* makeMemoryBroker
      const reasons = yield* follow(driver)
      assert.strictEqual(reasons.count, 1)
      yield* TestClock.adjust("1 day")
      assert.strictEqual(reasons.count, 1)
    })
  )

  it.effect("fire once for the messages of one turn", () =>
    Effect.gen(function* () {
      const driver = yield* makeMemoryBroker
      const reasons = yield* follow(driver)
      yield* driver.publish([envelope("a"), envelope("b")])
      yield* driver.publish([envelope("c")])
      yield* TestClock.adjust(0)
      assert.strictEqual(reasons.count, 2)
    })
  )

  it.effect("fire for a delayed message when it is published and at its time", () =>
    Effect.gen(function* () {
      const driver = yield* makeMemoryBroker
      const reasons = yield* follow(driver)
      yield* driver.publish([envelope("a", 60_000)])
      yield* driver.publish([envelope("b", 1_000)])
      yield* TestClock.adjust(999)
      assert.strictEqual(reasons.count, 2)
      yield* TestClock.adjust(1)
      assert.strictEqual(reasons.count, 3)
      yield* TestClock.adjust(58_999)
      assert.strictEqual(reasons.count, 3)
      yield* TestClock.adjust(1)
      assert.strictEqual(reasons.count, 4)
      yield* TestClock.adjust("1 day")
      assert.strictEqual(reasons.count, 4)
    })
  )

  it.effect("fire for a lapsed lease at the time to which it was renewed", () =>
    Effect.gen(function* () {
      const driver = yield* makeMemoryBroker
      yield* driver.publish([envelope("a")])
      const reasons = yield* follow(driver)
      const [claimed] = yield* driver.claim({ queues: ["default"], max: 1, leaseMillis: 10_000, worker: "w" })
      assert(claimed !== undefined)
      yield* TestClock.adjust(9_000)
      assert.deepStrictEqual(yield* driver.renew([claimed.handle], 10_000), [true])
      yield* TestClock.adjust(9_999)
      assert.strictEqual(reasons.count, 1)
      yield* TestClock.adjust(1)
      assert.strictEqual(reasons.count, 2)
    })
  )

  it.effect("fire again when a lapsed claim is renewed and lapses again", () =>
    Effect.gen(function* () {
      const driver = yield* makeMemoryBroker
      yield* driver.publish([envelope("a")])
      const reasons = yield* follow(driver)
      const [claimed] = yield* driver.claim({ queues: ["default"], max: 1, leaseMillis: 1_000, worker: "w" })
      assert(claimed !== undefined)
      yield* TestClock.adjust(1_000)
      assert.strictEqual(reasons.count, 2)
      assert.deepStrictEqual(yield* driver.renew([claimed.handle], 1_000), [true])
      assert.deepStrictEqual(withoutAges(yield* driver.counts(["default"])), [
        { ready: 0, delayed: 0, claimed: 1 }
      ])
      yield* TestClock.adjust(1_000)
      assert.strictEqual(reasons.count, 3)
    })
  )
})
