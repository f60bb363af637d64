import { assert, describe } from "@effect/vitest"
import { AsyncResult, RetryPolicy, Task } from "chicory"
import { Effect, Fiber, Schema } from "effect"
import { fork, advance, reasonOf, startWorker as work } from "./support/memoryFixture.ts"
import { test } from "./support/memoryTest.ts"

describe("a handler", () => {
  test("has its own scope for each attempt", function* (on) {
    const log: Array<string> = []
    const Scoped = Task.make("scoped", { success: Schema.Number })
    yield* work(
      on,
      Scoped,
      Scoped.toLayer(() =>
        Effect.gen(function* () {
          yield* Effect.acquireRelease(
            Effect.sync(() => log.push("open")),
            () => Effect.sync(() => log.push("close"))
          )
          log.push("run")
          return 1
        })
      )
    )
    yield* AsyncResult.get(yield* Scoped.delay())
    assert.deepStrictEqual(log, ["open", "run", "close"])
  })

  test("cannot write another task's progress", function* (on) {
    const Other = Task.make("other", { progress: Schema.Number })
    const Mine = Task.make("mine")
    yield* work(
      on,
      Mine,
      Mine.toLayer(() => Other.progress(1))
    )
    const reason = reasonOf(yield* Effect.flip(AsyncResult.get(yield* Mine.delay())))
    assert(reason._tag === "Died")
    assert.include(
      String((reason.defect as Error).message),
      "other.progress was called in the handler of mine"
    )
  })

  test("fails for good, without a retry, when its result does not encode", function* (on) {
    let runs = 0
    const Wrong = Task.make("wrong", {
      success: Schema.Number,
      retry: RetryPolicy.fixed({ maxRetries: 3, delay: 0 })
    })
    yield* work(
      on,
      Wrong,
      Wrong.toLayer(() => Effect.sync(() => (runs++, "text" as never)))
    )
    const waiting = yield* fork(Effect.flip(AsyncResult.get(yield* Wrong.delay())))
    yield* advance("1 minute")
    const reason = reasonOf(yield* Fiber.join(waiting))
    assert(reason._tag === "ResultInvalid")
    assert.strictEqual(reason.side, "worker")
    assert.strictEqual(runs, 1)
  })

  test("fails for good when its result is too large", function* (on) {
    const Large = Task.make("large", { success: Schema.String })
    yield* work(
      on,
      Large,
      Large.toLayer(() => Effect.succeed("x".repeat(4 * 1024 * 1024)))
    )
    const reason = reasonOf(yield* Effect.flip(AsyncResult.get(yield* Large.delay())))
    assert(reason._tag === "ResultInvalid")
    assert.include(reason.issue, "bytes, of at most 4194304")
  })
})
