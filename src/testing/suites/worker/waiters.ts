/** Guarantee 5: every way in which a task can end completes its waiters. */
import { assert, describe } from "@effect/vitest"
import { Clock, Duration, Effect, Exit, Layer, Option, Schema } from "effect"
import * as AsyncResult from "../../../AsyncResult.ts"
import * as Broker from "../../../Broker.ts"
import * as DeadLetters from "../../../DeadLetters.ts"
import * as RetryPolicy from "../../../RetryPolicy.ts"
import * as Task from "../../../Task.ts"
import { TaskContext } from "../../../TaskContext.ts"
import * as Suite from "../Suite.ts"
import { Gate, type Test } from "./fixture.ts"

class Declined extends Schema.TaggedError<Declined>("chicory/testing/Declined")("Declined", {
  code: Schema.Int,
  at: Schema.Date
}) {}

const Work = Task.make("work", { payload: Schema.String, success: Schema.String, error: Declined })
const Nothing = Task.make("nothing")
const Retried = Task.make("retried", {
  payload: Schema.Struct({ n: Schema.Int }),
  success: Schema.Int,
  error: Schema.String,
  retry: RetryPolicy.fixed({ maxRetries: 2, delay: "10 millis" })
})
const Small = Task.make("small", { success: Schema.Int.check(Schema.isLessThan(10)) })
const Large = Task.make("large", { success: Schema.String, error: Schema.String })
const Fragile = Task.make("fragile", { maxCrashes: 2 })

/** A payload of another version of the task. */
const older = (id: string, payload: unknown) =>
  JSON.stringify({
    v: 1,
    id,
    generation: 0,
    task: "retried",
    queue: "default",
    payload,
    retries: 0,
    priority: 1
  })

/** Registers the tests. */
export const waiters = (test: Test): void => {
  describe("guarantee 5: every way in which a task can end completes its waiters", () => {
    test("a success completes the waiter with its value", function* (t) {
      yield* t.startWorker([Work], Work.toLayer(Effect.succeed))
      assert.strictEqual(yield* t.awaitValue(yield* Work.delay("hello")), "hello")
    })

    test("a success without a value completes the waiter", function* (t) {
      yield* t.startWorker(
        [Nothing],
        Nothing.toLayer(() => Effect.void)
      )
      const handle = yield* Nothing.delay()
      assert.isUndefined(yield* t.awaitValue(handle))
      assert.isTrue(yield* AsyncResult.successful(handle))
    })

    test("a typed failure completes the waiter with its class and fields", function* (t) {
      const at = new Date(0)
      yield* t.startWorker(
        [Work],
        Work.toLayer(() => Effect.fail(new Declined({ code: 7, at })))
      )
      const handle = yield* Work.delay("hello")
      const failed = yield* t.awaitFailure(handle)
      assert.strictEqual(failed.taskId, handle.taskId)
      assert.strictEqual(failed.taskName, "work")
      assert.strictEqual(failed.attempts, 1)
      assert(failed.reason._tag === "Failed")
      assert.instanceOf(failed.reason.error, Declined)
      assert.strictEqual(failed.reason.error.code, 7)
      assert.strictEqual(failed.reason.error.at.getTime(), 0)
      assert.isFalse(failed.reason.retriesExhausted)
    })

    test("a defect completes the waiter with its message", function* (t) {
      yield* t.startWorker(
        [Work],
        Work.toLayer(() => Effect.die(new RangeError("a bug")))
      )
      const { defect } = yield* t.awaitReason(yield* Work.delay("hello"), "Died")
      assert(defect instanceof Error)
      assert.include(defect.message, "a bug")
    })

    test("a handler that throws before it returns an effect completes the waiter", function* (t) {
      yield* t.startWorker(
        [Work],
        Work.toLayer(() => {
          throw new RangeError("a bug")
        })
      )
      yield* t.awaitReason(yield* Work.delay("hello"), "Died")
    })

    test("a defect that cannot be encoded completes the waiter", function* (t) {
      const circular: Record<string, unknown> = {}
      circular["self"] = circular
      yield* t.startWorker(
        [Work],
        Work.toLayer(() => Effect.die(circular))
      )
      yield* t.awaitReason(yield* Work.delay("hello"), "Died")
    })

    test("a handler that interrupts itself completes the waiter", function* (t) {
      yield* t.startWorker(
        [Work],
        Work.toLayer(() => Effect.interrupt)
      )
      yield* t.awaitReason(yield* Work.delay("hello"), "Died")
    })

    test("a value in place of an effect completes the waiter at once, and the handler runs once", function* (t) {
      // as a handler does whose types were lost
      const noEffect = undefined as unknown as Effect.Effect<string>
      const Once = Task.make("once", { success: Schema.String, delivery: "at-most-once" })
      let runs = 0
      const handler = Effect.suspend(() => {
        runs++
        return Effect.flatMap(Effect.void, () => noEffect)
      })
      yield* t.startWorker(
        [Work, Once],
        Layer.mergeAll(
          Work.toLayer((how) => (how === "returned" ? noEffect : handler)),
          Once.toLayer(() => handler)
        )
      )
      for (const handle of [yield* Work.delay("inside"), yield* Once.delay()]) {
        const { defect } = yield* t.awaitReason(handle, "Died")
        assert.match(String(defect), /not a valid effect/i)
      }
      yield* t.awaitReason(yield* Work.delay("returned"), "Died")
      assert.strictEqual(runs, 2)
      yield* t.untilDrained()
    })

    test("a timeout completes the waiter, after the handler's finalizers", function* (t) {
      const Timed = Task.make("timed", { timeout: t.duration(1) })
      let finalized = 0
      yield* t.startWorker(
        [Timed],
        Timed.toLayer(() =>
          Effect.andThen(
            Effect.addFinalizer(() => Effect.sync(() => finalized++)),
            Effect.never
          )
        )
      )
      const { timeout } = yield* t.awaitReason(yield* Timed.delay(), "TimedOut")
      assert.strictEqual(Duration.toMillis(timeout), t.time.units(1))
      assert.strictEqual(finalized, 1)
    })

    test("an expiry completes the waiter, with and without a worker", function* (t) {
      const expires = t.duration(1)
      const alone = yield* Work.delay("hello", { expires })
      yield* t.time.pass(2)
      const { expiredAt } = yield* t.awaitReason(alone, "Expired")
      assert.isNumber(expiredAt.epochMilliseconds)
      let runs = 0
      yield* t.startWorker(
        [Work],
        Work.toLayer((text) => Effect.sync(() => `${text} ${++runs}`))
      )
      const delayed = yield* Work.delay("hello", { expires, delay: t.duration(2) })
      yield* t.awaitReason(delayed, "Expired")
      yield* t.untilDrained()
      assert.strictEqual(runs, 0)
      assert.strictEqual(yield* DeadLetters.count(), 0)
    })

    test("the limit of crashes completes the waiter", function* (t) {
      const handle = yield* Fragile.delay()
      yield* t.startAndVanish({ maxCrashes: 2 })
      yield* t.time.pass(2)
      yield* t.startAndVanish({ maxCrashes: 2 })
      let runs = 0
      yield* t.startWorker(
        [Fragile],
        Fragile.toLayer(() => Effect.sync(() => void runs++))
      )
      const { worker } = yield* t.awaitReason(handle, "WorkerLost")
      assert.strictEqual(worker, t.vanishedWorker)
      assert.strictEqual(runs, 0)
      yield* t.time.pass(1)
      const [letter] = yield* DeadLetters.list(Fragile)
      assert(letter !== undefined)
      assert.strictEqual(letter.reason._tag, "WorkerLost")
      assert.isTrue(yield* DeadLetters.replay(letter.id))
      assert.isUndefined(yield* t.awaitValue(handle), "a replayed task has no crashes")
    })

    test("an unknown task completes the waiter after its grace", function* (t) {
      const worker = yield* t.startWorker(
        [Nothing],
        Nothing.toLayer(() => Effect.void),
        { unknownTaskGrace: t.duration(9) }
      )
      const handle = yield* Work.delay("hello")
      yield* t.time.pass(3)
      assert.strictEqual(yield* AsyncResult.state(handle), "PENDING")
      const { workers } = yield* t.awaitReason(handle, "UnknownTask")
      assert.deepStrictEqual(workers, [worker.id])
      const [letter] = yield* DeadLetters.list(Work)
      assert(letter !== undefined)
      assert.strictEqual(letter.reason._tag, "UnknownTask")
      assert.isTrue(letter.payload._tag === "Success" && letter.payload.success === "hello")
      yield* t.untilDrained()
    })

    test("an unknown task does not end while a live worker of its queue lists it", function* (t) {
      const worker = yield* t.startWorker(
        [Nothing],
        Nothing.toLayer(() => Effect.void),
        { unknownTaskGrace: t.duration(1) }
      )
      yield* t.drivers.backend.heartbeat(
        {
          id: "another worker",
          hostname: "another host",
          pid: 1,
          queues: ["default"],
          tasks: ["work"],
          concurrency: 1,
          running: 1
        },
        t.time.units(10)
      )
      const handle = yield* Work.delay("hello")
      yield* t.time.pass(4)
      assert.strictEqual(yield* AsyncResult.state(handle), "PENDING")
      const { workers } = yield* t.awaitReason(handle, "UnknownTask")
      assert.deepStrictEqual(workers, [worker.id])
      yield* t.untilDrained()
    })

    test("an undecodable message that names the task completes the waiter", function* (t) {
      const handle = yield* Retried.delay({ n: 1 }, { delay: t.duration(5) })
      yield* t.publishRaw(handle.taskId, "retried", "}no message{")
      yield* t.startWorker(
        [Retried],
        Retried.toLayer(({ n }) => Effect.succeed(n))
      )
      yield* t.awaitReason(handle, "PayloadInvalid")
      yield* t.untilDrained()
    })

    test("an undecodable payload completes the waiter, without retries and with its bytes kept", function* (t) {
      let runs = 0
      yield* t.startWorker(
        [Retried],
        Retried.toLayer(({ n }) => Effect.sync(() => n + ++runs))
      )
      const body = older("a", { n: "one" })
      yield* t.publishRaw("a", "retried", body)
      const handle = Retried.result("a")
      const failed = yield* t.awaitFailure(handle)
      assert(failed.reason._tag === "PayloadInvalid")
      assert.isNotEmpty(failed.reason.issue)
      assert.strictEqual(runs, 0)
      const { attempt, retries } = yield* t.read("a")
      assert.deepStrictEqual({ attempt, retries }, { attempt: 1, retries: 0 })
      const [letter] = yield* DeadLetters.list(Retried)
      assert(letter !== undefined)
      assert.strictEqual(letter.raw, body)
      assert.strictEqual(letter.payload._tag, "Failure")
      yield* t.untilDrained()
    })

    test("a result that does not encode completes the waiter, and the handler does not run again", function* (t) {
      let runs = 0
      yield* t.startWorker(
        [Small],
        Small.toLayer(() => Effect.sync(() => 10 + runs++))
      )
      const { issue, side } = yield* t.awaitReason(yield* Small.delay(), "ResultInvalid")
      assert.strictEqual(side, "worker")
      assert.isNotEmpty(issue)
      yield* t.untilDrained()
      assert.strictEqual(runs, 1)
    })

    test("a result that is too large completes the waiter, and the handler does not run again", function* (t) {
      let runs = 0
      yield* t.startWorker(
        [Large],
        Large.toLayer(() => Effect.sync(() => `${++runs}`.repeat(4 * 1024 * 1024 + 1)))
      )
      const { issue } = yield* t.awaitReason(yield* Large.delay(), "ResultInvalid")
      assert.include(issue, "bytes")
      assert.strictEqual(runs, 1)
    })

    test("an error that is too large completes the waiter", function* (t) {
      yield* t.startWorker(
        [Large],
        Large.toLayer(() => Effect.fail("no".repeat(4 * 1024 * 1024)))
      )
      yield* t.awaitReason(yield* Large.delay(), "ResultInvalid")
    })

    test("an error without a retry left completes the waiter", function* (t) {
      let runs = 0
      yield* t.startWorker(
        [Retried],
        Retried.toLayer(() => Effect.suspend(() => Effect.fail(`no ${++runs}`)))
      )
      const failed = yield* t.awaitFailure(yield* Retried.delay({ n: 1 }))
      assert(failed.reason._tag === "Failed")
      assert.strictEqual(failed.reason.error, "no 3")
      assert.isTrue(failed.reason.retriesExhausted)
      assert.strictEqual(failed.attempts, 3)
    })

    test("a retry that the handler requests without one left completes the waiter", function* (t) {
      yield* t.startWorker(
        [Retried],
        Retried.toLayer(() => TaskContext.use(({ retry }) => retry()))
      )
      const failed = yield* t.awaitFailure(yield* Retried.delay({ n: 1 }))
      assert.strictEqual(failed.reason._tag, "RetriesExhausted")
      assert.strictEqual(failed.attempts, 3)
    })

    test("forgetting a waiting task completes the waiter", function* (t) {
      const handle = yield* Work.delay("hello")
      const waiter = yield* t.collect(AsyncResult.stream([handle]))
      yield* t.time.pass(1)
      yield* AsyncResult.forget(handle)
      yield* waiter.done
      const exit = waiter.values[0]?.[1]
      assert(exit !== undefined && Exit.isFailure(exit))
      const failed = Option.getOrThrow(Exit.findErrorOption(exit))
      assert.strictEqual(failed.reason._tag, "Forgotten")
    })

    test("forgetting a running task completes the waiter, and the task runs to its end", function* (t) {
      const gate = new Gate()
      let done = 0
      yield* t.startWorker(
        [Work],
        Work.toLayer((text) =>
          Effect.as(
            Effect.andThen(
              gate.pass,
              Effect.sync(() => done++)
            ),
            text
          )
        )
      )
      const handle = yield* Work.delay("hello")
      yield* t.until("it runs", () => gate.entered === 1)
      const waiter = yield* t.collect(AsyncResult.stream([handle]))
      yield* t.time.pass(1)
      yield* AsyncResult.forget(handle)
      yield* waiter.done
      gate.open()
      yield* t.untilDrained()
      assert.strictEqual(done, 1)
      yield* t.eventually(
        "the record is gone",
        Effect.map(AsyncResult.poll(handle), (seen) => Option.isNone(seen))
      )
    })

    test("a purge of the queue completes the waiter", function* (t) {
      const handles = yield* Work.delayAll(["a", "b"])
      assert.strictEqual(yield* Broker.purge("default"), 2)
      for (const handle of handles) yield* t.awaitReason(handle, "Cancelled")
    })

    test("an end completes the waiter at once, if the store gives hints", function* (t, context) {
      if (!t.drivers.backend.capabilities.hints) return yield* Suite.skip(context, "the store gives no hints")
      const gate = new Gate()
      yield* t.startSeparateWorker(
        [Work],
        Work.toLayer((text) => Effect.as(gate.pass, text))
      )
      const handle = yield* Work.delay("hello")
      yield* t.until("it runs", () => gate.entered === 1)
      const waiter = yield* t.collect(AsyncResult.stream([handle]))
      yield* t.time.pass(1)
      gate.open()
      const before = yield* Clock.currentTimeMillis
      yield* waiter.done
      // the sweep comes every five seconds
      assert.isBelow((yield* Clock.currentTimeMillis) - before, 2000 * t.time.slowdown)
    })

    test("an end completes all waiters, and later ones too", function* (t) {
      const gate = new Gate()
      yield* t.startWorker(
        [Work],
        Work.toLayer((text) => Effect.as(gate.pass, text))
      )
      const handle = yield* Work.delay("hello")
      const waiters = yield* Effect.forEach([1, 2, 3], () => t.collect(AsyncResult.stream([handle])))
      yield* t.until("it runs", () => gate.entered === 1)
      gate.open()
      for (const waiter of waiters) {
        yield* waiter.done
        assert.isTrue(waiter.values.length === 1 && Exit.isSuccess(waiter.values[0]![1]))
      }
      assert.strictEqual(yield* t.awaitValue(Work.result(handle.taskId)), "hello")
    })
  })
}
