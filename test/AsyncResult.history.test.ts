import { assert, describe } from "@effect/vitest"
import { AsyncResult, Backend, RetryPolicy, Task } from "chicory"
import { Effect, Fiber, Option, Schema, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as attemptHistory from "../src/internal/task/attemptHistory.ts"
import { Failed } from "../src/TaskFailed.ts"
import { handle, Outage } from "./support/asyncResults.ts"
import { advance, fork, startWorker } from "./support/memoryFixture.ts"
import { test } from "./support/memoryTest.ts"

const failureOf = (message: string, attempt: number, generation = 0): string =>
  attemptHistory.encode(
    {
      reason: new Failed({ error: message, retriesExhausted: false }),
      attempt,
      startedAt: 1_000,
      failedAt: 2_000
    },
    { generation, worker: "w1" }
  )

const retry = (failure: string, afterMillis = 60_000) => ({ _tag: "Retry", afterMillis, failure }) as const

const poll = Effect.map(AsyncResult.poll(handle()), Option.getOrThrow)
const messages = Effect.map(poll, ({ history }) => history.map(({ message }) => message))

describe("the history of a task", () => {
  test("is shown by poll, with the time of the next attempt", function* (on) {
    yield* TestClock.setTime(1_000)
    yield* on.create("a")
    yield* on.start("a")
    yield* TestClock.setTime(2_000)
    yield* on.settle("a", retry(failureOf("no", 1)))
    const { dueAt, history, queue, state } = yield* poll
    assert.strictEqual(state, "RETRY")
    assert.deepStrictEqual(queue, Option.some("default"))
    assert.strictEqual(Option.getOrThrow(dueAt).epochMilliseconds, 62_000)
    assert.deepStrictEqual(
      history.map(({ attempt, message, reason, worker }) => [attempt, reason, message, worker]),
      [[1, "Failed", "no", "w1"]]
    )
  })

  test("is read by poll of a task that was retried, and by nothing else", function* (on) {
    yield* on.create("a")
    yield* on.create("b")
    yield* on.succeed("b", 1)
    yield* on.start("a")
    yield* on.settle("a", retry(failureOf("no", 1), 0))
    yield* AsyncResult.poll(handle("b"))
    yield* AsyncResult.poll(handle("missing"))
    yield* AsyncResult.state(handle())
    yield* AsyncResult.ready(handle())
    const waiting = yield* fork(AsyncResult.get(handle(), { timeout: "1 second" }))
    yield* on.succeed("a", 42)
    assert.strictEqual(yield* Fiber.join(waiting), 42)
    assert.strictEqual(yield* AsyncResult.get(handle()), 42)
    yield* Stream.runCollect(AsyncResult.changes(handle("b")))
    assert.strictEqual(on.count("readHistory"), 0)
    assert.deepStrictEqual(yield* messages, ["no"])
    assert.strictEqual(on.count("readHistory"), 1)
  })

  test("is shown by changes, which read it once for each retry", function* (on) {
    yield* on.create("a")
    const changes = yield* fork(Stream.runCollect(AsyncResult.changes(handle())))
    const settle = (n: number) =>
      Effect.gen(function* () {
        yield* on.start("a")
        yield* advance("1 millis")
        yield* on.progress("a", n)
        yield* advance("1 millis")
        yield* on.settle("a", retry(failureOf(`no ${n}`, n), 0))
        yield* advance("1 millis")
      })
    yield* settle(1)
    yield* settle(2)
    yield* on.succeed("a", 42)
    yield* advance("1 millis")
    const seen = Array.from(yield* Fiber.join(changes), ({ history, state }) => [state, history.length])
    assert.deepStrictEqual(seen, [
      ["PENDING", 0],
      ["STARTED", 0],
      ["STARTED", 0],
      ["RETRY", 1],
      ["STARTED", 1],
      ["STARTED", 1],
      ["RETRY", 2],
      ["SUCCESS", 2]
    ])
    assert.strictEqual(on.count("readHistory"), 2)
  })

  test("is of the generation of the record", function* (on) {
    yield* on.create("a")
    yield* on.start("a")
    yield* on.settle("a", retry(failureOf("no", 1) + failureOf("of a replay", 1, 1)))
    assert.deepStrictEqual(yield* messages, ["no"])
  })

  test("that does not decode is empty", function* (on) {
    yield* on.create("a")
    yield* on.start("a")
    yield* on.settle("a", retry("garbage\n"))
    assert.deepStrictEqual(yield* messages, [])
  })

  test(
    "is empty for a driver without readHistory, and so are queue and dueAt where it does not keep them",
    function* (on) {
      yield* on.create("a")
      yield* on.start("a")
      yield* on.settle("a", retry(failureOf("no", 1)))
      const { dueAt, history, queue, state } = yield* poll
      assert.deepStrictEqual([state, history, queue, dueAt], ["RETRY", [], Option.none(), Option.none()])
    },
    {
      backend: ({ read }) => ({
        readHistory: undefined,
        read: (ids) =>
          Effect.map(read(ids), (records) =>
            records.map((record) => {
              if (record === undefined) return undefined
              const { dueAt: _, queue: _q, ...rest } = record
              return rest
            })
          )
      })
    }
  )

  test(
    "that cannot be read fails poll with the error of the backend, naming the task",
    function* (on) {
      yield* on.create("a")
      yield* on.start("a")
      yield* on.settle("a", retry(failureOf("no", 1)))
      const error = yield* Effect.flip(AsyncResult.poll(handle()))
      assert(error instanceof Backend.BackendError)
      assert.strictEqual(error.taskId, "a")
      assert.include(error.message, "memory backend: readHistory failed for task a")
    },
    { backend: () => ({ readHistory: () => Effect.fail(new Outage({ number: 1 })) }) }
  )

  test("is read in one call for many polls at once", function* (on) {
    const ids = ["a", "b", "c"]
    for (const id of ids) {
      yield* on.create(id)
      yield* on.start(id)
      yield* on.settle(id, retry(failureOf(`no ${id}`, 1)))
    }
    const polled = yield* Effect.forEach(ids, (id) => AsyncResult.poll(handle(id)), {
      concurrency: "unbounded"
    })
    assert.deepStrictEqual(
      polled.map((found) => Option.getOrThrow(found).history[0]?.message),
      ids.map((id) => `no ${id}`)
    )
    assert.strictEqual(on.count("readHistory"), 1)
  })
})

describe("a worker", () => {
  test("sends the failure of an attempt with its retry, and nothing with a success", function* (on) {
    const Flaky = Task.make("flaky", {
      success: Schema.Int,
      error: Schema.String,
      retry: RetryPolicy.fixed({ maxRetries: 3, delay: "1 second" })
    })
    yield* TestClock.setTime(10_000)
    let runs = 0
    const handler = Flaky.toLayer(() =>
      Effect.delay(
        Effect.suspend(() => (++runs === 1 ? Effect.fail("no") : Effect.succeed(runs))),
        "3 seconds"
      )
    )
    yield* startWorker(on, Flaky, handler)
    const result = yield* Flaky.delay(undefined, { id: "a", queue: "default", delay: "2 seconds" })
    const queued = Option.getOrThrow(yield* AsyncResult.poll(result))
    assert.strictEqual(Option.getOrThrow(queued.dueAt).epochMilliseconds, 12_000)
    yield* advance("2 seconds")
    yield* advance("3 seconds")
    const failed = Option.getOrThrow(yield* AsyncResult.poll(result))
    assert.strictEqual(Option.getOrThrow(failed.dueAt).epochMilliseconds, 16_000)
    const [attempt] = failed.history
    assert(attempt !== undefined)
    assert.deepStrictEqual(
      [attempt.attempt, attempt.reason, attempt.tag, attempt.message],
      [1, "Failed", "string", "no"]
    )
    assert.deepStrictEqual(Option.some(attempt.worker), failed.worker)
    assert.deepStrictEqual(
      [attempt.startedAt.epochMilliseconds, attempt.failedAt.epochMilliseconds],
      [12_000, 15_000]
    )
    yield* advance("1 second")
    yield* advance("3 seconds")
    assert.strictEqual(yield* AsyncResult.get(result), 2)
    const outcomes = on.items("settle") as ReadonlyArray<{ readonly outcome: { readonly _tag: string } }>
    assert.deepStrictEqual(
      outcomes.map(({ outcome }) => Object.keys(outcome).toSorted()),
      [
        ["_tag", "afterMillis", "failure"],
        ["_tag", "exit", "retentionMillis"]
      ]
    )
    const ended = Option.getOrThrow(yield* AsyncResult.poll(result))
    assert.deepStrictEqual(ended.history, failed.history)
    assert.deepStrictEqual(ended.dueAt, Option.none())
  })
})
