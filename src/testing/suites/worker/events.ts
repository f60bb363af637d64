/** The events of a worker, and its error reports: what becomes of each run, with the task. */
import { assert, describe } from "@effect/vitest"
import { Cause, Context, Duration, Effect, ErrorReporter, Layer, Schema, Stream } from "effect"
import * as AsyncResult from "../../../AsyncResult.ts"
import * as RetryPolicy from "../../../RetryPolicy.ts"
import * as Task from "../../../Task.ts"
import * as TaskFailed from "../../../TaskFailed.ts"
import type { WorkerEvent } from "../../../Worker.ts"
import { type Fixture, Gate, type RunningWorker, type Test } from "./fixture.ts"

class NoFunds extends Schema.TaggedError<NoFunds>("chicory/testing/NoFunds")("NoFunds", {
  account: Schema.String
}) {}

const Work = Task.make("work", { payload: Schema.Int, success: Schema.Int })
const Flaky = Task.make("flaky", {
  error: NoFunds,
  retry: RetryPolicy.fixed({ maxRetries: 1, delay: "10 millis" })
})
const Brittle = Task.make("brittle", { maxCrashes: 1 })
const Buggy = Task.make("buggy", {
  retry: RetryPolicy.fixed({ maxRetries: 1, delay: "10 millis" }),
  retryDefects: true
})

/** Collects the events of a worker, from now on. */
const listen = Effect.fnUntraced(function* (t: Fixture, worker: RunningWorker) {
  const events: Array<WorkerEvent> = []
  yield* Effect.forkScoped(
    Stream.runForEach(worker.events, (event) => Effect.sync(() => void events.push(event))),
    { startImmediately: true }
  )
  const until = (count: number) => t.until(`${count} events`, () => events.length >= count)
  return { events, until }
})

const tags = (events: ReadonlyArray<WorkerEvent>) => events.map(({ _tag }) => _tag)

interface Report {
  readonly error: Error
  readonly attributes: Readonly<Record<string, unknown>>
  readonly severity: string
}

/** Collects what is reported by what runs in `capture`. */
const captureReports = () => {
  const reports: Array<Report> = []
  const reporter = ErrorReporter.make(({ attributes, error, severity }) => {
    reports.push({ attributes, error, severity })
  })
  const services = Context.make(ErrorReporter.CurrentErrorReporters, new Set([reporter]))
  return {
    reports,
    capture: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.provideContext(effect, services)
  }
}

/** Registers the tests. */
export const events = (test: Test): void => {
  describe("the events of a worker", () => {
    test("a success is started and succeeded, with its task and its duration", function* (t) {
      const worker = yield* t.startWorker(
        [Work],
        Work.toLayer((n) => Effect.as(Effect.sleep(t.duration(0.2)), n))
      )
      const { events, until } = yield* listen(t, worker)
      const { taskId } = yield* Work.delay(7)
      yield* until(2)
      const run = { taskId, taskName: "work", queue: "default", attempt: 1 }
      assert.deepStrictEqual(events[0], { _tag: "Started", ...run })
      assert(events[1]?._tag === "Succeeded")
      const { duration, ...rest } = events[1]
      assert.deepStrictEqual(rest, { _tag: "Succeeded", ...run })
      assert.isAtLeast(Duration.toMillis(duration), t.time.units(0.19))
    })

    test("a retry has its delay and its cause, and the failure after it has its reason", function* (t) {
      const worker = yield* t.startWorker(
        [Flaky],
        Flaky.toLayer(() => Effect.fail(new NoFunds({ account: "a" })))
      )
      const { events, until } = yield* listen(t, worker)
      yield* Flaky.delay()
      yield* until(4)
      assert.deepStrictEqual(tags(events), ["Started", "Retried", "Started", "Failed"])
      const [, retried, , failed] = events
      assert(retried?._tag === "Retried" && failed?._tag === "Failed")
      assert.strictEqual(Duration.toMillis(retried.delay), 10)
      assert.deepStrictEqual([retried.attempt, failed.attempt], [1, 2])
      assert.strictEqual(failed.reason, "Failed")
      assert.instanceOf(Cause.squash(retried.cause), NoFunds)
      assert.instanceOf(Cause.squash(failed.cause), NoFunds)
    })

    test("a task that no handler can run has failed, and was not started", function* (t) {
      const worker = yield* t.startWorker([Work], Work.toLayer(Effect.succeed))
      const { events, until } = yield* listen(t, worker)
      yield* t.publishRaw("malformed", "work", "}{")
      yield* until(1)
      assert.deepStrictEqual(tags(events), ["Failed"])
      assert.deepInclude(events[0], { taskId: "malformed", taskName: "work", reason: "PayloadInvalid" })
    })

    test("a task that its start ends, since its workers were lost, has failed, and was not started", function* (t) {
      const { taskId } = yield* Brittle.delay()
      yield* t.startAndVanish({ lease: 4, maxCrashes: 1 })
      const { capture, reports } = captureReports()
      const worker = yield* capture(
        t.startWorker(
          [Brittle],
          Brittle.toLayer(() => Effect.void)
        )
      )
      const { events, until } = yield* listen(t, worker)
      yield* until(1)
      assert.deepStrictEqual(tags(events), ["Failed"])
      const run = { taskId, taskName: "brittle", queue: "default", attempt: 1 }
      assert.deepInclude(events[0], { ...run, reason: "WorkerLost" })
      assert(events[0]?._tag === "Failed")
      assert.strictEqual(Duration.toMillis(events[0].duration), 0)
      assert.instanceOf(Cause.squash(events[0].cause), TaskFailed.WorkerLost)
      yield* t.until("it is reported", () => reports.length > 0)
      assert.deepStrictEqual(
        reports.map(({ attributes, severity }) => [attributes, severity]),
        [[{ ...run, worker: worker.id, reason: "WorkerLost" }, "Warn"]]
      )
      yield* t.untilDrained()
      assert.strictEqual((yield* worker.stats).failed, 1)
      assert.strictEqual(events.length, 1)
    })

    test("a cancelled run has failed, and a run of a worker that stops was released", function* (t) {
      const gate = new Gate()
      const worker = yield* t.startWorker(
        [Work],
        Work.toLayer(() => Effect.as(gate.pass, 1)),
        { lease: t.duration(9) }
      )
      const { events, until } = yield* listen(t, worker)
      const cancelled = yield* Work.delay(1)
      yield* t.until("it runs", () => gate.entered === 1)
      yield* AsyncResult.cancel(cancelled)
      yield* until(2)
      yield* Work.delay(2)
      yield* t.until("it runs", () => gate.entered === 2)
      yield* worker.stop
      yield* until(4)
      assert.deepStrictEqual(tags(events), ["Started", "Failed", "Started", "Released"])
      assert.deepInclude(events[1], { reason: "Cancelled" })
    })

    test("a run that loses its lease is lost", function* (t) {
      const gate = new Gate()
      const worker = yield* t.startSeparateWorker(
        [Work],
        Work.toLayer(() => Effect.as(gate.pass, 1)),
        { lease: t.duration(3) }
      )
      const { events, until } = yield* listen(t, worker)
      yield* Work.delay(1)
      yield* t.until("it runs", () => gate.entered === 1)
      worker.faults.set("fails", ["backend.renew", "broker.renew", "broker.claim"])
      yield* until(2)
      assert.deepStrictEqual(tags(events), ["Started", "Lost"])
    })

    test("a listener that stands still neither delays tasks nor other listeners, and the stream ends with the worker", function* (t) {
      const worker = yield* t.startWorker([Work], Work.toLayer(Effect.succeed))
      yield* Effect.forkScoped(
        Stream.runForEach(worker.events, () => Effect.never),
        { startImmediately: true }
      )
      const listener = yield* t.collect(worker.events)
      const handles = yield* Work.delayAll(Array.from({ length: 20 }, (_, n) => n))
      yield* t.complete("they end", AsyncResult.all(handles))
      yield* t.until("all are heard", () => listener.values.length === 40)
      yield* worker.stop
      yield* listener.done
      assert.deepStrictEqual(yield* Stream.runCollect(worker.events), [])
    })
  })

  describe("error reports", () => {
    test("a handler that dies is reported with its task, each time", function* (t) {
      const { capture, reports } = captureReports()
      // the same object each time, which a reporter takes for one report
      const bug = new TypeError("a bug of the handler")
      const worker = yield* capture(
        t.startWorker(
          [Buggy],
          Buggy.toLayer(() => Effect.die(bug))
        )
      )
      const { taskId } = yield* Buggy.delay()
      yield* t.until("both attempts are reported", () => reports.length === 2)
      const run = { taskId, taskName: "buggy", queue: "default", worker: worker.id, reason: "Died" }
      assert.deepStrictEqual(
        reports.map(({ attributes }) => attributes),
        [1, 2].map((attempt) => ({ ...run, attempt }))
      )
      const [report] = reports
      assert.deepInclude(report, { severity: "Error" })
      assert.deepInclude(report?.error, { name: "TypeError", message: "a bug of the handler" })
      assert.include(report?.error.stack, "events.")
      assert.isFalse(ErrorReporter.attributes in bug)
    })

    test("a final failure is reported, and a retry, a success and a cancel are not", function* (t) {
      const { capture, reports } = captureReports()
      const gate = new Gate()
      yield* capture(
        t.startWorker(
          [Flaky, Work],
          Layer.merge(
            Flaky.toLayer(() => Effect.fail(new NoFunds({ account: "a" }))),
            Work.toLayer((n) => (n === 0 ? Effect.as(gate.pass, n) : Effect.succeed(n)))
          ),
          { lease: t.duration(9) }
        )
      )
      const cancelled = yield* Work.delay(0)
      yield* t.until("it runs", () => gate.entered === 1)
      yield* AsyncResult.cancel(cancelled)
      yield* t.awaitReason(cancelled, "Cancelled")
      assert.strictEqual(yield* t.awaitValue(yield* Work.delay(1)), 1)
      const failed = yield* Flaky.delay()
      yield* t.awaitReason(failed, "Failed")
      yield* t.publishRaw("malformed", "work", "}{")
      yield* t.until("the failures are reported", () => reports.length === 2)
      assert.deepStrictEqual(
        reports.map(({ attributes: { attempt, reason, taskId }, severity }) => ({
          attempt,
          reason,
          taskId,
          severity
        })),
        [
          { attempt: 2, reason: "Failed", taskId: failed.taskId, severity: "Warn" },
          { attempt: 1, reason: "PayloadInvalid", taskId: "malformed", severity: "Warn" }
        ]
      )
    })

    test("an error says by itself how it is reported", function* (t) {
      class Expected extends Schema.TaggedError<Expected>("chicory/testing/Expected")("Expected", {}) {
        override readonly [ErrorReporter.ignore] = true
      }
      class Serious extends Schema.TaggedError<Serious>("chicory/testing/Serious")("Serious", {}) {
        override readonly [ErrorReporter.severity] = "Fatal" as const
        override readonly [ErrorReporter.attributes] = { team: "billing" }
      }
      const Either = Task.make("either", { payload: Schema.Int, error: Schema.Union([Expected, Serious]) })
      const { capture, reports } = captureReports()
      yield* capture(
        t.startWorker(
          [Either],
          Either.toLayer((n) => Effect.fail(n === 0 ? new Expected() : new Serious()))
        )
      )
      yield* t.awaitReason(yield* Either.delay(0), "Failed")
      yield* Either.delay(1)
      yield* t.until("one is reported", () => reports.length > 0)
      assert.deepInclude(reports[0], { severity: "Fatal" })
      assert.deepInclude(reports[0]?.attributes, { team: "billing", taskName: "either" })
      assert.strictEqual(reports.length, 1)
    })

    test("a reporter that throws ends no task and no worker", function* (t) {
      const reporter = ErrorReporter.make(() => {
        throw new Error("a bug of the reporter")
      })
      yield* Effect.provideService(
        t.startWorker(
          [Buggy],
          Buggy.toLayer(() => Effect.die("a bug"))
        ),
        ErrorReporter.CurrentErrorReporters,
        new Set([reporter])
      )
      yield* t.awaitReason(yield* Buggy.delay(), "Died")
      yield* t.awaitReason(yield* Buggy.delay(), "Died")
    })
  })
}
