/** Guarantee 2: a replay of a dead letter starts a new generation. */
import { assert, describe } from "@effect/vitest"
import { Effect, Option, Schema } from "effect"
import * as AsyncResult from "../../../AsyncResult.ts"
import * as DeadLetters from "../../../DeadLetters.ts"
import * as Task from "../../../Task.ts"
import { TaskContext } from "../../../TaskContext.ts"
import { failFussy, Fussy } from "./failedTask.ts"
import { Gate, type Test } from "./fixture.ts"

/** Registers the tests. */
export const replay = (test: Test): void => {
  describe("guarantee 2: a replay of a dead letter starts a new generation", () => {
    test("a replayed task runs with its counts at zero, and its handle gets the new outcome", function* (t) {
      const { handle, letter } = yield* failFussy(t)
      assert.isTrue(yield* DeadLetters.replay(letter.id))
      assert.strictEqual(yield* AsyncResult.state(handle), "PENDING")
      assert.strictEqual(yield* DeadLetters.count(), 0)
      const attempts: Array<readonly [attempt: number, fence: number]> = []
      yield* t.startWorker(
        [Fussy],
        Fussy.toLayer((text) =>
          TaskContext.useSync(({ attempt, fence }) => {
            attempts.push([attempt, fence])
            return text
          })
        )
      )
      assert.strictEqual(yield* t.awaitValue(handle), "hello")
      assert.deepStrictEqual(attempts, [[1, 2]])
      assert.strictEqual(Option.getOrThrow(yield* AsyncResult.poll(handle)).attempts, 1)
      yield* t.untilDrained()
    })

    test("messages of older generations are dropped", function* (t) {
      const { body, handle, letter } = yield* failFussy(t)
      let runs = 0
      const gate = new Gate()
      yield* t.startWorker(
        [Fussy],
        Fussy.toLayer((text) => {
          runs++
          return Effect.as(gate.pass, text)
        }),
        { lease: t.duration(2) }
      )
      // reopened, and its message not sent yet
      t.faults.set("fails", ["broker.publish"], 1)
      yield* Effect.flip(DeadLetters.replay(letter.id))
      yield* t.publishRaw(handle.taskId, "fussy", body)
      yield* t.untilDrained()
      assert.strictEqual(runs, 0)
      assert.strictEqual(yield* AsyncResult.state(handle), "PENDING")
      yield* DeadLetters.replay(letter.id)
      yield* t.until("it runs", () => gate.entered === 1)
      yield* t.publishRaw(handle.taskId, "fussy", body)
      yield* t.time.pass(3)
      assert.deepStrictEqual(yield* t.counts(), { ready: 0, delayed: 0, claimed: 1 })
      gate.open()
      assert.strictEqual(yield* t.awaitValue(handle), "hello")
      yield* t.untilDrained()
      assert.strictEqual(runs, 1)
    })

    test("a replayed task that fails again leaves a new dead letter", function* (t) {
      const { handle, letter } = yield* failFussy(t)
      yield* DeadLetters.replay(letter.id)
      yield* t.startWorker(
        [Fussy],
        Fussy.toLayer(() => Effect.fail("nor tomorrow"))
      )
      assert.strictEqual((yield* t.awaitReason(handle, "Failed")).error, "nor tomorrow")
      const [again, ...more] = yield* DeadLetters.list(Fussy)
      assert.strictEqual(more.length, 0)
      assert.strictEqual(again?.reason._tag === "Failed" ? again.reason.error : undefined, "nor tomorrow")
    })

    test("a replay that was interrupted is completed by the next one", function* (t) {
      const { handle, letter } = yield* failFussy(t)
      t.faults.set("fails", ["broker.publish"], 1)
      const error = yield* Effect.flip(DeadLetters.replay(letter.id))
      assert.strictEqual(error._tag, "BrokerError")
      assert.isTrue(yield* DeadLetters.replay(letter.id))
      assert.isFalse(yield* DeadLetters.replay(letter.id))
      let runs = 0
      yield* t.startWorker(
        [Fussy],
        Fussy.toLayer((text) => Effect.sync(() => `${text} ${++runs}`))
      )
      assert.strictEqual(yield* t.awaitValue(handle), "hello 1")
      yield* t.untilDrained()
    })

    test("a replay that failed to remove the dead letter runs the task once", function* (t) {
      const { handle, letter } = yield* failFussy(t)
      t.faults.set("fails", ["backend.removeDeadLetters"], 1)
      assert.strictEqual((yield* Effect.flip(DeadLetters.replay(letter.id)))._tag, "BackendError")
      let runs = 0
      yield* t.startWorker(
        [Fussy],
        Fussy.toLayer((text) => Effect.sync(() => `${text} ${++runs}`))
      )
      assert.strictEqual(yield* t.awaitValue(handle), "hello 1")
      yield* DeadLetters.replay(letter.id)
      yield* t.time.pass(1)
      yield* t.untilDrained()
      assert.strictEqual(runs, 1)
      assert.strictEqual(yield* t.awaitValue(handle), "hello 1")
    })

    test("a replay that failed to mark the task runs it once", function* (t) {
      const { handle, letter } = yield* failFussy(t)
      t.faults.set("fails", ["backend.markPublished"], 1)
      assert.strictEqual((yield* Effect.flip(DeadLetters.replay(letter.id)))._tag, "BackendError")
      assert.isTrue(yield* DeadLetters.replay(letter.id))
      let runs = 0
      yield* t.startWorker(
        [Fussy],
        Fussy.toLayer((text) => Effect.sync(() => `${text} ${++runs}`)),
        { lease: t.duration(2) }
      )
      assert.strictEqual(yield* t.awaitValue(handle), "hello 1")
      yield* t.time.pass(1)
      yield* t.untilDrained()
      assert.strictEqual(runs, 1)
    })

    test("a task that was opened and whose message was never sent ends its waiters with Forgotten", function* (t) {
      const { handle, letter } = yield* failFussy(t)
      yield* t.startWorker([Fussy], Fussy.toLayer(Effect.succeed))
      yield* t.drivers.backend.reopen([letter.id], t.time.units(3))
      assert.strictEqual(yield* AsyncResult.state(handle), "PENDING")
      yield* t.awaitReason(handle, "Forgotten")
      // the dead letter is still there
      assert.isTrue(yield* DeadLetters.replay(letter.id))
      assert.strictEqual(yield* t.awaitValue(handle), "hello")
    })

    test("an enqueue that finds an interrupted replay sends the message of its generation", function* (t) {
      const Keyed = Task.make("keyed", {
        payload: Schema.Int,
        success: Schema.Int,
        error: Schema.String,
        idempotencyKey: (n) => `key ${n}`
      })
      const worker = yield* t.startWorker(
        [Keyed],
        Keyed.toLayer(() => Effect.fail("not today"))
      )
      const handle = yield* Keyed.delay(1)
      yield* t.awaitReason(handle, "Failed")
      yield* worker.stop
      const [letter] = yield* DeadLetters.list(Keyed)
      assert(letter !== undefined, "there is a dead letter")
      t.faults.set("fails", ["broker.publish"], 1)
      yield* Effect.flip(DeadLetters.replay(letter.id))
      assert.strictEqual((yield* Keyed.delay(1)).taskId, handle.taskId)
      yield* t.startWorker([Keyed], Keyed.toLayer(Effect.succeed))
      assert.strictEqual(yield* t.awaitValue(handle), 1)
      yield* t.untilDrained()
    })

    test("a waiter during a replay gets the new outcome", function* (t) {
      const { handle, letter } = yield* failFussy(t)
      yield* DeadLetters.replay(letter.id)
      const outcome = yield* t.collect(AsyncResult.stream([handle]))
      yield* t.time.pass(1)
      assert.strictEqual(outcome.values.length, 0)
      yield* t.startWorker([Fussy], Fussy.toLayer(Effect.succeed))
      yield* outcome.done
      assert.strictEqual(outcome.values[0]?.[1]._tag, "Success")
    })
  })
}
