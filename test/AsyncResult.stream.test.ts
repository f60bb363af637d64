import { assert, describe } from "@effect/vitest"
import { AsyncResult, Backend } from "chicory"
import { Effect, Exit, Fiber, Latch, Schedule, Schema, Stream } from "effect"
import { handle, Outage } from "./support/asyncResults.ts"
import type * as MemoryFixture from "./support/memoryFixture.ts"
import { advance, assertPending, exitOf, flush, fork } from "./support/memoryFixture.ts"
import { type Body, test } from "./support/memoryTest.ts"

const named = (count: number) => Array.from({ length: count }, (_, i) => `task ${i}`)

/** Enqueues tasks, and runs them to their end. */
const endAll = Effect.fnUntraced(function* (on: MemoryFixture.MemoryFixture, ids: ReadonlyArray<string>) {
  for (const id of ids) {
    yield* on.create(id)
    yield* on.succeed(id, 1)
  }
})

/** Takes a stream of handles, and stops at each element until it is let on. */
const slowly = Effect.fnUntraced(function* (handles: ReadonlyArray<ReturnType<typeof handle>>) {
  const gate = Latch.makeUnsafe(false)
  const seen: Array<string> = []
  const fiber = yield* fork(
    AsyncResult.stream(handles).pipe(
      Stream.runForEach(([id]) =>
        Effect.andThen(
          Effect.sync(() => seen.push(id)),
          gate.await
        )
      )
    )
  )
  return { seen, fiber, goOn: Effect.andThen(gate.open, advance("1 second")) }
})

describe.each([
  ["with hints", {}],
  ["without hints", { hints: false }]
])("a stream, %s", (_, options: MemoryFixture.Options) => {
  const each = (name: string, body: Body) => test(name, body, options)
  let largestRead = 0
  const countRead = (on: MemoryFixture.MemoryFixture) =>
    on.items("subscribe").length + on.items("read").length

  each("reads no more than a few tasks ahead of its consumer", function* (on) {
    const ids = named(300)
    yield* endAll(on, ids)
    const consumer = yield* slowly(ids.map(handle))
    yield* advance("1 minute")
    assert.lengthOf(consumer.seen, 1)
    assert.isAtMost(countRead(on), 8)
    yield* consumer.goOn
    assert.isTrue(Exit.isSuccess(exitOf(consumer.fiber)))
    assert.sameMembers(consumer.seen, ids)
    // 8 at first, and up to 32 as the results prove to be small
    assert.isAtMost(on.count("subscribe", "read"), 20)
  })

  each("reads fewer tasks ahead where their results are large", function* (on) {
    const ids = named(30)
    const exit = JSON.stringify({ _tag: "Success", value: "x".repeat(3 * 1024 * 1024) })
    for (const id of ids) {
      yield* on.create(id)
      yield* on.start(id)
      yield* on.settle(id, { _tag: "Success", exit, retentionMillis: undefined })
    }
    let most = 0
    let taken = 0
    yield* AsyncResult.stream(ids.map((id) => AsyncResult.make(id, { success: Schema.String }))).pipe(
      Stream.runForEach(() =>
        Effect.sync(() => {
          if (taken > 8) most = Math.max(most, countRead(on) - taken)
          taken++
        })
      )
    )
    assert.strictEqual(taken, 30)
    assert.isAtMost(most, 2)
  })

  test(
    "reads few large results at a time of many tasks that it has waited for",
    function* (on) {
      const ids = named(100)
      for (const id of ids) yield* on.create(id)
      const waiting = yield* fork(
        Stream.runCount(
          AsyncResult.stream(
            ids.map((id) => AsyncResult.make(id, { success: Schema.String })),
            { pollInterval: "10 seconds" }
          )
        )
      )
      yield* advance("25 seconds")
      const exit = JSON.stringify({ _tag: "Success", value: "x".repeat(1024 * 1024) })
      for (const id of ids) {
        yield* on.start(id)
        yield* on.settle(id, { _tag: "Success", exit, retentionMillis: undefined })
      }
      largestRead = 0
      yield* advance("10 seconds")
      assert.strictEqual(yield* Fiber.join(waiting), 100)
      assert.isAtMost(largestRead, 8.1 * 1024 * 1024)
    },
    {
      ...options,
      backend: (driver) => {
        const measured =
          (operation: typeof driver.read): typeof driver.read =>
          (ids) =>
            Effect.tap(operation(ids), (records) =>
              Effect.sync(() => {
                const size = records.reduce((sum, record) => sum + (record?.exit?.length ?? 0), 0)
                largestRead = Math.max(largestRead, size)
              })
            )
        return { read: measured(driver.read), subscribe: measured(driver.subscribe) }
      }
    }
  )

  each(
    "reads at most 32 tasks at a time where the interval is long, also while none of them ends",
    function* (on) {
      const ids = named(2000)
      for (const id of ids) yield* on.create(id)
      const waiting = yield* fork(
        Stream.runDrain(AsyncResult.stream(ids.map(handle), { pollInterval: "10 seconds" }))
      )
      yield* advance("15 seconds")
      yield* on.clearCalls
      yield* advance("10 seconds")
      // 8, 16, and then 32 at a time
      assert.strictEqual(on.items("read").length, 2000)
      assert.strictEqual(on.count("read"), 64)
      yield* Fiber.interrupt(waiting)
    }
  )

  each("reads nothing while its consumer is busy, whatever ends meanwhile", function* (on) {
    const ids = named(100)
    for (const id of ids) yield* on.create(id)
    yield* on.succeed(ids[0]!, 1)
    const consumer = yield* slowly(ids.map(handle))
    yield* advance("1 second")
    assert.deepStrictEqual(consumer.seen, [ids[0]])
    yield* on.clearCalls
    for (const id of ids.slice(1)) yield* on.succeed(id, 1)
    yield* advance("1 minute")
    assert.strictEqual(countRead(on), 0)
    yield* consumer.goOn
    assert.sameMembers(consumer.seen, ids)
  })

  each("that is not taken holds up no other waiter of its tasks", function* (on) {
    const ids = named(50)
    yield* endAll(on, ids)
    const consumer = yield* slowly(ids.map(handle))
    assert.deepStrictEqual(
      yield* AsyncResult.all(ids.map(handle)),
      ids.map(() => 1)
    )
    yield* consumer.goOn
    assert.sameMembers(consumer.seen, ids)
    assert.strictEqual(new Set(consumer.seen).size, consumer.seen.length)
  })

  each("shares one wait for a thousand tasks", function* (on) {
    const ids = named(1000)
    for (const id of ids) yield* on.create(id)
    const waiting = yield* fork(Stream.runCollect(AsyncResult.stream(ids.map(handle))))
    yield* advance("1 second")
    yield* on.clearCalls
    yield* advance("5 seconds")
    // nothing without a hint, or a round of four reads every 100 millis
    assert.isAtMost(on.count("subscribe", "read"), options.hints === false ? 50 * 4 + 4 : 0)
    for (const id of ids) yield* on.succeed(id, 1)
    yield* advance("1 second")
    assert.lengthOf(yield* Fiber.join(waiting), 1000)
  })

  each("emits at its consumer's pace what had ended at its deadline, and then fails", function* (on) {
    const ids = named(60)
    yield* endAll(on, ids)
    yield* on.create("missing")
    const seen: Array<string> = []
    const waiting = yield* fork(
      AsyncResult.stream([...ids, "missing"].map(handle), { timeout: "5 seconds" }).pipe(
        Stream.runForEach(([id]) =>
          Effect.delay(
            Effect.sync(() => seen.push(id)),
            "1 second"
          )
        ),
        Effect.flip
      )
    )
    yield* advance("30 seconds")
    assertPending(waiting)
    yield* advance("1 minute")
    const error = yield* Fiber.join(waiting)
    assert(error instanceof AsyncResult.TimeoutError)
    assert.strictEqual(error.taskId, "missing")
    assert.sameMembers(seen, ids)
  })

  each("finds a change without a hint at the interval of the caller", function* (on) {
    for (const id of ["a", "b"]) yield* on.create(id)
    const waiting = yield* fork(
      Stream.runCollect(AsyncResult.stream([handle("a"), handle("b")], { pollInterval: "1 second" }))
    )
    yield* on.driver.unsubscribe(["a", "b"])
    yield* on.succeed("b", 2)
    yield* advance("999 millis")
    assertPending(waiting)
    yield* on.succeed("a", 1)
    yield* advance("1 millis")
    assert.lengthOf(yield* Fiber.join(waiting), 2)
  })

  each("with an interval of zero reads as often as the clock counts", function* (on) {
    yield* on.create("a")
    for (const pollInterval of [0, "-1 second", "-Infinity"] as const) {
      yield* on.clearCalls
      const waiting = [
        yield* fork(AsyncResult.get(handle(), { pollInterval })),
        yield* fork(Stream.runDrain(AsyncResult.stream([handle()], { pollInterval })))
      ]
      yield* advance("20 millis")
      for (const fiber of waiting) assertPending(fiber)
      assert.isAtMost(on.count("read", "subscribe"), 50)
      yield* Fiber.interruptAll(waiting)
    }
  })
})

describe.each([
  ["with hints", true],
  ["without hints", false]
])("one record that cannot be read, %s", (_, hints) => {
  const corrupt: MemoryFixture.Options = {
    hints,
    backend: (driver) => {
      const refused =
        (operation: typeof driver.read): typeof driver.read =>
        (ids) =>
          ids.includes("corrupt") ? Effect.fail(new Outage({ number: 1 }) as never) : operation(ids)
      return { read: refused(driver.read), subscribe: refused(driver.subscribe), isPermanent: () => true }
    }
  }
  const each = (name: string, body: Body) => test(name, body, corrupt)
  const handles = ["a", "corrupt", "b"].map(handle)

  each("ends a stream only after all others, with an error that names it", function* (on) {
    for (const id of ["a", "b"]) yield* on.create(id)
    const seen: Array<string> = []
    const waiting = yield* fork(
      AsyncResult.stream(handles).pipe(
        Stream.runForEach(([id]) => Effect.sync(() => seen.push(id))),
        Effect.flip
      )
    )
    yield* on.succeed("b", 2)
    yield* advance("1 minute")
    assertPending(waiting)
    yield* on.succeed("a", 1)
    yield* advance("1 second")
    const error = yield* Fiber.join(waiting)
    assert(error instanceof Backend.BackendError)
    assert.strictEqual(error.taskId, "corrupt")
    assert.deepStrictEqual(seen, ["b", "a"])
  })

  each("is not read again by the stream that met it", function* (on) {
    for (const id of ["a", "b"]) yield* on.create(id)
    const waiting = yield* fork(Stream.runDrain(AsyncResult.stream(handles)))
    yield* on.clearCalls
    yield* advance("1 minute")
    assert.notInclude([...on.items("read"), ...on.items("subscribe")], "corrupt")
    yield* Fiber.interrupt(waiting)
  })

  each("loses a race", function* (on) {
    for (const id of ["a", "b"]) yield* on.create(id)
    const waiting = yield* fork(AsyncResult.race(handles))
    yield* on.fail("a", "no")
    yield* on.succeed("b", 2)
    yield* advance("1 second")
    assert.deepStrictEqual(exitOf(waiting), Exit.succeed(2))
    const alone = yield* Effect.flip(AsyncResult.race(handles.slice(0, 2)))
    assert.instanceOf(alone, Backend.BackendError)
  })

  each("fails a wait for all at once", function* (on) {
    for (const id of ["a", "b"]) yield* on.create(id)
    const error = yield* Effect.flip(AsyncResult.all(handles))
    assert(error instanceof Backend.BackendError)
    assert.strictEqual(error.taskId, "corrupt")
    assert.deepStrictEqual(yield* AsyncResult.stream([]).pipe(Stream.runCollect), [])
    yield* on.succeed("a", 1)
    yield* on.succeed("b", 2)
    assert.deepStrictEqual(yield* AsyncResult.all([handle("a"), handle("b")]), [1, 2])
  })

  each("gives way to the timeout where another task has not ended", function* (on) {
    yield* on.create("a")
    const waiting = yield* fork(
      Effect.flip(Stream.runDrain(AsyncResult.stream(handles.slice(0, 2), { timeout: "5 seconds" })))
    )
    yield* advance("5 seconds")
    const error = yield* Fiber.join(waiting)
    assert(error instanceof AsyncResult.TimeoutError)
    assert.strictEqual(error.taskId, "a")
    assert.instanceOf(error.cause, Backend.BackendError)
  })
})

describe.each([
  ["with hints", true],
  ["without hints", false]
])("a stream over a store that is away, %s", (_, hints) => {
  let down = false
  const unreliable: MemoryFixture.Options = {
    hints,
    backend: (driver) => {
      const failing =
        (operation: typeof driver.read): typeof driver.read =>
        (ids) =>
          down ? Effect.fail(new Outage({ number: 1 }) as never) : operation(ids)
      return { read: failing(driver.read), subscribe: failing(driver.subscribe) }
    }
  }

  test(
    "waits until it is back",
    function* (on) {
      down = true
      const ids = named(100)
      yield* endAll(on, ids)
      const waiting = yield* fork(Stream.runCollect(AsyncResult.stream(ids.map(handle))))
      yield* advance("1 minute")
      assertPending(waiting)
      down = false
      yield* advance("2 seconds")
      assert.lengthOf(yield* Fiber.join(waiting), 100)
    },
    unreliable
  )

  test(
    "fails when its own schedule of retries ends",
    function* () {
      down = true
      const waiting = yield* fork(
        Stream.runDrain(AsyncResult.stream([handle()])).pipe(
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
      yield* flush
    },
    unreliable
  )
})
