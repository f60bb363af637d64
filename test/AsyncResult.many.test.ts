import { assert, describe, it } from "@effect/vitest"
import { AsyncResult, type Backend } from "chicory"
import { Clock, Effect, Exit, Fiber, Option, Schema, type Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as MemoryFixture from "./support/memoryFixture.ts"
import { fork, exitOf, advance, reasonOf, assertPending } from "./support/memoryFixture.ts"

const schemas = { success: Schema.Number, error: Schema.String }
const handle = (id: string) => AsyncResult.make(id, schemas)
const handles = (...ids: ReadonlyArray<string>) => ids.map(handle)

type Body = (
  on: MemoryFixture.MemoryFixture
) => Effect.fn.Return<void, unknown, Scope.Scope | Backend.Backend>

/** Registers a test over a memory fixture on which tasks a, b and c are enqueued. */
const test = (name: string, body: Body, options?: MemoryFixture.Options) =>
  it.effect(name, () =>
    Effect.flatMap(MemoryFixture.make(options), (on) =>
      Effect.gen(function* () {
        for (const id of ["a", "b", "c"]) yield* on.create(id)
        yield* Effect.gen(() => body(on))
      }).pipe(Effect.provideContext(on.context))
    )
  )

const failureOf = (exit: Exit.Exit<unknown, unknown>): unknown => {
  const reason = reasonOf(Option.getOrThrow(Exit.findErrorOption(exit)))
  return reason._tag === "Failed" ? reason.error : reason._tag
}

describe.each([
  ["with hints", {}],
  ["without hints", { hints: false }]
])("%s", (_, options) => {
  const each = (name: string, body: Body) => test(name, body, options)

  describe("all", () => {
    each("returns the values of a tuple in its order, whatever order the tasks end in", function* (on) {
      const text = AsyncResult.make("b", { success: Schema.String })
      const waiting = yield* fork(AsyncResult.all([handle("a"), text, handle("c")]))
      yield* on.succeed("c", 3)
      yield* on.succeed("b", "two")
      yield* advance("1 second")
      assertPending(waiting)
      yield* on.succeed("a", 1)
      yield* advance("100 millis")
      const values: readonly [number, string, number] = yield* Fiber.join(waiting)
      assert.deepStrictEqual(values, [1, "two", 3])
    })

    each("returns the values of a record under its keys", function* (on) {
      for (const id of ["a", "b"]) yield* on.succeed(id, id.length)
      const values = yield* AsyncResult.all({ first: handle("a"), second: handle("b") })
      assert.deepStrictEqual(values, { first: 1, second: 1 })
    })

    each("returns the values of any iterable", function* (on) {
      for (const id of ["a", "b"]) yield* on.succeed(id, id.charCodeAt(0))
      assert.deepStrictEqual(yield* AsyncResult.all(new Set(handles("a", "b"))), [97, 98])
    })

    each("returns an empty result at once for no handles", function* (on) {
      assert.deepStrictEqual(yield* AsyncResult.all([]), [])
      assert.deepStrictEqual(yield* AsyncResult.all({}), {})
      assert.strictEqual(on.count("subscribe", "read"), 0)
    })

    each("fails with the first failure while the other tasks run on", function* (on) {
      yield* on.start("a")
      const waiting = yield* fork(Effect.exit(AsyncResult.all(handles("a", "b", "c"))))
      yield* on.fail("c", "first")
      yield* advance("100 millis")
      assert.strictEqual(failureOf(yield* Fiber.join(waiting)), "first")
      assert.strictEqual(yield* AsyncResult.state(handle("a")), "STARTED")
      assert.strictEqual(on.count("cancel"), 0)
    })

    each("fails at once when a result does not decode", function* (on) {
      const waiting = yield* fork(Effect.exit(AsyncResult.all(handles("a", "b"))))
      yield* on.succeed("b", "no number")
      yield* advance("1 second")
      assert.strictEqual(failureOf(yield* Fiber.join(waiting)), "ResultInvalid")
    })

    each("accepts the same task twice, with different schemas", function* (on) {
      yield* on.succeed("a", 1)
      const values = yield* AsyncResult.all([handle("a"), handle("a"), AsyncResult.make("a")])
      assert.deepStrictEqual(values, [1, 1, 1])
    })

    each("names the first missing task in its TimeoutError", function* (on) {
      yield* on.succeed("a", 1)
      yield* on.start("b")
      const waiting = yield* fork(
        Effect.flip(AsyncResult.all(handles("a", "b", "c"), { timeout: "5 seconds" }))
      )
      yield* advance("5 seconds")
      const error = yield* Fiber.join(waiting)
      assert(error instanceof AsyncResult.TimeoutError)
      assert.strictEqual(error.taskId, "b")
      assert.strictEqual(error.state, "STARTED")
    })

    each("shares the reads of all its handles", function* (on) {
      const ids = Array.from({ length: 200 }, (_, i) => `task ${i}`)
      for (const id of ids) yield* on.create(id)
      const waiting = yield* fork(AsyncResult.all(ids.map(handle)))
      assert.strictEqual(on.count("subscribe", "read"), 1)
      for (const id of ids) yield* on.succeed(id, 1)
      yield* advance("100 millis")
      assert.strictEqual((yield* Fiber.join(waiting)).length, 200)
      assert.isAtMost(on.count("subscribe", "read"), 2)
    })

    each("fails when one of the records is forgotten", function* () {
      const waiting = yield* fork(Effect.exit(AsyncResult.all(handles("a", "b"))))
      yield* AsyncResult.forget(handle("b"))
      yield* advance("100 millis")
      assert.strictEqual(failureOf(yield* Fiber.join(waiting)), "Forgotten")
    })

    each("fails when one of the ids is enqueued anew between two reads", function* (on) {
      yield* on.create("d", { incarnation: "1" })
      const waiting = yield* fork(
        Effect.exit(AsyncResult.all(handles("a", "d"), { pollInterval: "1 minute" }))
      )
      yield* on.driver.unsubscribe(["d"])
      yield* on.driver.cancel(["d"])
      yield* on.driver.forget(["d"])
      yield* on.create("d", { incarnation: "2" })
      yield* advance("1 minute")
      assert.strictEqual(failureOf(yield* Fiber.join(waiting)), "Forgotten")
    })
  })

  describe("race", () => {
    each("returns the first success while the other tasks run on", function* (on) {
      const waiting = yield* fork(AsyncResult.race(handles("a", "b", "c")))
      yield* on.fail("a", "no")
      yield* advance("1 second")
      assertPending(waiting)
      yield* on.succeed("c", 3)
      yield* advance("100 millis")
      assert.deepStrictEqual(exitOf(waiting), Exit.succeed(3))
      assert.strictEqual(yield* AsyncResult.state(handle("b")), "PENDING")
    })

    each("fails with the last failure when all tasks fail", function* (on) {
      const waiting = yield* fork(Effect.exit(AsyncResult.race(handles("a", "b", "c"))))
      for (const id of ["c", "a", "b"]) {
        yield* on.fail(id, `no, said ${id}`)
        yield* advance("100 millis")
      }
      assert.strictEqual(failureOf(yield* Fiber.join(waiting)), "no, said b")
    })

    each("continues after a result that does not decode", function* (on) {
      yield* on.succeed("a", "no number")
      yield* on.succeed("b", 2)
      assert.strictEqual(yield* AsyncResult.race(handles("a", "b", "c")), 2)
    })

    each("unsubscribes from all tasks once it has a winner", function* (on) {
      yield* on.succeed("b", 2)
      yield* AsyncResult.race(handles("a", "b", "c"))
      yield* MemoryFixture.flush
      assert.strictEqual(on.items("unsubscribe").length, on.items("subscribe").length)
      yield* on.clearCalls
      yield* advance("1 minute")
      assert.strictEqual(on.count("read", "subscribe"), 0)
    })

    each("fails with TimeoutError at its deadline", function* (on) {
      yield* on.fail("a", "no")
      const waiting = yield* fork(Effect.flip(AsyncResult.race(handles("a", "b"), { timeout: "1 second" })))
      yield* advance("1 second")
      const error = yield* Fiber.join(waiting)
      assert(error instanceof AsyncResult.TimeoutError)
      assert.strictEqual(error.taskId, "b")
    })

    each("rejects an empty list of handles as a defect", function* () {
      const exit = yield* Effect.exit(AsyncResult.race([]))
      assert.isTrue(Exit.hasDies(exit))
    })
  })

  describe("stream", () => {
    const collected = (...ids: ReadonlyArray<string>) =>
      AsyncResult.stream(handles(...ids)).pipe(
        Stream.map(([id, exit]) => [id, Exit.isSuccess(exit) ? exit.value : failureOf(exit)]),
        Stream.runCollect
      )

    each("emits each outcome once, as it arrives; a failure is an element", function* (on) {
      const waiting = yield* fork(collected("a", "b", "c", "a"))
      yield* on.succeed("b", 2)
      yield* advance("100 millis")
      yield* on.fail("c", "no")
      yield* advance("100 millis")
      assertPending(waiting)
      yield* on.succeed("a", 1)
      yield* advance("100 millis")
      assert.deepStrictEqual(yield* Fiber.join(waiting), [
        ["b", 2],
        ["c", "no"],
        ["a", 1]
      ])
    })

    each("emits an outcome before the others have ended", function* (on) {
      yield* on.succeed("b", 2)
      const first = yield* Stream.runHead(AsyncResult.stream(handles("a", "b")))
      assert.deepStrictEqual(first, Option.some(["b", Exit.succeed(2)] as const))
    })

    each("loses no outcome when all end at once and the consumer is slow", function* (on) {
      const ids = Array.from({ length: 1000 }, (_, i) => `task ${i}`)
      for (const id of ids) yield* on.create(id)
      const waiting = yield* fork(
        AsyncResult.stream(ids.map(handle)).pipe(
          Stream.mapEffect(([id]) => Effect.delay(Effect.succeed(id), "1 millis")),
          Stream.runCollect
        )
      )
      for (const id of ids) yield* on.succeed(id, 1)
      yield* advance("10 seconds")
      assert.sameMembers([...(yield* Fiber.join(waiting))], ids)
    })

    each("ends with TimeoutError when the deadline passes before all have arrived", function* (on) {
      yield* on.succeed("a", 1)
      const seen: Array<string> = []
      const waiting = yield* fork(
        AsyncResult.stream(handles("a", "b"), { timeout: "5 seconds" }).pipe(
          Stream.runForEach(([id]) => Effect.sync(() => seen.push(id))),
          Effect.flip
        )
      )
      yield* advance("5 seconds")
      const error = yield* Fiber.join(waiting)
      assert(error instanceof AsyncResult.TimeoutError)
      assert.strictEqual(error.taskId, "b")
      assert.deepStrictEqual(seen, ["a"])
    })

    each("ends at once for no handles", function* () {
      assert.deepStrictEqual(yield* Stream.runCollect(AsyncResult.stream([])), [])
    })
  })
})

describe("handles from an iterator that can be read once", () => {
  function* each(...ids: ReadonlyArray<string>) {
    yield* handles(...ids)
  }

  test("are read when the effect is made, so that it can be run twice", function* (on) {
    yield* on.succeed("a", 1)
    yield* on.succeed("b", 2)
    const all = AsyncResult.all(each("a", "b"))
    const race = AsyncResult.race(each("a"))
    const stream = Stream.runCollect(AsyncResult.stream(each("a", "b")))
    for (const _ of ["first", "second"]) {
      assert.deepStrictEqual(yield* all, [1, 2])
      assert.strictEqual(yield* race, 1)
      assert.strictEqual((yield* stream).length, 2)
    }
  })

  test("are all waited for again when a wait is retried", function* (on) {
    yield* on.succeed("a", 1)
    const waiting = yield* fork(
      Effect.retry(AsyncResult.all(each("a", "b"), { timeout: "1 second" }), { times: 2 })
    )
    yield* advance("1500 millis")
    yield* on.succeed("b", 2)
    yield* advance("1 second")
    assert.deepStrictEqual(yield* Fiber.join(waiting), [1, 2])
  })
})

describe("10,000 waiting handles in one process", () => {
  const ids = Array.from({ length: 10_000 }, (_, i) => `task ${i}`)
  const waitForAll = Effect.forEach(ids, (id) => AsyncResult.get(handle(id)), { concurrency: "unbounded" })

  test("cost the store a few batched calls per second", function* (on) {
    for (const id of ids) yield* on.create(id)
    const waiting = yield* fork(waitForAll)
    assert.isAtMost(on.count("subscribe"), 20)
    yield* on.clearCalls
    yield* advance("1 minute")
    assertPending(waiting)
    // 12 sweeps
    assert.isAtMost(on.count("read", "subscribe"), 12)
    yield* on.clearCalls
    for (const id of ids) yield* on.succeed(id, 1)
    yield* advance("100 millis")
    assert.strictEqual((yield* Fiber.join(waiting)).length, 10_000)
    assert.isAtMost(on.count("read", "subscribe"), 100)
    assert.isAtMost(on.count("unsubscribe"), 100)
  })

  test("cost as much as one handle when they wait for the same task", function* (on) {
    const waiting = yield* fork(
      Effect.forEach(ids, () => AsyncResult.get(handle("a")), { concurrency: "unbounded" })
    )
    yield* advance("1 minute")
    assert.isAtMost(on.count("read", "subscribe"), 14)
    yield* on.succeed("a", 1)
    yield* advance("100 millis")
    assert.strictEqual((yield* Fiber.join(waiting)).length, 10_000)
  })

  test("time out in the order of their deadlines, each at its own", function* (on) {
    const seen: Array<readonly [id: string, at: number]> = []
    const millis = (i: number) => 1 + ((i * 7919) % 5000)
    const waiting = yield* fork(
      Effect.forEach(
        ids,
        (id, i) =>
          AsyncResult.get(handle(id), { timeout: millis(i) }).pipe(
            Effect.flip,
            Effect.andThen(Clock.currentTimeMillis),
            Effect.map((at) => seen.push([id, at]))
          ),
        { concurrency: "unbounded", discard: true }
      )
    )
    yield* advance("1 hour")
    assert.isTrue(Exit.isSuccess(exitOf(waiting)))
    assert.deepStrictEqual(
      seen,
      ids.map((id, i) => [id, millis(i)] as const).toSorted(([, a], [, b]) => a - b)
    )
    yield* MemoryFixture.flush
    assert.strictEqual(on.items("unsubscribe").length, ids.length)
  })

  test("share one batched read at a common deadline and return what it finds", function* (on) {
    const waiting = yield* fork(
      Effect.forEach(ids, (id) => Effect.exit(AsyncResult.get(handle(id), { timeout: "3 seconds" })), {
        concurrency: "unbounded"
      })
    )
    yield* advance("2999 millis")
    assertPending(waiting)
    // changes without hints
    yield* on.driver.unsubscribe(["task 7", "task 9999"])
    yield* on.create("task 7")
    yield* on.create("task 9999")
    yield* on.succeed("task 7", 7)
    yield* on.succeed("task 9999", 9999)
    yield* on.clearCalls
    yield* advance("1 millis")
    const exits = yield* Fiber.join(waiting)
    const found = exits.flatMap((exit, i) => (Exit.isSuccess(exit) ? [[i, exit.value]] : []))
    assert.deepStrictEqual(found, [
      [7, 7],
      [9999, 9999]
    ])
    assert.isAtMost(on.count("read"), 50)
  })

  test("leave no subscription behind when they are interrupted", function* (on) {
    const waiting = yield* fork(
      Effect.forEach(ids, (id) => AsyncResult.get(handle(id), { timeout: "1 minute" }), {
        concurrency: "unbounded"
      })
    )
    yield* Fiber.interrupt(waiting)
    yield* advance("1 second")
    assert.strictEqual(on.items("unsubscribe").length, ids.length)
    yield* on.clearCalls
    yield* advance("2 minutes")
    assert.strictEqual(on.count("read", "subscribe", "unsubscribe"), 0)
  })

  test(
    "return what a slow read finds at the deadline of all",
    function* (on) {
      const both = AsyncResult.all(handles("a", "b"), { timeout: "3 seconds" })
      const waiting = yield* fork(both)
      const late = yield* fork(Effect.flip(AsyncResult.all(handles("a", "c"), { timeout: "3 seconds" })))
      const interrupted = yield* fork(both)
      yield* advance("2999 millis")
      yield* on.driver.unsubscribe(["a", "b"])
      yield* on.succeed("a", 1)
      yield* on.succeed("b", 2)
      yield* advance("500 millis")
      assertPending(waiting)
      yield* Fiber.interrupt(interrupted)
      yield* advance("1 second")
      assert.deepStrictEqual(exitOf(waiting), Exit.succeed([1, 2]))
      const error = yield* Fiber.join(late)
      assert(error instanceof AsyncResult.TimeoutError)
      assert.strictEqual(error.taskId, "c")
    },
    { backend: (driver) => ({ read: (ids) => Effect.delay(driver.read(ids), "600 millis") }) }
  )

  it.effect("time out by the waiting process's clock, not the backend's", () =>
    Effect.gen(function* () {
      const on = yield* MemoryFixture.make()
      const timed = (id: string) =>
        AsyncResult.get(handle(id), { timeout: "20 millis" }).pipe(
          Effect.flip,
          Effect.provideContext(on.context)
        )
      const waiting = yield* fork(timed("a"))
      const live = yield* TestClock.withLive(timed("b"))
      assert.strictEqual(live._tag, "TimeoutError")
      assertPending(waiting)
      yield* advance("20 millis")
      assert.isTrue(Exit.isSuccess(exitOf(waiting)))
    })
  )
})
