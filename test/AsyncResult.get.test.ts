import { assert, describe } from "@effect/vitest"
import { AsyncResult, Backend, TaskFailed } from "chicory"
import { Cause, Duration, Effect, Exit, Fiber, Option, Schema, Stream } from "effect"
import { handle } from "./support/asyncResults.ts"
import * as MemoryFixture from "./support/memoryFixture.ts"
import { fork, exitOf, advance, reasonOf, assertPending } from "./support/memoryFixture.ts"
import { type Body, test } from "./support/memoryTest.ts"

const polled: MemoryFixture.Options = { hints: false }

describe("get, without hints", () => {
  test(
    "polls at a fixed spacing: the fifth read finds a result stored at 350 millis",
    function* (on) {
      yield* on.create("a")
      const waiting = yield* fork(AsyncResult.get(handle()))
      yield* advance("350 millis")
      assert.strictEqual(on.count("read"), 4)
      yield* on.succeed("a", 42)
      yield* advance("49 millis")
      assertPending(waiting)
      assert.strictEqual(on.count("read"), 4)
      yield* advance("1 millis")
      assert.deepStrictEqual(exitOf(waiting), Exit.succeed(42))
      assert.strictEqual(on.count("read"), 5)
      assert.strictEqual(on.count("subscribe"), 0)
    },
    polled
  )

  test(
    "polls at the given interval",
    function* (on) {
      yield* on.create("a")
      const waiting = yield* fork(AsyncResult.get(handle(), { pollInterval: "2 seconds" }))
      yield* advance("9 seconds")
      assert.strictEqual(on.count("read"), 5)
      yield* on.succeed("a", 42)
      yield* advance("1 second")
      assert.deepStrictEqual(exitOf(waiting), Exit.succeed(42))
    },
    polled
  )

  test(
    "counts an interval from the end of the previous read",
    function* (on) {
      yield* on.create("a")
      yield* fork(AsyncResult.get(handle()))
      yield* advance("1 second")
      // reads at 0, 150, 300, … 900
      assert.strictEqual(on.count("read"), 7)
    },
    {
      hints: false,
      backend: (driver) => ({ read: (ids) => Effect.delay(driver.read(ids), "50 millis") })
    }
  )
})

describe.each([
  ["with hints", {}],
  ["without hints", polled]
])("get, %s", (_, options) => {
  const each = (name: string, body: Body) => test(name, body, options)

  each("returns a stored result at once", function* (on) {
    yield* on.create("a")
    yield* on.succeed("a", 42)
    assert.strictEqual(yield* AsyncResult.get(handle()), 42)
  })

  each("waits forever without a timeout", function* (on) {
    yield* on.create("a")
    const waiting = yield* fork(AsyncResult.get(handle()))
    yield* advance("2 minutes")
    assertPending(waiting)
    yield* on.succeed("a", 42)
    yield* advance("100 millis")
    assert.deepStrictEqual(exitOf(waiting), Exit.succeed(42))
  })

  each("treats an infinite timeout as none", function* (on) {
    yield* on.create("a")
    const waiting = yield* fork(AsyncResult.get(handle(), { timeout: "Infinity" }))
    yield* advance("1 minute")
    assertPending(waiting)
  })

  each("distinguishes a stored undefined result from a missing result", function* (on) {
    yield* on.create("a")
    const nothing = AsyncResult.make("a", { success: Schema.Void })
    const waiting = yield* fork(AsyncResult.get(nothing))
    yield* advance("1 minute")
    assertPending(waiting)
    yield* on.succeed("a", null)
    yield* advance("100 millis")
    assert.deepStrictEqual(exitOf(waiting), Exit.succeed(undefined))
  })

  each("fails with TimeoutError at its deadline, naming the task and the duration", function* (on) {
    yield* on.create("a")
    yield* on.start("a")
    const waiting = yield* fork(Effect.flip(AsyncResult.get(handle(), { timeout: "5 seconds" })))
    yield* advance("4999 millis")
    assertPending(waiting)
    yield* advance("1 millis")
    const error = yield* Fiber.join(waiting)
    assert(error instanceof AsyncResult.TimeoutError)
    assert.strictEqual(error.taskId, "a")
    assert.strictEqual(error.state, "STARTED")
    assert.isUndefined(error.cause)
    assert.strictEqual(error.message, "task a did not end within 5000 millis (last seen STARTED)")
    assert.isFalse(Cause.isTimeoutError(error))
  })

  each("waits for an unknown id and times out as PENDING", function* () {
    const waiting = yield* fork(Effect.flip(AsyncResult.get(handle("nobody"), { timeout: "5 seconds" })))
    yield* advance("5 seconds")
    const error = yield* Fiber.join(waiting)
    assert(error instanceof AsyncResult.TimeoutError)
    assert.strictEqual(error.state, "PENDING")
  })

  each("waits for a task that is enqueued later", function* (on) {
    const waiting = yield* fork(AsyncResult.get(handle()))
    yield* advance("1 second")
    yield* on.create("a")
    yield* on.succeed("a", 42)
    yield* advance("100 millis")
    assert.deepStrictEqual(exitOf(waiting), Exit.succeed(42))
  })

  each("reads at least once with a timeout of zero", function* (on) {
    yield* on.create("a")
    yield* on.succeed("a", 42)
    assert.strictEqual(yield* AsyncResult.get(handle(), { timeout: 0 }), 42)
  })

  for (const timeout of [0, "-1 second", Duration.negativeInfinity] as const) {
    each(`fails at once with a timeout of ${String(timeout)} and no result`, function* (on) {
      yield* on.create("a")
      const error = yield* Effect.flip(AsyncResult.get(handle(), { timeout }))
      assert.strictEqual(error._tag, "TimeoutError")
      assert.isAtLeast(on.count("read", "subscribe"), 1)
      assert.isAtMost(on.count("read", "subscribe"), 2)
    })
  }

  each("returns a result that is stored at the deadline", function* (on) {
    yield* on.create("a")
    const waiting = yield* fork(AsyncResult.get(handle(), { timeout: "5 seconds", pollInterval: "1 minute" }))
    yield* advance("4999 millis")
    // a change without a hint
    yield* on.driver.unsubscribe(["a"])
    yield* on.succeed("a", 42)
    yield* MemoryFixture.flush
    assertPending(waiting)
    yield* advance("1 millis")
    assert.deepStrictEqual(exitOf(waiting), Exit.succeed(42))
  })

  each("times out inside an uninterruptible region", function* (on) {
    yield* on.create("a")
    const waiting = yield* fork(
      Effect.uninterruptible(Effect.flip(AsyncResult.get(handle(), { timeout: "5 seconds" })))
    )
    yield* advance("5 seconds")
    assert.isTrue(Exit.isSuccess(exitOf(waiting)))
  })

  each("fails with TaskFailed carrying the task and the reason", function* (on) {
    yield* on.create("a")
    yield* on.fail("a", "division by zero")
    const error = yield* Effect.flip(AsyncResult.get(handle()))
    assert(error instanceof TaskFailed.TaskFailed)
    assert.strictEqual(error.taskId, "a")
    assert.strictEqual(error.taskName, "sum")
    assert.strictEqual(error.attempts, 1)
    assert.strictEqual(error.reason._tag, "Failed")
    assert.strictEqual(error.cause, "division by zero")
    assert.strictEqual(error.message, "task sum (a) ended after 1 attempt: the handler failed with a string")
  })

  each("lets one reason be caught by its tag", function* (on) {
    yield* on.create("a")
    yield* on.fail("a", "division by zero")
    const caught = yield* AsyncResult.get(handle()).pipe(
      Effect.catchReason("TaskFailed", "Failed", ({ error }) => Effect.succeed(error.length))
    )
    assert.strictEqual(caught, "division by zero".length)
  })

  each("leaves the task running when it is interrupted", function* (on) {
    yield* on.create("a")
    yield* on.start("a")
    const waiting = yield* fork(AsyncResult.get(handle()))
    yield* advance("1 second")
    yield* Fiber.interrupt(waiting)
    yield* MemoryFixture.flush
    const [record] = yield* on.driver.read(["a"])
    assert.strictEqual(record?.state, "STARTED")
    assert.isFalse(record?.cancelRequested)
    assert.strictEqual(on.count("cancel", "forget"), 0)
  })

  each("rejects options out of range as defects", function* () {
    const defects = yield* Effect.forEach(
      [{ timeout: Number.NaN }, { timeout: "soon" as never }, { pollInterval: "Infinity" }] as const,
      (options) => Effect.map(Effect.exit(AsyncResult.get(handle(), options)), Exit.findDefect)
    )
    for (const defect of defects)
      assert.instanceOf(Option.getOrThrow(Option.fromUndefinedOr(defect as never)), Object)
  })

  each("accepts data-first and data-last calls, with and without options", function* (on) {
    yield* on.create("a")
    yield* on.succeed("a", 42)
    const options = { timeout: "1 second" } as const
    const values = [
      yield* AsyncResult.get(handle()),
      yield* AsyncResult.get(handle(), options),
      yield* handle().pipe(AsyncResult.get),
      yield* handle().pipe(AsyncResult.get(options)),
      yield* handle().pipe(AsyncResult.get())
    ]
    assert.deepStrictEqual(values, [42, 42, 42, 42, 42])
  })

  each("fails at once with Forgotten when the record is forgotten", function* (on) {
    yield* on.create("a")
    yield* on.start("a")
    const waiting = yield* fork(Effect.flip(AsyncResult.get(handle())))
    yield* AsyncResult.forget(handle())
    yield* advance("100 millis")
    assert.strictEqual(reasonOf(yield* Fiber.join(waiting))._tag, "Forgotten")
  })

  each("fails with Forgotten when the record disappears", function* (on) {
    yield* on.create("a")
    yield* on.start("a")
    const waiting = yield* fork(Effect.flip(AsyncResult.get(handle(), { pollInterval: "1 minute" })))
    // it ended and its retention ran out before a read
    yield* on.driver.unsubscribe(["a"])
    yield* on.settle("a", { _tag: "Success", exit: `{"_tag":"Success","value":1}`, retentionMillis: 1000 })
    yield* advance("1 minute")
    const error = yield* Fiber.join(waiting)
    assert.strictEqual(reasonOf(error)._tag, "Forgotten")
    assert.strictEqual(
      error.message,
      "task sum (a) ended after 1 attempt: the task's record was forgotten, or its retention ran out"
    )
  })

  each("fails with Forgotten when the id is enqueued anew between two reads", function* (on) {
    yield* on.create("a", { incarnation: "1" })
    const waiting = yield* fork(Effect.flip(AsyncResult.get(handle(), { pollInterval: "1 minute" })))
    yield* on.driver.unsubscribe(["a"])
    yield* on.driver.cancel(["a"])
    yield* on.driver.forget(["a"])
    yield* on.create("a", { incarnation: "2", task: "product" })
    yield* on.driver.unsubscribe(["a"])
    yield* advance("1 minute")
    const error = yield* Fiber.join(waiting)
    assert.strictEqual(reasonOf(error)._tag, "Forgotten")
    // the error is about the task that was awaited
    assert.include(error.message, "task sum (a) ended after 0 attempts")
  })

  each("returns the result of a replay whose opening it did not read", function* (on) {
    yield* on.create("a", { incarnation: "1" })
    yield* on.start("a", { incarnation: "1" })
    const waiting = yield* fork(AsyncResult.get(handle(), { pollInterval: "1 minute" }))
    yield* on.driver.unsubscribe(["a"])
    yield* on.settle("a", {
      _tag: "Failure",
      exit: `{"_tag":"Failure","reason":{"_tag":"Failed","error":"no","retriesExhausted":false}}`,
      retentionMillis: undefined,
      deadLetter: { reason: "Failed", queue: "default", body: "{}", retentionMillis: undefined }
    })
    const letters = yield* on.driver.listDeadLetters({ task: undefined, after: undefined, limit: 1 })
    yield* on.driver.reopen([letters[0]!.id], 60_000)
    yield* on.start("a", { incarnation: "1", generation: 1 })
    yield* on.settle("a", {
      _tag: "Success",
      exit: `{"_tag":"Success","value":42}`,
      retentionMillis: undefined
    })
    yield* advance("1 minute")
    assert.deepStrictEqual(exitOf(waiting), Exit.succeed(42))
  })

  each("fails with Expired when the task expires while it waits", function* (on) {
    yield* on.create("a", { expiresMillis: 2000 })
    const waiting = yield* fork(Effect.flip(AsyncResult.get(handle())))
    yield* advance("7 seconds")
    assert.strictEqual(reasonOf(yield* Fiber.join(waiting))._tag, "Expired")
  })

  each("fails with Cancelled when the task is cancelled", function* (on) {
    yield* on.create("a")
    const waiting = yield* fork(Effect.flip(AsyncResult.get(handle())))
    assert.strictEqual(yield* AsyncResult.cancel(handle()), "Cancelled")
    yield* advance("100 millis")
    assert.strictEqual(reasonOf(yield* Fiber.join(waiting))._tag, "Cancelled")
  })

  each(
    "fails at once with ResultInvalid on the reader's side when the result does not decode",
    function* (on) {
      yield* on.create("a")
      yield* on.succeed("a", "no number")
      const reason = reasonOf(yield* Effect.flip(AsyncResult.get(handle())))
      assert(reason._tag === "ResultInvalid")
      assert.strictEqual(reason.side, "reader")
      assert.include(reason.issue, "value")
    }
  )

  each("fails with ResultInvalid on the reader's side when the record holds no exit", function* (on) {
    yield* on.create("a")
    yield* on.start("a")
    yield* on.settle("a", { _tag: "Success", exit: "}{", retentionMillis: undefined })
    const reason = reasonOf(yield* Effect.flip(AsyncResult.get(handle())))
    assert(reason._tag === "ResultInvalid")
    assert.strictEqual(reason.side, "reader")
  })
})

describe("get, with hints", () => {
  test("registers the first waiter long after the backend was made", function* (on) {
    yield* on.create("a")
    yield* on.succeed("a", 42)
    yield* advance("1 second")
    assert.strictEqual(yield* AsyncResult.get(handle()), 42)
  })

  test("reads at once on a hint", function* (on) {
    yield* on.create("a")
    const waiting = yield* fork(AsyncResult.get(handle()))
    yield* on.succeed("a", 42)
    yield* MemoryFixture.flush
    assert.deepStrictEqual(exitOf(waiting), Exit.succeed(42))
    assert.strictEqual(on.count("subscribe"), 1)
    assert.strictEqual(on.count("read"), 1)
  })

  test(
    "recovers from a lost hint at the next 5-second sweep",
    function* (on) {
      yield* on.create("a")
      const waiting = yield* fork(AsyncResult.get(handle()))
      yield* on.succeed("a", 42)
      yield* advance("4999 millis")
      assertPending(waiting)
      yield* advance("1 millis")
      assert.deepStrictEqual(exitOf(waiting), Exit.succeed(42))
      assert.strictEqual(on.count("read"), 1)
    },
    {
      backend: ({ capabilities }) => ({
        capabilities: { ...capabilities, reliableHints: false },
        hints: Stream.never
      })
    }
  )

  test(
    "reads every subscribed task on a resync",
    function* (on) {
      yield* on.create("a")
      const waiting = yield* fork(AsyncResult.get(handle()))
      yield* on.succeed("a", 42)
      yield* advance("1 second")
      assert.deepStrictEqual(exitOf(waiting), Exit.succeed(42))
    },
    {
      backend: () => ({
        hints: Stream.concat(
          Stream.fromEffect(Effect.as(Effect.sleep("1 second"), "resync" as const)),
          Stream.never
        )
      })
    }
  )

  test(
    "subscribes again after a resync, so that a store without registrations hints again",
    function* (on) {
      yield* on.create("a")
      const waiting = yield* fork(AsyncResult.get(handle()))
      yield* on.driver.unsubscribe(["a"])
      yield* advance("1 second")
      yield* on.succeed("a", 42)
      yield* MemoryFixture.flush
      assert.deepStrictEqual(exitOf(waiting), Exit.succeed(42))
      assert.deepStrictEqual(on.items("subscribe"), ["a", "a"])
    },
    {
      backend: (driver) => ({
        hints: Stream.merge(
          driver.hints!,
          Stream.fromEffect(Effect.as(Effect.sleep("1 second"), "resync" as const))
        )
      })
    }
  )

  test(
    "subscribes and reads every task again when the hint stream breaks off",
    function* (on) {
      yield* on.create("a")
      yield* on.create("b")
      const first = yield* fork(AsyncResult.get(handle("a")))
      const second = yield* fork(AsyncResult.get(handle("b")))
      yield* on.succeed("a", 1)
      yield* advance("1 second")
      assert.deepStrictEqual(exitOf(first), Exit.succeed(1))
      yield* advance("1 second")
      yield* on.succeed("b", 2)
      yield* advance("1 second")
      assert.deepStrictEqual(exitOf(second), Exit.succeed(2))
    },
    { backend: () => ({ hints: Stream.fromEffect(Effect.delay(Effect.fail("gone"), "1 second")) }) }
  )

  test("polls at a given interval", function* (on) {
    yield* on.create("a")
    const waiting = yield* fork(AsyncResult.get(handle(), { pollInterval: "1 second" }))
    yield* advance("4500 millis")
    assert.strictEqual(on.count("subscribe", "read"), 5)
    yield* on.driver.unsubscribe(["a"])
    yield* on.succeed("a", 42)
    yield* advance("500 millis")
    assert.deepStrictEqual(exitOf(waiting), Exit.succeed(42))
  })

  test("reads at once on a hint also with a given interval", function* (on) {
    yield* on.create("a")
    const waiting = yield* fork(AsyncResult.get(handle(), { pollInterval: "1 minute" }))
    yield* on.succeed("a", 42)
    yield* MemoryFixture.flush
    assert.deepStrictEqual(exitOf(waiting), Exit.succeed(42))
  })

  test(
    "sees a task that ends while the store registers its subscription",
    function* (on) {
      yield* on.create("a")
      const waiting = yield* fork(AsyncResult.get(handle()))
      yield* advance("500 millis")
      // subscribed and read by now; the answer is in flight
      yield* on.succeed("a", 42)
      yield* advance("500 millis")
      assert.deepStrictEqual(exitOf(waiting), Exit.succeed(42))
    },
    {
      backend: (driver) => ({
        subscribe: (ids) => Effect.tap(driver.subscribe(ids), Effect.sleep("1 second"))
      })
    }
  )

  test("unsubscribes after the result, after a timeout and after an interruption", function* (on) {
    for (const id of ["a", "b", "c"]) yield* on.create(id)
    yield* fork(AsyncResult.get(handle("a")))
    yield* fork(Effect.ignore(AsyncResult.get(handle("b"), { timeout: "1 second" })))
    const interrupted = yield* fork(AsyncResult.get(handle("c")))
    yield* on.succeed("a", 1)
    yield* advance("1 second")
    yield* Fiber.interrupt(interrupted)
    yield* MemoryFixture.flush
    assert.sameMembers([...on.items("subscribe")] as Array<string>, ["a", "b", "c"])
    assert.sameMembers([...on.items("unsubscribe")] as Array<string>, ["a", "b", "c"])
    yield* on.clearCalls
    yield* advance("1 minute")
    assert.strictEqual(on.count("read", "subscribe", "unsubscribe"), 0)
  })

  test("unsubscribes with the last of several waiters", function* (on) {
    yield* on.create("a")
    const first = yield* fork(AsyncResult.get(handle()))
    const second = yield* fork(AsyncResult.get(handle()))
    yield* Fiber.interrupt(first)
    yield* MemoryFixture.flush
    assert.strictEqual(on.count("subscribe"), 1)
    assert.strictEqual(on.count("unsubscribe"), 0)
    yield* on.succeed("a", 42)
    yield* MemoryFixture.flush
    assert.deepStrictEqual(exitOf(second), Exit.succeed(42))
    assert.deepStrictEqual(on.items("unsubscribe"), ["a"])
  })

  test(
    "retries a failed unsubscribe later",
    (() => {
      return function* (on: MemoryFixture.MemoryFixture) {
        yield* on.create("a")
        yield* on.succeed("a", 42)
        yield* AsyncResult.get(handle())
        yield* advance("5 seconds")
        assert.deepStrictEqual(on.items("unsubscribe"), ["a", "a"])
      }
    })(),
    {
      backend: (driver) => {
        let calls = 0
        return { unsubscribe: (ids) => (++calls === 1 ? Effect.fail("cut off") : driver.unsubscribe(ids)) }
      }
    }
  )

  test(
    "fails only the waiter of an undecodable record",
    function* (on) {
      yield* on.create("a")
      yield* on.create("b")
      const waiting = yield* Effect.forkChild(AsyncResult.get(handle("a")))
      const corrupt = yield* Effect.forkChild(Effect.flip(AsyncResult.get(handle("corrupt"))))
      const other = yield* Effect.forkChild(AsyncResult.get(handle("b")))
      yield* MemoryFixture.flush
      const error = yield* Fiber.join(corrupt)
      assert(error instanceof Backend.BackendError)
      assert.strictEqual(error.taskId, "corrupt")
      assertPending(waiting)
      assertPending(other)
      yield* on.succeed("a", 1)
      yield* on.succeed("b", 2)
      yield* MemoryFixture.flush
      assert.deepStrictEqual([exitOf(waiting), exitOf(other)], [Exit.succeed(1), Exit.succeed(2)])
    },
    {
      backend: (driver) => ({
        subscribe: (ids) => (ids.includes("corrupt") ? Effect.fail("a corrupt row") : driver.subscribe(ids)),
        isPermanent: () => true
      })
    }
  )
})
