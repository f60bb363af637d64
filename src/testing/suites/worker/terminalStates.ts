/** Guarantee 2: a terminal state never changes. */
import { assert, describe } from "@effect/vitest"
import { Effect, Schema } from "effect"
import * as AsyncResult from "../../../AsyncResult.ts"
import * as Task from "../../../Task.ts"
import { failFussy, Fussy } from "./failedTask.ts"
import { Gate, type Test } from "./fixture.ts"

const Shout = Task.make("shout", { payload: Schema.String, success: Schema.String })

/** Registers the tests. */
export const terminalStates = (test: Test): void => {
  describe("guarantee 2: a terminal state never changes", () => {
    test("a task that has ended cannot be cancelled", function* (t) {
      yield* t.startWorker([Shout], Shout.toLayer(Effect.succeed))
      const handle = yield* Shout.delay("hello")
      assert.strictEqual(yield* t.awaitValue(handle), "hello")
      assert.strictEqual(yield* AsyncResult.cancel(handle), "AlreadyDone")
      assert.strictEqual(yield* AsyncResult.state(handle), "SUCCESS")
      assert.strictEqual(yield* t.awaitValue(handle), "hello")
    })

    test("a late message is dropped", function* (t) {
      let runs = 0
      yield* t.startWorker(
        [Shout],
        Shout.toLayer((text) => Effect.sync(() => `${text} ${++runs}`))
      )
      const message = {
        v: 1,
        id: "a",
        generation: 0,
        task: "shout",
        queue: "default",
        retries: 0,
        priority: 1
      }
      const body = JSON.stringify({ ...message, payload: "hello" })
      yield* t.publishRaw("a", "shout", body)
      assert.strictEqual(yield* t.awaitValue(Shout.result("a")), "hello 1")
      yield* t.publishRaw("a", "shout", body)
      yield* t.time.pass(1)
      yield* t.untilDrained()
      assert.strictEqual(runs, 1)
      assert.strictEqual(yield* t.awaitValue(Shout.result("a")), "hello 1")
    })

    test("a failure is not changed by later messages", function* (t) {
      const { body, handle } = yield* failFussy(t)
      yield* t.startWorker([Fussy], Fussy.toLayer(Effect.succeed))
      yield* t.publishRaw(handle.taskId, "fussy", body)
      yield* t.time.pass(1)
      yield* t.untilDrained()
      const failed = yield* t.awaitReason(handle, "Failed")
      assert.strictEqual(failed.error, "not today")
    })

    test("changes ends with the terminal state", function* (t) {
      const gate = new Gate()
      const handle = yield* Shout.delay("hello")
      const changes = yield* t.collect(AsyncResult.changes(handle))
      yield* t.until("it is seen as it waits", () => changes.values.length > 0)
      yield* t.startWorker(
        [Shout],
        Shout.toLayer((text) => Effect.as(gate.pass, text))
      )
      yield* t.until("it is seen as it runs", () => changes.values.some(({ state }) => state === "STARTED"))
      gate.open()
      yield* changes.done
      assert.deepStrictEqual(
        changes.values.map(({ state }) => state),
        ["PENDING", "STARTED", "SUCCESS"]
      )
    })
  })
}
