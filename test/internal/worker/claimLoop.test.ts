import { assert, describe, it } from "@effect/vitest"
import type { BrokerDriver, ClaimRequest } from "chicory/driver"
import { Clock, Effect, Latch, Stream } from "effect"
import { advance, flush } from "../../support/memoryFixture.ts"
import * as WorkerFixture from "./workerFixture.ts"

/** A claim, and when it was sent. */
interface Claim extends ClaimRequest {
  readonly at: number
}

/** A worker whose claims are recorded; `claiming` stands before each of them. */
const make = Effect.fnUntraced(function* (
  options: WorkerFixture.Options & {
    readonly claiming?: (nth: number) => Effect.Effect<void, string>
    readonly changes?: (driver: BrokerDriver<never>) => Partial<BrokerDriver>
  } = {}
) {
  const claims: Array<Claim> = []
  const { changes, claiming = () => Effect.void, ...rest } = options
  const worker = yield* WorkerFixture.make({
    ...rest,
    broker: (driver) => ({
      ...changes?.(driver),
      claim: (request) =>
        Effect.gen(function* () {
          claims.push({ ...request, at: yield* Clock.currentTimeMillis })
          yield* claiming(claims.length)
          return yield* driver.claim(request)
        })
    })
  })
  return { ...worker, claims }
})

const mayLoseHints = ({ capabilities }: BrokerDriver) => ({
  capabilities: { ...capabilities, reliableHints: false }
})
const silent = {
  changes: (driver: BrokerDriver) => ({ ...mayLoseHints(driver), ready: () => Stream.never })
}

describe("the hints of ready messages", () => {
  it.effect("are not asked for while no slot is free", () =>
    Effect.gen(function* () {
      let asked = 0
      const done = yield* Latch.make()
      const { enqueueAll, start } = yield* make({
        worker: { concurrency: 2 },
        handler: (n) => Effect.as(done.await, n),
        changes: (driver) => ({
          ...mayLoseHints(driver),
          ready: () =>
            Stream.fromEffectRepeat(
              Effect.andThen(
                Effect.sync(() => asked++),
                Effect.sleep("1 second")
              )
            )
        })
      })
      yield* start
      yield* enqueueAll(3)
      yield* advance("2 seconds")
      asked = 0
      yield* Effect.repeat(advance("1 second"), { times: 9 })
      assert.isAtMost(asked, 1)
      yield* done.open
      yield* Effect.repeat(advance("1 second"), { times: 9 })
      assert.isAtLeast(asked, 9)
    })
  )
})

describe("the size of a claim", () => {
  it.effect("is at most the number of free slots", () =>
    Effect.gen(function* () {
      const { claims, enqueueAll, start } = yield* make({
        worker: { concurrency: 3 },
        handler: (n) => (n === 0 ? Effect.never : Effect.succeed(n))
      })
      yield* enqueueAll(10)
      yield* start
      yield* advance("5 seconds")
      assert.strictEqual(claims[0]?.max, 3)
      assert.strictEqual(claims.at(-1)?.max, 2)
    })
  )

  /** The sizes of the first claims of a worker with eight slots over a store that answers later. */
  const sizes = Effect.fnUntraced(function* (prefersLargeBatches: boolean) {
    const { claims, enqueueAll, start } = yield* make({
      worker: { concurrency: 8 },
      handler: () => Effect.never,
      claiming: () => Effect.sleep("1 millis"),
      changes: (driver) => ({ capabilities: { ...driver.capabilities, prefersLargeBatches } })
    })
    yield* start
    yield* Effect.repeat(advance("10 millis"), { times: 3 })
    claims.length = 0
    yield* enqueueAll(20)
    yield* Effect.repeat(advance("10 millis"), { times: 5 })
    return claims.map(({ max }) => max).slice(0, 2)
  })

  it.effect("is half of the slots for a store that answers later", () =>
    Effect.map(sizes(false), (claimed) => assert.deepStrictEqual(claimed, [4, 4]))
  )

  it.effect("is all of the slots for a store that prefers large batches", () =>
    Effect.map(sizes(true), ([claimed]) => assert.strictEqual(claimed, 8))
  )

  it.effect("is all of the slots for a store that answers at once", () =>
    Effect.gen(function* () {
      const { claims, enqueueAll, start } = yield* make({
        worker: { concurrency: 8 },
        handler: () => Effect.never
      })
      yield* start
      claims.length = 0
      yield* enqueueAll(20)
      yield* flush
      assert.strictEqual(claims[0]?.max, 8)
    })
  )
})

describe("a failed claim", () => {
  it.effect("is repeated under its id", () =>
    Effect.gen(function* () {
      const { claims, start } = yield* make({
        claiming: (nth) => (nth === 2 ? Effect.fail("cut off") : Effect.void),
        changes: mayLoseHints
      })
      yield* start
      yield* advance("3 seconds")
      const [first, failed, repeated, next] = claims
      assert.deepStrictEqual(
        [first, failed, repeated, next].map((claim) => claim?.isRetry),
        [false, false, true, false]
      )
      assert.strictEqual(repeated?.claimId, failed?.claimId)
      assert.strictEqual(new Set(claims.map(({ claimId }) => claimId)).size, claims.length - 1)
    })
  )

  it.effect("gives its slots back", () =>
    Effect.gen(function* () {
      const { claims, enqueueAll, ran, start } = yield* make({
        worker: { concurrency: 4 },
        claiming: (nth) => (nth <= 3 ? Effect.fail("cut off") : Effect.void)
      })
      yield* enqueueAll(4)
      yield* start
      yield* advance("3 seconds")
      assert.deepStrictEqual(
        claims.slice(0, 4).map(({ max }) => max),
        [4, 4, 4, 4]
      )
      assert.strictEqual(ran.length, 4)
    })
  )

  it.effect("is repeated with backoff, at least once a second", () =>
    Effect.gen(function* () {
      const { claims, start } = yield* make({ claiming: () => Effect.fail("cut off"), ...silent })
      yield* start
      yield* advance("5 seconds")
      const gaps = claims.slice(1).map(({ at }, i) => at - claims[i]!.at)
      assert.deepStrictEqual(gaps.slice(0, 7), [50, 100, 200, 400, 800, 1000, 1000])
    })
  )
})

describe("an idle worker", () => {
  it.effect("claims at once when the broker is ready", () =>
    Effect.gen(function* () {
      const { enqueue, ran, start } = yield* make()
      yield* start
      yield* advance("100 millis")
      yield* enqueue("a", 7)
      yield* flush
      assert.deepStrictEqual(ran, [7])
    })
  )

  it.effect("claims once a second without a ready signal", () =>
    Effect.gen(function* () {
      const { claims, start } = yield* make(silent)
      yield* start
      yield* advance("5 seconds")
      assert.deepStrictEqual(
        claims.map(({ at }) => at),
        [0, 1000, 2000, 3000, 4000, 5000]
      )
    })
  )

  it.effect("claims by the ready signal alone where the broker loses no hint", () =>
    Effect.gen(function* () {
      const { claims, enqueue, ran, start } = yield* make()
      yield* start
      yield* flush
      claims.length = 0
      yield* advance("1 hour")
      assert.strictEqual(claims.length, 0)
      yield* enqueue("a", 7)
      yield* flush
      assert.deepStrictEqual(ran, [7])
    })
  )

  it.effect("listens again a second after its ready stream failed", () =>
    Effect.gen(function* () {
      let listens = 0
      const { start } = yield* make({
        changes: () => ({
          ready: () => Stream.suspend(() => (++listens === 1 ? Stream.fail("gone") : Stream.never))
        })
      })
      yield* start
      assert.strictEqual(listens, 1)
      yield* advance("1 second")
      assert.strictEqual(listens, 2)
    })
  )
})
