/** What tasks and workers do for each other: delays, priorities, keys, progress, queues, the list of workers. */
import { assert, describe } from "@effect/vitest"
import { Clock, Effect, Layer, Option, Schedule, Schema } from "effect"
import * as AsyncResult from "../../../AsyncResult.ts"
import * as Broker from "../../../Broker.ts"
import * as Task from "../../../Task.ts"
import { TaskContext } from "../../../TaskContext.ts"
import * as Worker from "../../../Worker.ts"
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
    test("a task that is delayed waits", function* (on) {
      let runs = 0
      yield* on.work(
        [Work],
        Work.toLayer((n) => Effect.sync(() => n + runs++))
      )
      const handle = yield* Work.delay(1, { delay: on.duration(3) })
      yield* on.time.pass(2)
      assert.strictEqual(runs, 0)
      assert.strictEqual(yield* AsyncResult.state(handle), "PENDING")
      assert.strictEqual(yield* on.value(handle), 1)
    })

    test("a task may be given a time", function* (on) {
      let runs = 0
      yield* on.work(
        [Work],
        Work.toLayer((n) => Effect.sync(() => n + runs++))
      )
      const now = yield* Clock.currentTimeMillis
      const handle = yield* Work.delay(1, { at: now + on.time.units(3) })
      yield* on.time.pass(2)
      assert.strictEqual(runs, 0)
      assert.strictEqual(yield* on.value(handle), 1)
      assert.strictEqual(yield* on.value(yield* Work.delay(2, { at: 0 })), 3)
    })

    test("higher priorities run first", function* (on, context) {
      if (on.drivers.broker.capabilities.ordered === false)
        return yield* Suite.skip(context, "a queue lies in several parts, each with its own order")
      if (on.drivers.broker.capabilities.priorities < 2)
        return yield* Suite.skip(context, "there is one priority")
      const order: Array<number> = []
      const handles = [
        yield* Work.delay(1, { priority: 1 }),
        yield* Work.delay(100),
        yield* Work.delay(200, { priority: 200 })
      ]
      yield* on.work(
        [Work],
        Work.toLayer((n) => Effect.sync(() => order.push(n))),
        { concurrency: 1 }
      )
      yield* on.within("they end", AsyncResult.all(handles))
      assert.deepStrictEqual(order, [200, 100, 1])
    })

    test("the same key gives the same task, and another payload a conflict", function* (on) {
      let runs = 0
      const first = yield* Keyed.delay({ user: 1, text: "a" })
      assert.strictEqual((yield* Keyed.delay({ user: 1, text: "a" })).taskId, first.taskId)
      const conflict = yield* Effect.flip(Keyed.delay({ user: 1, text: "b" }))
      assert(conflict._tag === "IdempotencyConflict")
      assert.strictEqual(conflict.taskId, first.taskId)
      const other = yield* Keyed.delay({ user: 2, text: "b" })
      yield* on.work(
        [Keyed],
        Keyed.toLayer(({ text }) => Effect.sync(() => `${text} ${++runs}`))
      )
      yield* on.within("they end", AsyncResult.all([first, other]))
      assert.strictEqual((yield* Keyed.delay({ user: 1, text: "a" })).taskId, first.taskId)
      yield* on.drained()
      assert.strictEqual(runs, 2)
      yield* AsyncResult.forget(first)
      const anew = yield* Keyed.delay({ user: 1, text: "c" })
      assert.notStrictEqual(anew.taskId, first.taskId)
      assert.strictEqual(yield* on.value(anew), "c 3")
    })

    test("the same key from many producers at once gives one task", function* (on) {
      let runs = 0
      const payload = { user: 1, text: "a" }
      const handles = yield* Effect.all(
        Array.from({ length: 20 }, () => Keyed.delay(payload)),
        { concurrency: "unbounded" }
      )
      assert.strictEqual(new Set(handles.map(({ taskId }) => taskId)).size, 1)
      yield* on.work(
        [Keyed],
        Keyed.toLayer(({ text }) => Effect.sync(() => `${text} ${++runs}`)),
        { lease: on.duration(1) }
      )
      assert.strictEqual(yield* on.value(handles[0]!), "a 1")
      yield* on.drained()
      assert.strictEqual(runs, 1)
    })

    test("an id of one's own is the task's, and is taken for all others", function* (on) {
      const handle = yield* Work.delay(1, { id: "mine" })
      assert.strictEqual(handle.taskId, "mine")
      assert.strictEqual((yield* Work.delay(1, { id: "mine" })).taskId, "mine")
      assert.strictEqual((yield* Effect.flip(Work.delay(2, { id: "mine" })))._tag, "IdempotencyConflict")
      assert.strictEqual((yield* Effect.flip(Other.delay(1, { id: "mine" })))._tag, "IdempotencyConflict")
      yield* on.work([Work], Work.toLayer(Effect.succeed))
      assert.strictEqual(yield* on.value(Work.result("mine")), 1)
      yield* on.drained()
    })

    test("a bulk of tasks keeps its order", function* (on) {
      yield* on.work(
        [Work],
        Work.toLayer((n) => Effect.succeed(n * 2))
      )
      const payloads = Array.from({ length: 300 }, (_, n) => n)
      const handles = yield* Work.delayAll(payloads)
      assert.deepStrictEqual(
        yield* on.within("they end", AsyncResult.all(handles)),
        payloads.map((n) => n * 2)
      )
    })

    test("a task sent without a handle has one all the same", function* (on) {
      yield* on.work([Work], Work.toLayer(Effect.succeed))
      const id = yield* Work.send(7)
      assert.strictEqual(yield* on.value(Work.result(id)), 7)
    })

    test("progress is seen by whoever follows, and by a poll", function* (on) {
      const [first, second] = [new Gate(), new Gate()]
      yield* on.work(
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
      const changes = yield* on.follow(AsyncResult.changes(handle))
      const sees = (done: number) =>
        on.until(`progress ${done} is seen`, () =>
          changes.seen.some(({ progress }) => Option.isSome(progress) && progress.value.done === done)
        )
      yield* sees(1)
      first.open()
      yield* sees(2)
      const seen = Option.getOrThrow(yield* AsyncResult.poll(handle))
      assert.deepStrictEqual(Option.getOrThrow(seen.progress), { done: 2 })
      assert.isTrue(Option.isSome(seen.worker))
      second.open()
      assert.strictEqual(yield* on.value(handle), 3)
      yield* changes.done
    })

    test("progress that does not encode is a bug of the handler", function* (on) {
      yield* on.work(
        [Import],
        Import.toLayer(() => Effect.as(Import.progress({ done: 0.5 }), 1))
      )
      yield* on.reason(yield* Import.delay(), "Died")
    })

    test("all, race and stream wait for many at once", function* (on) {
      const gate = new Gate()
      yield* on.work(
        [Work],
        Work.toLayer((n) =>
          n === 0 ? Effect.fail("no") : n === 1 ? Effect.succeed(n) : Effect.as(gate.pass, n)
        )
      )
      const [zero, one, two] = [yield* Work.delay(0), yield* Work.delay(1), yield* Work.delay(2)]
      assert.strictEqual(yield* on.within("one wins", AsyncResult.race([zero, one, two])), 1)
      const error = yield* on.within("one fails", Effect.flip(AsyncResult.all([two, zero])))
      assert.strictEqual(error._tag, "TaskFailed")
      const stream = yield* on.follow(AsyncResult.stream([zero, one, two]))
      yield* on.until("two have ended", () => stream.seen.length === 2)
      gate.open()
      yield* stream.done
      assert.deepStrictEqual(yield* on.within("both end", AsyncResult.all({ a: one, b: two })), {
        a: 1,
        b: 2
      })
    })

    test("each attempt has a scope of its own", function* (on) {
      const closed: Array<number> = []
      yield* on.work(
        [Work],
        Work.toLayer((n) =>
          Effect.as(
            Effect.addFinalizer(() => Effect.sync(() => void closed.push(n))),
            n
          )
        )
      )
      yield* on.value(yield* Work.delay(1))
      assert.deepStrictEqual(closed, [1])
      yield* on.value(yield* Work.delay(2))
      assert.deepStrictEqual(closed, [1, 2])
    })

    test("a handler is told which task it is", function* (on) {
      const Named = Task.make("named", { success: Schema.Tuple([Schema.String, Schema.String]) })
      yield* on.work(
        [Named],
        Named.toLayer(() => TaskContext.useSync(({ taskId, taskName }) => [taskId, taskName] as const))
      )
      const handle = yield* Named.delay()
      assert.deepStrictEqual(yield* on.value(handle), [handle.taskId, "named"])
    })
  })

  describe("workers", () => {
    test("a worker takes from its queues alone", function* (on) {
      const handlers = Layer.mergeAll(Work.toLayer(Effect.succeed), Other.toLayer(Effect.succeed))
      yield* on.work([Work, Other], handlers, { queues: ["default"] })
      const other = yield* Other.delay(1)
      assert.strictEqual(yield* on.value(yield* Work.delay(2)), 2)
      yield* on.time.pass(2)
      assert.strictEqual(yield* AsyncResult.state(other), "PENDING")
      const [counts] = yield* Broker.counts(["another queue"])
      assert.deepStrictEqual(counts, { ready: 1, delayed: 0, claimed: 0 })
      yield* on.work([Other], Other.toLayer(Effect.succeed))
      assert.strictEqual(yield* on.value(other), 1)
    })

    test("a task may be sent to another queue", function* (on) {
      yield* on.work([Work], Work.toLayer(Effect.succeed), { queues: ["a", "b"] })
      const handles = [yield* Work.delay(1, { queue: "a" }), yield* Work.delay(2, { queue: "b" })]
      assert.deepStrictEqual(yield* on.within("they end", AsyncResult.all(handles)), [1, 2])
      yield* on.drained("a")
      yield* on.drained("b")
    })

    test("a task that one worker does not know is run by one that does, in a rolling deploy", function* (on) {
      const New = Task.make("new", { payload: Schema.Int, success: Schema.Int })
      const old = yield* on.work([Work], Work.toLayer(Effect.succeed))
      const handle = yield* New.delay(7)
      yield* on.time.pass(3)
      assert.strictEqual(yield* AsyncResult.state(handle), "PENDING")
      assert.strictEqual((yield* on.read(handle.taskId)).attempt, 0)
      yield* on.work([New], New.toLayer(Effect.succeed))
      yield* old.stop
      assert.strictEqual(yield* on.value(handle), 7)
      yield* on.drained()
    })

    test("they are listed by their heartbeats, and go when they are silent", function* (on) {
      const gate = new Gate()
      const worker = yield* on.workApart(
        [Work],
        Work.toLayer((n) => Effect.as(gate.pass, n)),
        { heartbeat: on.duration(1), concurrency: 7, queues: ["default", "more"] }
      )
      yield* Work.delay(1)
      yield* on.eventually(
        "it is listed as it runs a task",
        Effect.map(Worker.active, (workers) => workers.some(({ running }) => running === 1))
      )
      const [listed, ...more] = yield* Worker.active
      assert(listed !== undefined)
      assert.strictEqual(more.length, 0)
      const { concurrency, id, pid, queues, tasks } = listed
      assert.deepStrictEqual(
        { concurrency, id, pid, queues, tasks },
        { concurrency: 7, id: worker.id, pid: process.pid, queues: ["default", "more"], tasks: ["work"] }
      )
      yield* on.time.pass(5)
      assert.strictEqual((yield* Worker.active).length, 1)
      worker.faults.cut()
      yield* on.eventually(
        "it is no longer listed",
        Effect.map(Worker.active, (workers) => workers.length === 0)
      )
    })

    test("they count what they have done", function* (on) {
      const gate = new Gate()
      const Retried = Task.make("retried", {
        success: Schema.Int,
        error: Schema.String,
        retry: { maxRetries: 1, schedule: Schedule.spaced("10 millis") }
      })
      const worker = yield* on.work(
        [Work, Retried],
        Layer.mergeAll(
          Work.toLayer((n) =>
            n === 0 ? Effect.fail("no") : n === 1 ? Effect.succeed(n) : Effect.as(gate.pass, n)
          ),
          Retried.toLayer(() =>
            TaskContext.use(({ attempt }) => (attempt === 1 ? Effect.fail("no") : Effect.succeed(1)))
          )
        )
      )
      yield* on.outcome(yield* Work.delay(0))
      yield* on.value(yield* Work.delay(1))
      yield* on.value(yield* Retried.delay())
      const last = yield* Work.delay(2)
      yield* on.until("one runs", () => gate.entered === 1)
      yield* on.eventually(
        "all is counted",
        Effect.map(worker.stats, ({ succeeded }) => succeeded === 2)
      )
      assert.deepStrictEqual(yield* worker.stats, { running: 1, succeeded: 2, failed: 1, retried: 1 })
      gate.open()
      yield* on.value(last)
    })
  })
}
