/** Guarantee 8: a poison message becomes a dead letter. */
import { assert, describe } from "@effect/vitest"
import { Effect, Layer, Option, Schema } from "effect"
import * as DeadLetters from "../../../DeadLetters.ts"
import * as Task from "../../../Task.ts"
import type { Test } from "./fixture.ts"

const Work = Task.make("work", { payload: Schema.Int, success: Schema.Int })

const garbage: ReadonlyArray<readonly [what: string, body: string]> = [
  ["text that is not JSON", "}{"],
  ["nothing", ""],
  ["JSON that is not a message", "[1, 2, 3]"],
  ["null", "null"],
  ["a message without an id", `{"v":1,"task":"work"}`],
  ["an odd id", `{"v":1,"id":7,"generation":0,"task":"work","queue":"default","retries":0,"priority":1}`],
  [
    "a message of a future version",
    `{"v":2,"id":"a","generation":0,"task":"work","queue":"default","payload":1,"retries":0,"priority":1}`
  ],
  ["control characters", "\u0001\u0002"]
]

/** Registers the tests. */
export const poison = (test: Test): void => {
  describe("guarantee 8: a poison message becomes a dead letter", () => {
    test("the bytes of an undecodable message are kept, and the worker continues", function* (t) {
      yield* t.startWorker([Work], Work.toLayer(Effect.succeed), { concurrency: 2 })
      for (const [i, [, body]] of garbage.entries()) yield* t.publishRaw(`poison-${i}`, "work", body)
      assert.strictEqual(yield* t.awaitValue(yield* Work.delay(7)), 7)
      yield* t.untilDrained()
      const letters = yield* DeadLetters.list()
      assert.sameMembers(
        letters.map(({ raw }) => (typeof raw === "string" ? raw : new TextDecoder().decode(raw))),
        garbage.map(([, body]) => body)
      )
      for (const letter of letters) {
        assert.strictEqual(letter.reason._tag, "PayloadInvalid")
        assert.strictEqual(letter.payload._tag, "Failure")
      }
    })

    test("the dead letter of an undecodable message cannot be replayed, and stays until it is removed", function* (t) {
      yield* t.startWorker([Work], Work.toLayer(Effect.succeed))
      yield* t.publishRaw("poison", "work", "}{")
      yield* t.eventually(
        "there is a dead letter",
        Effect.map(DeadLetters.count(), (count) => count === 1)
      )
      const [letter] = yield* DeadLetters.list()
      assert(letter !== undefined)
      assert.strictEqual((yield* Effect.flip(DeadLetters.replay(letter.id)))._tag, "NotReplayable")
      assert.strictEqual(yield* DeadLetters.count(), 1)
      assert.isTrue(yield* DeadLetters.remove(letter.id))
      assert.isFalse(yield* DeadLetters.remove(letter.id))
      assert.strictEqual(yield* DeadLetters.count(), 0)
    })

    test("an undecodable message whose parking fails is redelivered, and parked once", function* (t) {
      t.faults.set("fails", ["backend.parkMessage", "backend.start"], 12)
      yield* t.startWorker([Work], Work.toLayer(Effect.succeed), { lease: t.duration(2) })
      yield* t.publishRaw("poison", "work", "}{")
      // a message that is on its way back to its queue may be in no count
      yield* t.eventually(
        "it is parked",
        Effect.map(DeadLetters.count(), (count) => count > 0)
      )
      yield* t.untilDrained()
      assert.strictEqual(yield* DeadLetters.count(), 1)
    })

    test("an undecodable message for a task that has ended does not change its outcome", function* (t) {
      yield* t.startWorker([Work], Work.toLayer(Effect.succeed))
      const handle = yield* Work.delay(7)
      assert.strictEqual(yield* t.awaitValue(handle), 7)
      yield* t.publishRaw(handle.taskId, "work", "}{")
      yield* t.eventually(
        "its bytes are kept",
        Effect.map(DeadLetters.count(), (count) => count === 1)
      )
      assert.strictEqual(yield* t.awaitValue(handle), 7)
      yield* t.untilDrained()
    })

    test("a message whose body differs from its envelope runs nothing, and ends the envelope's task", function* (t) {
      let runs = 0
      const Other = Task.make("other", { success: Schema.Int })
      yield* t.startWorker(
        [Work, Other],
        Layer.merge(
          Work.toLayer(() => Effect.sync(() => ++runs)),
          Other.toLayer(() => Effect.sync(() => ++runs))
        )
      )
      const body = (id: string, task: string) =>
        JSON.stringify({
          v: 1,
          id,
          generation: 0,
          task,
          queue: "default",
          payload: 1,
          retries: 0,
          priority: 1
        })
      for (const [id, inside] of [
        ["a", body("b", "work")],
        ["c", body("c", "other")],
        ["d", body("d", "nobody's")]
      ] as const) {
        yield* t.publishRaw(id, "work", inside)
        assert.strictEqual((yield* t.awaitReason(Work.result(id), "PayloadInvalid"))._tag, "PayloadInvalid")
      }
      yield* t.untilDrained()
      assert.strictEqual(runs, 0)
      assert.sameMembers(
        (yield* DeadLetters.list()).map(({ taskId }) => Option.getOrNull(taskId)),
        ["a", "c", "d"]
      )
    })

    test("many undecodable messages do not hold up other tasks", function* (t) {
      yield* t.startWorker([Work], Work.toLayer(Effect.succeed), { concurrency: 2 })
      for (let i = 0; i < 50; i++) yield* t.publishRaw(`poison-${i}`, "work", `}{ ${i}`)
      const handles = yield* Work.delayAll([1, 2, 3])
      for (const [i, handle] of handles.entries()) assert.strictEqual(yield* t.awaitValue(handle), i + 1)
      yield* t.untilDrained()
      assert.strictEqual(yield* DeadLetters.count(), 50)
      assert.strictEqual(yield* DeadLetters.purge(), 50)
    })
  })
}
