/** Tasks that some workers of a queue do not know: a rolling deploy, and services that share a queue. */
import { assert, describe } from "@effect/vitest"
import { Array as Arr, Effect, Layer, Schema } from "effect"
import * as AsyncResult from "../../../AsyncResult.ts"
import * as Broker from "../../../Broker.ts"
import * as DeadLetters from "../../../DeadLetters.ts"
import * as Task from "../../../Task.ts"
import type * as Worker from "../../../Worker.ts"
import * as Suite from "../Suite.ts"
import type { Fixture, Test } from "./fixture.ts"

const Old = Task.make("old", { payload: Schema.Int, success: Schema.Int })
const New = Task.make("new", { payload: Schema.Int, success: Schema.Int })

const OldLive = Old.toLayer(Effect.succeed)
const NewLive = New.toLayer((n) => Effect.succeed(n + 1))

/** Starts a worker that knows one of the tasks, and one that knows both. */
const workers = (t: Fixture) => ({
  startOld: (options?: Worker.Options) => t.startWorker([Old], OldLive, options),
  startNew: (options?: Worker.Options) => t.startWorker([Old, New], Layer.merge(OldLive, NewLive), options)
})

/** A worker may get a message that it does not know again and again, before one that knows it does. */
const claimsEveryTask = ({ drivers }: Fixture): boolean => drivers.broker.setAside === undefined
const EVERY_TASK = "claims of this driver take the messages of every task"

/** Registers the tests. */
export const unknownTasks = (test: Test): void => {
  describe("tasks that some workers do not know", () => {
    test("wait for a worker that knows them, which runs them soon after it has started", function* (t, context) {
      if (claimsEveryTask(t)) return yield* Suite.skip(context, EVERY_TASK)
      const { startNew, startOld } = workers(t)
      yield* startOld()
      const waiting = yield* New.delayAll(Arr.range(1, 20))
      yield* t.time.pass(2)
      assert.strictEqual(yield* t.awaitValue(yield* Old.delay(7)), 7)
      for (const handle of waiting) assert.strictEqual(yield* AsyncResult.state(handle), "PENDING")
      yield* startNew()
      const values = yield* t.complete("the tasks run", AsyncResult.all(waiting))
      assert.deepStrictEqual(values, Arr.range(2, 21))
      yield* t.untilDrained()
      assert.strictEqual(yield* DeadLetters.count(), 0)
    })

    test("run beside workers that do not know them", function* (t, context) {
      if (claimsEveryTask(t)) return yield* Suite.skip(context, EVERY_TASK)
      const { startNew, startOld } = workers(t)
      for (const start of [startOld, startNew, startOld]) yield* start({ concurrency: 2 })
      const handles = yield* New.delayAll(Arr.range(1, 50))
      const values = yield* t.complete("the tasks run", AsyncResult.all(handles))
      assert.deepStrictEqual(values, Arr.range(2, 51))
      yield* t.untilDrained()
    })

    test("do not hold up those that it knows", function* (t) {
      // where every one of them is claimed and put back, they cost as many calls
      yield* New.delayAll(Arr.range(1, claimsEveryTask(t) ? 100 : 1000))
      const known = yield* Old.delay(7)
      yield* workers(t).startOld({ concurrency: 2 })
      assert.strictEqual(yield* t.awaitValue(known), 7)
    })

    test("expire while they wait, and do not run then", function* (t, context) {
      if (claimsEveryTask(t)) return yield* Suite.skip(context, EVERY_TASK)
      const { startNew, startOld } = workers(t)
      yield* startOld()
      const handle = yield* New.delay(1, { expires: t.duration(2) })
      yield* t.time.pass(3)
      yield* t.awaitReason(handle, "Expired")
      yield* startNew()
      yield* t.untilDrained()
      assert.strictEqual((yield* t.read(handle.taskId)).attempt, 0)
    })

    test("are cancelled while they wait, and do not run then", function* (t, context) {
      if (claimsEveryTask(t)) return yield* Suite.skip(context, EVERY_TASK)
      const { startNew, startOld } = workers(t)
      yield* startOld()
      const handle = yield* New.delay(1)
      yield* t.time.pass(1)
      assert.strictEqual(yield* AsyncResult.cancel(handle), "Cancelled")
      yield* t.awaitReason(handle, "Cancelled")
      yield* startNew()
      yield* t.untilDrained()
      assert.strictEqual((yield* t.read(handle.taskId)).attempt, 0)
    })

    test("end as cancelled when their queue is purged", function* (t) {
      yield* workers(t).startOld()
      const handles = yield* New.delayAll([1, 2, 3])
      yield* t.time.pass(1)
      // where they are put back, one may be claimed at this moment
      yield* t.eventually(
        "the queue is empty",
        Effect.andThen(
          Broker.purge("default"),
          Effect.map(
            t.counts(),
            ({ claimed, delayed, ready, setAside = 0 }) => claimed + delayed + ready + setAside === 0
          )
        )
      )
      for (const handle of handles) yield* t.awaitReason(handle, "Cancelled")
    })

    test("end after their grace, beside others that run, whatever their number", function* (t) {
      const count = 600
      const ended = yield* New.delayAll(Arr.range(1, count))
      yield* workers(t).startOld({ unknownTaskGrace: t.duration(1) })
      yield* t.time.pass(1)
      assert.strictEqual(yield* t.awaitValue(yield* Old.delay(7)), 7)
      yield* t.eventually(
        "all have ended",
        Effect.map(DeadLetters.count(New), (letters) => letters === count)
      )
      yield* t.awaitReason(ended[count - 1]!, "UnknownTask")
      yield* t.untilDrained()
    })

    test("of which a store cannot start the end stay, and end later", function* (t) {
      yield* workers(t).startOld({ unknownTaskGrace: 0, lease: t.duration(2) })
      t.faults.set("fails", ["backend.start"], 3)
      const handles = yield* New.delayAll([1, 2, 3])
      for (const handle of handles) yield* t.awaitReason(handle, "UnknownTask")
      yield* t.untilDrained()
      assert.strictEqual(yield* DeadLetters.count(), 3)
    })
  })
}
