import { assert, describe, it } from "@effect/vitest"
import { AsyncResult, Backend } from "chicory"
import { Effect, Exit, Fiber, Schedule, Stream } from "effect"
import { handle, Outage, unreliable } from "./support/asyncResults.ts"
import { fork, exitOf, advance, assertPending } from "./support/memoryFixture.ts"
import { test } from "./support/memoryTest.ts"

describe("get, while the backend is unavailable", () => {
  for (const hints of [true, false]) {
    const where = hints ? "with hints" : "without hints"

    const empty = () => Effect.succeed([])
    test(
      `does not ask again and again where a driver answers no item, ${where}`,
      function* (on) {
        const waiting = yield* fork(Effect.flip(AsyncResult.get(handle(), { timeout: "5 seconds" })))
        yield* advance("5 seconds")
        const error = yield* Fiber.join(waiting)
        assert(error instanceof AsyncResult.TimeoutError)
        assert.include(error.message, "the driver answered no item of a batch")
        assert.isAtMost(on.count("read", "subscribe"), 20)
      },
      { hints, backend: () => ({ read: empty, subscribe: empty }) }
    )

    let down = true
    test(
      `waits until the store is back, ${where}`,
      function* (on) {
        down = true
        yield* on.create("a")
        const waiting = yield* fork(AsyncResult.get(handle()))
        yield* advance("1 minute")
        assertPending(waiting)
        yield* on.succeed("a", 42)
        down = false
        yield* advance("2 seconds")
        assert.deepStrictEqual(exitOf(waiting), Exit.succeed(42))
      },
      unreliable(() => down, hints)
    )

    test(
      `carries the backend's last error in TimeoutError, ${where}`,
      function* () {
        const waiting = yield* fork(Effect.flip(AsyncResult.get(handle(), { timeout: "5 seconds" })))
        yield* advance("5 seconds")
        const error = yield* Fiber.join(waiting)
        assert(error instanceof AsyncResult.TimeoutError)
        assert(error.cause instanceof Backend.BackendError)
        assert.instanceOf(error.cause.cause, Outage)
        assert.include(error.message, "the last read failed: ")
      },
      unreliable(() => true, hints)
    )

    test(
      `retries transient errors as often as ReadRetry allows, ${where}`,
      function* (on) {
        const none = yield* AsyncResult.get(handle()).pipe(
          Effect.provideService(AsyncResult.ReadRetry, Schedule.recurs(0)),
          Effect.flip
        )
        assert(none instanceof Backend.BackendError)
        assert.strictEqual(none.taskId, "a")
        assert.strictEqual(on.count("read", "subscribe"), 1)
        const waiting = yield* fork(
          AsyncResult.get(handle()).pipe(
            Effect.provideService(
              AsyncResult.ReadRetry,
              Schedule.max([Schedule.spaced("1 second"), Schedule.recurs(2)])
            ),
            Effect.flip
          )
        )
        yield* advance("1999 millis")
        assertPending(waiting)
        yield* advance("1 second")
        assert.instanceOf(yield* Fiber.join(waiting), Backend.BackendError)
      },
      unreliable(() => true, hints)
    )

    test(
      `fails at once with a permanent error, ${where}`,
      function* () {
        const error = yield* Effect.flip(AsyncResult.get(handle(), { timeout: "5 seconds" }))
        assert(error instanceof Backend.BackendError)
        assert.isFalse(error.retryable)
        assert.strictEqual(error.taskId, "a")
        assert.include(error.message, "trying again will not help")
      },
      unreliable(() => true, hints, true)
    )

    test(
      `bounds the final read by one second when the store hangs, ${where}`,
      function* () {
        const waiting = yield* fork(Effect.flip(AsyncResult.get(handle(), { timeout: "5 seconds" })))
        yield* advance("5999 millis")
        assertPending(waiting)
        yield* advance("1 millis")
        assert.strictEqual((yield* Fiber.join(waiting))._tag, "TimeoutError")
      },
      {
        hints,
        backend: () => ({
          read: () => Effect.interruptible(Effect.never),
          subscribe: () => Effect.interruptible(Effect.never)
        })
      }
    )
  }
})

describe("without a backend", () => {
  it.effect("fails every read with BackendNotConfigured, naming the task", () =>
    Effect.gen(function* () {
      const asked = [
        AsyncResult.get(handle()),
        AsyncResult.get(handle(), { timeout: "5 seconds" }),
        AsyncResult.exit(handle()),
        AsyncResult.poll(handle()),
        AsyncResult.state(handle()),
        AsyncResult.ready(handle()),
        AsyncResult.failed(handle()),
        AsyncResult.successful(handle()),
        AsyncResult.cancel(handle()),
        AsyncResult.forget(handle()),
        Stream.runDrain(AsyncResult.changes(handle()))
      ]
      for (const effect of asked) {
        const error = yield* Effect.flip(effect)
        assert(error instanceof Backend.BackendNotConfigured)
        assert.strictEqual(error.taskId, "a")
        assert.include(error.message, "for task a: provide one")
      }
      const many = [
        AsyncResult.all([handle()]),
        AsyncResult.race([handle()]),
        Stream.runDrain(AsyncResult.stream([handle()]))
      ]
      for (const effect of many) {
        const error = yield* Effect.flip(effect)
        assert.instanceOf(error, Backend.BackendNotConfigured)
      }
    }).pipe(Effect.provide(Backend.layerNotConfigured))
  )
})
