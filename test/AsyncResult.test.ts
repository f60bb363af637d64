import { assert, describe, it } from "@effect/vitest"
import { AsyncResult, Backend, TaskFailed } from "chicory"
import type { BackendDriver } from "chicory/driver"
import { Cause, Effect, Exit, Fiber, Option, Schedule, Schema, type Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as MemoryFixture from "./support/memoryFixture.ts"
import { fork, exitOf, advance, reasonOf, assertPending } from "./support/memoryFixture.ts"

const schemas = { success: Schema.Number, error: Schema.String, progress: Schema.Number }
const handle = (id = "a") => AsyncResult.make(id, schemas)

type Body = (
  on: MemoryFixture.MemoryFixture
) => Effect.fn.Return<void, unknown, Scope.Scope | Backend.Backend>

/** A test over a memory backend whose worker the test itself plays. */
const test = (name: string, body: Body, options?: MemoryFixture.Options) =>
  it.effect(name, () =>
    Effect.flatMap(MemoryFixture.make(options), (on) =>
      Effect.gen(() => body(on)).pipe(Effect.provideContext(on.context))
    )
  )

const polled: MemoryFixture.Options = { hints: false }

class Outage extends Schema.TaggedError<Outage>()("Outage", { number: Schema.Number }) {}

/** Reads and watches fail as long as `down` says so. */
const unreliable = (down: () => boolean, hints: boolean, permanent = false): MemoryFixture.Options => {
  let outages = 0
  const failing =
    (operation: BackendDriver["read"]): BackendDriver["read"] =>
    (ids) =>
      down() ? Effect.fail(new Outage({ number: ++outages })) : operation(ids)
  return {
    hints,
    backend: (driver) => ({
      read: failing(driver.read),
      subscribe: failing(driver.subscribe),
      isPermanent: () => permanent
    })
  }
}

describe("get, where the backend gives no hints", () => {
  test(
    "polls at a fixed spacing: a result stored at 350 millis is found at the fifth read",
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
    "polls at the interval that is given",
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
    "an interval counts from the end of the read before",
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

  each("gives a result that is there at once", function* (on) {
    yield* on.create("a")
    yield* on.succeed("a", 42)
    assert.strictEqual(yield* AsyncResult.get(handle()), 42)
  })

  each("waits for ever without a timeout", function* (on) {
    yield* on.create("a")
    const waiting = yield* fork(AsyncResult.get(handle()))
    yield* advance("2 minutes")
    assertPending(waiting)
    yield* on.succeed("a", 42)
    yield* advance("100 millis")
    assert.deepStrictEqual(exitOf(waiting), Exit.succeed(42))
  })

  each("an infinite timeout is none", function* (on) {
    yield* on.create("a")
    const waiting = yield* fork(AsyncResult.get(handle(), { timeout: "Infinity" }))
    yield* advance("1 minute")
    assertPending(waiting)
  })

  each("a task that gave nothing is not one that has given nothing yet", function* (on) {
    yield* on.create("a")
    const nothing = AsyncResult.make("a", { success: Schema.Void })
    const waiting = yield* fork(AsyncResult.get(nothing))
    yield* advance("1 minute")
    assertPending(waiting)
    yield* on.succeed("a", null)
    yield* advance("100 millis")
    assert.deepStrictEqual(exitOf(waiting), Exit.succeed(undefined))
  })

  each("fails with TimeoutError when the time is up, saying which task and how long", function* (on) {
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

  each("an id that nobody knows is waited for, and timed out as PENDING", function* () {
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

  each("with a timeout of zero says at once that there is no result yet", function* (on) {
    yield* on.create("a")
    const error = yield* Effect.flip(AsyncResult.get(handle(), { timeout: 0 }))
    assert.strictEqual(error._tag, "TimeoutError")
    assert.isAtLeast(on.count("read", "subscribe"), 1)
    assert.isAtMost(on.count("read", "subscribe"), 2)
  })

  each("a result that is there at the deadline is returned", function* (on) {
    yield* on.create("a")
    const waiting = yield* fork(AsyncResult.get(handle(), { timeout: "5 seconds", pollInterval: "1 minute" }))
    yield* advance("4999 millis")
    // a change that no hint tells of
    yield* on.driver.unsubscribe(["a"])
    yield* on.succeed("a", 42)
    yield* MemoryFixture.flush
    assertPending(waiting)
    yield* advance("1 millis")
    assert.deepStrictEqual(exitOf(waiting), Exit.succeed(42))
  })

  each("the time is up also where nothing interrupts it", function* (on) {
    yield* on.create("a")
    const waiting = yield* fork(
      Effect.uninterruptible(Effect.flip(AsyncResult.get(handle(), { timeout: "5 seconds" })))
    )
    yield* advance("5 seconds")
    assert.isTrue(Exit.isSuccess(exitOf(waiting)))
  })

  each("a task that failed is an error, which tells the task and why", function* (on) {
    yield* on.create("a")
    yield* on.fail("a", "division by zero")
    const error = yield* Effect.flip(AsyncResult.get(handle()))
    assert(error instanceof TaskFailed.TaskFailed)
    assert.strictEqual(error.taskId, "a")
    assert.strictEqual(error.taskName, "sum")
    assert.strictEqual(error.attempts, 1)
    assert.strictEqual(error.reason._tag, "Failed")
    assert.strictEqual(
      error.message,
      "task sum (a) ended after 1 attempt: the handler failed with division by zero"
    )
  })

  each("one reason is caught by its tag", function* (on) {
    yield* on.create("a")
    yield* on.fail("a", "division by zero")
    const caught = yield* AsyncResult.get(handle()).pipe(
      Effect.catchReason("TaskFailed", "Failed", ({ error }) => Effect.succeed(error.length))
    )
    assert.strictEqual(caught, "division by zero".length)
  })

  each("interrupting it leaves the task alone", function* (on) {
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

  each("bears no options out of range", function* () {
    const defects = yield* Effect.forEach(
      [
        { timeout: "-1 seconds" },
        { timeout: "soon" as never },
        { pollInterval: 0 },
        { pollInterval: "Infinity" }
      ] as const,
      (options) => Effect.map(Effect.exit(AsyncResult.get(handle(), options)), Exit.findDefect)
    )
    for (const defect of defects)
      assert.instanceOf(Option.getOrThrow(Option.fromUndefinedOr(defect as never)), Object)
  })

  each("can be called data-first and data-last, with options and without", function* (on) {
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

  each("tells a waiter at once that the record was forgotten", function* (on) {
    yield* on.create("a")
    yield* on.start("a")
    const waiting = yield* fork(Effect.flip(AsyncResult.get(handle())))
    yield* AsyncResult.forget(handle())
    yield* advance("100 millis")
    assert.strictEqual(reasonOf(yield* Fiber.join(waiting))._tag, "Forgotten")
  })

  each("tells a waiter that the record went away", function* (on) {
    yield* on.create("a")
    yield* on.start("a")
    const waiting = yield* fork(Effect.flip(AsyncResult.get(handle(), { pollInterval: "1 minute" })))
    // it ended, and its retention ran out before anybody looked
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

  each("a task that expired while it waited completes its waiter", function* (on) {
    yield* on.create("a", { expiresMillis: 2000 })
    const waiting = yield* fork(Effect.flip(AsyncResult.get(handle())))
    yield* advance("7 seconds")
    assert.strictEqual(reasonOf(yield* Fiber.join(waiting))._tag, "Expired")
  })

  each("a cancelled task completes its waiter", function* (on) {
    yield* on.create("a")
    const waiting = yield* fork(Effect.flip(AsyncResult.get(handle())))
    assert.strictEqual(yield* AsyncResult.cancel(handle()), "Cancelled")
    yield* advance("100 millis")
    assert.strictEqual(reasonOf(yield* Fiber.join(waiting))._tag, "Cancelled")
  })

  each(
    "what does not decode with the handle's schemas is a failure of the reader's side, at once",
    function* (on) {
      yield* on.create("a")
      yield* on.succeed("a", "no number")
      const reason = reasonOf(yield* Effect.flip(AsyncResult.get(handle())))
      assert(reason._tag === "ResultInvalid")
      assert.strictEqual(reason.side, "reader")
      assert.include(reason.issue, "value")
    }
  )

  each("what is no exit at all is a failure of the reader's side", function* (on) {
    yield* on.create("a")
    yield* on.start("a")
    yield* on.settle("a", { _tag: "Success", exit: "}{", retentionMillis: undefined })
    const reason = reasonOf(yield* Effect.flip(AsyncResult.get(handle())))
    assert(reason._tag === "ResultInvalid")
    assert.strictEqual(reason.side, "reader")
  })
})

describe("get, with hints", () => {
  test("the first waiter may come long after the backend was made", function* (on) {
    yield* on.create("a")
    yield* on.succeed("a", 42)
    yield* advance("1 second")
    assert.strictEqual(yield* AsyncResult.get(handle()), 42)
  })

  test("a hint wakes it", function* (on) {
    yield* on.create("a")
    const waiting = yield* fork(AsyncResult.get(handle()))
    yield* on.succeed("a", 42)
    yield* MemoryFixture.flush
    assert.deepStrictEqual(exitOf(waiting), Exit.succeed(42))
    assert.strictEqual(on.count("subscribe"), 1)
    assert.strictEqual(on.count("read"), 1)
  })

  test(
    "a lost hint costs one sweep: what is awaited is read again every 5 seconds",
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
    { backend: () => ({ hints: Stream.never }) }
  )

  test(
    "a resync reads all that is awaited again",
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
    "after a resync a store that had lost its registrations gives hints again",
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
    "hints that break off leave no gap: they are listened to again, and all that is awaited is read",
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

  test("an interval that is given is honoured", function* (on) {
    yield* on.create("a")
    const waiting = yield* fork(AsyncResult.get(handle(), { pollInterval: "1 second" }))
    yield* advance("4500 millis")
    assert.strictEqual(on.count("subscribe", "read"), 5)
    yield* on.driver.unsubscribe(["a"])
    yield* on.succeed("a", 42)
    yield* advance("500 millis")
    assert.deepStrictEqual(exitOf(waiting), Exit.succeed(42))
  })

  test("a hint wakes it also where an interval is given", function* (on) {
    yield* on.create("a")
    const waiting = yield* fork(AsyncResult.get(handle(), { pollInterval: "1 minute" }))
    yield* on.succeed("a", 42)
    yield* MemoryFixture.flush
    assert.deepStrictEqual(exitOf(waiting), Exit.succeed(42))
  })

  test(
    "a task that ends while the store registers its waiter is not missed",
    function* (on) {
      yield* on.create("a")
      const waiting = yield* fork(AsyncResult.get(handle()))
      yield* advance("500 millis")
      // registered and read by now, the answer is on its way
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

  test("what was awaited is taken back when it ended, when it timed out, and when it was interrupted", function* (on) {
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

  test("the last of several waiters takes the registration back", function* (on) {
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
    "a registration that could not be taken back is taken back later",
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
    "a record that cannot be read fails its own waiter alone",
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

describe("get, while the backend is out of reach", () => {
  for (const hints of [true, false]) {
    const where = hints ? "with hints" : "without hints"

    let down = true
    test(
      `goes on until the store is back, ${where}`,
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
      `TimeoutError carries the last error of the backend, ${where}`,
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
      `ReadRetry says how many errors are borne, ${where}`,
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
      `an error that cannot heal fails at once, ${where}`,
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
      `a store that hangs holds the last read up for a second at most, ${where}`,
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
  it.effect("everything that needs a record fails with BackendNotConfigured, which tells the task", () =>
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

describe("exit", () => {
  test("waits as get does, and that the task failed is a value", function* (on) {
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

  test("that the time was up is no value", function* () {
    const waiting = yield* fork(Effect.flip(AsyncResult.exit(handle(), { timeout: "1 second" })))
    yield* advance("1 second")
    assert.strictEqual((yield* Fiber.join(waiting))._tag, "TimeoutError")
  })
})

describe("one read", () => {
  const states = Effect.gen(function* () {
    return [
      yield* AsyncResult.state(handle()),
      yield* AsyncResult.ready(handle()),
      yield* AsyncResult.failed(handle()),
      yield* AsyncResult.successful(handle())
    ]
  })

  test("the state of an id that the backend has never seen is PENDING, and poll tells it apart", function* (on) {
    assert.deepStrictEqual(yield* states, ["PENDING", false, false, false])
    assert.deepStrictEqual(yield* AsyncResult.poll(handle()), Option.none())
    yield* on.create("a")
    assert.deepStrictEqual(yield* states, ["PENDING", false, false, false])
    assert.isTrue(Option.isSome(yield* AsyncResult.poll(handle())))
  })

  test("a task that runs, or waits for a retry, is not ready", function* (on) {
    yield* on.create("a")
    yield* on.start("a")
    assert.deepStrictEqual(yield* states, ["STARTED", false, false, false])
    yield* on.settle("a", { _tag: "Retry", afterMillis: 1000 })
    assert.deepStrictEqual(yield* states, ["RETRY", false, false, false])
  })

  test("SUCCESS is ready and successful", function* (on) {
    yield* on.create("a")
    yield* on.succeed("a", 42)
    assert.deepStrictEqual(yield* states, ["SUCCESS", true, false, true])
  })

  test("FAILURE is ready and failed", function* (on) {
    yield* on.create("a")
    yield* on.fail("a", "no")
    assert.deepStrictEqual(yield* states, ["FAILURE", true, true, false])
  })

  test("poll tells how a task came to where it is", function* (on) {
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
    "an error of the backend is told at once, with the task",
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

describe("changes", () => {
  for (const [where, options, step] of [
    ["with hints", {}, "0 millis"],
    ["without hints", polled, "100 millis"]
  ] as const) {
    const each = (name: string, body: Body) => test(`${name}, ${where}`, body, options)
    const collect = (id = "a") =>
      AsyncResult.changes(handle(id)).pipe(
        Stream.map(({ exit, progress, state }) => {
          const outcome = Option.map(exit, (exit) => (Exit.isSuccess(exit) ? exit.value : "failed"))
          return [state, Option.getOrNull(progress), Option.getOrNull(outcome)] as const
        }),
        Stream.runCollect
      )

    each(
      "gives every change of state and of progress that is seen, and ends at the terminal one",
      function* (on) {
        yield* on.create("a")
        const seen = yield* fork(collect())
        yield* advance("10 seconds")
        yield* on.start("a")
        yield* advance(step)
        yield* on.progress("a", 1)
        yield* advance(step)
        yield* on.progress("a", 2)
        yield* advance("10 seconds")
        yield* on.settle("a", {
          _tag: "Success",
          exit: `{"_tag":"Success","value":42}`,
          retentionMillis: undefined
        })
        yield* advance(step)
        assert.deepStrictEqual(yield* Fiber.join(seen), [
          ["PENDING", null, null],
          ["STARTED", null, null],
          ["STARTED", 1, null],
          ["STARTED", 2, null],
          ["SUCCESS", 2, 42]
        ])
      }
    )

    each("of a task that has ended gives one snapshot", function* (on) {
      yield* on.create("a")
      yield* on.fail("a", "no")
      assert.deepStrictEqual(yield* collect(), [["FAILURE", null, "failed"]])
    })

    each("of an unknown id waits until it is enqueued", function* (on) {
      const seen = yield* fork(collect())
      yield* advance("10 seconds")
      assertPending(seen)
      yield* on.create("a")
      yield* advance("100 millis")
      yield* on.succeed("a", 42)
      yield* advance("100 millis")
      assert.deepStrictEqual(yield* Fiber.join(seen), [
        ["PENDING", null, null],
        ["SUCCESS", null, 42]
      ])
    })

    each("of a task that is forgotten ends as Forgotten", function* (on) {
      yield* on.create("a")
      const seen = yield* fork(Stream.runLast(AsyncResult.changes(handle())))
      yield* AsyncResult.forget(handle())
      yield* advance("100 millis")
      const last = Option.getOrThrow(yield* Fiber.join(seen))
      assert.strictEqual(last.state, "FAILURE")
      const exit = Option.getOrThrow(last.exit)
      assert.strictEqual(reasonOf(Option.getOrThrow(Exit.findErrorOption(exit)))._tag, "Forgotten")
    })

    each("leaves no registration behind when it is left early", function* (on) {
      yield* on.create("a")
      yield* AsyncResult.changes(handle()).pipe(Stream.take(1), Stream.runDrain)
      yield* MemoryFixture.flush
      assert.strictEqual(on.count("unsubscribe"), on.count("subscribe"))
      yield* on.clearCalls
      yield* advance("1 minute")
      assert.strictEqual(on.count("read", "subscribe"), 0)
    })
  }

  for (const hints of [true, false]) {
    let down = false
    test(
      `bears an outage, ${hints ? "with hints" : "without hints"}`,
      function* (on) {
        down = false
        yield* on.create("a")
        const seen = yield* fork(Stream.runCollect(AsyncResult.changes(handle())))
        down = true
        yield* advance("1 minute")
        yield* on.succeed("a", 42)
        down = false
        yield* advance("10 seconds")
        assert.deepStrictEqual(
          (yield* Fiber.join(seen)).map(({ state }) => state),
          ["PENDING", "SUCCESS"]
        )
      },
      unreliable(() => down, hints)
    )

    test(
      `fails with an error that cannot heal, ${hints ? "with hints" : "without hints"}`,
      function* () {
        const error = yield* Effect.flip(Stream.runDrain(AsyncResult.changes(handle())))
        assert(error instanceof Backend.BackendError)
        assert.strictEqual(error.taskId, "a")
      },
      unreliable(() => true, hints, true)
    )
  }
})

describe("cancel", () => {
  test("answers what it came to", function* (on) {
    assert.strictEqual(yield* AsyncResult.cancel(handle()), "Unknown")
    yield* on.create("a")
    assert.strictEqual(yield* AsyncResult.cancel(handle()), "Cancelled")
    assert.strictEqual(yield* AsyncResult.cancel(handle()), "AlreadyDone")
    yield* on.create("b")
    yield* on.start("b")
    assert.strictEqual(yield* AsyncResult.cancel(handle("b")), "Requested")
    yield* on.settle("b", {
      _tag: "Success",
      exit: `{"_tag":"Success","value":1}`,
      retentionMillis: undefined
    })
    assert.strictEqual(yield* AsyncResult.cancel(handle("b")), "AlreadyDone")
    assert.strictEqual(yield* AsyncResult.get(handle("b")), 1)
  })
})

describe("forget", () => {
  test("removes the record of a task that has ended", function* (on) {
    yield* on.create("a")
    yield* on.succeed("a", 42)
    yield* AsyncResult.forget(handle())
    assert.deepStrictEqual(yield* AsyncResult.poll(handle()), Option.none())
  })

  test("lets an unfinished task run on, and its record goes when it ends", function* (on) {
    yield* on.create("a")
    yield* on.start("a")
    yield* AsyncResult.forget(handle())
    assert.strictEqual(yield* AsyncResult.state(handle()), "STARTED")
    yield* on.settle("a", {
      _tag: "Success",
      exit: `{"_tag":"Success","value":1}`,
      retentionMillis: undefined
    })
    assert.deepStrictEqual(yield* AsyncResult.poll(handle()), Option.none())
  })

  test("of an unknown id does nothing", function* () {
    yield* AsyncResult.forget(handle())
  })
})

describe("a handle", () => {
  test("without schemas gives the JSON that is stored", function* (on) {
    yield* on.create("a")
    yield* on.succeed("a", { n: [1, "two", null] })
    assert.deepStrictEqual(yield* AsyncResult.get(AsyncResult.make("a")), { n: [1, "two", null] })
    yield* on.create("b")
    yield* on.fail("b", { _tag: "DivideByZero", dividend: 6 })
    const reason = reasonOf(yield* Effect.flip(AsyncResult.get(AsyncResult.make("b"))))
    assert(reason._tag === "Failed")
    assert.deepStrictEqual(reason.error, { _tag: "DivideByZero", dividend: 6 })
  })

  it("is known as one, and shows its id", () => {
    assert.isTrue(AsyncResult.isAsyncResult(handle()))
    assert.isFalse(AsyncResult.isAsyncResult({ taskId: "a" }))
    assert.strictEqual(JSON.stringify(handle()), `{"_id":"chicory/AsyncResult","taskId":"a"}`)
  })

  it("of an empty id is refused", () => {
    assert.throws(() => AsyncResult.make(""), "must be a text of 1 to 255 characters")
  })
})
