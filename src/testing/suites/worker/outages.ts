/** Guarantee 9: a store that is away for a while ends neither a worker nor a waiter. */
import { assert, describe } from "@effect/vitest"
import { Effect, Exit, Schema } from "effect"
import * as AsyncResult from "../../../AsyncResult.ts"
import * as Task from "../../../Task.ts"
import * as Suite from "../Suite.ts"
import { Gate, type Test } from "./fixture.ts"

const Work = Task.make("work", { payload: Schema.Int, success: Schema.Int, progress: Schema.Int })

/** Registers the tests. */
export const outages = (test: Test): void => {
  describe("9: a lost connection never ends a worker", () => {
    test("it claims again when the broker is back", function* (on) {
      const worker = yield* on.workApart([Work], Work.toLayer(Effect.succeed))
      assert.strictEqual(yield* on.value(yield* Work.delay(1)), 1)
      worker.faults.cut()
      yield* on.time.pass(5)
      const handle = yield* Work.delay(2)
      yield* on.time.pass(3)
      assert.strictEqual(yield* AsyncResult.state(handle), "PENDING")
      worker.faults.heal()
      assert.strictEqual(yield* on.value(handle), 2)
      yield* on.drained()
    })

    test("it starts over a store that is not there yet", function* (on) {
      on.faults.cut()
      yield* on.work([Work], Work.toLayer(Effect.succeed))
      yield* on.time.pass(4)
      on.faults.heal()
      assert.strictEqual(yield* on.value(yield* Work.delay(1)), 1)
    })

    test("it claims without being told that there is a reason", function* (on) {
      const worker = yield* on.workApart([Work], Work.toLayer(Effect.succeed))
      worker.faults.set("fails", ["broker.ready"])
      worker.faults.breakStreams()
      assert.strictEqual(yield* on.value(yield* Work.delay(1)), 1)
    })

    test("it is told of reasons again after they broke off", function* (on) {
      const worker = yield* on.workApart([Work], Work.toLayer(Effect.succeed))
      for (let n = 0; n < 5; n++) {
        worker.faults.breakStreams()
        assert.strictEqual(yield* on.value(yield* Work.delay(n)), n)
      }
    })

    test("a driver that dies is a driver that fails", function* (on) {
      let dying = 5
      on.faults.of = (operation) => {
        if (operation === "broker.claim" && dying-- > 0) throw new TypeError("a driver with a bug")
        return "passes"
      }
      yield* on.work([Work], Work.toLayer(Effect.succeed))
      assert.strictEqual(yield* on.value(yield* Work.delay(1)), 1)
      assert.isBelow(dying, 0)
    })

    test("a broker that fails while tasks start, run and end", function* (on) {
      let seed = 1
      const worker = yield* on.workApart(
        [Work],
        Work.toLayer((n) => Effect.as(Effect.sleep(on.duration(0.1)), n)),
        { lease: on.duration(3), concurrency: 4 }
      )
      // a third of all calls, in no rhythm that theirs could fall in with
      worker.faults.of = () => {
        seed = (seed * 48_271) % 2_147_483_647
        return seed % 3 === 0 ? "fails" : "passes"
      }
      const handles = yield* Work.delayAll(Array.from({ length: 30 }, (_, n) => n))
      const values = yield* on.within("they end", AsyncResult.all(handles))
      assert.deepStrictEqual(
        values,
        Array.from({ length: 30 }, (_, n) => n)
      )
      worker.faults.heal()
      yield* on.drained()
    })

    test("an answer to a claim that was lost costs one lease", function* (on, context) {
      if (on.drivers.broker.capabilities.lease !== "store")
        return yield* Suite.skip(context, "a connection holds the claims")
      on.faults.set("answer lost", ["broker.claim"], 1)
      const handle = yield* Work.delay(1)
      yield* on.work([Work], Work.toLayer(Effect.succeed), { lease: on.duration(2) })
      assert.strictEqual(yield* on.value(handle), 1)
      assert.strictEqual((yield* on.read(handle.taskId)).crashes, 0)
    })

    test("progress that cannot be written does not end the handler", function* (on) {
      const worker = yield* on.workApart(
        [Work],
        Work.toLayer((n) => Effect.as(Work.progress(n), n))
      )
      worker.faults.set("fails", ["backend.renew"])
      assert.strictEqual(yield* on.value(yield* Work.delay(1)), 1)
    })
  })

  describe("9: a lost connection never ends a waiter", () => {
    test("whoever waits reads again when the store is back", function* (on) {
      const gate = new Gate()
      const worker = yield* on.workApart(
        [Work],
        Work.toLayer((n) => Effect.as(gate.pass, n))
      )
      const handle = yield* Work.delay(1)
      const waiter = yield* on.follow(AsyncResult.stream([handle]))
      yield* on.until("it runs", () => gate.entered === 1)
      on.faults.cut()
      gate.open()
      yield* on.eventually(
        "it has ended",
        Effect.map(worker.stats, ({ succeeded }) => succeeded === 1)
      )
      yield* on.time.pass(3)
      assert.strictEqual(waiter.seen.length, 0)
      on.faults.heal()
      yield* waiter.done
      assert.isTrue(Exit.isSuccess(waiter.seen[0]![1]))
    })

    test("hints that broke off leave no gap", function* (on) {
      const gate = new Gate()
      yield* on.workApart(
        [Work],
        Work.toLayer((n) => Effect.as(gate.pass, n))
      )
      const handle = yield* Work.delay(1)
      const waiter = yield* on.follow(AsyncResult.stream([handle]))
      yield* on.until("it runs", () => gate.entered === 1)
      on.faults.breakStreams()
      gate.open()
      yield* waiter.done
      assert.isTrue(Exit.isSuccess(waiter.seen[0]![1]))
    })

    test("without any hints the result is found", function* (on) {
      on.faults.set("fails", ["backend.hints"])
      yield* on.workApart(
        [Work],
        Work.toLayer((n) => Effect.as(Effect.sleep(on.duration(1)), n))
      )
      assert.strictEqual(yield* on.value(yield* Work.delay(1)), 1)
    })

    test("a wait that is bounded ends in time, and tells what was in its way", function* (on) {
      const handle = yield* Work.delay(1)
      on.faults.cut()
      const error = yield* on.within(
        "the wait is over",
        Effect.flip(AsyncResult.get(handle, { timeout: on.duration(3) }))
      )
      assert(error._tag === "TimeoutError")
      assert.strictEqual(error.taskId, handle.taskId)
      assert.isDefined(error.cause)
    })

    test("what cannot heal is told at once", function* (on) {
      const handle = yield* Work.delay(1)
      on.faults.set("refused", ["backend.subscribe", "backend.read"])
      const error = yield* on.within("the wait is over", Effect.flip(AsyncResult.get(handle)))
      assert(error._tag === "BackendError")
      assert.isFalse(error.retryable)
      assert.strictEqual(error.taskId, handle.taskId)
      on.faults.heal()
      yield* on.work([Work], Work.toLayer(Effect.succeed))
      assert.strictEqual(yield* on.value(handle), 1)
    })

    test("a cancel that is asked for while nobody listens is found by the next renewal", function* (on) {
      const gate = new Gate()
      const worker = yield* on.workApart(
        [Work],
        Work.toLayer((n) => Effect.as(gate.pass, n)),
        { lease: on.duration(9) }
      )
      const handle = yield* Work.delay(1)
      yield* on.until("it runs", () => gate.entered === 1)
      worker.faults.cut()
      assert.strictEqual(yield* AsyncResult.cancel(handle), "Requested")
      worker.faults.heal()
      yield* on.reason(handle, "Cancelled")
    })
  })

  describe("9: a call whose outcome is unknown is safe to repeat", () => {
    test("an enqueue with an id of one's own", function* (on) {
      let runs = 0
      on.faults.set("answer lost", ["backend.create", "broker.publish", "backend.markPublished"], 3)
      const id = "an id of one's own"
      let failures = 0
      const send = Effect.tapError(Work.delay(1, { id }), () => Effect.sync(() => failures++))
      const handle = yield* on.within("it is accepted", Effect.eventually(send))
      assert.isAbove(failures, 0)
      yield* on.work(
        [Work],
        Work.toLayer(() => Effect.sync(() => ++runs))
      )
      assert.strictEqual(yield* on.value(handle), 1)
      yield* on.time.pass(1)
      yield* on.drained()
      assert.strictEqual(runs, 1)
    })

    test("an enqueue that failed between its steps strands neither the key nor the task", function* (on) {
      const Keyed = Task.make("keyed", {
        payload: Schema.Int,
        success: Schema.Int,
        idempotencyKey: (n) => `key ${n}`
      })
      on.faults.set("fails", ["broker.publish", "backend.create"], 1)
      assert.isTrue(Exit.isFailure(yield* Effect.exit(Keyed.delay(1))))
      const handle = yield* Keyed.delay(1)
      yield* on.work([Keyed], Keyed.toLayer(Effect.succeed))
      assert.strictEqual(yield* on.value(handle), 1)
      assert.strictEqual((yield* Keyed.delay(1)).taskId, handle.taskId)
      yield* on.drained()
    })

    test("a message without a record is a task all the same", function* (on) {
      on.faults.set("fails", ["backend.create"], 1)
      const sent = yield* Effect.exit(Work.delay(1))
      yield* on.work([Work], Work.toLayer(Effect.succeed))
      yield* on.drained()
      assert.isTrue(Exit.isFailure(sent))
    })
  })
}
