import { assert, describe, it } from "@effect/vitest"
import { AsyncResult, Backend, Broker, Task, Worker } from "chicory"
import { Context, Effect, Exit, Latch, Layer, Metric, Schema, SchemaGetter, Scope, Stream } from "effect"
import { captureLogs } from "../../../src/testing/suites/worker/captureLogs.ts"
import * as MemoryFixture from "../../support/memoryFixture.ts"
import { withoutAges } from "../../support/withoutAges.ts"
import * as WorkerFixture from "./workerFixture.ts"

/** A worker of two slots over a broker that answers no ack until the gate opens; the scope is its own. */
const make = Effect.fnUntraced(function* (options?: Worker.Options) {
  const gate = yield* Latch.make(false)
  const worker = yield* WorkerFixture.make({
    worker: { concurrency: 2, ...options },
    broker: (driver) => ({ ack: (handles) => Effect.andThen(gate.await, driver.ack(handles)) })
  })
  const scope = yield* Scope.make()
  yield* Scope.provide(worker.start, scope)
  // the worker waits for its acks when it stops
  yield* Effect.addFinalizer((exit) => Effect.andThen(gate.open, Scope.close(scope, exit)))
  return { ...worker, gate, scope }
})

describe("the slot of a run", () => {
  it.effect("is free before the message of the ended task is acked", () =>
    Effect.gen(function* () {
      const { enqueueAll, ran } = yield* make()
      yield* enqueueAll(3)
      yield* MemoryFixture.advance("1 second")
      assert.deepStrictEqual(ran, [0, 1, 2])
    })
  )

  it.effect("is free while the outcome of the ended handler is stored", () =>
    Effect.gen(function* () {
      const stored = yield* Latch.make(false)
      const { enqueueAll, ran, start } = yield* WorkerFixture.make({
        worker: { concurrency: 2 },
        backend: (driver) => ({
          settle: (settlements) => Effect.andThen(stored.await, driver.settle(settlements))
        })
      })
      yield* start
      yield* Effect.addFinalizer(() => stored.open)
      yield* enqueueAll(10)
      yield* MemoryFixture.advance("5 seconds")
      // two outcomes are stored without a slot, two with one
      assert.strictEqual(ran.length, 4)
      yield* stored.open
      yield* MemoryFixture.advance("5 seconds")
      assert.strictEqual(ran.length, 10)
    })
  )

  it.effect("is kept when as many acks as there are slots are in flight", () =>
    Effect.gen(function* () {
      const { enqueueAll, fixture, gate, ran } = yield* make()
      yield* enqueueAll(10)
      yield* MemoryFixture.advance("5 seconds")
      // two acks are in flight without a slot, two with one
      assert.strictEqual(ran.length, 4)
      yield* gate.open
      yield* MemoryFixture.advance("5 seconds")
      assert.strictEqual(ran.length, 10)
      assert.strictEqual(new Set(fixture.items("ack")).size, 10)
    })
  )
})

describe("guarantee 5: a run whose fiber is killed", () => {
  /** Kills the fiber that runs it. */
  const noEffect = Effect.flatMap(Effect.void, () => undefined as unknown as Effect.Effect<never>)
  const killing = Schema.String.pipe(
    Schema.decodeTo(Schema.String, {
      decode: SchemaGetter.passthrough(),
      encode: SchemaGetter.transformEffect(() => noEffect)
    })
  )

  /** Runs the task once, and returns how it ended. */
  const run = Effect.fnUntraced(function* (task: Task.Any, handler: Effect.Effect<unknown, unknown>) {
    const fixture = yield* MemoryFixture.make({ hints: false })
    yield* MemoryFixture.startWorker(
      fixture,
      task,
      (task as typeof Plain).toLayer(() => handler as Effect.Effect<void>)
    )
    const handle = yield* Effect.provideContext((task as typeof Plain).delay(), fixture.context)
    yield* MemoryFixture.advance("2 seconds")
    const ended = yield* Effect.flip(Effect.provideContext(AsyncResult.get(handle), fixture.context))
    return MemoryFixture.reasonOf(ended)._tag
  })
  const Plain = Task.make("plain")

  it.effect("by the encoding of its success has died", () =>
    Effect.map(run(Task.make("a", { success: killing }), Effect.succeed("done")), (tag) =>
      assert.strictEqual(tag, "Died")
    )
  )

  it.effect("by the encoding of its error has died", () =>
    Effect.map(run(Task.make("a", { error: killing }), Effect.fail("no")), (tag) =>
      assert.strictEqual(tag, "Died")
    )
  )
})

describe("a task that its start ends", () => {
  const Brittle = Task.make("brittle", { maxCrashes: 1 })

  /** Returns the counts of a metric that are not zero, by task or by queue. */
  const counts = (id: string) =>
    Effect.map(Metric.snapshot, (all) =>
      Object.fromEntries(
        all
          .filter((metric) => metric.id === id)
          .map(
            ({ attributes, state }) =>
              [
                attributes?.["chicory.task.name"] ?? attributes?.["messaging.destination.name"] ?? "",
                Number((state as { readonly count: number | bigint }).count)
              ] as const
          )
          .filter(([, count]) => count > 0)
      )
    )

  /** Lets a worker start the message of a task, and returns what becomes visible of it. */
  const startOne = Effect.fnUntraced(function* (
    prepare: (fixture: MemoryFixture.MemoryFixture) => Effect.Effect<unknown, unknown>
  ) {
    const logs = captureLogs()
    const events: Array<Worker.WorkerEvent> = []
    // without its hints the store does not end by itself what is over
    const fixture = yield* MemoryFixture.make({ hints: false })
    yield* prepare(fixture)
    const layer = Worker.layer([Brittle], { drainTimeout: 0 }).pipe(
      Layer.provide(Brittle.toLayer(() => Effect.void)),
      Layer.provide(fixture.layer)
    )
    const worker = Context.get(yield* logs.capture(Layer.build(layer)), Worker.Worker)
    yield* Effect.forkScoped(
      Stream.runForEach(worker.events, (event) => Effect.sync(() => void events.push(event))),
      { startImmediately: true }
    )
    yield* fixture.broker.publish.one({
      id: "a",
      task: "brittle",
      queue: "default",
      priority: 100,
      delayMillis: 0,
      body: `{"v":1,"id":"a","generation":0,"task":"brittle","queue":"default","payload":null,"retries":0,"priority":100}`
    })
    yield* MemoryFixture.advance("1 second")
    return {
      lines: logs.lines
        .filter(({ annotations, level }) => annotations["taskId"] === "a" && level !== "Debug")
        .map(({ level, text }) => `${level} ${text}`),
      events: events.map((event) => (event._tag === "Failed" ? `${event._tag} ${event.reason}` : event._tag)),
      failed: (yield* worker.stats).failed,
      deadLetters: yield* counts("chicory.task.dead_letters"),
      duplicates: yield* counts("chicory.worker.duplicates_suppressed")
    }
  })

  const running = (fixture: MemoryFixture.MemoryFixture) =>
    Effect.andThen(
      fixture.create("a", { task: "brittle" }),
      fixture.start("a", { task: "brittle", leaseMillis: 1000 })
    )
  const untilLapsed = MemoryFixture.advance("2 seconds")

  const test = (title: string, body: Effect.Effect<void, unknown, Scope.Scope>) =>
    it.effect(title, () => Effect.provideService(body, Metric.MetricRegistry, new Map()))

  test(
    "as WorkerLost is logged, counted as a dead letter, and is no duplicate",
    Effect.gen(function* () {
      const seen = yield* startOne((fixture) => Effect.andThen(running(fixture), untilLapsed))
      assert.deepStrictEqual(seen, {
        lines: ["Warn Failed to run a task; the task has ended as WorkerLost, with a dead letter"],
        events: ["Failed WorkerLost"],
        failed: 1,
        deadLetters: { brittle: 1 },
        duplicates: {}
      })
    })
  )

  test(
    "as Cancelled, since that was requested of a run whose worker was lost, is a line at Info",
    Effect.gen(function* () {
      const seen = yield* startOne((fixture) =>
        running(fixture).pipe(Effect.andThen(fixture.driver.cancel(["a"])), Effect.andThen(untilLapsed))
      )
      assert.deepStrictEqual(seen, {
        lines: ["Info Ended a run whose task was cancelled; the task has ended as Cancelled"],
        events: ["Failed Cancelled"],
        failed: 1,
        deadLetters: {},
        duplicates: {}
      })
    })
  )

  test(
    "as Expired is a line at Info",
    Effect.gen(function* () {
      const seen = yield* startOne((fixture) =>
        Effect.andThen(fixture.create("a", { task: "brittle", expiresMillis: 1000 }), untilLapsed)
      )
      assert.deepStrictEqual(seen, {
        lines: ["Info Dropped a message whose task has expired; the task has ended as Expired"],
        events: ["Failed Expired"],
        failed: 1,
        deadLetters: {},
        duplicates: {}
      })
    })
  )

  test(
    "is a duplicate, and no line, where it had ended before",
    Effect.gen(function* () {
      const seen = yield* startOne((fixture) =>
        Effect.andThen(fixture.create("a", { task: "brittle" }), fixture.driver.cancel(["a"]))
      )
      assert.deepStrictEqual(seen, {
        lines: [],
        events: [],
        failed: 0,
        deadLetters: {},
        duplicates: { default: 1 }
      })
    })
  )
})

describe("guarantee 7: a stopping worker", () => {
  it.effect("waits until the messages of ended tasks are acked", () =>
    Effect.gen(function* () {
      const { enqueueAll, gate, ran, scope } = yield* make({ drainTimeout: "1 minute" })
      yield* enqueueAll(1)
      yield* MemoryFixture.advance("1 second")
      assert.strictEqual(ran.length, 1)
      const stopping = yield* MemoryFixture.fork(Scope.close(scope, Exit.void))
      yield* MemoryFixture.advance("10 seconds")
      MemoryFixture.assertPending(stopping)
      yield* gate.open
      yield* MemoryFixture.advance("1 second")
      assert.deepStrictEqual(MemoryFixture.exitOf(stopping), Exit.void)
    })
  )

  it.effect("interrupts its handlers after the drain timeout and releases their messages uncounted", () =>
    Effect.gen(function* () {
      const worker = yield* WorkerFixture.make({
        worker: { drainTimeout: "10 seconds" },
        handler: () => Effect.never
      })
      const scope = yield* Scope.make()
      yield* worker.enqueue("a")
      yield* Scope.provide(worker.start, scope)
      const stopping = yield* MemoryFixture.fork(Scope.close(scope, Exit.void))
      yield* MemoryFixture.advance("9 seconds")
      MemoryFixture.assertPending(stopping)
      yield* MemoryFixture.advance("1 second")
      assert.deepStrictEqual(MemoryFixture.exitOf(stopping), Exit.void)
      const { attempt, state } = yield* worker.record("a")
      assert.deepStrictEqual([state, attempt], ["PENDING", 0])
      const [counts] = withoutAges(yield* worker.fixture.broker.counts(["default"]))
      assert.deepStrictEqual(counts, { ready: 1, delayed: 0, claimed: 0 })
    })
  )
})

describe("guarantee 1: an at-most-once task", () => {
  const Once = Task.make("once", { delivery: "at-most-once" })

  /** Runs the task with a broker whose ack answers so, with or without a backend. */
  const run = Effect.fnUntraced(function* (acks: "acked" | "gone" | "fails", hasRecords: boolean) {
    const order: Array<string> = []
    const fixture = yield* MemoryFixture.make({
      hints: false,
      broker: (driver) => ({
        ack: (handles) =>
          Effect.suspend(() => {
            order.push("ack")
            if (acks === "fails") return Effect.fail("cut off")
            const acked = driver.ack(handles)
            return acks === "acked" ? acked : Effect.as(acked, [false])
          })
      })
    })
    const layer = hasRecords
      ? fixture.layer
      : Layer.merge(Backend.layerNotConfigured, Layer.succeed(Broker.Broker, fixture.broker))
    yield* Effect.provide(Once.send(), layer)
    yield* Layer.build(
      Worker.layer([Once], { drainTimeout: 0 }).pipe(
        Layer.provide(Once.toLayer(() => Effect.sync(() => void order.push("run")))),
        Layer.provide(layer)
      )
    )
    yield* MemoryFixture.advance("5 seconds")
    return order
  })

  it.effect("is acked before it runs", () =>
    Effect.map(run("acked", true), (order) => assert.deepStrictEqual(order.slice(0, 2), ["ack", "run"]))
  )

  it.effect("is not run without a backend when its message is gone", () =>
    Effect.map(run("gone", false), (order) => assert.deepStrictEqual(order, ["ack"]))
  )

  it.effect("is not run without a backend when its ack fails", () =>
    Effect.map(run("fails", false), (order) => assert.notInclude(order, "run"))
  )

  it.effect("is run with a record when its ack fails", () =>
    Effect.map(run("fails", true), (order) => assert.include(order, "run"))
  )

  it.effect("is no line of its own when its ack fails since the broker is away", () => {
    const logs = captureLogs()
    return Effect.gen(function* () {
      yield* run("fails", true)
      assert.deepStrictEqual(logs.texts("Warn"), [
        "Failed to call the store memory; calls are repeated until it answers again"
      ])
      assert.lengthOf(
        logs.beginning("Failed to ack an at-most-once message").filter(({ level }) => level === "Debug"),
        1
      )
    }).pipe(logs.capture)
  })
})
