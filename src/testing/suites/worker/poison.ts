/** Guarantee 8: a poison message ends as a dead letter, its bytes kept; it cannot loop for ever or end a worker. */
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

const garbage: ReadonlyArray<readonly [what: string, body: string]> = [
  ["no JSON", "}{"],
  ["nothing", ""],
  ["JSON that is no message", "[1, 2, 3]"],
  ["null", "null"],
  ["a message without an id", `{"v":1,"task":"work"}`],
  ["an odd id", `{"v":1,"id":7,"generation":0,"task":"work","queue":"default","retries":0,"priority":1}`],
  [
    "a message of a version to come",
    `{"v":2,"id":"a","generation":0,"task":"work","queue":"default","payload":1,"retries":0,"priority":1}`
  ],
  ["control characters", "\u0001\u0002"]
]

/** Registers the tests. */
export const poison = (test: Test): void => {
  describe("8: a poison message becomes a dead letter", () => {
    test("bytes that are no message are kept, and the worker goes on", function* (on) {
      yield* on.work([Work], Work.toLayer(Effect.succeed), { concurrency: 2 })
      for (const [i, [, body]] of garbage.entries()) yield* on.send(`poison-${i}`, "work", body)
      assert.strictEqual(yield* on.value(yield* Work.delay(7)), 7)
      yield* on.drained()
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

    test("it cannot be replayed, and stays until it is removed", function* (on) {
      yield* on.work([Work], Work.toLayer(Effect.succeed))
      yield* on.send("poison", "work", "}{")
      yield* on.eventually(
        "there is a letter",
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

    test("one whose parking fails comes back, and is parked once", function* (on) {
      on.faults.set("fails", ["backend.parkMessage", "backend.start"], 12)
      yield* on.work([Work], Work.toLayer(Effect.succeed), { lease: on.duration(2) })
      yield* on.send("poison", "work", "}{")
      yield* on.drained()
      assert.strictEqual(yield* DeadLetters.count(), 1)
    })

    test("one that comes for a task that has ended leaves its outcome alone", function* (on) {
      yield* on.work([Work], Work.toLayer(Effect.succeed))
      const handle = yield* Work.delay(7)
      assert.strictEqual(yield* on.value(handle), 7)
      yield* on.send(handle.taskId, "work", "}{")
      yield* on.eventually(
        "its bytes are kept",
        Effect.map(DeadLetters.count(), (count) => count === 1)
      )
      assert.strictEqual(yield* on.value(handle), 7)
      yield* on.drained()
    })

    test("a message that is not the one of its envelope runs nothing, and ends the envelope's task", function* (on) {
      let runs = 0
      const Other = Task.make("other", { success: Schema.Int })
      yield* on.work(
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
        yield* on.send(id, "work", inside)
        assert.strictEqual((yield* on.reason(Work.result(id), "PayloadInvalid"))._tag, "PayloadInvalid")
      }
      yield* on.drained()
      assert.strictEqual(runs, 0)
      assert.sameMembers(
        (yield* DeadLetters.list()).map(({ taskId }) => Option.getOrNull(taskId)),
        ["a", "c", "d"]
      )
    })

    test("many of them do not hold up the others", function* (on) {
      yield* on.work([Work], Work.toLayer(Effect.succeed), { concurrency: 2 })
      for (let i = 0; i < 50; i++) yield* on.send(`poison-${i}`, "work", `}{ ${i}`)
      const handles = yield* Work.delayAll([1, 2, 3])
      for (const [i, handle] of handles.entries()) assert.strictEqual(yield* on.value(handle), i + 1)
      yield* on.drained()
      assert.strictEqual(yield* DeadLetters.count(), 50)
      assert.strictEqual(yield* DeadLetters.purge(), 50)
    })
  })

  describe("8: runs that end by a crash are counted apart", () => {
    test("they use up no retries", function* (on) {
      const handle = yield* Steady.delay()
      yield* on.abandon()
      yield* on.time.pass(2)
      yield* on.abandon()
      const seen: Array<readonly [attempt: number, retries: number]> = []
      yield* on.work(
        [Steady],
        Steady.toLayer(() =>
          TaskContext.use(({ attempt, retries }) => {
            seen.push([attempt, retries])
            return retries === 0 ? Effect.fail("no") : Effect.succeed(attempt)
          })
        )
      )
      assert.strictEqual(yield* on.value(handle), 4)
      assert.deepStrictEqual(seen, [
        [3, 0],
        [4, 1]
      ])
      assert.strictEqual((yield* on.read(handle.taskId)).crashes, 2)
    })

    test("when they are used up the task ends, and no more", function* (on) {
      const handle = yield* Steady.delay()
      for (let crash = 0; crash < 3; crash++) {
        yield* on.abandon({ maxCrashes: 3 })
        yield* on.time.pass(2)
      }
      let runs = 0
      yield* on.work(
        [Steady, Work],
        Layer.mergeAll(
          Work.toLayer(Effect.succeed),
          Steady.toLayer(() => Effect.sync(() => ++runs))
        )
      )
      const failed = yield* on.failure(handle)
      assert.strictEqual(failed.reason._tag, "WorkerLost")
      assert.strictEqual(failed.attempts, 3)
      assert.strictEqual(yield* on.value(yield* Work.delay(7)), 7)
      yield* on.drained()
      assert.strictEqual(runs, 0)
      const [letter] = yield* DeadLetters.list(Steady)
      assert(letter !== undefined)
      assert.strictEqual(Option.getOrThrow(letter.taskId), handle.taskId)
      assert.strictEqual(letter.attempts, 3)
    })

    test("a task that may crash once is not run after it", function* (on) {
      const Brittle = Task.make("brittle", { maxCrashes: 1 })
      const handle = yield* Brittle.delay()
      yield* on.abandon({ maxCrashes: 1 })
      let runs = 0
      yield* on.work(
        [Brittle],
        Brittle.toLayer(() => Effect.sync(() => void runs++))
      )
      yield* on.reason(handle, "WorkerLost")
      assert.strictEqual(runs, 0)
    })

    test("the letter of a run that vanished stays", function* (on) {
      const Brittle = Task.make("brittle", { maxCrashes: 1 })
      const gate = new Gate()
      const options = { lease: on.duration(2) }
      const handler = Brittle.toLayer(() => gate.pass)
      const cut = yield* on.workApart([Brittle], handler, options)
      const handle = yield* Brittle.delay()
      yield* on.until("it runs", () => gate.entered === 1)
      cut.faults.cut()
      yield* on.work([Brittle], handler, options)
      const failed = yield* on.reason(handle, "WorkerLost")
      assert.strictEqual(failed.worker, cut.id)
      yield* on.time.pass(2)
      const [letter] = yield* DeadLetters.list(Brittle)
      assert(letter !== undefined)
      assert.strictEqual(letter.reason._tag, "WorkerLost")
      assert.strictEqual(letter.queue, "default")
      gate.open()
      assert.isTrue(yield* DeadLetters.replay(letter.id))
      assert.isUndefined(yield* on.value(handle))
    })

    // oxlint-disable-next-line require-yield
    test("a task may crash at least once", function* () {
      assert.throws(() => Task.make("a", { maxCrashes: 0 }), /maxCrashes/)
    })
  })
}
