/** Workers: queues, rolling deploys, heartbeats and counts. */
import { assert, describe } from "@effect/vitest"
import { DateTime, Effect, Layer, Schedule, Schema } from "effect"
import * as AsyncResult from "../../../AsyncResult.ts"
import * as Task from "../../../Task.ts"
import { TaskContext } from "../../../TaskContext.ts"
import * as Worker from "../../../Worker.ts"
import { Gate, type Test } from "./fixture.ts"

const Work = Task.make("work", { payload: Schema.Int, success: Schema.Int, error: Schema.String })
const Other = Task.make("other", { payload: Schema.Int, success: Schema.Int, queue: "another queue" })

/** Registers the tests. */
export const workers = (test: Test): void => {
  describe("workers", () => {
    test("a worker claims from its queues only", function* (t) {
      const handlers = Layer.mergeAll(Work.toLayer(Effect.succeed), Other.toLayer(Effect.succeed))
      yield* t.startWorker([Work, Other], handlers, { queues: ["default"] })
      const other = yield* Other.delay(1)
      assert.strictEqual(yield* t.awaitValue(yield* Work.delay(2)), 2)
      yield* t.time.pass(2)
      assert.strictEqual(yield* AsyncResult.state(other), "PENDING")
      assert.deepStrictEqual(yield* t.counts("another queue"), { ready: 1, delayed: 0, claimed: 0 })
      yield* t.startWorker([Other], Other.toLayer(Effect.succeed))
      assert.strictEqual(yield* t.awaitValue(other), 1)
    })

    test("a task can be enqueued to another queue", function* (t) {
      yield* t.startWorker([Work], Work.toLayer(Effect.succeed), { queues: ["a", "b"] })
      const handles = [yield* Work.delay(1, { queue: "a" }), yield* Work.delay(2, { queue: "b" })]
      assert.deepStrictEqual(yield* t.complete("they end", AsyncResult.all(handles)), [1, 2])
      yield* t.untilDrained("a")
      yield* t.untilDrained("b")
    })

    test("during a rolling deploy, a task runs on a worker that knows it", function* (t) {
      const New = Task.make("new", { payload: Schema.Int, success: Schema.Int })
      const old = yield* t.startWorker([Work], Work.toLayer(Effect.succeed))
      const handle = yield* New.delay(7)
      yield* t.time.pass(3)
      assert.strictEqual(yield* AsyncResult.state(handle), "PENDING")
      assert.strictEqual((yield* t.read(handle.taskId)).attempt, 0)
      yield* t.startWorker([New], New.toLayer(Effect.succeed))
      yield* old.stop
      assert.strictEqual(yield* t.awaitValue(handle), 7)
      yield* t.untilDrained()
    })

    test("a worker is listed as soon as its layer is built, and is no more once it has stopped", function* (t) {
      const isListed = (id: string) =>
        Effect.map(Worker.active, (workers) => workers.some((worker) => worker.id === id))
      const worker = yield* t.startWorker([Work], Work.toLayer(Effect.succeed))
      assert.isTrue(yield* isListed(worker.id))
      yield* worker.stop
      assert.isFalse(yield* isListed(worker.id))
    })

    test("workers are listed by their heartbeats, until these lapse", function* (t) {
      const gate = new Gate()
      const worker = yield* t.startSeparateWorker(
        [Work],
        Work.toLayer((n) => Effect.as(gate.pass, n)),
        { heartbeat: t.duration(1), concurrency: 7, queues: ["default", "more"] }
      )
      yield* Work.delay(1)
      yield* t.eventually(
        "it is listed as it runs a task",
        Effect.map(Worker.active, (workers) => workers.some(({ running }) => running === 1))
      )
      const [listed, ...more] = yield* Worker.active
      assert(listed !== undefined)
      assert.strictEqual(more.length, 0)
      const { concurrency, id, pid, queues, seenAt, startedAt, tasks } = listed
      assert.isTrue(DateTime.isLessThanOrEqualTo(startedAt, seenAt))
      assert.deepStrictEqual(
        { concurrency, id, pid, queues, tasks },
        { concurrency: 7, id: worker.id, pid: process.pid, queues: ["default", "more"], tasks: ["work"] }
      )
      yield* t.time.pass(5)
      assert.strictEqual((yield* Worker.active).length, 1)
      worker.faults.cut()
      yield* t.eventually(
        "it is no longer listed",
        Effect.map(Worker.active, (workers) => workers.length === 0)
      )
    })

    test("workers count their tasks", function* (t) {
      const gate = new Gate()
      const Retried = Task.make("retried", {
        success: Schema.Int,
        error: Schema.String,
        retry: { maxRetries: 1, schedule: Schedule.spaced("10 millis") }
      })
      const worker = yield* t.startWorker(
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
      yield* t.awaitExit(yield* Work.delay(0))
      yield* t.awaitValue(yield* Work.delay(1))
      yield* t.awaitValue(yield* Retried.delay())
      const last = yield* Work.delay(2)
      yield* t.until("one runs", () => gate.entered === 1)
      yield* t.eventually(
        "all is counted",
        Effect.map(worker.stats, ({ succeeded }) => succeeded === 2)
      )
      assert.deepStrictEqual(yield* worker.stats, { running: 1, succeeded: 2, failed: 1, retried: 1 })
      gate.open()
      yield* t.awaitValue(last)
    })
  })
}
