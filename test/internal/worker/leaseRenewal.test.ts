import { assert, describe, it } from "@effect/vitest"
import { AsyncResult, Backend, Broker, Task, Worker } from "chicory"
import { Array as Arr, type Duration, Effect, Latch, Layer, Schema } from "effect"
import * as MemoryFixture from "../../support/memoryFixture.ts"
import * as WorkerFixture from "./workerFixture.ts"

const Work = Task.make("work", { payload: { n: Schema.Number } })

/** Runs that one call renews. */
const BATCH = 256

/** A worker with more runs than one call renews; `takes` returns how long a renewal takes. */
const make = Effect.fnUntraced(function* (takes: (call: number) => Duration.Input) {
  /** When renewals were sent. */
  const sent: Array<number> = []
  const over = yield* Latch.make(false)
  const fixture = yield* MemoryFixture.make({
    hints: false,
    backend: (driver) => ({
      renew: (renewals) =>
        Effect.clockWith((clock) => {
          const time = takes(sent.push(clock.currentTimeMillisUnsafe()))
          return Effect.andThen(Effect.raceFirst(Effect.sleep(time), over.await), driver.renew(renewals))
        })
    })
  })
  const interrupted = new Set<number>()
  yield* MemoryFixture.startWorker(
    fixture,
    Work,
    Work.toLayer(({ n }) => Effect.onInterrupt(Effect.never, () => Effect.sync(() => interrupted.add(n)))),
    { concurrency: 2 * BATCH, lease: "9 seconds" }
  )
  yield* Effect.addFinalizer(() => over.open)
  const payloads = Arr.makeBy(2 * BATCH, (n) => ({ n }))
  yield* Effect.provideContext(Work.delayAll(payloads), fixture.context)
  yield* MemoryFixture.advance("2 seconds")
  return { interrupted, sent }
})

describe("lease renewal of many runs", () => {
  it.effect("loses only the batch whose renewal is not answered", () =>
    Effect.gen(function* () {
      const { interrupted } = yield* make((call) => (call % 2 === 0 ? "1 hour" : 0))
      for (let second = 0; second < 9; second++) yield* MemoryFixture.advance("1 second")
      assert.strictEqual(interrupted.size, BATCH)
    })
  )

  it.effect("sends renewals at a third of the lease, whatever the last ones took", () =>
    Effect.gen(function* () {
      const { interrupted, sent } = yield* make(() => "2 seconds")
      for (let second = 0; second < 30; second++) yield* MemoryFixture.advance("1 second")
      const gaps = Arr.dedupe(sent).map((time, i, all) => time - (all[i - 1] ?? 0))
      assert.deepStrictEqual(Arr.dedupe(gaps), [3000])
      assert.strictEqual(interrupted.size, 0)
    })
  )
})

describe("guarantee 6: the lease of a run", () => {
  /** A worker with a lease of 9 seconds, and the ids whose handlers were interrupted. */
  const makeOne = Effect.fnUntraced(function* (options: WorkerFixture.Options = {}) {
    let interrupts = 0
    const worker = yield* WorkerFixture.make({
      ...options,
      worker: { lease: "9 seconds" },
      handler: () => Effect.onInterrupt(Effect.never, () => Effect.sync(() => interrupts++))
    })
    yield* worker.enqueue("a")
    yield* worker.start
    const renewals = () => worker.fixture.items("renew").filter((item) => typeof item === "object").length
    return { ...worker, interrupts: () => interrupts, renewals }
  })

  it.effect("is renewed at every third of it", () =>
    Effect.gen(function* () {
      const { renewals } = yield* makeOne()
      yield* MemoryFixture.advance("2999 millis")
      assert.strictEqual(renewals(), 0)
      yield* MemoryFixture.advance("1 millis")
      assert.strictEqual(renewals(), 1)
      yield* MemoryFixture.advance("6 seconds")
      assert.strictEqual(renewals(), 3)
    })
  )

  it.effect("is renewed again soon when the store cannot tell", () =>
    Effect.gen(function* () {
      let locked = true
      const { interrupts, renewals } = yield* makeOne({
        backend: (driver) => ({
          renew: (some) => (locked ? Effect.succeed(some.map(() => "Unknown" as const)) : driver.renew(some))
        })
      })
      yield* MemoryFixture.advance("3 seconds")
      assert.strictEqual(renewals(), 1)
      locked = false
      yield* MemoryFixture.advance("1 second")
      assert.strictEqual(renewals(), 2)
      locked = true
      for (let second = 0; second < 8; second++) yield* MemoryFixture.advance("1 second")
      assert.strictEqual(interrupts(), 0)
    })
  )

  it.effect("is lost when the store cannot tell for as long as it lasts", () =>
    Effect.gen(function* () {
      const { interrupts } = yield* makeOne({
        backend: () => ({ renew: (some) => Effect.succeed(some.map(() => "Unknown" as const)) })
      })
      yield* MemoryFixture.advance("8 seconds")
      assert.strictEqual(interrupts(), 0)
      yield* MemoryFixture.advance("1 second")
      assert.strictEqual(interrupts(), 1)
    })
  )

  it.effect("is lost when no renewal succeeds within it", () =>
    Effect.gen(function* () {
      const { interrupts } = yield* makeOne({ backend: () => ({ renew: () => Effect.fail("cut off") }) })
      yield* MemoryFixture.advance("8 seconds")
      assert.strictEqual(interrupts(), 0)
      yield* MemoryFixture.advance("1 second")
      assert.strictEqual(interrupts(), 1)
    })
  )

  it.effect("is lost when the store does not answer", () =>
    Effect.gen(function* () {
      const answer = yield* Latch.make(false)
      const { interrupts } = yield* makeOne({
        backend: (driver) => ({
          renew: (renewals) => Effect.andThen(answer.await, driver.renew(renewals))
        })
      })
      // the worker waits for the call when it stops
      yield* Effect.addFinalizer(() => answer.open)
      yield* MemoryFixture.advance("8 seconds")
      assert.strictEqual(interrupts(), 0)
      yield* MemoryFixture.advance("4 seconds")
      assert.strictEqual(interrupts(), 1)
    })
  )

  it.effect("is lost when the store says that the run was superseded", () =>
    Effect.gen(function* () {
      const { fixture, interrupts } = yield* makeOne({
        backend: () => ({
          renew: () => Effect.succeed(["Lost"]),
          settle: () => Effect.succeed(["Lost"])
        })
      })
      yield* MemoryFixture.advance("3 seconds")
      assert.strictEqual(interrupts(), 1)
      assert.strictEqual(fixture.count("ack", "release"), 0)
    })
  )

  it.effect("is left to lapse once it is lost, so that the next run counts a crash", () =>
    Effect.gen(function* () {
      let fails = true
      const { fixture, interrupts, record } = yield* makeOne({
        backend: (driver) => ({
          renew: (items) => (fails ? Effect.fail("cut off") : driver.renew(items))
        })
      })
      yield* MemoryFixture.advance("9 seconds")
      assert.strictEqual(interrupts(), 1)
      fails = false
      const { attempt, crashes, state } = yield* record("a")
      assert.deepStrictEqual({ attempt, crashes, state }, { attempt: 1, crashes: 0, state: "STARTED" })
      assert.strictEqual(fixture.count("settle", "release"), 0)
      // the message comes back when its own lease, which was renewed, is over
      yield* MemoryFixture.advance("10 seconds")
      const next = yield* record("a")
      assert.deepStrictEqual([next.attempt, next.crashes, next.state], [2, 1, "STARTED"])
    })
  )

  it.effect("is no longer renewed once it is lost, although its handler cannot be interrupted", () =>
    Effect.gen(function* () {
      let calls = 0
      const over = yield* Latch.make(false)
      const { enqueue, record, start } = yield* WorkerFixture.make({
        worker: { lease: "9 seconds", concurrency: 1 },
        backend: (driver) => ({
          renew: (renewals) => (++calls <= 3 ? Effect.fail("cut off") : driver.renew(renewals))
        }),
        handler: (n) => Effect.uninterruptible(Effect.as(over.await, n))
      })
      yield* Effect.addFinalizer(() => over.open)
      yield* enqueue("a")
      yield* start
      yield* MemoryFixture.advance("9 seconds")
      const sent = calls
      yield* MemoryFixture.advance("30 seconds")
      assert.strictEqual(calls, sent)
      // nobody has taken the run over: its outcome is stored
      yield* over.open
      yield* MemoryFixture.advance("1 second")
      assert.strictEqual((yield* record("a")).state, "SUCCESS")
    })
  )

  it.effect("survives a failed renewal when the next one succeeds", () =>
    Effect.gen(function* () {
      let calls = 0
      const { interrupts } = yield* makeOne({
        backend: (driver) => ({
          renew: (renewals) => (++calls < 3 ? Effect.fail("cut off") : driver.renew(renewals))
        })
      })
      yield* MemoryFixture.advance("1 minute")
      assert.strictEqual(interrupts(), 0)
    })
  )
})

describe("a cancel request", () => {
  const makeCancelled = Effect.fnUntraced(function* (hints: boolean) {
    let interrupted = false
    const worker = yield* WorkerFixture.make({
      hints,
      worker: { lease: "9 seconds" },
      handler: () => Effect.onInterrupt(Effect.never, () => Effect.sync(() => (interrupted = true)))
    })
    yield* worker.enqueue("a")
    yield* worker.start
    const answer = yield* Effect.provideContext(
      AsyncResult.cancel(WorkerFixture.Work.result("a")),
      worker.fixture.context
    )
    assert.strictEqual(answer, "Requested")
    yield* MemoryFixture.flush
    return { ...worker, interrupted: () => interrupted }
  })

  it.effect("interrupts the handler at the next renewal", () =>
    Effect.gen(function* () {
      const { interrupted, record } = yield* makeCancelled(false)
      yield* MemoryFixture.advance("2 seconds")
      assert.isFalse(interrupted())
      yield* MemoryFixture.advance("1 second")
      assert.isTrue(interrupted())
      const { ended, state } = yield* record("a")
      assert.deepStrictEqual([state, ended], ["FAILURE", "Cancelled"])
    })
  )

  it.effect("interrupts the handler at once where the store hints", () =>
    Effect.gen(function* () {
      const { interrupted, record } = yield* makeCancelled(true)
      yield* MemoryFixture.advance("1 millis")
      assert.isTrue(interrupted())
      assert.strictEqual((yield* record("a")).ended, "Cancelled")
    })
  )
})

describe("without a backend", () => {
  it.effect("a run is lost when the broker has lost its claim", () =>
    Effect.gen(function* () {
      let interrupts = 0
      const fixture = yield* MemoryFixture.make({
        broker: () => ({ renew: (handles) => Effect.succeed(handles.map(() => false)) })
      })
      const services = Layer.merge(Backend.layerNotConfigured, Layer.succeed(Broker.Broker, fixture.broker))
      yield* Layer.build(
        Worker.layer([Work], { lease: "9 seconds", drainTimeout: 0 }).pipe(
          Layer.provide(
            Work.toLayer(() => Effect.onInterrupt(Effect.never, () => Effect.sync(() => interrupts++)))
          ),
          Layer.provide(services)
        )
      )
      yield* Effect.provide(Work.send({ n: 1 }), services)
      yield* MemoryFixture.advance("2 seconds")
      assert.strictEqual(interrupts, 0)
      yield* MemoryFixture.advance("1 second")
      assert.strictEqual(interrupts, 1)
    })
  )
})

describe("progress that a store cannot write at the moment", () => {
  const Told = Task.make("told", { progress: Schema.Int })

  /** Runs a task that writes progress, where the first renewals with progress answer that they cannot tell. */
  const run = Effect.fnUntraced(function* (unknown: number) {
    let written = 0
    const fixture = yield* MemoryFixture.make({
      hints: false,
      backend: (driver) => ({
        renew: (some) =>
          written++ < unknown ? Effect.succeed(some.map(() => "Unknown" as const)) : driver.renew(some)
      })
    })
    yield* MemoryFixture.startWorker(
      fixture,
      Told,
      Told.toLayer(() => Told.progress(7))
    )
    const handle = yield* Effect.provideContext(Told.delay(), fixture.context)
    for (let step = 0; step < 30; step++) yield* MemoryFixture.advance("100 millis")
    const [record] = yield* Effect.orDie(fixture.driver.read([handle.taskId]))
    return record
  })

  it.effect("is written soon after", () =>
    Effect.gen(function* () {
      assert.deepInclude(yield* run(3), { state: "SUCCESS", progress: "7" })
    })
  )

  it.effect("is dropped after two seconds, and the handler runs on", () =>
    Effect.gen(function* () {
      assert.deepInclude(yield* run(Infinity), { state: "SUCCESS", progress: null })
    })
  )
})
