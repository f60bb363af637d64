import { assert, describe } from "@effect/vitest"
import { AsyncResult, Task, Worker } from "chicory"
import { Effect, Exit, Fiber, Latch, Layer, Option, Schema, Scope } from "effect"
import { advance, assertPending, fork, type MemoryFixture } from "../../support/memoryFixture.ts"
import { test } from "../../support/memoryTest.ts"

const Child = Task.make("child", { queue: "elsewhere", success: Schema.String })
const Work = Task.make("work", { success: Schema.String })
const Parent = Task.make("parent", { payload: { waitsAfter: Schema.Number }, success: Schema.String })
const Once = Task.make("once", { success: Schema.String, delivery: "at-most-once" })

const drainTimeout = "1 minute"

/** A stopping worker over the fixture, whose handlers wait for `child`, and whose `work` waits for `gate`. */
const make = Effect.fnUntraced(function* (on: MemoryFixture, options?: Worker.Options) {
  const gate = yield* Latch.make()
  const child = yield* Child.delay()
  let runs = 0
  let interrupted = 0
  const wait = AsyncResult.get(child).pipe(
    Effect.onInterrupt(() => Effect.sync(() => interrupted++)),
    Effect.orDie,
    Effect.provideContext(on.context)
  )
  const handlers = Layer.mergeAll(
    Work.toLayer(() => Effect.as(gate.await, "worked")),
    Parent.toLayer(({ waitsAfter }) =>
      Effect.andThen(
        Effect.sync(() => runs++),
        Effect.andThen(Effect.sleep(waitsAfter), wait)
      )
    ),
    Once.toLayer(() => wait)
  )
  const scope = yield* Scope.make()
  yield* Layer.buildWithScope(
    Worker.layer([Work, Parent, Once], { drainTimeout, ...options }).pipe(
      Layer.provide(handlers),
      Layer.provide(on.layer)
    ),
    scope
  )
  return {
    gate,
    child,
    runs: () => runs,
    interrupted: () => interrupted,
    stop: fork(Scope.close(scope, Exit.void)),
    /** Runs the child, as a worker of its queue does. */
    runChild: Effect.andThen(
      on.brokerDriver.claim({ queues: ["elsewhere"], max: 1, leaseMillis: 1e6, worker: "w1" }),
      Effect.andThen(
        on.start(child.taskId, { task: "child" }),
        on.settle(child.taskId, {
          _tag: "Success",
          exit: JSON.stringify({ _tag: "Success", value: "done" }),
          retentionMillis: undefined
        })
      )
    )
  }
})

/** The state of a task, and its attempts. */
const stateOf = (result: AsyncResult.AsyncResult<unknown, unknown>) =>
  Effect.map(AsyncResult.poll(result), (found) => {
    const { attempts, state } = Option.getOrThrow(found)
    return [state, attempts]
  })

describe("guarantee 7: a run that only waits for other tasks, in a worker that stops", () => {
  test("is put back, uncounted, once nothing else runs, and leaves what it waits for alone", function* (on) {
    const worker = yield* make(on)
    const parent = yield* Parent.delay({ waitsAfter: 0 })
    yield* advance("1 second")
    const stopping = yield* worker.stop
    yield* advance("900 millis")
    assertPending(stopping)
    yield* advance("100 millis")
    yield* Fiber.join(stopping)
    assert.strictEqual(worker.interrupted(), 1)
    assert.deepStrictEqual(yield* stateOf(parent), ["PENDING", 0])
    assert.deepStrictEqual(yield* stateOf(worker.child), ["PENDING", 0])
    const counts = yield* on.broker.counts(["default", "elsewhere"])
    assert.deepStrictEqual(
      counts.map(({ ready }) => ready),
      [1, 1]
    )
  })

  test("finishes where the awaited task ends meanwhile", function* (on) {
    const worker = yield* make(on)
    const [parent, work] = [yield* Parent.delay({ waitsAfter: 0 }), yield* Work.delay()]
    yield* advance("1 second")
    const stopping = yield* worker.stop
    yield* advance("3 seconds")
    yield* worker.runChild
    yield* worker.gate.open
    yield* advance("100 millis")
    yield* Fiber.join(stopping)
    assert.deepStrictEqual(yield* stateOf(parent), ["SUCCESS", 1])
    assert.deepStrictEqual(yield* stateOf(work), ["SUCCESS", 1])
    assert.strictEqual(worker.interrupted(), 0)
  })

  test("finishes where the awaited task has just ended in the worker, whatever the read of its end takes", function* (on) {
    const worker = yield* make(on)
    const parent = yield* Parent.delay({ waitsAfter: 0 })
    yield* advance("1 second")
    const stopping = yield* worker.stop
    yield* advance("900 millis")
    yield* worker.runChild
    yield* advance("100 millis")
    yield* Fiber.join(stopping)
    assert.deepStrictEqual(yield* stateOf(parent), ["SUCCESS", 1])
  })

  test("is put back 5 seconds after the drain began although others run, which finish", function* (on) {
    const worker = yield* make(on)
    const [parent, work] = [yield* Parent.delay({ waitsAfter: 0 }), yield* Work.delay()]
    yield* advance("1 second")
    const stopping = yield* worker.stop
    yield* advance("4900 millis")
    assert.deepStrictEqual(yield* stateOf(parent), ["STARTED", 1])
    yield* advance("100 millis")
    assert.deepStrictEqual(yield* stateOf(parent), ["PENDING", 0])
    yield* advance("20 seconds")
    assertPending(stopping)
    yield* worker.gate.open
    yield* Fiber.join(stopping)
    assert.deepStrictEqual(yield* stateOf(work), ["SUCCESS", 1])
  })

  test("is put back where it begins to wait later", function* (on) {
    const worker = yield* make(on)
    const [parent, work] = [yield* Parent.delay({ waitsAfter: 10_000 }), yield* Work.delay()]
    yield* advance("1 second")
    const stopping = yield* worker.stop
    yield* advance("9 seconds")
    assert.deepStrictEqual(yield* stateOf(parent), ["STARTED", 1])
    yield* advance("1 second")
    assert.deepStrictEqual(yield* stateOf(parent), ["PENDING", 0])
    yield* worker.gate.open
    yield* Fiber.join(stopping)
    assert.deepStrictEqual(yield* stateOf(work), ["SUCCESS", 1])
  })

  test("finishes where its wait is over and it waits for a slot", function* (on) {
    const worker = yield* make(on, { concurrency: 1 })
    const parent = yield* Parent.delay({ waitsAfter: 0 })
    yield* advance("1 second")
    const work = yield* Work.delay()
    yield* advance("1 second")
    const stopping = yield* worker.stop
    yield* worker.runChild
    yield* advance("10 seconds")
    assertPending(stopping)
    assert.deepStrictEqual(yield* stateOf(parent), ["STARTED", 1])
    yield* worker.gate.open
    yield* advance("1 second")
    yield* Fiber.join(stopping)
    assert.deepStrictEqual(yield* stateOf(work), ["SUCCESS", 1])
    assert.deepStrictEqual(yield* stateOf(parent), ["SUCCESS", 1])
  })

  test("waits on until the end of the drain if it may not run again", function* (on) {
    const worker = yield* make(on)
    const once = yield* Once.delay()
    yield* advance("1 second")
    const stopping = yield* worker.stop
    yield* advance("59 seconds")
    assertPending(stopping)
    assert.deepStrictEqual(yield* stateOf(once), ["STARTED", 1])
    yield* worker.runChild
    yield* advance("100 millis")
    yield* Fiber.join(stopping)
    assert.deepStrictEqual(yield* stateOf(once), ["SUCCESS", 1])
  })
})
