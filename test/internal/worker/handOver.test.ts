import { assert, describe, it } from "@effect/vitest"
import type { ClaimedMessage, Fusion, HandedOver } from "chicory/driver"
import { Deferred, Effect, Exit, Latch, Scope, Stream } from "effect"
import { advance, flush } from "../../support/memoryFixture.ts"
import * as WorkerFixture from "./workerFixture.ts"

type Claim = Parameters<NonNullable<Fusion["claim"]>>[0]

/** A worker that claims nothing by itself, and to which the test hands messages over. */
const make = Effect.fnUntraced(function* (
  options: WorkerFixture.Options & {
    readonly claiming?: (nth: number) => Effect.Effect<void, string>
    readonly renews?: boolean
  } = {}
) {
  const { claiming = () => Effect.void, renews = true, ...rest } = options
  const requests: Array<Claim> = []
  /** What the end of the wait returns. */
  const left: Array<ClaimedMessage> = []
  let closed = 0
  const worker = yield* WorkerFixture.make({
    ...rest,
    fused: true,
    backend: ({ fusion, renew }) => ({
      renew: renews ? renew : () => Effect.fail("no renewal"),
      fusion: {
        ...fusion!,
        claim: (request) => {
          requests.push(request)
          return Effect.as(claiming(requests.length), [])
        },
        closeClaim: () =>
          Effect.sync(() => {
            closed++
            return left.splice(0)
          })
      }
    }),
    broker: ({ capabilities }) => ({
      capabilities: { ...capabilities, reliableHints: false },
      ready: () => Stream.never
    })
  })
  const { driver } = worker.fixture
  /** Enqueues a task, claims it for the worker, and starts it. */
  const claimFor = Effect.fnUntraced(function* (id: string, n: number) {
    yield* worker.enqueue(id, n)
    const request = requests.at(-1)!
    const [message] = yield* Effect.orDie(driver.fusion!.claim!({ ...request, claimId: `of ${id}`, max: 1 }))
    assert(message?.run?.started._tag === "Run")
    return message
  })
  const handOver = (message: ClaimedMessage, leasedMillis = 0): boolean => {
    const handedOver: HandedOver = { message, leasedMillis }
    return requests.at(-1)!.onHandedOver!(handedOver)
  }
  return { ...worker, claimFor, handOver, left, requests, closed: () => closed }
})

describe("a message that is handed over", () => {
  it.effect("runs at once, and takes a slot", () =>
    Effect.gen(function* () {
      const done = yield* Deferred.make<number>()
      const { claimFor, handOver, ran, record, requests, start } = yield* make({
        worker: { concurrency: 2 },
        handler: () => Deferred.await(done)
      })
      yield* start
      const before = requests.length
      const message = yield* claimFor("a", 1)
      assert.isTrue(handOver(message))
      yield* flush
      assert.deepStrictEqual(ran, [1])
      assert.strictEqual(requests.length, before)
      // the other slot is claimed for
      yield* advance("1 second")
      assert.strictEqual(requests.at(-1)!.max, 1)
      yield* Deferred.succeed(done, 7)
      yield* flush
      assert.deepInclude(yield* record("a"), { state: "SUCCESS", attempt: 1, worker: requests[0]!.worker })
      yield* advance("1 second")
      assert.strictEqual(requests.at(-1)!.max, 2)
    })
  )

  it.effect("holds the rest of its lease, where it is not renewed", () =>
    Effect.gen(function* () {
      const interrupted: Array<string> = []
      const { claimFor, handOver, start } = yield* make({
        worker: { concurrency: 2, lease: "3 seconds" },
        handler: (n) => Effect.onInterrupt(Effect.never, () => Effect.sync(() => interrupted.push(`${n}`))),
        renews: false
      })
      yield* start
      assert.isTrue(handOver(yield* claimFor("a", 1), 2_500))
      assert.isTrue(handOver(yield* claimFor("b", 2), 0))
      yield* advance("1 second")
      assert.deepStrictEqual(interrupted, ["1"])
      yield* advance("2 seconds")
      assert.deepStrictEqual(interrupted, ["1", "2"])
    })
  )

  it.effect("is not taken once its lease is over", () =>
    Effect.gen(function* () {
      const { claimFor, handOver, ran, start } = yield* make({ worker: { lease: "3 seconds" } })
      yield* start
      const message = yield* claimFor("a", 1)
      assert.isFalse(handOver(message, 3_000))
      yield* flush
      assert.deepStrictEqual(ran, [])
      assert.isTrue(handOver(message, 2_999))
      yield* flush
      assert.deepStrictEqual(ran, [1])
    })
  )

  it.effect("goes back to the queue with nothing counted where no slot is free", () =>
    Effect.gen(function* () {
      const { claimFor, fixture, handOver, ran, record, start } = yield* make({
        worker: { concurrency: 1 },
        handler: () => Effect.never
      })
      yield* start
      assert.isTrue(handOver(yield* claimFor("a", 1)))
      assert.isTrue(handOver(yield* claimFor("b", 2)))
      yield* flush
      assert.deepStrictEqual(ran, [1])
      assert.deepInclude(yield* record("b"), { state: "PENDING", attempt: 0 })
      const [counts] = yield* Effect.orDie(fixture.brokerDriver.counts(["default"]))
      assert.deepInclude(counts, { ready: 1, claimed: 1 })
    })
  )

  it.effect("is left to the answer of a claim that has taken the free slots", () =>
    Effect.gen(function* () {
      const answered = yield* Latch.make(false)
      const { claimFor, handOver, ran, requests, start } = yield* make({
        worker: { concurrency: 1 },
        claiming: (nth) => (nth === 2 ? answered.await : Effect.void)
      })
      yield* start
      yield* advance("1 second")
      assert.lengthOf(requests, 2)
      const message = yield* claimFor("a", 1)
      assert.isFalse(handOver(message))
      yield* answered.open
      yield* flush
      assert.deepStrictEqual(ran, [])
      assert.isTrue(handOver(message))
      yield* flush
      assert.deepStrictEqual(ran, [1])
    })
  )

  it.effect("goes back to the queue when the worker stops", () =>
    Effect.gen(function* () {
      const { claimFor, closed, handOver, left, ran, record, start } = yield* make()
      const scope = yield* Scope.make()
      yield* Scope.provide(start, scope)
      const message = yield* claimFor("a", 1)
      left.push(message)
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual(closed(), 1)
      assert.deepStrictEqual(ran, [])
      assert.deepInclude(yield* record("a"), { state: "PENDING", attempt: 0 })
      assert.isFalse(handOver(message))
    })
  )
})
