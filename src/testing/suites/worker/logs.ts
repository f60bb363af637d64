/** The log lines of a worker: one for each event, at its level, with the cause and the task. */
import { assert, describe } from "@effect/vitest"
import { Effect, Fiber, Schema } from "effect"
import * as AsyncResult from "../../../AsyncResult.ts"
import * as RetryPolicy from "../../../RetryPolicy.ts"
import * as Task from "../../../Task.ts"
import { TaskContext } from "../../../TaskContext.ts"
import * as Suite from "../Suite.ts"
import { type CapturedLogs, captureLogs } from "./captureLogs.ts"
import { type Fixture, Gate, type Test } from "./fixture.ts"

class NoFunds extends Schema.TaggedError<NoFunds>("chicory/testing/NoFunds")("NoFunds", {
  account: Schema.String
}) {}

const Work = Task.make("work", { success: Schema.Int })
const Pay = Task.make("pay", { payload: Schema.String, success: Schema.Int, error: NoFunds })
const soon = RetryPolicy.fixed({ maxRetries: 1, delay: "10 millis" })
const Flaky = Task.make("flaky", { success: Schema.Int, error: NoFunds, retry: soon })
const BuggyRetried = Task.make("buggy.retried", { success: Schema.Int, retry: soon, retryDefects: true })
const Slow = Task.make("slow", { success: Schema.Int, timeout: "10 millis" })

/** The lines about a task. */
const about = ({ lines }: CapturedLogs, taskId: string) =>
  lines.filter(({ annotations, level }) => annotations["taskId"] === taskId && level !== "Debug")

/** Waits for the lines about a task, and expects their levels and texts, and no more. */
const expectLines = Effect.fnUntraced(function* (
  t: Fixture,
  logs: CapturedLogs,
  taskId: string,
  expected: ReadonlyArray<readonly [level: string, text: string]>
) {
  yield* t.until("the lines are logged", () => about(logs, taskId).length >= expected.length)
  yield* t.time.pass(0.3)
  const lines = about(logs, taskId)
  assert.deepStrictEqual<ReadonlyArray<ReadonlyArray<string>>>(
    lines.map(({ level, text }) => [level, text]),
    expected
  )
  return lines
})

/** Registers the tests. */
export const logs = (test: Test): void => {
  describe("the log", () => {
    test("a handler that dies is one line at Error, with the stack and the task", function* (t) {
      const logs = captureLogs()
      const worker = yield* logs.capture(
        t.startWorker(
          [Work],
          Work.toLayer(() => Effect.die(new TypeError("a bug of the handler")))
        )
      )
      const { taskId } = yield* Work.delay()
      const [line] = yield* expectLines(t, logs, taskId, [
        [
          "Error",
          "Failed to run a task, since its handler died; the task has ended as Died, with a dead letter"
        ]
      ])
      assert.deepStrictEqual(line?.annotations, {
        taskId,
        taskName: "work",
        queue: "default",
        attempt: 1,
        worker: worker.id
      })
      assert.match(line?.cause ?? "", /TypeError: a bug of the handler\n +at .*logs\.[jt]s/)
    })

    test("a handler that dies with an error that cannot be printed leaves a line without it", function* (t) {
      class Unprintable extends Error {
        override get message(): string {
          throw new Error("no text")
        }
      }
      const logs = captureLogs()
      yield* logs.capture(
        t.startWorker(
          [Work],
          Work.toLayer(() => Effect.die(new Unprintable()))
        )
      )
      const { taskId } = yield* Work.delay()
      yield* expectLines(t, logs, taskId, [
        ["Warn", "Failed to log what became of a task, since its cause cannot be printed; a logger threw"]
      ])
    })

    test("a task that fails for good is one line at Warning, which has nothing of its payload", function* (t) {
      const logs = captureLogs()
      yield* logs.capture(
        t.startWorker(
          [Pay],
          Pay.toLayer((account) => Effect.fail(new NoFunds({ account })))
        )
      )
      const { taskId } = yield* Pay.delay("DE-4711")
      const [line] = yield* expectLines(t, logs, taskId, [
        ["Warn", "Failed to run a task; the task has ended as Failed, with a dead letter"]
      ])
      assert.include(line?.cause, "NoFunds")
      assert.notInclude(line?.text, "4711")
      assert.notInclude(JSON.stringify(line?.annotations), "4711")
    })

    test("a retry is one line at Info, and the failure after the last one is a line at Warning", function* (t) {
      const logs = captureLogs()
      yield* logs.capture(
        t.startWorker(
          [Flaky],
          Flaky.toLayer(() => Effect.fail(new NoFunds({ account: "a" })))
        )
      )
      const { taskId } = yield* Flaky.delay()
      const lines = yield* expectLines(t, logs, taskId, [
        ["Info", "Failed to run a task; the task runs again in 10ms"],
        ["Warn", "Failed to run a task; the task has ended as Failed, with a dead letter"]
      ])
      assert.deepStrictEqual(
        lines.map(({ annotations }) => annotations["attempt"]),
        [1, 2]
      )
      assert.include(lines[0]?.cause, "NoFunds")
    })

    test("a handler that dies and is retried is one line at Error for each attempt", function* (t) {
      const logs = captureLogs()
      yield* logs.capture(
        t.startWorker(
          [BuggyRetried],
          BuggyRetried.toLayer(() => Effect.die(new Error("a bug")))
        )
      )
      const { taskId } = yield* BuggyRetried.delay()
      yield* expectLines(t, logs, taskId, [
        ["Error", "Failed to run a task, since its handler died; the task runs again in 10ms"],
        [
          "Error",
          "Failed to run a task, since its handler died; the task has ended as Died, with a dead letter"
        ]
      ])
    })

    test("a retry that the handler asks for is a line at Info, without a cause unless it gives an error", function* (t) {
      const logs = captureLogs()
      yield* logs.capture(
        t.startWorker(
          [Flaky],
          Flaky.toLayer(() =>
            TaskContext.use(({ retries, retry }) =>
              retries === 0
                ? retry({ countdown: "20 millis" })
                : retry({ error: new NoFunds({ account: "a" }) })
            )
          )
        )
      )
      const { taskId } = yield* Flaky.delay()
      const lines = yield* expectLines(t, logs, taskId, [
        ["Info", "A handler asked for a retry; the task runs again in 20ms"],
        ["Warn", "Failed to run a task; the task has ended as Failed, with a dead letter"]
      ])
      assert.strictEqual(lines[0]?.cause, "")
      assert.include(lines[1]?.cause, "NoFunds")
    })

    test("an attempt that takes too long names the timeout as its cause", function* (t) {
      const logs = captureLogs()
      yield* logs.capture(
        t.startWorker(
          [Slow],
          Slow.toLayer(() => Effect.never)
        )
      )
      const { taskId } = yield* Slow.delay()
      const [line] = yield* expectLines(t, logs, taskId, [
        ["Warn", "Failed to run a task; the task has ended as TimedOut, with a dead letter"]
      ])
      assert.include(line?.cause, "longer than the task's timeout of 10 millis")
    })

    test("a result that does not encode is a line at Warning with what the schema expects", function* (t) {
      const logs = captureLogs()
      yield* logs.capture(
        t.startWorker(
          [Work],
          Work.toLayer(() => Effect.succeed(1.5))
        )
      )
      const { taskId } = yield* Work.delay()
      const [line] = yield* expectLines(t, logs, taskId, [
        ["Warn", "Failed to run a task; the task has ended as ResultInvalid, with a dead letter"]
      ])
      assert.include(line?.cause, "ResultInvalid")
    })

    test("a payload that does not decode, and a message of an unknown task, are lines at Warning", function* (t) {
      const Renamed = Task.make("pay", { payload: Schema.Int })
      const Unknown = Task.make("unknown")
      const logs = captureLogs()
      yield* logs.capture(
        t.startWorker(
          [Pay],
          Pay.toLayer(() => Effect.succeed(1)),
          { unknownTaskGrace: 0 }
        )
      )
      const invalid = yield* Renamed.delay(7)
      const unknown = yield* Unknown.delay()
      yield* t.publishRaw("malformed", "pay", "}{")
      for (const [taskId, reason] of [
        [invalid.taskId, "PayloadInvalid"],
        [unknown.taskId, "UnknownTask"],
        ["malformed", "PayloadInvalid"]
      ] as const) {
        const [line] = yield* expectLines(t, logs, taskId, [
          ["Warn", `Failed to run a task; the task has ended as ${reason}, with a dead letter`]
        ])
        assert.include(line?.cause, reason)
        assert.deepStrictEqual(line?.annotations["attempt"], 1)
      }
    })

    test("a cancelled run and a run that is released are lines at Info, and so are start and stop", function* (t) {
      const logs = captureLogs()
      const gate = new Gate()
      const worker = yield* logs.capture(
        t.startWorker(
          [Work],
          Work.toLayer(() => Effect.as(gate.pass, 1)),
          { lease: t.duration(9), concurrency: 2 }
        )
      )
      const cancelled = yield* Work.delay()
      yield* t.until("it runs", () => gate.entered === 1)
      yield* AsyncResult.cancel(cancelled)
      yield* t.awaitReason(cancelled, "Cancelled")
      yield* expectLines(t, logs, cancelled.taskId, [
        ["Info", "Ended a run whose task was cancelled; the task has ended as Cancelled"]
      ])
      const released = yield* Work.delay()
      yield* t.until("it runs", () => gate.entered === 2)
      yield* worker.stop
      yield* expectLines(t, logs, released.taskId, [
        [
          "Info",
          "Interrupted a handler, since the worker stops; its task is released, and nothing is counted"
        ]
      ])
      const ofWorker = logs.lines.filter(
        ({ annotations, level }) => annotations["taskId"] === undefined && level !== "Debug"
      )
      assert.deepStrictEqual(
        ofWorker.map(({ level, text }) => [level, text]),
        [
          ["Info", "Started a worker"],
          ["Info", "Stopping a worker; it claims no more, and 1 run may end within 0"],
          ["Info", "Stopped a worker"]
        ]
      )
      assert.isTrue(logs.lines.every(({ annotations }) => annotations["worker"] === worker.id))
      assert.deepInclude(ofWorker[0]?.annotations, { queues: ["default"], tasks: ["work"], concurrency: 2 })
    })

    test("a run that loses its lease is one line at Info", function* (t) {
      const logs = captureLogs()
      const gate = new Gate()
      const old = yield* logs.capture(
        t.startSeparateWorker(
          [Work],
          Work.toLayer(() => Effect.as(gate.pass, 1)),
          { lease: t.duration(3) }
        )
      )
      const handle = yield* Work.delay()
      yield* t.until("it runs", () => gate.entered === 1)
      old.faults.set("fails", ["backend.renew", "broker.renew", "broker.claim"])
      yield* t.until("it is lost", () => about(logs, handle.taskId).length > 0)
      const [line, ...more] = about(logs, handle.taskId)
      assert.strictEqual(line?.level, "Info")
      assert.match(line?.text ?? "", /^Lost the lease of a run, since no renewal succeeded within the lease/)
      assert.deepStrictEqual(more, [])
    })

    test("a task that ends at its limit of crashes is one line at Warning, with its attempts and its crashes", function* (t) {
      const Brittle = Task.make("brittle", { maxCrashes: 1 })
      const { taskId } = yield* Brittle.delay()
      yield* t.startAndVanish({ maxCrashes: 1 })
      const logs = captureLogs()
      const worker = yield* logs.capture(
        t.startWorker(
          [Brittle],
          Brittle.toLayer(() => Effect.void)
        )
      )
      yield* t.awaitReason(Brittle.result(taskId), "WorkerLost")
      const [line] = yield* expectLines(t, logs, taskId, [
        ["Warn", "Failed to run a task; the task has ended as WorkerLost, with a dead letter"]
      ])
      assert.deepStrictEqual(line?.annotations, {
        taskId,
        taskName: "brittle",
        queue: "default",
        attempt: 1,
        crashes: 1,
        worker: worker.id
      })
      assert.include(line?.cause, `worker ${t.vanishedWorker} was lost while it ran the task`)
      assert.deepStrictEqual(logs.beginning("Dropped a message"), [])
    })

    test("a run whose earlier worker was lost is one line at Warning, which its retries do not repeat", function* (t) {
      const handle = yield* Flaky.delay()
      yield* t.startAndVanish()
      const logs = captureLogs()
      yield* logs.capture(
        t.startWorker(
          [Flaky],
          Flaky.toLayer(() =>
            TaskContext.use(({ retries }) =>
              retries === 0 ? Effect.fail(new NoFunds({ account: "a" })) : Effect.succeed(1)
            )
          )
        )
      )
      assert.strictEqual(yield* t.awaitValue(handle), 1)
      const [line] = yield* expectLines(t, logs, handle.taskId, [
        ["Warn", "Lost attempt 1 of a task with its worker; the task runs again (crash 1 of at most 3)"],
        ["Info", "Failed to run a task; the task runs again in 10ms"]
      ])
      assert.deepInclude(line?.annotations, { taskName: "flaky", attempt: 2, lostWorker: t.vanishedWorker })
    })

    test("the at-most-once tasks that a sweep ends are one line at Warning, with their number", function* (t, context) {
      if (t.drivers.backend.capabilities.reliableHints === true) {
        return yield* Suite.skip(context, "the store sweeps itself")
      }
      const Once = Task.make("once", { delivery: "at-most-once" })
      yield* Once.send()
      yield* Once.send()
      for (let run = 0; run < 2; run++) yield* t.startAndVanish({ delivery: "at-most-once", acked: true })
      yield* t.time.pass(2)
      const logs = captureLogs()
      yield* logs.capture(
        t.startWorker(
          [Once],
          Once.toLayer(() => Effect.void)
        )
      )
      yield* t.until("the sweep is logged", () => logs.beginning("Ended ").length > 0)
      const [line, ...more] = logs.beginning("Ended ")
      assert.deepStrictEqual(more, [])
      assert.strictEqual(line?.level, "Warn")
      assert.strictEqual(
        line?.text,
        "Ended 2 at-most-once tasks whose workers were lost; each has ended as WorkerLost, with a dead letter"
      )
      assert.deepInclude(line?.annotations, { tasks: { once: 2 } })
    })

    test("a handler that interrupts itself has died, and its line says so", function* (t) {
      const logs = captureLogs()
      yield* logs.capture(
        t.startWorker(
          [BuggyRetried],
          BuggyRetried.toLayer(() => Effect.flatMap(Effect.forkChild(Effect.interrupt), Fiber.join))
        )
      )
      const { taskId } = yield* BuggyRetried.delay()
      const lines = yield* expectLines(t, logs, taskId, [
        ["Error", "Failed to run a task, since its handler died; the task runs again in 10ms"],
        [
          "Error",
          "Failed to run a task, since its handler died; the task has ended as Died, with a dead letter"
        ]
      ])
      for (const { cause } of lines) {
        assert.include(cause, "the handler interrupted itself")
        assert.notInclude(cause, "All fibers interrupted")
      }
    })

    test("a handler that dies under a cancel request is a line at Error, and is not retried", function* (t) {
      const logs = captureLogs()
      const gate = new Gate()
      yield* logs.capture(
        t.startWorker(
          [BuggyRetried],
          BuggyRetried.toLayer(() =>
            Effect.as(
              Effect.onInterrupt(gate.pass, () => Effect.die(new Error("a bug of a finalizer"))),
              1
            )
          ),
          { lease: t.duration(9) }
        )
      )
      const handle = yield* BuggyRetried.delay()
      yield* t.until("it runs", () => gate.entered === 1)
      yield* AsyncResult.cancel(handle)
      yield* t.awaitReason(handle, "Cancelled")
      const [line] = yield* expectLines(t, logs, handle.taskId, [
        ["Error", "Failed to run a task, since its handler died; the task has ended as Cancelled"]
      ])
      assert.include(line?.cause, "a bug of a finalizer")
    })

    test("tasks that succeed are lines at Debug only", function* (t) {
      const logs = captureLogs()
      yield* logs.capture(
        t.startWorker(
          [Work],
          Work.toLayer(() => Effect.succeed(1))
        )
      )
      const handle = yield* Work.delay()
      assert.strictEqual(yield* t.awaitValue(handle), 1)
      yield* t.untilDrained()
      assert.deepStrictEqual(about(logs, handle.taskId), [])
      yield* t.until("it is logged", () => logs.beginning("Ran a task in ").length === 1)
    })

    test("a handler's own lines have the task, and what its layer and its caller add", function* (t) {
      const logs = captureLogs()
      yield* logs
        .capture(
          t.startWorker(
            [Work],
            Work.toLayer(() =>
              Effect.as(Effect.annotateLogs(Effect.log("a line of the handler"), { order: 7 }), 1)
            )
          )
        )
        .pipe(Effect.annotateLogs({ service: "billing" }))
      const { taskId } = yield* Work.delay()
      yield* t.until("the handler has logged", () => logs.beginning("a line of the handler").length === 1)
      assert.deepStrictEqual(logs.beginning("a line of the handler")[0]?.annotations, {
        service: "billing",
        taskId,
        taskName: "work",
        queue: "default",
        attempt: 1,
        order: 7
      })
    })
  })
}
