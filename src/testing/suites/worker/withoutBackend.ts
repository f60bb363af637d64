/** Without a backend only what needs no record holds: the message counts its retries, and the broker parks. */
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
import { Gate, type Subject, type Test } from "./fixture.ts"

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

/** The same broker, with no backend. */
const without = Effect.fnUntraced(function* (on: Subject) {
  const none = yield* Layer.build(Backend.layerNotConfigured)
  return on.over(Context.add(none, Broker.Broker, Context.get(on.context, Broker.Broker)))
})

/** Registers the tests. */
export const messageOnly = (test: Test): void => {
  describe("without a backend", () => {
    test("tasks run, and leave no message", function* (on) {
      const { provide, work } = yield* without(on)
      const ran: Array<number> = []
      yield* work(
        [Work],
        Work.toLayer((n) => Effect.sync(() => ran.push(n)))
      )
      yield* provide(Work.send(1))
      yield* provide(Work.delayAll([2, 3]))
      yield* on.until("they ran", () => ran.length === 3)
      yield* on.drained()
      assert.sameMembers(ran, [1, 2, 3])
    })

    test("what needs a record fails, and enqueues nothing", function* (on) {
      const { provide } = yield* without(on)
      const expect = <A, E extends { readonly _tag: string }, R>(effect: Effect.Effect<A, E, R>) =>
        Effect.map(Effect.flip(effect), ({ _tag }) => assert.strictEqual(_tag, "BackendNotConfigured"))
      yield* expect(provide(Work.delay(1, { id: "mine" })))
      yield* expect(provide(Keyed.delay(1)))
      yield* on.drained()
      const handle = yield* provide(Work.delay(1))
      yield* expect(provide(AsyncResult.get(handle)))
      yield* expect(provide(AsyncResult.poll(handle)))
      yield* expect(provide(AsyncResult.cancel(handle)))
      yield* expect(provide(AsyncResult.forget(handle)))
    })

    test("retries are counted in the message", function* (on) {
      const { provide, work } = yield* without(on)
      const seen: Array<readonly [attempt: number, retries: number, last: boolean]> = []
      yield* work(
        [Flaky],
        Flaky.toLayer(() =>
          TaskContext.use(({ attempt, isLastRetry, retries }) => {
            seen.push([attempt, retries, isLastRetry])
            return Effect.fail("no")
          })
        )
      )
      yield* provide(Flaky.send(1))
      yield* on.until("it ran three times", () => seen.length === 3)
      yield* on.drained()
      assert.deepStrictEqual(seen, [
        [1, 0, false],
        [2, 1, false],
        [3, 2, true]
      ])
    })

    test("a worker that vanished is replaced after its lease", function* (on, context) {
      if (on.drivers.broker.capabilities.lease !== "store")
        return yield* Suite.skip(context, "a connection holds the claims")
      const { provide, work } = yield* without(on)
      let runs = 0
      yield* provide(Work.send(1))
      yield* on.claimOne(on.time.units(2))
      yield* work(
        [Work],
        Work.toLayer(() => Effect.sync(() => ++runs))
      )
      yield* on.time.pass(1)
      assert.strictEqual(runs, 0)
      yield* on.until("it ran", () => runs === 1)
      yield* on.drained()
    })

    test("a claim is renewed while the handler runs", function* (on) {
      const { provide, work } = yield* without(on)
      let runs = 0
      yield* work(
        [Work],
        Work.toLayer((n) =>
          Effect.suspend(() => {
            runs++
            return Effect.as(Effect.sleep(on.duration(6)), n)
          })
        ),
        { lease: on.duration(2), concurrency: 3 }
      )
      yield* provide(Work.send(1))
      yield* on.until("it runs", () => runs === 1)
      yield* on.drained()
      assert.strictEqual(runs, 1)
    })

    test("a shutdown puts back what runs, uncounted", function* (on) {
      const { provide, work } = yield* without(on)
      const gate = new Gate()
      const worker = yield* work(
        [Flaky],
        Flaky.toLayer(() => gate.pass)
      )
      yield* provide(Flaky.send(1))
      yield* on.until("it runs", () => gate.entered === 1)
      yield* worker.stop
      const message = yield* TaskMessage.decode((yield* on.claimOne()).body)
      assert.strictEqual(message.retries, 0)
    })

    test("a task that is delivered at most once is acked before it runs", function* (on) {
      const { provide, work } = yield* without(on)
      const gate = new Gate()
      const worker = yield* work(
        [Once],
        Once.toLayer(() => gate.pass)
      )
      yield* provide(Once.send())
      yield* on.until("it runs", () => gate.entered === 1)
      assert.deepStrictEqual(yield* on.counts(), { ready: 0, delayed: 0, claimed: 0 })
      yield* worker.stop
      assert.deepStrictEqual(yield* on.counts(), { ready: 0, delayed: 0, claimed: 0 })
    })

    test("one whose ack fails is not run", function* (on) {
      const { provide, work } = yield* without(on)
      let runs = 0
      on.faults.set("fails", ["broker.ack"])
      yield* work(
        [Once],
        Once.toLayer(() => Effect.sync(() => void runs++)),
        { lease: on.duration(2) }
      )
      yield* provide(Once.send())
      yield* on.time.pass(4)
      assert.strictEqual(runs, 0)
      on.faults.heal()
      yield* on.until("it ran", () => runs === 1)
      yield* on.drained()
    })

    test("one whose ack is answered late is run", function* (on) {
      const { provide, work } = yield* without(on)
      let runs = 0
      on.faults.set("answer late", ["broker.ack"])
      yield* work(
        [Once],
        Once.toLayer(() => Effect.sync(() => void runs++)),
        { lease: on.duration(2) }
      )
      yield* provide(Once.send())
      // renewals meanwhile find no claim
      yield* on.time.pass(3)
      assert.strictEqual(runs, 0)
      on.faults.heal()
      yield* on.until("it ran", () => runs === 1)
      yield* on.drained()
    })

    test("what expired is dropped", function* (on) {
      const { provide, work } = yield* without(on)
      let runs = 0
      yield* provide(Work.send(1, { expires: on.duration(1) }))
      yield* on.time.pass(2)
      yield* work(
        [Work],
        Work.toLayer(() => Effect.sync(() => ++runs))
      )
      yield* on.drained()
      assert.strictEqual(runs, 0)
    })

    test("garbage and what fails for good are parked by the broker", function* (on) {
      const { provide, work } = yield* without(on)
      let runs = 0
      yield* work(
        [Work],
        Work.toLayer((n) => (n === 0 ? Effect.fail("no") : Effect.sync(() => ++runs)))
      )
      yield* on.send("poison", "work", "}{")
      yield* provide(Work.send(0))
      yield* provide(Work.send(1))
      yield* on.until("the last one ran", () => runs === 1)
      yield* on.drained()
      assert.isAtLeast(on.faults.count("broker.reject"), 1)
    })

    test("progress goes nowhere, and does no harm", function* (on) {
      const { provide, work } = yield* without(on)
      let runs = 0
      yield* work(
        [Work],
        Work.toLayer((n) =>
          Effect.as(
            Effect.tap(Work.progress(n), () => Effect.sync(() => runs++)),
            n
          )
        )
      )
      yield* provide(Work.send(1))
      yield* on.until("it ran", () => runs === 1)
      yield* on.drained()
    })

    test("a shutdown drains", function* (on) {
      const { provide, work } = yield* without(on)
      const gate = new Gate()
      const worker = yield* work(
        [Work],
        Work.toLayer((n) => Effect.as(gate.pass, n)),
        { drainTimeout: on.duration(20), lease: on.duration(2) }
      )
      yield* provide(Work.send(1))
      yield* on.until("it runs", () => gate.entered === 1)
      const stopping = yield* Effect.forkChild(worker.stop)
      yield* on.time.pass(4)
      assert.strictEqual((yield* on.counts()).claimed, 1)
      gate.open()
      yield* on.within("it stops", Fiber.join(stopping))
      yield* on.drained()
      assert.strictEqual(gate.entered, 1)
    })
  })
}
