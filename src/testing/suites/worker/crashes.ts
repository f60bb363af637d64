/** Guarantee 8: attempts that end by a crash are counted apart. */
import { assert, describe } from "@effect/vitest"
import { Effect, Layer, Option, Schema } from "effect"
import * as DeadLetters from "../../../DeadLetters.ts"
import * as RetryPolicy from "../../../RetryPolicy.ts"
import * as Task from "../../../Task.ts"
import { TaskContext } from "../../../TaskContext.ts"
import { Gate, type Test } from "./fixture.ts"

const Work = Task.make("work", { payload: Schema.Int, success: Schema.Int })
const Steady = Task.make("steady", {
  success: Schema.Int,
  error: Schema.String,
  retry: RetryPolicy.fixed({ maxRetries: 1, delay: 0 }),
  maxCrashes: 3
})

/** Registers the tests. */
export const crashes = (test: Test): void => {
  describe("guarantee 8: crashes are counted apart from retries", () => {
    test("crashes use up no retries", function* (t) {
      const handle = yield* Steady.delay()
      yield* t.startAndVanish()
      yield* t.time.pass(2)
      yield* t.startAndVanish()
      const seen: Array<readonly [attempt: number, retries: number]> = []
      yield* t.startWorker(
        [Steady],
        Steady.toLayer(() =>
          TaskContext.use(({ attempt, retries }) => {
            seen.push([attempt, retries])
            return retries === 0 ? Effect.fail("no") : Effect.succeed(attempt)
          })
        )
      )
      assert.strictEqual(yield* t.awaitValue(handle), 4)
      assert.deepStrictEqual(seen, [
        [3, 0],
        [4, 1]
      ])
      assert.strictEqual((yield* t.read(handle.taskId)).crashes, 2)
    })

    test("a task ends at its limit of crashes, and other tasks run", function* (t) {
      const handle = yield* Steady.delay()
      for (let crash = 0; crash < 3; crash++) {
        yield* t.startAndVanish({ maxCrashes: 3 })
        yield* t.time.pass(2)
      }
      let runs = 0
      yield* t.startWorker(
        [Steady, Work],
        Layer.mergeAll(
          Work.toLayer(Effect.succeed),
          Steady.toLayer(() => Effect.sync(() => ++runs))
        )
      )
      const failed = yield* t.awaitFailure(handle)
      assert.strictEqual(failed.reason._tag, "WorkerLost")
      assert.strictEqual(failed.attempts, 3)
      assert.strictEqual(yield* t.awaitValue(yield* Work.delay(7)), 7)
      yield* t.untilDrained()
      assert.strictEqual(runs, 0)
      const [letter] = yield* DeadLetters.list(Steady)
      assert(letter !== undefined)
      assert.strictEqual(Option.getOrThrow(letter.taskId), handle.taskId)
      assert.strictEqual(letter.attempts, 3)
    })

    test("a task with a limit of one crash does not run after it", function* (t) {
      const Brittle = Task.make("brittle", { maxCrashes: 1 })
      const handle = yield* Brittle.delay()
      yield* t.startAndVanish({ maxCrashes: 1 })
      let runs = 0
      yield* t.startWorker(
        [Brittle],
        Brittle.toLayer(() => Effect.sync(() => void runs++))
      )
      yield* t.awaitReason(handle, "WorkerLost")
      assert.strictEqual(runs, 0)
    })

    test("a task whose worker loses every run of it, and lives on, ends at its limit of crashes", function* (t) {
      let runs = 0
      const worker = yield* t.startSeparateWorker(
        [Steady],
        Steady.toLayer(() =>
          Effect.suspend(() => {
            runs++
            return Effect.never
          })
        ),
        { lease: t.duration(2) }
      )
      worker.faults.set("fails", ["backend.renew", "broker.renew"])
      const handle = yield* Steady.delay()
      yield* t.awaitReason(handle, "WorkerLost")
      assert.strictEqual(runs, 3)
      assert.strictEqual((yield* t.read(handle.taskId)).crashes, 3)
      yield* t.untilDrained()
    })

    test("a lost run leaves a dead letter that can be replayed", function* (t) {
      const Brittle = Task.make("brittle", { maxCrashes: 1 })
      const gate = new Gate()
      const options = { lease: t.duration(2) }
      const handler = Brittle.toLayer(() => gate.pass)
      const cut = yield* t.startSeparateWorker([Brittle], handler, options)
      const handle = yield* Brittle.delay()
      yield* t.until("it runs", () => gate.entered === 1)
      cut.faults.cut()
      yield* t.startWorker([Brittle], handler, options)
      const failed = yield* t.awaitReason(handle, "WorkerLost")
      assert.strictEqual(failed.worker, cut.id)
      yield* t.time.pass(2)
      const [letter] = yield* DeadLetters.list(Brittle)
      assert(letter !== undefined)
      assert.strictEqual(letter.reason._tag, "WorkerLost")
      assert.strictEqual(letter.queue, "default")
      gate.open()
      assert.isTrue(yield* DeadLetters.replay(letter.id))
      assert.isUndefined(yield* t.awaitValue(handle))
    })

    // oxlint-disable-next-line require-yield
    test("maxCrashes is at least one", function* () {
      assert.throws(() => Task.make("a", { maxCrashes: 0 }), /maxCrashes/)
    })
  })
}
