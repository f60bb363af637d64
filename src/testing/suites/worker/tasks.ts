/** Tasks: delays, priorities, ids and keys, progress, and waiting for several at once. */
import { assert, describe } from "@effect/vitest"
import { Clock, Effect, Option, Schema } from "effect"
import * as AsyncResult from "../../../AsyncResult.ts"
import * as Task from "../../../Task.ts"
import { TaskContext } from "../../../TaskContext.ts"
import * as Suite from "../Suite.ts"
import { Gate, type Test } from "./fixture.ts"

const Work = Task.make("work", { payload: Schema.Int, success: Schema.Int, error: Schema.String })
const Import = Task.make("import", { success: Schema.Int, progress: Schema.Struct({ done: Schema.Int }) })
const Keyed = Task.make("keyed", {
  payload: { user: Schema.Int, text: Schema.String },
  success: Schema.String,
  idempotencyKey: ({ user }) => `${user}`
})
const Other = Task.make("other", { payload: Schema.Int, success: Schema.Int, queue: "another queue" })

/** Registers the tests. */
export const tasks = (test: Test): void => {
  describe("tasks", () => {
    test("a delayed task waits", function* (t) {
      let runs = 0
      yield* t.startWorker(
        [Work],
        Work.toLayer((n) => Effect.sync(() => n + runs++))
      )
      const handle = yield* Work.delay(1, { delay: t.duration(3) })
      yield* t.time.pass(2)
      assert.strictEqual(runs, 0)
      assert.strictEqual(yield* AsyncResult.state(handle), "PENDING")
      assert.strictEqual(yield* t.awaitValue(handle), 1)
    })

    test("a task can be enqueued for a time", function* (t) {
      let runs = 0
      yield* t.startWorker(
        [Work],
        Work.toLayer((n) => Effect.sync(() => n + runs++))
      )
      const now = yield* Clock.currentTimeMillis
      const handle = yield* Work.delay(1, { at: now + t.time.units(3) })
      yield* t.time.pass(2)
      assert.strictEqual(runs, 0)
      assert.strictEqual(yield* t.awaitValue(handle), 1)
      assert.strictEqual(yield* t.awaitValue(yield* Work.delay(2, { at: 0 })), 3)
    })

    test("tasks with a higher priority run first", function* (t, context) {
      if (t.drivers.broker.capabilities.ordered === false)
        return yield* Suite.skip(context, "a queue lies in several parts, each with its own order")
      if (t.drivers.broker.capabilities.priorities < 2)
        return yield* Suite.skip(context, "there is one priority")
      const order: Array<number> = []
      const handles = [
        yield* Work.delay(1, { priority: 1 }),
        yield* Work.delay(100),
        yield* Work.delay(200, { priority: 200 })
      ]
      yield* t.startWorker(
        [Work],
        Work.toLayer((n) => Effect.sync(() => order.push(n))),
        { concurrency: 1 }
      )
      yield* t.complete("they end", AsyncResult.all(handles))
      assert.deepStrictEqual(order, [200, 100, 1])
    })

    test("the same key returns the same task, and a conflict for another payload", function* (t) {
      let runs = 0
      const first = yield* Keyed.delay({ user: 1, text: "a" })
      assert.strictEqual((yield* Keyed.delay({ user: 1, text: "a" })).taskId, first.taskId)
      const conflict = yield* Effect.flip(Keyed.delay({ user: 1, text: "b" }))
      assert(conflict._tag === "IdempotencyConflict")
      assert.strictEqual(conflict.taskId, first.taskId)
      const other = yield* Keyed.delay({ user: 2, text: "b" })
      yield* t.startWorker(
        [Keyed],
        Keyed.toLayer(({ text }) => Effect.sync(() => `${text} ${++runs}`))
      )
      yield* t.complete("they end", AsyncResult.all([first, other]))
      assert.strictEqual((yield* Keyed.delay({ user: 1, text: "a" })).taskId, first.taskId)
      yield* t.untilDrained()
      assert.strictEqual(runs, 2)
      yield* AsyncResult.forget(first)
      const anew = yield* Keyed.delay({ user: 1, text: "c" })
      assert.notStrictEqual(anew.taskId, first.taskId)
      assert.strictEqual(yield* t.awaitValue(anew), "c 3")
    })

    test("payloads that are equal are the same under a key, whatever they encode to", function* () {
      const Labelled = Task.make("labelled", {
        payload: {
          labels: Schema.Record(Schema.String, Schema.Int),
          tags: Schema.ReadonlySet(Schema.String),
          note: Schema.optional(Schema.String)
        },
        idempotencyKey: () => "k"
      })
      const first = yield* Labelled.send({ labels: { red: 1, blue: 2 }, tags: new Set(["a", "b"]) })
      const again = yield* Labelled.send({
        tags: new Set(["b", "a"]),
        note: undefined,
        labels: { blue: 2, red: 1 }
      })
      assert.strictEqual(again, first)
    })

    test("the same key from many concurrent producers leads to one task", function* (t) {
      let runs = 0
      const payload = { user: 1, text: "a" }
      const handles = yield* Effect.all(
        Array.from({ length: 20 }, () => Keyed.delay(payload)),
        { concurrency: "unbounded" }
      )
      assert.strictEqual(new Set(handles.map(({ taskId }) => taskId)).size, 1)
      yield* t.startWorker(
        [Keyed],
        Keyed.toLayer(({ text }) => Effect.sync(() => `${text} ${++runs}`)),
        { lease: t.duration(1) }
      )
      assert.strictEqual(yield* t.awaitValue(handles[0]!), "a 1")
      yield* t.untilDrained()
      assert.strictEqual(runs, 1)
    })

    test("a given id is the task's id, and a conflict for other tasks", function* (t) {
      const handle = yield* Work.delay(1, { id: "mine" })
      assert.strictEqual(handle.taskId, "mine")
      assert.strictEqual((yield* Work.delay(1, { id: "mine" })).taskId, "mine")
      assert.strictEqual((yield* Effect.flip(Work.delay(2, { id: "mine" })))._tag, "IdempotencyConflict")
      assert.strictEqual((yield* Effect.flip(Other.delay(1, { id: "mine" })))._tag, "IdempotencyConflict")
      yield* t.startWorker([Work], Work.toLayer(Effect.succeed))
      assert.strictEqual(yield* t.awaitValue(Work.result("mine")), 1)
      yield* t.untilDrained()
    })

    test("a bulk enqueue keeps the order of its tasks", function* (t) {
      yield* t.startWorker(
        [Work],
        Work.toLayer((n) => Effect.succeed(n * 2))
      )
      const payloads = Array.from({ length: 300 }, (_, n) => n)
      const handles = yield* Work.delayAll(payloads)
      assert.deepStrictEqual(
        yield* t.complete("they end", AsyncResult.all(handles)),
        payloads.map((n) => n * 2)
      )
    })

    test("a task that was sent without a handle can be awaited by its id", function* (t) {
      yield* t.startWorker([Work], Work.toLayer(Effect.succeed))
      const id = yield* Work.send(7)
      assert.strictEqual(yield* t.awaitValue(Work.result(id)), 7)
    })

    test("progress is part of changes and of a poll", function* (t) {
      const [first, second] = [new Gate(), new Gate()]
      yield* t.startWorker(
        [Import],
        Import.toLayer(() =>
          Effect.gen(function* () {
            yield* Import.progress({ done: 1 })
            yield* first.pass
            yield* Import.progress({ done: 2 })
            yield* second.pass
            return 3
          })
        )
      )
      const handle = yield* Import.delay()
      const changes = yield* t.collect(AsyncResult.changes(handle))
      const sees = (done: number) =>
        t.until(`progress ${done} is seen`, () =>
          changes.values.some(({ progress }) => Option.isSome(progress) && progress.value.done === done)
        )
      yield* sees(1)
      first.open()
      yield* sees(2)
      const seen = Option.getOrThrow(yield* AsyncResult.poll(handle))
      assert.deepStrictEqual(Option.getOrThrow(seen.progress), { done: 2 })
      assert.isTrue(Option.isSome(seen.worker))
      second.open()
      assert.strictEqual(yield* t.awaitValue(handle), 3)
      yield* changes.done
    })

    test("progress that does not encode is a defect of the handler", function* (t) {
      yield* t.startWorker(
        [Import],
        Import.toLayer(() => Effect.as(Import.progress({ done: 0.5 }), 1))
      )
      yield* t.awaitReason(yield* Import.delay(), "Died")
    })

    test("all, race and stream wait for several tasks", function* (t) {
      const gate = new Gate()
      yield* t.startWorker(
        [Work],
        Work.toLayer((n) =>
          n === 0 ? Effect.fail("no") : n === 1 ? Effect.succeed(n) : Effect.as(gate.pass, n)
        )
      )
      const [zero, one, two] = [yield* Work.delay(0), yield* Work.delay(1), yield* Work.delay(2)]
      assert.strictEqual(yield* t.complete("one wins", AsyncResult.race([zero, one, two])), 1)
      const error = yield* t.complete("one fails", Effect.flip(AsyncResult.all([two, zero])))
      assert.strictEqual(error._tag, "TaskFailed")
      const stream = yield* t.collect(AsyncResult.stream([zero, one, two]))
      yield* t.until("two have ended", () => stream.values.length === 2)
      gate.open()
      yield* stream.done
      assert.deepStrictEqual(yield* t.complete("both end", AsyncResult.all({ a: one, b: two })), {
        a: 1,
        b: 2
      })
    })

    test("each attempt has its own scope", function* (t) {
      const closed: Array<number> = []
      yield* t.startWorker(
        [Work],
        Work.toLayer((n) =>
          Effect.as(
            Effect.addFinalizer(() => Effect.sync(() => void closed.push(n))),
            n
          )
        )
      )
      yield* t.awaitValue(yield* Work.delay(1))
      assert.deepStrictEqual(closed, [1])
      yield* t.awaitValue(yield* Work.delay(2))
      assert.deepStrictEqual(closed, [1, 2])
    })

    test("a handler knows its task", function* (t) {
      const Named = Task.make("named", { success: Schema.Tuple([Schema.String, Schema.String]) })
      yield* t.startWorker(
        [Named],
        Named.toLayer(() => TaskContext.useSync(({ taskId, taskName }) => [taskId, taskName] as const))
      )
      const handle = yield* Named.delay()
      assert.deepStrictEqual(yield* t.awaitValue(handle), [handle.taskId, "named"])
    })
  })
}
