/** Guarantee 2: a terminal state never changes; a replay starts a new generation. */
import { assert, describe } from "@effect/vitest"
import { Effect, Option, Schema } from "effect"
import * as AsyncResult from "../../../AsyncResult.ts"
import * as DeadLetters from "../../../DeadLetters.ts"
import * as Task from "../../../Task.ts"
import { TaskContext } from "../../../TaskContext.ts"
import { Gate, type Subject, type Test } from "./fixture.ts"

const Shout = Task.make("shout", { payload: Schema.String, success: Schema.String })
const Fussy = Task.make("fussy", { payload: Schema.String, success: Schema.String, error: Schema.String })

/** A task that ended without a success, with its message and its dead letter. */
const failFussy = Effect.fnUntraced(function* (on: Subject) {
  const worker = yield* on.work(
    [Fussy],
    Fussy.toLayer(() => Effect.fail("not today"))
  )
  const handle = yield* Fussy.delay("hello")
  yield* on.reason(handle, "Failed")
  yield* worker.stop
  const [letter] = yield* DeadLetters.list(Fussy)
  assert(letter !== undefined && typeof letter.raw === "string", "there is a dead letter")
  return { handle, letter, body: letter.raw }
})

/** Registers the tests. */
export const generations = (test: Test): void => {
  describe("2: a terminal state never changes", () => {
    test("a task that has ended cannot be cancelled", function* (on) {
      yield* on.work([Shout], Shout.toLayer(Effect.succeed))
      const handle = yield* Shout.delay("hello")
      assert.strictEqual(yield* on.value(handle), "hello")
      assert.strictEqual(yield* AsyncResult.cancel(handle), "AlreadyDone")
      assert.strictEqual(yield* AsyncResult.state(handle), "SUCCESS")
      assert.strictEqual(yield* on.value(handle), "hello")
    })

    test("a message that comes late is dropped", function* (on) {
      let runs = 0
      yield* on.work(
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
      yield* on.send("a", "shout", body)
      assert.strictEqual(yield* on.value(Shout.result("a")), "hello 1")
      yield* on.send("a", "shout", body)
      yield* on.time.pass(1)
      yield* on.drained()
      assert.strictEqual(runs, 1)
      assert.strictEqual(yield* on.value(Shout.result("a")), "hello 1")
    })

    test("a failure stays one, whatever comes for it", function* (on) {
      const { body, handle } = yield* failFussy(on)
      yield* on.work([Fussy], Fussy.toLayer(Effect.succeed))
      yield* on.send(handle.taskId, "fussy", body)
      yield* on.time.pass(1)
      yield* on.drained()
      const failed = yield* on.reason(handle, "Failed")
      assert.strictEqual(failed.error, "not today")
    })

    test("a stream of changes ends with the terminal one", function* (on) {
      const gate = new Gate()
      const handle = yield* Shout.delay("hello")
      const changes = yield* on.follow(AsyncResult.changes(handle))
      yield* on.until("it is seen as it waits", () => changes.seen.length > 0)
      yield* on.work(
        [Shout],
        Shout.toLayer((text) => Effect.as(gate.pass, text))
      )
      yield* on.until("it is seen as it runs", () => changes.seen.some(({ state }) => state === "STARTED"))
      gate.open()
      yield* changes.done
      assert.deepStrictEqual(
        changes.seen.map(({ state }) => state),
        ["PENDING", "STARTED", "SUCCESS"]
      )
    })
  })

  describe("2: a replay of a dead letter starts a new generation", () => {
    test("the task runs again, nothing counted, and its handle has the new outcome", function* (on) {
      const { handle, letter } = yield* failFussy(on)
      assert.isTrue(yield* DeadLetters.replay(letter.id))
      assert.strictEqual(yield* AsyncResult.state(handle), "PENDING")
      assert.strictEqual(yield* DeadLetters.count(), 0)
      const attempts: Array<readonly [attempt: number, fence: number]> = []
      yield* on.work(
        [Fussy],
        Fussy.toLayer((text) =>
          TaskContext.useSync(({ attempt, fence }) => {
            attempts.push([attempt, fence])
            return text
          })
        )
      )
      assert.strictEqual(yield* on.value(handle), "hello")
      assert.deepStrictEqual(attempts, [[1, 2]])
      assert.strictEqual(Option.getOrThrow(yield* AsyncResult.poll(handle)).attempts, 1)
      yield* on.drained()
    })

    test("messages of older generations are dropped", function* (on) {
      const { body, handle, letter } = yield* failFussy(on)
      let runs = 0
      const gate = new Gate()
      yield* on.work(
        [Fussy],
        Fussy.toLayer((text) => {
          runs++
          return Effect.as(gate.pass, text)
        }),
        { lease: on.duration(2) }
      )
      // reopened, and its message not sent yet
      on.faults.set("fails", ["broker.publish"], 1)
      yield* Effect.flip(DeadLetters.replay(letter.id))
      yield* on.send(handle.taskId, "fussy", body)
      yield* on.drained()
      assert.strictEqual(runs, 0)
      assert.strictEqual(yield* AsyncResult.state(handle), "PENDING")
      yield* DeadLetters.replay(letter.id)
      yield* on.until("it runs", () => gate.entered === 1)
      yield* on.send(handle.taskId, "fussy", body)
      yield* on.time.pass(3)
      assert.deepStrictEqual(yield* on.counts(), { ready: 0, delayed: 0, claimed: 1 })
      gate.open()
      assert.strictEqual(yield* on.value(handle), "hello")
      yield* on.drained()
      assert.strictEqual(runs, 1)
    })

    test("it can fail again, and leaves a letter again", function* (on) {
      const { handle, letter } = yield* failFussy(on)
      yield* DeadLetters.replay(letter.id)
      yield* on.work(
        [Fussy],
        Fussy.toLayer(() => Effect.fail("nor tomorrow"))
      )
      assert.strictEqual((yield* on.reason(handle, "Failed")).error, "nor tomorrow")
      const [again, ...more] = yield* DeadLetters.list(Fussy)
      assert.strictEqual(more.length, 0)
      assert.strictEqual(again?.reason._tag === "Failed" ? again.reason.error : undefined, "nor tomorrow")
    })

    test("a replay that was cut off is finished by the next", function* (on) {
      const { handle, letter } = yield* failFussy(on)
      on.faults.set("fails", ["broker.publish"], 1)
      const error = yield* Effect.flip(DeadLetters.replay(letter.id))
      assert.strictEqual(error._tag, "BrokerError")
      assert.isTrue(yield* DeadLetters.replay(letter.id))
      assert.isFalse(yield* DeadLetters.replay(letter.id))
      let runs = 0
      yield* on.work(
        [Fussy],
        Fussy.toLayer((text) => Effect.sync(() => `${text} ${++runs}`))
      )
      assert.strictEqual(yield* on.value(handle), "hello 1")
      yield* on.drained()
    })

    test("a replay whose removal of the letter was cut off runs the task once", function* (on) {
      const { handle, letter } = yield* failFussy(on)
      on.faults.set("fails", ["backend.removeDeadLetters"], 1)
      assert.strictEqual((yield* Effect.flip(DeadLetters.replay(letter.id)))._tag, "BackendError")
      let runs = 0
      yield* on.work(
        [Fussy],
        Fussy.toLayer((text) => Effect.sync(() => `${text} ${++runs}`))
      )
      assert.strictEqual(yield* on.value(handle), "hello 1")
      yield* DeadLetters.replay(letter.id)
      yield* on.time.pass(1)
      yield* on.drained()
      assert.strictEqual(runs, 1)
      assert.strictEqual(yield* on.value(handle), "hello 1")
    })

    test("whoever waits across a replay gets the new outcome", function* (on) {
      const { handle, letter } = yield* failFussy(on)
      yield* DeadLetters.replay(letter.id)
      const outcome = yield* on.follow(AsyncResult.stream([handle]))
      yield* on.time.pass(1)
      assert.strictEqual(outcome.seen.length, 0)
      yield* on.work([Fussy], Fussy.toLayer(Effect.succeed))
      yield* outcome.done
      assert.strictEqual(outcome.seen[0]?.[1]._tag, "Success")
    })
  })
}
