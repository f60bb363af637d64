import { assert, describe } from "@effect/vitest"
import { AsyncResult, Backend } from "chicory"
import { Effect, Exit, Fiber, Option, Stream } from "effect"
import { handle, unreliable } from "./support/asyncResults.ts"
import * as MemoryFixture from "./support/memoryFixture.ts"
import { fork, advance, reasonOf, assertPending } from "./support/memoryFixture.ts"
import { type Body, test } from "./support/memoryTest.ts"

const polled: MemoryFixture.Options = { hints: false }

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

    each("emits every observed change of state and progress, and ends at the terminal one", function* (on) {
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
    })

    each("emits one snapshot of a task that has ended", function* (on) {
      yield* on.create("a")
      yield* on.fail("a", "no")
      assert.deepStrictEqual(yield* collect(), [["FAILURE", null, "failed"]])
    })

    each("waits for an unknown id until it is enqueued", function* (on) {
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

    each("fails with Forgotten when the record is forgotten", function* (on) {
      yield* on.create("a")
      const seen = yield* fork(Stream.runLast(AsyncResult.changes(handle())))
      yield* AsyncResult.forget(handle())
      yield* advance("100 millis")
      const last = Option.getOrThrow(yield* Fiber.join(seen))
      assert.strictEqual(last.state, "FAILURE")
      const exit = Option.getOrThrow(last.exit)
      assert.strictEqual(reasonOf(Option.getOrThrow(Exit.findErrorOption(exit)))._tag, "Forgotten")
    })

    each("ends with Forgotten when the id is enqueued anew between two reads", function* (on) {
      yield* on.create("a", { incarnation: "1" })
      const seen = yield* fork(Stream.runCollect(AsyncResult.changes(handle())))
      yield* on.driver.unsubscribe(["a"])
      yield* on.driver.cancel(["a"])
      yield* on.driver.forget(["a"])
      yield* on.create("a", { incarnation: "2", task: "product" })
      yield* on.driver.subscribe(["a"])
      yield* on.start("a", { incarnation: "2", task: "product" })
      yield* advance("100 millis")
      const [first, last, ...more] = yield* Fiber.join(seen)
      assert.deepStrictEqual([first?.state, last?.state, last?.taskName], ["PENDING", "FAILURE", "sum"])
      assert.lengthOf(more, 0)
      const exit = Option.getOrThrow(last!.exit)
      assert.strictEqual(reasonOf(Option.getOrThrow(Exit.findErrorOption(exit)))._tag, "Forgotten")
    })

    each("unsubscribes when the consumer leaves early", function* (on) {
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
      `retries through an outage, ${hints ? "with hints" : "without hints"}`,
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
      `fails with a permanent error, ${hints ? "with hints" : "without hints"}`,
      function* () {
        const error = yield* Effect.flip(Stream.runDrain(AsyncResult.changes(handle())))
        assert(error instanceof Backend.BackendError)
        assert.strictEqual(error.taskId, "a")
      },
      unreliable(() => true, hints, true)
    )
  }
})
