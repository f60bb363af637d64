/** Guarantees 1, 2 and 5: a message acts on the enqueue that it was sent for, and on no other. */
import { assert, describe } from "@effect/vitest"
import { Effect, Schema } from "effect"
import * as AsyncResult from "../../../AsyncResult.ts"
import * as Broker from "../../../Broker.ts"
import * as DeadLetters from "../../../DeadLetters.ts"
import * as Task from "../../../Task.ts"
import { type Fixture, Gate, type Test } from "./fixture.ts"

const Mail = Task.make("mail", {
  payload: Schema.String,
  success: Schema.String,
  error: Schema.String
})

/** Starts a worker that notes the payloads of its runs, and fails for "wrong". */
const startMailWorker = Effect.fnUntraced(function* (t: Fixture) {
  const runs: Array<string> = []
  yield* t.startWorker(
    [Mail],
    Mail.toLayer((text) => {
      runs.push(text)
      return text === "wrong" ? Effect.fail("no") : Effect.succeed(text)
    })
  )
  return runs
})

/** Registers the tests. */
export const incarnations = (test: Test): void => {
  describe("guarantees 1 and 2: a message acts on its own enqueue alone", () => {
    test("a delayed task that was cancelled does not run, though its record is gone before it is due", function* (t) {
      const Brief = Task.make("brief", { retention: t.duration(1) })
      let runs = 0
      yield* t.startWorker(
        [Brief],
        Brief.toLayer(() => Effect.sync(() => void runs++))
      )
      const outlived = yield* Brief.delay({ delay: t.duration(4) })
      const forgotten = yield* Brief.delay({ delay: t.duration(4) })
      for (const handle of [outlived, forgotten]) {
        assert.strictEqual(yield* AsyncResult.cancel(handle), "Cancelled")
      }
      yield* AsyncResult.forget(forgotten)
      yield* t.time.pass(6)
      yield* t.untilDrained()
      assert.strictEqual(runs, 0)
    })

    test("a delayed task that expired does not run, though its record is gone before it is due", function* (t) {
      const Brief = Task.make("brief", { retention: t.duration(1), expires: t.duration(1) })
      let runs = 0
      yield* Brief.send({ delay: t.duration(5) })
      yield* t.startWorker(
        [Brief],
        Brief.toLayer(() => Effect.sync(() => void runs++))
      )
      yield* t.time.pass(7)
      yield* t.untilDrained()
      assert.strictEqual(runs, 0)
    })

    test("an id that is enqueued anew runs with its new payload, and the old one never", function* (t) {
      const runs = yield* startMailWorker(t)
      const first = yield* Mail.delay("old", { id: "a", delay: t.duration(2) })
      yield* AsyncResult.cancel(first)
      yield* AsyncResult.forget(first)
      const second = yield* Mail.delay("new", { id: "a", delay: t.duration(8) })
      yield* t.time.pass(3)
      assert.deepStrictEqual(runs, [])
      assert.strictEqual(yield* t.awaitValue(second), "new")
      yield* t.untilDrained()
      assert.deepStrictEqual(runs, ["new"])
    })

    test("a message that comes again after the retention of its task does not run it again", function* (t) {
      const Brief = Task.make("brief", { payload: Schema.Int, retention: t.duration(1) })
      let runs = 0
      const handle = yield* Brief.delay(7)
      const run = yield* t.startAndVanish({ lease: 3 })
      yield* run.settle({ _tag: "Success", exit: `{"_tag":"Success"}`, retentionMillis: t.time.units(1) })
      yield* t.startWorker(
        [Brief],
        Brief.toLayer(() => Effect.sync(() => void runs++))
      )
      yield* t.time.pass(4)
      yield* t.untilDrained()
      assert.strictEqual(runs, 0)
      assert.strictEqual(yield* AsyncResult.state(handle), "PENDING")
    })

    test("the id of a forgotten task that still runs is a conflict, and is free when it has ended", function* (t) {
      const gate = new Gate()
      yield* t.startWorker(
        [Mail],
        Mail.toLayer((text) => (text === "first" ? Effect.as(gate.pass, text) : Effect.succeed(text)))
      )
      const first = yield* Mail.delay("first", { id: "a" })
      yield* t.until("it runs", () => gate.entered === 1)
      yield* AsyncResult.forget(first)
      const error = yield* Effect.flip(Mail.delay("first", { id: "a" }))
      assert.strictEqual(error._tag, "IdempotencyConflict")
      gate.open()
      yield* t.untilDrained()
      assert.strictEqual(yield* t.awaitValue(yield* Mail.delay("second", { id: "a" })), "second")
    })

    test("an old dead letter does not take over a newer task of its id, and can be replayed as a new task", function* (t) {
      const runs = yield* startMailWorker(t)
      const first = yield* Mail.delay("wrong", { id: "a" })
      yield* t.awaitReason(first, "Failed")
      yield* AsyncResult.forget(first)
      const second = yield* Mail.delay("right", { id: "a" })
      assert.strictEqual(yield* t.awaitValue(second), "right")
      const [letter] = yield* DeadLetters.list(Mail)
      assert(letter !== undefined)
      const error = yield* Effect.flip(DeadLetters.replay(letter.id))
      assert.strictEqual(error._tag, "NotReplayable")
      assert.strictEqual(yield* DeadLetters.count(), 1)
      assert.strictEqual(yield* t.awaitValue(second), "right")

      const taskId = yield* DeadLetters.replayAsNew(letter.id)
      assert(taskId._tag === "Some")
      yield* t.awaitReason(Mail.result(taskId.value), "Failed")
      yield* t.untilDrained()
      assert.deepStrictEqual(runs, ["wrong", "right", "wrong"])
      const letters = yield* DeadLetters.list(Mail)
      assert.deepStrictEqual(
        letters.map((entry) => entry.taskId),
        [taskId]
      )
      assert.strictEqual(yield* t.awaitValue(second), "right")
    })

    test("a replay as a new task that did not remove its dead letter makes no second task", function* (t) {
      const runs = yield* startMailWorker(t)
      yield* t.awaitReason(yield* Mail.delay("wrong"), "Failed")
      const [letter] = yield* DeadLetters.list(Mail)
      assert(letter !== undefined)
      t.faults.set("fails", ["backend.removeDeadLetters"], 1)
      yield* Effect.flip(DeadLetters.replayAsNew(letter.id))
      const taskId = yield* DeadLetters.replayAsNew(letter.id)
      assert(taskId._tag === "Some")
      yield* t.awaitReason(Mail.result(taskId.value), "Failed")
      yield* t.untilDrained()
      assert.deepStrictEqual(runs, ["wrong", "wrong"])
      assert.strictEqual(yield* DeadLetters.count(), 1)
    })

    test("there is nothing to replay as a new task without a dead letter", function* () {
      assert.strictEqual((yield* DeadLetters.replayAsNew("nobody"))._tag, "None")
    })
  })

  describe("guarantee 5: a purge completes the waiters of what it removed", () => {
    test("of tasks that wait, ready or delayed, as cancelled", function* (t) {
      const handles = [
        yield* Mail.delay("a"),
        yield* Mail.delay("b", { id: "b" }),
        yield* Mail.delay("c", { delay: t.duration(50) })
      ]
      assert.strictEqual(yield* Broker.purge("default"), 3)
      for (const handle of handles) yield* t.awaitReason(handle, "Cancelled")
    })

    test("of a task whose worker has vanished, when its lease is over", function* (t) {
      const handle = yield* Mail.delay("a")
      yield* t.startAndVanish({ lease: 2 })
      yield* t.time.pass(3)
      assert.strictEqual(yield* Broker.purge("default"), 1)
      yield* t.awaitReason(handle, "Cancelled")
      yield* t.untilDrained()
    })

    test("and leaves an enqueue of the same id alone that came later", function* (t) {
      const first = yield* Mail.delay("old", { id: "a" })
      const messages = yield* t.drivers.broker.purge("default", 10)
      yield* AsyncResult.cancel(first)
      yield* AsyncResult.forget(first)
      const second = yield* Mail.delay("new", { id: "a" })
      assert.lengthOf(messages, 1)
      yield* t.drivers.backend.withdraw([messages[0]!])
      yield* startMailWorker(t)
      assert.strictEqual(yield* t.awaitValue(second), "new")
    })

    test("and does not cancel a task that runs", function* (t) {
      const gate = new Gate()
      yield* t.startWorker(
        [Mail],
        Mail.toLayer((text) => Effect.as(gate.pass, text))
      )
      const handle = yield* Mail.delay("a")
      yield* t.until("it runs", () => gate.entered === 1)
      yield* t.drivers.backend.withdraw([{ id: handle.taskId, incarnation: "", generation: 0 }])
      yield* t.time.pass(2)
      gate.open()
      assert.strictEqual(yield* t.awaitValue(handle), "a")
    })
  })
}
