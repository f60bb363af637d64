/** Guarantee 1: an at-most-once task never runs twice. */
import { assert, describe } from "@effect/vitest"
import { Effect, Schema } from "effect"
import * as AsyncResult from "../../../AsyncResult.ts"
import * as DeadLetters from "../../../DeadLetters.ts"
import * as RetryPolicy from "../../../RetryPolicy.ts"
import * as Task from "../../../Task.ts"
import { Gate, type Test } from "./fixture.ts"

const Once = Task.make("once", {
  payload: Schema.String,
  success: Schema.String,
  error: Schema.String,
  delivery: "at-most-once"
})

/** Registers the tests. */
export const atMostOnce = (test: Test): void => {
  describe("guarantee 1: an at-most-once task never runs twice", () => {
    test("an at-most-once task is acked before it runs", function* (t) {
      const gate = new Gate()
      yield* t.startWorker(
        [Once],
        Once.toLayer((text) => Effect.as(gate.pass, text))
      )
      const handle = yield* Once.delay("hello")
      yield* t.until("it runs", () => gate.entered === 1)
      assert.deepStrictEqual(yield* t.counts(), { ready: 0, delayed: 0, claimed: 0 })
      gate.open()
      assert.strictEqual(yield* t.awaitValue(handle), "hello")
    })

    test("an at-most-once task whose worker vanished reads as WorkerLost", function* (t) {
      const handle = yield* Once.delay("hello")
      yield* t.startAndVanish({ delivery: "at-most-once", acked: true })
      yield* t.time.pass(2)
      assert.strictEqual(yield* AsyncResult.state(handle), "FAILURE")
      const { worker } = yield* t.awaitReason(handle, "WorkerLost")
      assert.strictEqual(worker, t.vanishedWorker)
    })

    test("the sweep of another worker ends an at-most-once task whose worker vanished, with a dead letter", function* (t) {
      let runs = 0
      yield* Once.delay("hello")
      yield* t.startAndVanish({ delivery: "at-most-once", acked: true })
      yield* t.startWorker(
        [Once],
        Once.toLayer((text) => Effect.sync(() => `${text} ${++runs}`))
      )
      yield* t.eventually(
        "there is a dead letter",
        Effect.map(DeadLetters.count(), (count) => count === 1)
      )
      const [letter] = yield* DeadLetters.list(Once)
      assert.strictEqual(letter?.reason._tag, "WorkerLost")
      assert.strictEqual(runs, 0)
    })

    test("a redelivery ends an at-most-once task whose worker vanished before the ack, without a run", function* (t) {
      let runs = 0
      const handle = yield* Once.delay("hello")
      yield* t.startAndVanish({ delivery: "at-most-once" })
      yield* t.startWorker(
        [Once],
        Once.toLayer((text) => Effect.sync(() => `${text} ${++runs}`))
      )
      yield* t.untilDrained()
      assert.strictEqual((yield* t.read(handle.taskId)).ended, "WorkerLost")
      yield* t.awaitReason(handle, "WorkerLost")
      assert.strictEqual(runs, 0)
    })

    test("a failure ends an at-most-once task", function* (t) {
      let runs = 0
      yield* t.startWorker(
        [Once],
        Once.toLayer(() => Effect.suspend(() => Effect.fail(`no ${++runs}`)))
      )
      const failed = yield* t.awaitReason(yield* Once.delay("hello"), "Failed")
      assert.deepStrictEqual([failed.error, failed.retriesExhausted], ["no 1", false])
    })

    test("a shutdown ends an at-most-once task, and does not put it back", function* (t) {
      const gate = new Gate()
      const handler = Once.toLayer((text) => Effect.as(gate.pass, text))
      const worker = yield* t.startWorker([Once], handler)
      const handle = yield* Once.delay("hello")
      yield* t.until("it runs", () => gate.entered === 1)
      yield* worker.stop
      yield* t.startWorker([Once], handler)
      yield* t.awaitReason(handle, "WorkerLost")
      yield* t.time.pass(2)
      assert.strictEqual(gate.entered, 1)
    })

    test("an at-most-once task whose ack fails runs once", function* (t) {
      let runs = 0
      t.faults.set("answer lost", ["broker.ack"], 3)
      yield* t.startWorker(
        [Once],
        Once.toLayer((text) => Effect.sync(() => `${text} ${++runs}`)),
        {
          lease: t.duration(2)
        }
      )
      assert.strictEqual(yield* t.awaitValue(yield* Once.delay("hello")), "hello 1")
      yield* t.time.pass(5)
      assert.strictEqual(runs, 1)
      yield* t.untilDrained()
    })

    // oxlint-disable-next-line require-yield
    test("an at-most-once task cannot have a retry policy", function* () {
      const retry = RetryPolicy.fixed({ maxRetries: 1, delay: 0 })
      assert.throws(() => Task.make("a", { delivery: "at-most-once", retry }), /at-most-once/)
      assert.throws(() => Task.make("a", { delivery: "at-most-once", retryDefects: true }), /at-most-once/)
    })
  })
}
