import { assert, describe, it } from "@effect/vitest"
import { Worker } from "chicory"
import type { Settlement } from "chicory/driver"
import { Effect, Exit, Layer, Scope } from "effect"
import { captureLogs } from "../../../src/testing/suites/worker/captureLogs.ts"
import { advance, flush } from "../../support/memoryFixture.ts"
import { withoutAges } from "../../support/withoutAges.ts"
import * as WorkerFixture from "./workerFixture.ts"

/** A worker over a backend whose settlements fail as `failing` says; fused operations are never overridden. */
const make = (
  failing: (settlement: Settlement, nth: number) => boolean,
  options: WorkerFixture.Options & { readonly permanent?: boolean } = {}
) => {
  let settlements = 0
  return WorkerFixture.make({
    ...options,
    backend: (driver) => ({
      isPermanent: () => options.permanent === true,
      settle: (batch) =>
        failing(batch[0], ++settlements) ? Effect.fail("the store is down") : driver.settle(batch)
    })
  })
}
const never = () => false

describe("the end of a run", () => {
  it.effect("stores the outcome, then acks the message", () =>
    Effect.gen(function* () {
      const { enqueue, fixture, record, start } = yield* make(never)
      yield* enqueue("a", 7)
      yield* start
      assert.deepStrictEqual(fixture.sequence("settle", "ack"), ["settle", "ack"])
      const { exit, state } = yield* record("a")
      assert.deepStrictEqual([state, exit], ["SUCCESS", `{"_tag":"Success","value":7}`])
    })
  )

  it.effect("stores the outcome and acks the message in one call of a fused store", () =>
    Effect.gen(function* () {
      const { enqueue, fixture, record, start } = yield* WorkerFixture.make({ fused: true })
      yield* enqueue("a")
      yield* start
      assert.deepStrictEqual(fixture.sequence("settle", "ack"), ["settle"])
      assert.strictEqual((yield* record("a")).state, "SUCCESS")
      const [counts] = withoutAges(yield* fixture.broker.counts(["default"]))
      assert.deepStrictEqual(counts, { ready: 0, delayed: 0, claimed: 0 })
    })
  )
})

describe("the line about a handler that died", () => {
  const dies = () => Effect.die(new Error("a bug"))
  const linesOf = (fixture: ReturnType<typeof make>) => {
    const logs = captureLogs()
    return Effect.gen(function* () {
      const { enqueue, start } = yield* fixture
      yield* enqueue("a")
      yield* start
      yield* advance("1 second")
      return logs.beginning("Failed to run a task").map(({ text }) => text)
    }).pipe(logs.capture)
  }

  it.effect("says that its outcome could not be saved", () =>
    Effect.map(linesOf(make(() => true, { permanent: true, handler: dies })), (lines) =>
      assert.deepStrictEqual(lines, [
        "Failed to run a task, since its handler died; the outcome could not be saved, and the task will be started again"
      ])
    )
  )

  it.effect("says that its run was superseded", () =>
    Effect.map(
      linesOf(
        WorkerFixture.make({
          handler: dies,
          backend: () => ({ settle: () => Effect.succeed(["Lost" as const]) })
        })
      ),
      (lines) =>
        assert.deepStrictEqual(lines, [
          "Failed to run a task, since its handler died; the outcome is dropped, since the run was superseded"
        ])
    )
  )
})

describe("guarantee 4: a failed settlement", () => {
  it.effect("is stored again while the lease is held, without a second run", () =>
    Effect.gen(function* () {
      let down = true
      const { enqueue, fixture, ran, record, start } = yield* make(() => down)
      yield* enqueue("a")
      yield* start
      yield* advance("1 minute")
      assert.strictEqual((yield* record("a")).state, "STARTED")
      assert.strictEqual(fixture.count("ack"), 0)
      down = false
      yield* advance("2 seconds")
      assert.strictEqual((yield* record("a")).state, "SUCCESS")
      assert.strictEqual(fixture.count("ack"), 1)
      assert.deepStrictEqual(ran, [0])
    })
  )

  it.effect("is retried with backoff up to 2 seconds", () =>
    Effect.gen(function* () {
      const times: Array<number> = []
      const { enqueue, start } = yield* WorkerFixture.make({
        backend: () => ({
          settle: () =>
            Effect.clockWith((clock) => {
              times.push(clock.currentTimeMillisUnsafe())
              return Effect.fail("the store is down")
            })
        })
      })
      yield* enqueue("a")
      yield* start
      yield* advance("10 seconds")
      const gaps = times.slice(1).map((time, i) => time - times[i]!)
      // every retry waits 50 milliseconds beside the delay of the schedule
      assert.deepStrictEqual(gaps.slice(0, 9), [50, 100, 150, 250, 450, 850, 1650, 2050, 2050])
    })
  )

  it.effect("of a refused outcome is replaced by ResultInvalid", () =>
    Effect.gen(function* () {
      const { enqueue, fixture, ran, record, start } = yield* make(
        ({ outcome }) => outcome._tag === "Success",
        { permanent: true }
      )
      yield* enqueue("a")
      yield* start
      const { exit, state } = yield* record("a")
      assert.strictEqual(state, "FAILURE")
      assert.include(exit ?? "", `"_tag":"ResultInvalid"`)
      assert.include(exit ?? "", "the store is down")
      assert.strictEqual(fixture.count("ack"), 1)
      assert.deepStrictEqual(ran, [0])
    })
  )

  it.effect("leaves the message when the replacement is refused as well", () =>
    Effect.gen(function* () {
      const { enqueue, fixture, record, start } = yield* make(() => true, { permanent: true })
      yield* enqueue("a")
      yield* start
      assert.strictEqual(fixture.count("settle"), 2)
      assert.strictEqual(fixture.count("ack", "release"), 0)
      assert.strictEqual((yield* record("a")).state, "STARTED")
    })
  )

  it.effect("is tried once more when the drain timeout is over", () =>
    Effect.gen(function* () {
      const { fixture, enqueue, record } = yield* make((_, nth) => nth < 3)
      yield* enqueue("a")
      const scope = yield* Scope.make()
      yield* Layer.buildWithScope(
        Worker.layer([WorkerFixture.Work], { drainTimeout: 0 }).pipe(
          Layer.provide(WorkerFixture.Work.toLayer(({ n }) => Effect.succeed(n))),
          Layer.provide(fixture.layer)
        ),
        scope
      )
      yield* flush
      yield* advance("60 millis")
      assert.strictEqual(fixture.count("settle"), 2)
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual(fixture.count("settle"), 3)
      assert.strictEqual((yield* record("a")).state, "SUCCESS")
    })
  )
})

describe("guarantee 3: a superseded settlement", () => {
  it.effect("drops the outcome and leaves the message to its new run", () =>
    Effect.gen(function* () {
      const { enqueue, fixture, record, start } = yield* WorkerFixture.make({
        backend: () => ({ settle: () => Effect.succeed(["Lost"]) })
      })
      yield* enqueue("a")
      yield* start
      assert.strictEqual(fixture.count("settle"), 1)
      assert.strictEqual(fixture.count("ack", "release"), 0)
      assert.strictEqual((yield* record("a")).state, "STARTED")
    })
  )
})

describe("a failed ack", () => {
  it.effect("is retried briefly, then the redelivered message is acked without a run", () =>
    Effect.gen(function* () {
      let down = true
      const { enqueue, fixture, ran, record, start } = yield* WorkerFixture.make({
        worker: { lease: "10 seconds" },
        broker: (driver) => ({
          ack: (handles) => (down ? Effect.fail("cut off") : driver.ack(handles))
        })
      })
      yield* enqueue("a")
      yield* start
      yield* advance("5 seconds")
      assert.strictEqual((yield* record("a")).state, "SUCCESS")
      assert.strictEqual(fixture.count("ack"), 7)
      down = false
      yield* advance("7 seconds")
      assert.strictEqual(fixture.count("ack"), 8)
      assert.deepStrictEqual(ran, [0])
      const [counts] = withoutAges(yield* fixture.broker.counts(["default"]))
      assert.deepStrictEqual(counts, { ready: 0, delayed: 0, claimed: 0 })
    })
  )
})
