/** The test that the README shows, with its task. */
import { assert, it } from "@effect/vitest"
import { AsyncResult, Task, Worker } from "chicory"
import { Testing } from "chicory/testing"
import { Effect, Fiber, Layer, Schema } from "effect"
import { TestClock } from "effect/testing"

const Divide = Task.make("math.divide", {
  payload: { dividend: Schema.Number, divisor: Schema.Number },
  success: Schema.Number
})
const DivideLive = Divide.toLayer(({ dividend, divisor }) => Effect.succeed(dividend / divisor))

const TestLive = Worker.layer([Divide]).pipe(Layer.provide(DivideLive), Layer.provideMerge(Testing.layer))

it.effect("divides an hour later", () =>
  Effect.gen(function* () {
    const result = yield* Divide.delay({ dividend: 6, divisor: 3 }, { delay: "1 hour" })
    const fiber = yield* Effect.forkChild(AsyncResult.get(result))
    yield* TestClock.adjust("1 hour")
    assert.strictEqual(yield* Fiber.join(fiber), 2)
  }).pipe(Effect.provide(TestLive))
)
