/** Without a backend: tasks run, the message counts its retries, and the broker parks; operations on records fail. */
import { assert, describe } from "@effect/vitest"
import { Context, Effect, Fiber, Layer, Schema } from "effect"
import * as AsyncResult from "../../../AsyncResult.ts"
import * as Backend from "../../../Backend.ts"
import * as Broker from "../../../Broker.ts"
import * as RetryPolicy from "../../../RetryPolicy.ts"
import * as Task from "../../../Task.ts"
import { TaskContext } from "../../../TaskContext.ts"
import * as TaskMessage from "../../../TaskMessage.ts"
import * as Suite from "../Suite.ts"
import { Gate, type Fixture, type Test } from "./fixture.ts"

const Work = Task.make("work", {
  payload: Schema.Int,
  success: Schema.Int,
  error: Schema.String,
  progress: Schema.Int
})
const Flaky = Task.make("flaky", {
  payload: Schema.Int,
  error: Schema.String,
  retry: RetryPolicy.fixed({ maxRetries: 2, delay: "10 millis" })
})
const Once = Task.make("once", { delivery: "at-most-once", error: Schema.String })
const Keyed = Task.make("keyed", { payload: Schema.Int, idempotencyKey: (n) => `${n}` })

/** Returns the services of the same broker without a backend. */
const without = Effect.fnUntraced(function* (t: Fixture) {
  const none = yield* Layer.build(Backend.layerNotConfigured)
  return t.withServices(Context.add(none, Broker.Broker, Context.get(t.context, Broker.Broker)))
})

/** Registers the tests. */
export const withoutBackend = (test: Test): void => {
  describe("without a backend", () => {
    test("tasks run, and leave no message", function* (t) {
      const { provide, startWorker } = yield* without(t)
      const ran: Array<number> = []
      yield* startWorker(
        [Work],
        Work.toLayer((n) => Effect.sync(() => ran.push(n)))
      )
      yield* provide(Work.send(1))
      yield* provide(Work.delayAll([2, 3]))
      yield* t.until("they ran", () => ran.length === 3)
      yield* t.untilDrained()
      assert.sameMembers(ran, [1, 2, 3])
    })

    test("a worker with a backend keeps records of tasks that were enqueued without one", function* (t) {
      const { provide } = yield* without(t)
      yield* t.startWorker(
        [Work],
        Work.toLayer((n) => (n > 2 ? Effect.fail("too many") : Effect.succeed(n)))
      )
      const [first] = yield* provide(Work.delayAll([1, 2]))
      const failed = yield* provide(Work.delay(3))
      assert(first !== undefined)
      yield* t.untilDrained()
      assert.strictEqual(yield* t.awaitValue(first), 1)
      yield* t.awaitReason(failed, "Failed")
    })

    test("an operation that needs a record fails with BackendNotConfigured, and enqueues nothing", function* (t) {
      const { provide } = yield* without(t)
      const expect = <A, E extends { readonly _tag: string }, R>(effect: Effect.Effect<A, E, R>) =>
        Effect.map(Effect.flip(effect), ({ _tag }) => assert.strictEqual(_tag, "BackendNotConfigured"))
      yield* expect(provide(Work.delay(1, { id: "mine" })))
      yield* expect(provide(Keyed.delay(1)))
      yield* t.untilDrained()
      const handle = yield* provide(Work.delay(1))
      yield* expect(provide(AsyncResult.get(handle)))
      yield* expect(provide(AsyncResult.poll(handle)))
      yield* expect(provide(AsyncResult.cancel(handle)))
      yield* expect(provide(AsyncResult.forget(handle)))
    })

    test("the message counts the retries", function* (t) {
      const { provide, startWorker } = yield* without(t)
      const seen: Array<readonly [attempt: number, retries: number, last: boolean]> = []
      yield* startWorker(
        [Flaky],
        Flaky.toLayer(() =>
          TaskContext.use(({ attempt, isLastRetry, retries }) => {
            seen.push([attempt, retries, isLastRetry])
            return Effect.fail("no")
          })
        )
      )
      yield* provide(Flaky.send(1))
      yield* t.until("it ran three times", () => seen.length === 3)
      yield* t.untilDrained()
      assert.deepStrictEqual(seen, [
        [1, 0, false],
        [2, 1, false],
        [3, 2, true]
      ])
    })

    test("the task of a worker that vanished runs again after its lease", function* (t, context) {
      if (t.drivers.broker.capabilities.lease !== "store")
        return yield* Suite.skip(context, "a connection holds the claims")
      const { provide, startWorker } = yield* without(t)
      let runs = 0
      yield* provide(Work.send(1))
      yield* t.claimOne(t.time.units(2))
      yield* startWorker(
        [Work],
        Work.toLayer(() => Effect.sync(() => ++runs))
      )
      yield* t.time.pass(1)
      assert.strictEqual(runs, 0)
      yield* t.until("it ran", () => runs === 1)
      yield* t.untilDrained()
    })

    test("a claim is renewed while the handler runs", function* (t) {
      const { provide, startWorker } = yield* without(t)
      let runs = 0
      yield* startWorker(
        [Work],
        Work.toLayer((n) =>
          Effect.suspend(() => {
            runs++
            return Effect.as(Effect.sleep(t.duration(9)), n)
          })
        ),
        { lease: t.duration(5), concurrency: 3 }
      )
      yield* provide(Work.send(1))
      yield* t.until("it runs", () => runs === 1)
      yield* t.untilDrained()
      assert.strictEqual(runs, 1)
    })

    test("a shutdown puts running tasks back, and counts nothing", function* (t) {
      const { provide, startWorker } = yield* without(t)
      const gate = new Gate()
      const worker = yield* startWorker(
        [Flaky],
        Flaky.toLayer(() => gate.pass)
      )
      yield* provide(Flaky.send(1))
      yield* t.until("it runs", () => gate.entered === 1)
      yield* worker.stop
      const message = yield* TaskMessage.decode((yield* t.claimOne()).body)
      assert.strictEqual(message.retries, 0)
    })

    test("an at-most-once task is acked before it runs", function* (t) {
      const { provide, startWorker } = yield* without(t)
      const gate = new Gate()
      const worker = yield* startWorker(
        [Once],
        Once.toLayer(() => gate.pass)
      )
      yield* provide(Once.send())
      yield* t.until("it runs", () => gate.entered === 1)
      assert.deepStrictEqual(yield* t.counts(), { ready: 0, delayed: 0, claimed: 0 })
      yield* worker.stop
      assert.deepStrictEqual(yield* t.counts(), { ready: 0, delayed: 0, claimed: 0 })
    })

    test("an at-most-once task whose ack fails does not run", function* (t) {
      const { provide, startWorker } = yield* without(t)
      let runs = 0
      t.faults.set("fails", ["broker.ack"])
      yield* startWorker(
        [Once],
        Once.toLayer(() => Effect.sync(() => void runs++)),
        { lease: t.duration(2) }
      )
      yield* provide(Once.send())
      yield* t.time.pass(4)
      assert.strictEqual(runs, 0)
      t.faults.heal()
      yield* t.until("it ran", () => runs === 1)
      yield* t.untilDrained()
    })

    test("an at-most-once task whose ack is answered late runs", function* (t) {
      const { provide, startWorker } = yield* without(t)
      let runs = 0
      t.faults.set("answer late", ["broker.ack"])
      yield* startWorker(
        [Once],
        Once.toLayer(() => Effect.sync(() => void runs++)),
        { lease: t.duration(2) }
      )
      yield* provide(Once.send())
      // renewals meanwhile find no claim
      yield* t.time.pass(3)
      assert.strictEqual(runs, 0)
      t.faults.heal()
      yield* t.until("it ran", () => runs === 1)
      yield* t.untilDrained()
    })

    test("an unknown task waits for its grace, and its message is parked then", function* (t) {
      const { provide, startWorker } = yield* without(t)
      yield* startWorker([Work], Work.toLayer(Effect.succeed), { unknownTaskGrace: t.duration(9) })
      yield* provide(Flaky.send(1))
      yield* t.time.pass(3)
      const { claimed, delayed, ready, setAside = 0 } = yield* t.counts()
      // a broker may send a message anew before it acks the claimed one
      assert.isAtLeast(claimed + delayed + ready + setAside, 1)
      yield* t.untilDrained()
    })

    test("an expired message is dropped", function* (t) {
      const { provide, startWorker } = yield* without(t)
      let runs = 0
      yield* provide(Work.send(1, { expires: t.duration(1) }))
      yield* t.time.pass(2)
      yield* startWorker(
        [Work],
        Work.toLayer(() => Effect.sync(() => ++runs))
      )
      yield* t.untilDrained()
      assert.strictEqual(runs, 0)
    })

    test("the broker parks undecodable messages and tasks that failed", function* (t) {
      const { provide, startWorker } = yield* without(t)
      let runs = 0
      yield* startWorker(
        [Work],
        Work.toLayer((n) => (n === 0 ? Effect.fail("no") : Effect.sync(() => ++runs)))
      )
      yield* t.publishRaw("poison", "work", "}{")
      yield* provide(Work.send(0))
      yield* provide(Work.send(1))
      yield* t.until("the last one ran", () => runs === 1)
      yield* t.untilDrained()
      assert.isAtLeast(t.faults.count("broker.reject"), 1)
    })

    test("progress is ignored", function* (t) {
      const { provide, startWorker } = yield* without(t)
      let runs = 0
      yield* startWorker(
        [Work],
        Work.toLayer((n) =>
          Effect.as(
            Effect.tap(Work.progress(n), () => Effect.sync(() => runs++)),
            n
          )
        )
      )
      yield* provide(Work.send(1))
      yield* t.until("it ran", () => runs === 1)
      yield* t.untilDrained()
    })

    test("a shutdown drains", function* (t) {
      const { provide, startWorker } = yield* without(t)
      const gate = new Gate()
      const worker = yield* startWorker(
        [Work],
        Work.toLayer((n) => Effect.as(gate.pass, n)),
        { drainTimeout: t.duration(30), lease: t.duration(5) }
      )
      yield* provide(Work.send(1))
      yield* t.until("it runs", () => gate.entered === 1)
      const stopping = yield* Effect.forkChild(worker.stop)
      yield* t.time.pass(8)
      assert.strictEqual((yield* t.counts()).claimed, 1)
      gate.open()
      yield* t.complete("it stops", Fiber.join(stopping))
      yield* t.untilDrained()
      assert.strictEqual(gate.entered, 1)
    })
  })
}
