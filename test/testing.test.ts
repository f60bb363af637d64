import { assert, describe, it } from "@effect/vitest"
import { AsyncResult, Task, TaskContext, Worker } from "chicory"
import { Testing } from "chicory/testing"
import { Effect, Exit, Layer, Schema } from "effect"
import { TestClock } from "effect/testing"

const Double = Task.make("double", { payload: { n: Schema.Int }, success: Schema.Int })
const DoubleLive = Double.toLayer(({ n }) => Effect.succeed(2 * n))
const WorkerLive = Layer.provide(Worker.layer([Double], { drainTimeout: 0 }), DoubleLive)

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
})
