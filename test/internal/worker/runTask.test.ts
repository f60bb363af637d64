import { assert, describe, it } from "@effect/vitest"
import { AsyncResult, Backend, Broker, Task, Worker } from "chicory"
import { Effect, Exit, Latch, Layer, Schema, SchemaGetter, Scope } from "effect"
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
})
