/** Guarantee 7: a worker claims no more than its free slots. */
import { assert, describe } from "@effect/vitest"
import { Effect, Exit, Layer, Schema, Stream } from "effect"
import * as AsyncResult from "../../../AsyncResult.ts"
import * as RetryPolicy from "../../../RetryPolicy.ts"
import * as Task from "../../../Task.ts"
import { Gate, type Test } from "./fixture.ts"

const Work = Task.make("work", { payload: Schema.Int, success: Schema.Int })
const Parent = Task.make("parent", { payload: Schema.Int, success: Schema.Int })

/** Registers the tests. */
export const slots = (test: Test): void => {
  describe("guarantee 7: a worker claims no more than its free slots", () => {
    test("a worker runs no more tasks than its slots", function* (t) {
      let running = 0
      let most = 0
      yield* t.startWorker(
        [Work],
        Work.toLayer((n) =>
          Effect.acquireUseRelease(
            Effect.sync(() => (most = Math.max(most, ++running))),
            () => Effect.as(Effect.sleep(t.duration(0.02)), n),
            () => Effect.sync(() => running--)
          )
        ),
        { concurrency: 3 }
      )
      const handles = yield* Work.delayAll(Array.from({ length: 40 }, (_, n) => n))
      yield* t.complete("they end", AsyncResult.all(handles))
      assert.strictEqual(most, 3)
    })

    test("messages beyond a worker's slots are left for other workers", function* (t) {
      const [first, second] = [new Gate(), new Gate()]
      yield* t.startWorker(
        [Work],
        Work.toLayer((n) => Effect.as(first.pass, n)),
        { concurrency: 2 }
      )
      const handles = yield* Work.delayAll([1, 2, 3, 4])
      yield* t.until("two run", () => first.entered === 2)
      yield* t.time.pass(1)
      assert.deepStrictEqual(yield* t.counts(), { ready: 2, delayed: 0, claimed: 2 })
      yield* t.startWorker(
        [Work],
        Work.toLayer((n) => Effect.as(second.pass, n)),
        { concurrency: 2 }
      )
      yield* t.until("the others run too", () => second.entered === 2)
      first.open()
      second.open()
      yield* t.complete("they end", AsyncResult.all(handles))
    })

    test("two workers of one queue share its tasks", function* (t) {
      const ran = new Map<string, number>()
      const handler = (name: string) =>
        Work.toLayer((n) =>
          Effect.as(
            Effect.andThen(
              Effect.sync(() => ran.set(name, (ran.get(name) ?? 0) + 1)),
              Effect.sleep(t.duration(0.1))
            ),
            n
          )
        )
      yield* t.startWorker([Work], handler("a"), { concurrency: 2 })
      yield* t.startWorker([Work], handler("b"), { concurrency: 2 })
      const handles = yield* Work.delayAll(Array.from({ length: 24 }, (_, n) => n))
      const values = yield* t.complete("they end", AsyncResult.all(handles))
      assert.deepStrictEqual(
        values,
        Array.from({ length: 24 }, (_, n) => n)
      )
      assert.isAbove(ran.get("a") ?? 0, 0)
      assert.isAbove(ran.get("b") ?? 0, 0)
      assert.strictEqual((ran.get("a") ?? 0) + (ran.get("b") ?? 0), 24)
    })

    test("a task that waits for another frees its slot", function* (t) {
      yield* t.startWorker(
        [Parent, Work],
        Layer.mergeAll(
          Work.toLayer((n) => Effect.succeed(n * 2)),
          Parent.toLayer((n) =>
            Effect.gen(function* () {
              const child = yield* Work.delay(n)
              return (yield* AsyncResult.get(child)) + 1
            }).pipe(Effect.orDie, Effect.provideContext(t.context))
          )
        ),
        { concurrency: 1 }
      )
      assert.strictEqual(yield* t.awaitValue(yield* Parent.delay(20)), 41)
      yield* t.untilDrained()
    })

    test("a task that takes a stream of results holds its slot while it works on one", function* (t) {
      const gate = new Gate()
      let running = 0
      let most = 0
      const counted = <A, E>(effect: Effect.Effect<A, E>) =>
        Effect.acquireUseRelease(
          Effect.sync(() => (most = Math.max(most, ++running))),
          () => effect,
          () => Effect.sync(() => running--)
        )
      yield* t.startWorker(
        [Parent, Work],
        Layer.mergeAll(
          Work.toLayer((n) => counted(Effect.as(Effect.sleep(t.duration(0.02)), n))),
          Parent.toLayer((n) =>
            Effect.gen(function* () {
              const children = yield* Work.delayAll(Array.from({ length: n }, (_, i) => i))
              let sum = 0
              yield* AsyncResult.stream(children).pipe(
                Stream.runForEach(([, exit]) =>
                  counted(
                    Effect.andThen(
                      gate.pass,
                      Effect.sync(() => {
                        if (Exit.isSuccess(exit)) sum += exit.value
                      })
                    )
                  )
                )
              )
              return sum
            }).pipe(Effect.orDie, Effect.provideContext(t.context))
          )
        ),
        { concurrency: 1 }
      )
      const parent = yield* Parent.delay(5)
      yield* t.until("it works on a result", () => gate.entered === 1)
      yield* t.time.pass(1)
      assert.strictEqual(running, 1)
      gate.open()
      assert.strictEqual(yield* t.awaitValue(parent), 10)
      assert.strictEqual(most, 1)
    })

    test("a task that waits for its retry holds no slot", function* (t) {
      let runs = 0
      const Patient = Task.make("patient", {
        success: Schema.Int,
        error: Schema.String,
        retry: RetryPolicy.fixed({ maxRetries: 1, delay: t.duration(3) })
      })
      yield* t.startWorker(
        [Patient, Work],
        Layer.mergeAll(
          Work.toLayer(Effect.succeed),
          Patient.toLayer(() =>
            Effect.suspend(() => (++runs === 1 ? Effect.fail("no") : Effect.succeed(runs)))
          )
        ),
        { concurrency: 1 }
      )
      const patient = yield* Patient.delay()
      yield* t.until("it failed once", () => runs === 1)
      assert.strictEqual(yield* t.awaitValue(yield* Work.delay(5)), 5)
      assert.strictEqual(yield* AsyncResult.state(patient), "RETRY")
      yield* t.eventually(
        "its message waits",
        Effect.map(t.counts(), ({ delayed }) => delayed === 1)
      )
      assert.strictEqual(yield* t.awaitValue(patient), 2)
    })

    test("a worker continues after all its slots were taken", function* (t) {
      const gate = new Gate()
      yield* t.startWorker(
        [Work],
        Work.toLayer((n) => Effect.as(gate.pass, n)),
        { concurrency: 1 }
      )
      const handles = yield* Work.delayAll([1, 2, 3])
      yield* t.until("one runs", () => gate.entered === 1)
      yield* t.time.pass(3)
      gate.open()
      yield* t.complete("they end", AsyncResult.all(handles))
    })
  })
}
