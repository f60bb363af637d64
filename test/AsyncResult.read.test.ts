import { assert, describe } from "@effect/vitest"
import { AsyncResult, Backend } from "chicory"
import { Effect, Exit, Fiber, Option } from "effect"
import { TestClock } from "effect/testing"
import { handle, unreliable } from "./support/asyncResults.ts"
import { fork, advance, reasonOf, assertPending } from "./support/memoryFixture.ts"
import { test } from "./support/memoryTest.ts"

describe("exit", () => {
  test("returns the task's failure as a value", function* (on) {
    yield* on.create("a")
    const waiting = yield* fork(AsyncResult.exit(handle()))
    yield* advance("1 second")
    assertPending(waiting)
    yield* on.fail("a", "no")
    const exit = yield* Fiber.join(waiting)
    assert(Exit.isFailure(exit))
    assert.strictEqual(reasonOf(Option.getOrThrow(Exit.findErrorOption(exit)))._tag, "Failed")
    yield* on.create("b")
    yield* on.succeed("b", 42)
    assert.deepStrictEqual(yield* handle("b").pipe(AsyncResult.exit), Exit.succeed(42))
  })

  test("fails with TimeoutError at its deadline", function* () {
    const waiting = yield* fork(Effect.flip(AsyncResult.exit(handle(), { timeout: "1 second" })))
    yield* advance("1 second")
    assert.strictEqual((yield* Fiber.join(waiting))._tag, "TimeoutError")
  })
})

describe("state, poll, ready, successful and failed", () => {
  const states = Effect.gen(function* () {
    return [
      yield* AsyncResult.state(handle()),
      yield* AsyncResult.ready(handle()),
      yield* AsyncResult.failed(handle()),
      yield* AsyncResult.successful(handle())
    ]
  })

  test("report PENDING for an unknown id, and None from poll", function* (on) {
    assert.deepStrictEqual(yield* states, ["PENDING", false, false, false])
    assert.deepStrictEqual(yield* AsyncResult.poll(handle()), Option.none())
    yield* on.create("a")
    assert.deepStrictEqual(yield* states, ["PENDING", false, false, false])
    assert.isTrue(Option.isSome(yield* AsyncResult.poll(handle())))
  })

  test("report a running or retrying task as not ready", function* (on) {
    yield* on.create("a")
    yield* on.start("a")
    assert.deepStrictEqual(yield* states, ["STARTED", false, false, false])
    yield* on.settle("a", { _tag: "Retry", afterMillis: 1000 })
    assert.deepStrictEqual(yield* states, ["RETRY", false, false, false])
  })

  test("report SUCCESS as ready and successful", function* (on) {
    yield* on.create("a")
    yield* on.succeed("a", 42)
    assert.deepStrictEqual(yield* states, ["SUCCESS", true, false, true])
  })

  test("report FAILURE as ready and failed", function* (on) {
    yield* on.create("a")
    yield* on.fail("a", "no")
    assert.deepStrictEqual(yield* states, ["FAILURE", true, true, false])
  })

  test("report attempts, times and worker of a task", function* (on) {
    yield* TestClock.setTime(1000)
    yield* on.create("a")
    yield* TestClock.setTime(2000)
    yield* on.start("a")
    yield* on.progress("a", 7)
    const running = Option.getOrThrow(yield* AsyncResult.poll(handle()))
    assert.strictEqual(running.state, "STARTED")
    assert.deepStrictEqual(running.exit, Option.none())
    assert.deepStrictEqual(running.progress, Option.some(7))
    assert.deepStrictEqual(running.worker, Option.some("w1"))
    assert.deepStrictEqual(running.finishedAt, Option.none())
    yield* TestClock.setTime(3000)
    yield* on.settle("a", {
      _tag: "Success",
      exit: `{"_tag":"Success","value":42}`,
      retentionMillis: undefined
    })
    const done = Option.getOrThrow(yield* AsyncResult.poll(handle()))
    assert.deepStrictEqual(done.exit, Option.some(Exit.succeed(42)))
    assert.strictEqual(done.attempts, 1)
    assert.strictEqual(done.taskId, "a")
    assert.strictEqual(done.taskName, "sum")
    assert.deepStrictEqual(
      [done.enqueuedAt, done.startedAt, done.finishedAt].map((at) => Option.getOrThrow(at).epochMilliseconds),
      [1000, 2000, 3000]
    )
  })

  test(
    "fail at once with the backend's error, naming the task",
    function* () {
      const error = yield* Effect.flip(AsyncResult.state(handle()))
      assert(error instanceof Backend.BackendError)
      assert.strictEqual(error.taskId, "a")
      assert.isTrue(error.retryable)
      assert.include(error.message, "memory backend: read failed for task a")
    },
    unreliable(() => true, false)
  )
})
