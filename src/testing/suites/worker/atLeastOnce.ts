/** Guarantee 1: a task runs at least once, and has exactly one outcome. */
import { assert, describe } from "@effect/vitest"
import { Effect, Exit, Option, Schema } from "effect"
import * as AsyncResult from "../../../AsyncResult.ts"
import * as Task from "../../../Task.ts"
import * as Suite from "../Suite.ts"
import type { Test } from "./fixture.ts"

const Shout = Task.make("shout", { payload: Schema.String, success: Schema.String })
const Number = Task.make("number", { payload: Schema.Int, success: Schema.Int })

/** Registers the tests. */
export const atLeastOnce = (test: Test): void => {
  describe("guarantee 1: a task runs at least once, and has exactly one outcome", () => {
    test("a task runs, and its handle gets the result", function* (t) {
      yield* t.startWorker(
        [Shout],
        Shout.toLayer((text) => Effect.succeed(text.toUpperCase()))
      )
      const handle = yield* Shout.delay("hello")
      assert.strictEqual(yield* t.awaitValue(handle), "HELLO")
      const seen = Option.getOrThrow(yield* AsyncResult.poll(handle))
      assert.strictEqual(seen.state, "SUCCESS")
      assert.strictEqual(seen.attempts, 1)
      assert.strictEqual(seen.taskName, "shout")
      assert(
        Option.isSome(seen.enqueuedAt) && Option.isSome(seen.startedAt) && Option.isSome(seen.finishedAt)
      )
      yield* t.untilDrained()
    })

    test("a task that was enqueued before a worker starts runs once one has started", function* (t) {
      const handle = yield* Shout.delay("hello")
      yield* t.time.pass(1)
      yield* t.startWorker(
        [Shout],
        Shout.toLayer((text) => Effect.succeed(text.toUpperCase()))
      )
      assert.strictEqual(yield* t.awaitValue(handle), "HELLO")
    })

    test("a task whose worker vanished runs again after its lease, and has one outcome", function* (t) {
      let runs = 0
      const handle = yield* Shout.delay("hello")
      const dead = yield* t.startAndVanish({ lease: 2 })
      const changes = yield* t.collect(AsyncResult.changes(handle))
      yield* t.startWorker(
        [Shout],
        Shout.toLayer((text) => Effect.sync(() => `${text} ${++runs}`))
      )
      yield* t.time.pass(1)
      assert.strictEqual(runs, 0, "the lease still holds")
      assert.strictEqual(yield* t.awaitValue(handle), "hello 1")
      yield* changes.done
      assert.strictEqual(changes.values.filter(({ exit }) => Option.isSome(exit)).length, 1)
      assert.strictEqual(
        yield* dead.settle({ _tag: "Success", exit: "late", retentionMillis: t.time.long }),
        "Lost"
      )
      const { attempt, crashes } = yield* t.read(handle.taskId)
      assert.deepStrictEqual({ attempt, crashes }, { attempt: 2, crashes: 1 })
      yield* t.untilDrained()
    })

    test("a claimed message that was not started is claimed again after its lease", function* (t, context) {
      if (t.drivers.broker.capabilities.lease !== "store")
        return yield* Suite.skip(context, "a connection holds the claims")
      const handle = yield* Shout.delay("hello")
      yield* t.claimOne(t.time.units(1))
      yield* t.startWorker([Shout], Shout.toLayer(Effect.succeed))
      assert.strictEqual(yield* t.awaitValue(handle), "hello")
      assert.strictEqual((yield* t.read(handle.taskId)).crashes, 0)
    })

    test("duplicate messages run their task once", function* (t) {
      let runs = 0
      const handle = yield* Shout.delay("hello")
      const message = yield* t.claimOne()
      assert(typeof message.body === "string")
      for (let i = 0; i < 3; i++) yield* t.publishRaw(handle.taskId, "shout", message.body)
      yield* t.drivers.broker.release([{ handle: message.handle, afterMillis: 0 }])
      yield* t.startWorker(
        [Shout],
        Shout.toLayer((text) => Effect.as(Effect.yieldNow, `${text} ${++runs}`)),
        { lease: t.duration(1) }
      )
      assert.strictEqual(yield* t.awaitValue(handle), "hello 1")
      yield* t.untilDrained()
      assert.strictEqual(runs, 1)
    })

    test("no task is lost or doubled when a worker loses its connection", function* (t) {
      const handler = (n: number) => Effect.as(Effect.sleep(t.duration(0.05)), n + 1)
      const options = { lease: t.duration(3), concurrency: 8 }
      const cut = yield* t.startSeparateWorker([Number], Number.toLayer(handler), options)
      const payloads = Array.from({ length: 120 }, (_, n) => n)
      const handles = yield* Number.delayAll(payloads)
      const mine = yield* t.collect(AsyncResult.stream(handles))
      yield* t.until("some are done", () => mine.values.length > 20)
      cut.faults.cut()
      yield* t.startWorker([Number], Number.toLayer(handler), options)
      yield* mine.done
      const got = new Map(mine.values)
      const values = handles.map(({ taskId }) => Option.getOrUndefined(Exit.getSuccess(got.get(taskId)!)))
      assert.deepStrictEqual(
        values,
        payloads.map((n) => n + 1)
      )
      assert.strictEqual(mine.values.length, payloads.length)
      yield* t.untilDrained()
    })
  })
}
