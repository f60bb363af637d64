import { assert, describe, it } from "@effect/vitest"
import { Task, Worker } from "chicory"
import { Cause, type Duration, Effect, Exit, Fiber, Latch, Layer, Logger, References, Scope } from "effect"
import * as MemoryFixture from "../../support/memoryFixture.ts"
import { advance } from "../../support/memoryFixture.ts"
import { withoutAges } from "../../support/withoutAges.ts"
import * as WorkerFixture from "./workerFixture.ts"

interface Line {
  readonly level: string
  readonly message: string
  readonly annotations: Readonly<Record<string, unknown>>
}

/** Collects the warnings of an effect. */
const withWarnings = <A, E, R>(effect: Effect.Effect<A, E, R>) => {
  const lines: Array<Line> = []
  const logger = Logger.make<unknown, void>(({ fiber, logLevel, message }) => {
    if (logLevel !== "Warn") return
    lines.push({
      level: logLevel,
      message: String(message),
      annotations: fiber.getRef(References.CurrentLogAnnotations)
    })
  })
  return Effect.map(Effect.provide(effect, Logger.layer([logger])), (value) => [value, lines] as const)
}

/** Starts a worker, lets it begin its tasks, and stops it; returns after how many seconds it has stopped. */
const stopAfterStart = Effect.fnUntraced(function* (
  worker: Effect.Success<ReturnType<typeof WorkerFixture.make>>,
  beforeStop: Effect.Effect<unknown> = Effect.void
) {
  const scope = yield* Scope.make()
  const starting = yield* MemoryFixture.fork(Scope.provide(worker.start, scope))
  if (starting.pollUnsafe() === undefined) yield* advance("5 seconds")
  yield* Fiber.join(starting)
  yield* advance("100 millis")
  yield* beforeStop
  const stopping = yield* MemoryFixture.fork(Scope.close(scope, Exit.void))
  for (let second = 0; second <= 60; second++) {
    if (stopping.pollUnsafe() !== undefined) return second
    yield* advance("1 second")
  }
  return Infinity
})

const drainTimeout: Duration.Input = "10 seconds"

describe("guarantee 7: the end of a worker", () => {
  it.effect("comes as soon as nothing is in flight", () =>
    Effect.gen(function* () {
      const worker = yield* WorkerFixture.make({ worker: { drainTimeout } })
      yield* worker.enqueue("a")
      assert.strictEqual(yield* stopAfterStart(worker), 0)
    })
  )

  for (const [where, hang] of [
    ["region", (over: Effect.Effect<void>) => Effect.uninterruptible(Effect.as(over, 1))],
    ["finalizer", (over: Effect.Effect<void>) => Effect.ensuring(Effect.never, over)]
  ] as const) {
    it.effect(`is 4 seconds after the drain for a handler in an uninterruptible ${where}`, () =>
      Effect.gen(function* () {
        const over = yield* Latch.make(false)
        const worker = yield* WorkerFixture.make({
          worker: { drainTimeout },
          handler: () => hang(over.await)
        })
        yield* worker.enqueue("a")
        const [seconds, warnings] = yield* withWarnings(stopAfterStart(worker))
        assert.strictEqual(seconds, 14)
        assert.lengthOf(warnings, 1)
        assert.include(warnings[0]!.message, "left to its lease")
        assert.deepInclude(warnings[0]!.annotations, { taskId: "a", taskName: "work", attempt: 1 })
        // the handler may end when the worker is long gone: that is no orderly release
        if (where === "finalizer") yield* over.open
        yield* advance("1 second")
        const { attempt, state } = yield* worker.record("a")
        assert.deepStrictEqual([state, attempt], ["STARTED", 1])
        assert.strictEqual(worker.fixture.count("settle", "release"), 0)
        yield* over.open
      })
    )
  }

  it.effect("is 4 seconds after the drain where the outcome of a run is never stored", () =>
    Effect.gen(function* () {
      const over = yield* Latch.make(false)
      const worker = yield* WorkerFixture.make({
        worker: { drainTimeout },
        backend: () => ({ settle: () => Effect.uninterruptible(Effect.as(over.await, ["Lost"] as const)) })
      })
      yield* Effect.addFinalizer(() => over.open)
      yield* worker.enqueue("a")
      const [seconds, warnings] = yield* withWarnings(stopAfterStart(worker))
      assert.strictEqual(seconds, 14)
      assert.include(warnings[0]!.message, "Failed to store the outcome of a run")
      assert.deepInclude(warnings[0]!.annotations, { taskId: "a", taskName: "work" })
    })
  )

  it.effect("is 4 seconds after the drain where a claim is never answered", () =>
    Effect.gen(function* () {
      const over = yield* Latch.make(false)
      const worker = yield* WorkerFixture.make({
        worker: { drainTimeout },
        broker: (driver) => ({ claim: (claim) => Effect.andThen(over.await, driver.claim(claim)) })
      })
      yield* Effect.addFinalizer(() => over.open)
      const [seconds, warnings] = yield* withWarnings(stopAfterStart(worker))
      assert.strictEqual(seconds, 14)
      assert.include(warnings[0]!.message, "Failed to end all calls to the store")
    })
  )

  it.effect("is at most 2 seconds later where a heartbeat is never answered", () =>
    Effect.gen(function* () {
      const over = yield* Latch.make(false)
      const worker = yield* WorkerFixture.make({
        worker: { drainTimeout },
        backend: () => ({ heartbeat: () => Effect.uninterruptible(over.await) })
      })
      yield* Effect.addFinalizer(() => over.open)
      assert.strictEqual(yield* stopAfterStart(worker), 2)
    })
  )
})

describe("the start of a worker", () => {
  /** Starts a worker whose heartbeats are as given. */
  const startWith = (heartbeat: Effect.Effect<void>) =>
    Effect.gen(function* () {
      const worker = yield* WorkerFixture.make({
        backend: () => ({ heartbeat: () => heartbeat }),
        worker: { heartbeat: "1 second" }
      })
      const starting = yield* MemoryFixture.fork(worker.start)
      return { ...worker, starting }
    })

  it.effect("waits for the registration", () =>
    Effect.gen(function* () {
      const registered = yield* Latch.make(false)
      const { starting } = yield* startWith(registered.await)
      yield* advance("4 seconds")
      MemoryFixture.assertPending(starting)
      yield* registered.open
      yield* advance(0)
      assert.isDefined(starting.pollUnsafe())
    })
  )

  it.effect("waits at most 5 seconds for a store that does not answer, and claims meanwhile", () =>
    Effect.gen(function* () {
      const { enqueue, ran, starting } = yield* startWith(Effect.never)
      yield* enqueue("a", 7)
      yield* advance("4999 millis")
      MemoryFixture.assertPending(starting)
      assert.deepStrictEqual(ran, [7])
      yield* advance("1 millis")
      assert.isDefined(starting.pollUnsafe())
    })
  )

  it.effect("does not wait for a store that fails", () =>
    Effect.gen(function* () {
      const { fixture, starting } = yield* startWith(Effect.die("the store is away"))
      yield* MemoryFixture.flush
      assert.isDefined(starting.pollUnsafe())
      yield* advance("1 second")
      assert.strictEqual(fixture.count("heartbeat"), 2)
    })
  )
})

describe("a worker on a client with few connections", () => {
  /** Starts a worker of 16 slots on a store with so many connections. */
  const startOn = (sharedConnections: number | undefined) =>
    Effect.gen(function* () {
      const { start } = yield* WorkerFixture.make({
        backend: (driver) => ({ capabilities: { ...driver.capabilities, sharedConnections } })
      })
      const [exit, warnings] = yield* withWarnings(Effect.exit(Effect.scoped(start)))
      return { exit, warnings: warnings.map(({ message }) => message) }
    })

  it.effect("warns where they are fewer than its slots, and says how many it needs", () =>
    Effect.gen(function* () {
      const { exit, warnings } = yield* startOn(15)
      assert.isTrue(Exit.isSuccess(exit))
      assert.lengthOf(warnings, 1)
      assert.include(warnings[0], "at most 15 connections")
      assert.include(warnings[0], "give its pool 18 connections, or the worker a concurrency of 13")
    })
  )

  it.effect("does not warn where there is one for each slot, or handlers hold none", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual((yield* startOn(16)).warnings, [])
      assert.deepStrictEqual((yield* startOn(undefined)).warnings, [])
    })
  )

  it.effect("does not start where there is a single one", () =>
    Effect.gen(function* () {
      const { exit } = yield* startOn(1)
      assert.isTrue(Exit.hasDies(exit))
      assert.include(String(Exit.isFailure(exit) && Cause.squash(exit.cause)), "at least 3 connections")
    })
  )
})

describe("guarantee 7: a claim that is answered after the drain", () => {
  const Once = Task.make("once", { delivery: "at-most-once" })

  it.effect("is put back with nothing counted, and nothing of it runs", () =>
    Effect.gen(function* () {
      const over = yield* Latch.make(false)
      let ran = 0
      const fixture = yield* MemoryFixture.make({
        hints: false,
        broker: (driver) => ({ claim: (claim) => Effect.andThen(over.await, driver.claim(claim)) })
      })
      const handler = Effect.sync(() => void ran++)
      const scope = yield* Scope.make()
      const Plain = Task.make("plain")
      yield* Effect.provideContext(
        Effect.andThen(Once.send({ id: "a" }), Plain.send({ id: "b" })),
        fixture.context
      )
      yield* Layer.buildWithScope(
        Worker.layer([Once, Plain], { drainTimeout: "1 second" }).pipe(
          Layer.provide([Once.toLayer(() => handler), Plain.toLayer(() => handler)]),
          Layer.provide(fixture.layer)
        ),
        scope
      )
      yield* advance("100 millis")
      const stopping = yield* MemoryFixture.fork(Scope.close(scope, Exit.void))
      yield* advance("2 seconds")
      MemoryFixture.assertPending(stopping)
      yield* over.open
      yield* advance("100 millis")
      assert.deepStrictEqual(MemoryFixture.exitOf(stopping), Exit.void)
      const records = yield* fixture.driver.read(["a", "b"])
      assert.deepStrictEqual(
        records.map((record) => [record?.state, record?.attempt]),
        [
          ["PENDING", 0],
          ["PENDING", 0]
        ]
      )
      const [counts] = withoutAges(yield* fixture.broker.counts(["default"]))
      assert.deepStrictEqual(counts, { ready: 2, delayed: 0, claimed: 0 })
      assert.strictEqual(ran, 0)
    })
  )
})
