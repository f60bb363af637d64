import { assert, describe, it } from "@effect/vitest"
import { BackendSuite } from "chicory/testing/suites"
import { Array as Arr, Effect, Stream } from "effect"
import { TestClock } from "effect/testing"
import type { BackendDriver, Hint, NewRecord } from "../../src/BackendDriver.ts"
import { makeMemoryBackend } from "../../src/memory/MemoryBackendDriver.ts"

BackendSuite.suite("memory", { make: makeMemoryBackend })

const record = (id: string, more?: Partial<NewRecord>): NewRecord => ({
  id,
  task: "mail",
  incarnation: "",
  queue: "default",
  key: undefined,
  payloadHash: "",
  delayMillis: 0,
  expiresMillis: undefined,
  retentionMillis: undefined,
  reservedMillis: undefined,
  ...more
})

const start = (
  driver: BackendDriver<never>,
  ids: ReadonlyArray<string>,
  token = "t1",
  leaseMillis = 30_000
) =>
  Effect.forEach(ids, (id) =>
    driver.start([
      {
        id,
        task: "mail",
        incarnation: "",
        generation: 0,
        token,
        worker: "w",
        queue: "default",
        body: "{}",
        leaseMillis,
        deliveryMode: "at-least-once",
        maxCrashes: 3,
        retentionMillis: undefined,
        deadLetterRetentionMillis: undefined
      }
    ])
  )

/** Collects the hints. */
const follow = Effect.fnUntraced(function* (driver: BackendDriver<never>) {
  const heard: Array<ReadonlyArray<Hint> | "resync"> = []
  yield* Effect.forkScoped(
    Stream.runForEach(driver.hints ?? Stream.empty, (hint) => Effect.sync(() => void heard.push(hint)))
  )
  yield* TestClock.adjust(0)
  return heard
})

describe("memory backend hints", () => {
  it.effect("report the changes of one turn once for each id", () =>
    Effect.gen(function* () {
      const driver = yield* makeMemoryBackend
      const ids = Arr.map(Arr.range(1, 100), (n) => `id-${n}`)
      yield* driver.subscribe(ids)
      const heard = yield* follow(driver)
      yield* driver.create(Arr.map(ids, (id) => record(id)))
      yield* driver.cancel(ids)
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(heard, [ids])
      yield* driver.forget(["id-7"])
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(heard, [ids, ["id-7"]])
    })
  )

  it.effect("leave out ids without a subscription", () =>
    Effect.gen(function* () {
      const driver = yield* makeMemoryBackend
      const heard = yield* follow(driver)
      yield* driver.create([record("a"), record("b")])
      yield* driver.subscribe(["a", "b"])
      yield* driver.unsubscribe(["a"])
      yield* start(driver, ["a", "b"])
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(heard, [["b"]])
    })
  )

  it.effect("keep changes from before the first listener", () =>
    Effect.gen(function* () {
      const driver = yield* makeMemoryBackend
      yield* driver.create([record("a")])
      yield* start(driver, ["a"])
      yield* driver.cancel(["a"])
      assert.deepStrictEqual(yield* follow(driver), [["a"]])
    })
  )

  it.effect("become a resync when too many changes precede the first listener", () =>
    Effect.gen(function* () {
      const driver = yield* makeMemoryBackend
      const ids = Arr.map(Arr.range(1, 20_000), (n) => `id-${n}`)
      yield* driver.create(Arr.map(ids, (id) => record(id)))
      yield* start(driver, ids)
      yield* driver.cancel(ids)
      const heard = yield* follow(driver)
      yield* driver.cancel(["id-1"])
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(heard, ["resync", ["id-1"]])
    })
  )
})

describe("the memory backend's clock", () => {
  it.effect("ends a lease or an expiry at its exact time", () =>
    Effect.gen(function* () {
      const driver = yield* makeMemoryBackend
      yield* driver.create([
        record("expires", { expiresMillis: 1000 }),
        record("kept", { retentionMillis: 1000 }),
        record("runs")
      ])
      yield* driver.cancel(["kept"])
      yield* start(driver, ["runs"], "t1", 1000)
      yield* driver.parkMessage([
        {
          deadLetterId: "p",
          queue: "default",
          reason: "Unknown",
          exit: "{}",
          body: "",
          retentionMillis: 1000
        }
      ])
      const look = Effect.gen(function* () {
        const [expires, kept] = yield* driver.read(["expires", "kept"])
        const [started] = (yield* start(driver, ["runs"], "t2")).flat()
        const letters = yield* driver.countDeadLetters(undefined)
        return [expires?.state, kept?.state, started, letters]
      })
      yield* TestClock.adjust(999)
      assert.deepStrictEqual(yield* look, ["PENDING", "FAILURE", { _tag: "Busy", millis: 1 }, 1])
      assert.strictEqual((yield* driver.sweep(100)).handled, 0)
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(yield* look, [
        "FAILURE",
        undefined,
        { _tag: "Run", fence: 2, attempt: 2, retries: 0, crashes: 1, lostWorker: "w" },
        0
      ])
    })
  )
})
