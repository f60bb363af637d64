import { assert, describe, it } from "@effect/vitest"
import { AsyncResult, DeadLetters, MemoryStore, Task, TaskContext, Worker } from "chicory"
import { Testing } from "chicory/testing"
import { Cause, DateTime, Duration, Effect, Exit, Latch, Layer, Schema } from "effect"
import { TestClock } from "effect/testing"

const Double = Task.make("double", { payload: { n: Schema.Int }, success: Schema.Int })
const DoubleLive = Double.toLayer(({ n }) => Effect.succeed(2 * n))
const Other = Task.make("other")
const Remind = Task.make("remind", { payload: { at: Schema.DateTimeUtc } })
const Failing = Task.make("failing", { error: Schema.String })
const FailingLive = Layer.provide(
  Worker.layer([Failing]),
  Failing.toLayer(() => Effect.fail("no"))
)
const WorkerLive = Layer.provide(Worker.layer([Double]), DoubleLive)

describe("Testing.layer", () => {
  it.effect("runs a program with its worker under the test clock", () =>
    Effect.gen(function* () {
      const result = yield* Double.delay({ n: 21 }, { delay: "1 hour" })
      assert.isFalse(yield* AsyncResult.ready(result))
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(yield* AsyncResult.get(result), 42)
    }).pipe(Effect.provide(WorkerLive), Effect.provide(Testing.layer))
  )

  it.effect("is an empty store for each build", () => {
    const enqueue = Effect.provide(Double.delay({ n: 1 }, { id: "same" }), Testing.layer)
    const conflicting = Effect.provide(Double.delay({ n: 2 }, { id: "same" }), Testing.layer)
    return Effect.andThen(enqueue, conflicting)
  })
})

describe("a worker on Testing.layer", () => {
  it.effect("stops at once while a handler runs", () =>
    Effect.gen(function* () {
      const Endless = Task.make("endless")
      const begun = yield* Latch.make()
      const handler = Endless.toLayer(() => Effect.andThen(begun.open, Effect.never))
      const worker = Layer.provide(Worker.layer([Endless]), handler)
      const result = yield* Effect.andThen(Endless.delay(), (result) => Effect.as(begun.await, result)).pipe(
        Effect.provide(worker)
      )
      assert.strictEqual(yield* AsyncResult.state(result), "PENDING")
    }).pipe(Effect.provide(Testing.layer))
  )
})

describe("Testing.enqueued", () => {
  it.effect("returns what was enqueued of a task, in order, also after it has run", () =>
    Effect.gen(function* () {
      const first = yield* Double.delay({ n: 1 })
      yield* Other.delay()
      const [second] = yield* Double.delayAll([{ n: 2 }], { delay: "1 hour", queue: "later", priority: 7 })
      yield* AsyncResult.get(first)
      assert.deepStrictEqual(yield* Testing.enqueued(Double), [
        { taskId: first.taskId, payload: { n: 1 }, queue: "default", priority: 100, delay: Duration.zero },
        { taskId: second!.taskId, payload: { n: 2 }, queue: "later", priority: 7, delay: Duration.hours(1) }
      ])
    }).pipe(Effect.provide(WorkerLive), Effect.provide(Testing.layer))
  )

  it.effect("leaves out a call whose id was there already", () =>
    Effect.gen(function* () {
      yield* Double.delay({ n: 1 }, { id: "same" })
      yield* Double.delay({ n: 1 }, { id: "same" })
      assert.lengthOf(yield* Testing.enqueued(Double), 1)
    }).pipe(Effect.provide(Testing.layer))
  )

  it.effect("leaves out the replay of a dead letter", () =>
    Effect.gen(function* () {
      const result = yield* Failing.delay()
      yield* AsyncResult.exit(result)
      const [letter] = yield* DeadLetters.list(Failing)
      yield* DeadLetters.replay(letter!.id)
      assert.lengthOf(yield* Testing.enqueued(Failing), 1)
    }).pipe(Effect.provide(FailingLive), Effect.provide(Testing.layer))
  )

  it.effect("returns payloads as values of their schema", () =>
    Effect.gen(function* () {
      const at = DateTime.makeUnsafe("2030-01-01T00:00:00Z")
      yield* Remind.delay({ at })
      const [reminder] = yield* Testing.enqueued(Remind)
      assert.isTrue(DateTime.isDateTime(reminder!.payload.at))
      assert.strictEqual(DateTime.toEpochMillis(reminder!.payload.at), DateTime.toEpochMillis(at))
    }).pipe(Effect.provide(Testing.layer))
  )

  it.effect("dies on another store", () =>
    Effect.gen(function* () {
      assert.isTrue(Exit.hasDies(yield* Effect.exit(Testing.enqueued(Double))))
    }).pipe(Effect.provide(MemoryStore.layer()))
  )
})

describe("Testing.context", () => {
  it.effect("gives a handler its attempt", () =>
    Effect.gen(function* () {
      const context = yield* TaskContext.TaskContext
      assert.deepInclude(context, { attempt: 3, retries: 2, isLastRetry: false, remainingRetries: 1 })
    }).pipe(Effect.provide(Testing.context({ retries: 2, maxRetries: 3 })))
  )

  it.effect("gives no retry to an attempt after the last one", () =>
    Effect.gen(function* () {
      const context = yield* TaskContext.TaskContext
      assert.deepInclude(context, { isLastRetry: true, remainingRetries: 0 })
    }).pipe(Effect.provide(Testing.context({ retries: 5, maxRetries: 3 })))
  )

  it.effect("lets a retry end the handler", () =>
    Effect.gen(function* () {
      const { retry } = yield* TaskContext.TaskContext
      assert.isTrue(Exit.hasDies(yield* Effect.exit(retry({ countdown: "1 second" }))))
    }).pipe(Effect.provide(Testing.context()))
  )

  it.effect("tells a handler that writes progress which name it has to be given", () =>
    Effect.gen(function* () {
      const Counting = Task.make("counting", { progress: Schema.Int })
      const exit = yield* Effect.exit(Counting.progress(1).pipe(Effect.provide(Testing.context())))
      assert(Exit.isFailure(exit))
      assert.include(Cause.pretty(exit.cause), 'give the handler Testing.context({ taskName: "counting" })')
      yield* Counting.progress(1).pipe(Effect.provide(Testing.context({ taskName: "counting" })))
    })
  )
})
