/** Guarantee 1: at-least-once execution, exactly one terminal outcome; at-most-once where it is asked for. */
import { assert, describe } from "@effect/vitest"
import { Effect, Exit, Option, Schema } from "effect"
import * as AsyncResult from "../../../AsyncResult.ts"
import * as DeadLetters from "../../../DeadLetters.ts"
import * as RetryPolicy from "../../../RetryPolicy.ts"
import * as Task from "../../../Task.ts"
import * as Suite from "../Suite.ts"
import { Gate, type Test } from "./fixture.ts"

const Shout = Task.make("shout", { payload: Schema.String, success: Schema.String })
const Once = Task.make("once", {
  payload: Schema.String,
  success: Schema.String,
  error: Schema.String,
  delivery: "at-most-once"
})
const Number = Task.make("number", { payload: Schema.Int, success: Schema.Int })

/** Registers the tests. */
export const execution = (test: Test): void => {
  describe("1: a task runs at least once, and has exactly one outcome", () => {
    test("a task runs and gives its result", function* (on) {
      yield* on.work(
        [Shout],
        Shout.toLayer((text) => Effect.succeed(text.toUpperCase()))
      )
      const handle = yield* Shout.delay("hello")
      assert.strictEqual(yield* on.value(handle), "HELLO")
      const seen = Option.getOrThrow(yield* AsyncResult.poll(handle))
      assert.strictEqual(seen.state, "SUCCESS")
      assert.strictEqual(seen.attempts, 1)
      assert.strictEqual(seen.taskName, "shout")
      assert(
        Option.isSome(seen.enqueuedAt) && Option.isSome(seen.startedAt) && Option.isSome(seen.finishedAt)
      )
      yield* on.drained()
    })

    test("a task that was enqueued before there was a worker runs when there is one", function* (on) {
      const handle = yield* Shout.delay("hello")
      yield* on.time.pass(1)
      yield* on.work(
        [Shout],
        Shout.toLayer((text) => Effect.succeed(text.toUpperCase()))
      )
      assert.strictEqual(yield* on.value(handle), "HELLO")
    })

    test("a task whose worker vanished is run again after its lease, and has one outcome", function* (on) {
      let runs = 0
      const handle = yield* Shout.delay("hello")
      const dead = yield* on.abandon({ lease: 2 })
      const changes = yield* on.follow(AsyncResult.changes(handle))
      yield* on.work(
        [Shout],
        Shout.toLayer((text) => Effect.sync(() => `${text} ${++runs}`))
      )
      yield* on.time.pass(1)
      assert.strictEqual(runs, 0, "the lease still holds")
      assert.strictEqual(yield* on.value(handle), "hello 1")
      yield* changes.done
      assert.strictEqual(changes.seen.filter(({ exit }) => Option.isSome(exit)).length, 1)
      assert.strictEqual(
        yield* dead.settle({ _tag: "Success", exit: "late", retentionMillis: on.time.long }),
        "Lost"
      )
      const { attempt, crashes } = yield* on.read(handle.taskId)
      assert.deepStrictEqual({ attempt, crashes }, { attempt: 2, crashes: 1 })
      yield* on.drained()
    })

    test("a message that was claimed and not started is claimed again after its lease", function* (on, context) {
      if (on.drivers.broker.capabilities.lease !== "store")
        return yield* Suite.skip(context, "a connection holds the claims")
      const handle = yield* Shout.delay("hello")
      yield* on.claimOne(on.time.units(1))
      yield* on.work([Shout], Shout.toLayer(Effect.succeed))
      assert.strictEqual(yield* on.value(handle), "hello")
      assert.strictEqual((yield* on.read(handle.taskId)).crashes, 0)
    })

    test("messages that come twice run once", function* (on) {
      let runs = 0
      const handle = yield* Shout.delay("hello")
      const message = yield* on.claimOne()
      assert(typeof message.body === "string")
      for (let i = 0; i < 3; i++) yield* on.send(handle.taskId, "shout", message.body)
      yield* on.drivers.broker.release([{ handle: message.handle, afterMillis: 0 }])
      yield* on.work(
        [Shout],
        Shout.toLayer((text) => Effect.as(Effect.yieldNow, `${text} ${++runs}`)),
        { lease: on.duration(1) }
      )
      assert.strictEqual(yield* on.value(handle), "hello 1")
      yield* on.drained()
      assert.strictEqual(runs, 1)
    })

    test("of many tasks none is lost or doubled when a worker is cut off amidst them", function* (on) {
      const handler = (n: number) => Effect.as(Effect.sleep(on.duration(0.05)), n + 1)
      const options = { lease: on.duration(3), concurrency: 8 }
      const cut = yield* on.workApart([Number], Number.toLayer(handler), options)
      const payloads = Array.from({ length: 120 }, (_, n) => n)
      const handles = yield* Number.delayAll(payloads)
      const mine = yield* on.follow(AsyncResult.stream(handles))
      yield* on.until("some are done", () => mine.seen.length > 20)
      cut.faults.cut()
      yield* on.work([Number], Number.toLayer(handler), options)
      yield* mine.done
      const got = new Map(mine.seen)
      const values = handles.map(({ taskId }) => Option.getOrUndefined(Exit.getSuccess(got.get(taskId)!)))
      assert.deepStrictEqual(
        values,
        payloads.map((n) => n + 1)
      )
      assert.strictEqual(mine.seen.length, payloads.length)
      yield* on.drained()
    })
  })

  describe("1: a task that is delivered at most once never runs twice", () => {
    test("it is acked before it runs", function* (on) {
      const gate = new Gate()
      yield* on.work(
        [Once],
        Once.toLayer((text) => Effect.as(gate.pass, text))
      )
      const handle = yield* Once.delay("hello")
      yield* on.until("it runs", () => gate.entered === 1)
      assert.deepStrictEqual(yield* on.counts(), { ready: 0, delayed: 0, claimed: 0 })
      gate.open()
      assert.strictEqual(yield* on.value(handle), "hello")
    })

    test("one whose worker vanished ends as WorkerLost, found so by whoever reads it", function* (on) {
      const handle = yield* Once.delay("hello")
      yield* on.abandon({ delivery: "at-most-once", acked: true })
      yield* on.time.pass(2)
      assert.strictEqual(yield* AsyncResult.state(handle), "FAILURE")
      const { worker } = yield* on.reason(handle, "WorkerLost")
      assert.strictEqual(worker, on.worker)
    })

    test("one whose worker vanished is ended by the sweep of another, with its dead letter", function* (on) {
      let runs = 0
      yield* Once.delay("hello")
      yield* on.abandon({ delivery: "at-most-once", acked: true })
      yield* on.work(
        [Once],
        Once.toLayer((text) => Effect.sync(() => `${text} ${++runs}`))
      )
      yield* on.eventually(
        "there is a dead letter",
        Effect.map(DeadLetters.count(), (count) => count === 1)
      )
      const [letter] = yield* DeadLetters.list(Once)
      assert.strictEqual(letter?.reason._tag, "WorkerLost")
      assert.strictEqual(runs, 0)
    })

    test("one whose worker vanished before the ack is ended by its redelivery, and not run", function* (on) {
      let runs = 0
      const handle = yield* Once.delay("hello")
      yield* on.abandon({ delivery: "at-most-once" })
      yield* on.work(
        [Once],
        Once.toLayer((text) => Effect.sync(() => `${text} ${++runs}`))
      )
      yield* on.drained()
      assert.strictEqual((yield* on.read(handle.taskId)).ended, "WorkerLost")
      yield* on.reason(handle, "WorkerLost")
      assert.strictEqual(runs, 0)
    })

    test("a failure ends it", function* (on) {
      let runs = 0
      yield* on.work(
        [Once],
        Once.toLayer(() => Effect.suspend(() => Effect.fail(`no ${++runs}`)))
      )
      const failed = yield* on.reason(yield* Once.delay("hello"), "Failed")
      assert.deepStrictEqual([failed.error, failed.retriesExhausted], ["no 1", false])
    })

    test("a shutdown ends it, and does not put it back", function* (on) {
      const gate = new Gate()
      const handler = Once.toLayer((text) => Effect.as(gate.pass, text))
      const worker = yield* on.work([Once], handler)
      const handle = yield* Once.delay("hello")
      yield* on.until("it runs", () => gate.entered === 1)
      yield* worker.stop
      yield* on.work([Once], handler)
      yield* on.reason(handle, "WorkerLost")
      yield* on.time.pass(2)
      assert.strictEqual(gate.entered, 1)
    })

    test("an ack that fails does not let it run twice", function* (on) {
      let runs = 0
      on.faults.set("answer lost", ["broker.ack"], 3)
      yield* on.work(
        [Once],
        Once.toLayer((text) => Effect.sync(() => `${text} ${++runs}`)),
        {
          lease: on.duration(2)
        }
      )
      assert.strictEqual(yield* on.value(yield* Once.delay("hello")), "hello 1")
      yield* on.time.pass(5)
      assert.strictEqual(runs, 1)
      yield* on.drained()
    })

    // oxlint-disable-next-line require-yield
    test("it takes no retry policy", function* () {
      const retry = RetryPolicy.fixed({ maxRetries: 1, delay: 0 })
      assert.throws(() => Task.make("a", { delivery: "at-most-once", retry }), /at-most-once/)
      assert.throws(() => Task.make("a", { delivery: "at-most-once", retryDefects: true }), /at-most-once/)
    })
  })
}
