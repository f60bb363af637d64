/** Guarantee 7: a worker claims no more than its free slots. */
import { assert, describe } from "@effect/vitest"
import { Effect, Exit, Layer, Schema, Stream } from "effect"
import * as AsyncResult from "../../../AsyncResult.ts"
import * as RetryPolicy from "../../../RetryPolicy.ts"
import * as Task from "../../../Task.ts"
import { type Fixture, Gate, type Services, type Test } from "./fixture.ts"

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

  waitingHandlers(test)
}

/** Registers the tests of handlers that wait for other tasks. */
const waitingHandlers = (test: Test): void => {
  const Elsewhere = Task.make("elsewhere", { queue: "elsewhere", success: Schema.Int })
  type Child = AsyncResult.AsyncResult<number>
  const Hanging = Task.make("hanging", { success: Schema.Int })
  const Report = Task.make("report", { success: Schema.String, error: Schema.String })

  describe("guarantee 7: a handler that waits for other tasks frees its slot", () => {
    /** Ways to wait for two tasks; each returns the sum of their values. */
    const waits: ReadonlyArray<
      readonly [title: string, wait: (a: Child, b: Child) => Effect.Effect<number, unknown, Services>]
    > = [
      ["by AsyncResult.all", (a, b) => Effect.map(AsyncResult.all([a, b]), ([x, y]) => x + y)],
      [
        "by a stream of outcomes",
        (a, b) =>
          AsyncResult.stream([a, b]).pipe(
            Stream.mapEffect(([, exit]) => exit),
            Stream.runFold(
              () => 0,
              (sum, value) => sum + value
            )
          )
      ],
      [
        "by the changes of a task",
        (a, b) =>
          Effect.andThen(
            Effect.forEach([a, b], (child) => Stream.runDrain(AsyncResult.changes(child))),
            Effect.map(AsyncResult.all([a, b]), ([x, y]) => x + y)
          )
      ],
      [
        "in concurrent fibers",
        (a, b) =>
          Effect.map(
            Effect.forEach([a, b], (child) => AsyncResult.get(child), { concurrency: "unbounded" }),
            ([x, y]) => x! + y!
          )
      ]
    ]
    for (const [title, wait] of waits) {
      test(title, function* (t) {
        yield* t.startWorker(
          [Parent, Work],
          Layer.mergeAll(
            Work.toLayer((n) => Effect.succeed(n * 2)),
            Parent.toLayer((n) =>
              Work.delayAll([n, n]).pipe(
                Effect.flatMap(([a, b]) => wait(a!, b!)),
                Effect.orDie,
                Effect.provideContext(t.context)
              )
            )
          ),
          { concurrency: 1 }
        )
        const parents = yield* Parent.delayAll([1, 2, 3])
        const values = yield* t.complete("they end", AsyncResult.all(parents))
        assert.deepStrictEqual(values, [4, 8, 12])
        yield* t.untilDrained()
      })
    }

    test("in a task with a timeout", function* (t) {
      const Timed = Task.make("timed", { success: Schema.Int, timeout: t.duration(20) })
      yield* t.startWorker(
        [Timed, Work],
        Layer.mergeAll(
          Work.toLayer((n) => Effect.succeed(n * 2)),
          Timed.toLayer(() =>
            Work.delay(4).pipe(
              Effect.flatMap((child) => AsyncResult.get(child)),
              Effect.orDie,
              Effect.provideContext(t.context)
            )
          )
        ),
        { concurrency: 1 }
      )
      assert.strictEqual(yield* t.awaitValue(yield* Timed.delay()), 8)
    })

    test("and continues although its tasks hold all slots, once its wait times out", function* (t) {
      yield* t.startWorker(
        [Report, Hanging],
        Layer.mergeAll(
          Hanging.toLayer(() => Effect.never),
          Report.toLayer(() =>
            Effect.gen(function* () {
              const child = yield* Hanging.delay()
              return yield* AsyncResult.get(child, { timeout: t.duration(2) }).pipe(
                Effect.map(String),
                Effect.catchTag("TimeoutError", () => Effect.as(AsyncResult.cancel(child), "gave up"))
              )
            }).pipe(Effect.orDie, Effect.provideContext(t.context))
          )
        ),
        { concurrency: 2, lease: t.duration(4) }
      )
      const handles = yield* Effect.all([Report.delay(), Report.delay()])
      const values = yield* t.complete("they end", AsyncResult.all(handles))
      assert.deepStrictEqual(values, ["gave up", "gave up"])
      // the worker is within its slots again
      const later = yield* Report.delay()
      assert.strictEqual(yield* t.awaitValue(later), "gave up")
    })

    /** A worker with one slot: a handler waits, and another task that takes its slot does not end. */
    const whileFull = Effect.fnUntraced(function* (t: Fixture, timeout?: number) {
      const Waiting = Task.make("waiting", {
        timeout: timeout === undefined ? undefined : t.duration(timeout)
      })
      let interrupted = 0
      yield* t.startWorker(
        [Waiting, Hanging],
        Layer.mergeAll(
          Hanging.toLayer(() => Effect.never),
          Waiting.toLayer(() =>
            Effect.gen(function* () {
              const child = yield* Elsewhere.delay()
              yield* AsyncResult.get(child)
            }).pipe(
              Effect.orDie,
              Effect.onInterrupt(() => Effect.sync(() => interrupted++)),
              Effect.provideContext(t.context)
            )
          )
        ),
        { concurrency: 1, lease: t.duration(3) }
      )
      const waiting = yield* Waiting.delay()
      yield* t.eventually(
        "it waits",
        Effect.map(t.counts("elsewhere"), ({ ready }) => ready === 1)
      )
      const hanging = yield* Hanging.delay()
      yield* t.eventually(
        "its slot is taken",
        Effect.map(AsyncResult.state(hanging), (state) => state === "STARTED")
      )
      return { waiting, interrupted: () => interrupted }
    })

    test("and is timed out although all slots are taken", function* (t) {
      const { interrupted, waiting } = yield* whileFull(t, 6)
      yield* t.awaitReason(waiting, "TimedOut")
      assert.strictEqual(interrupted(), 1)
    })

    test("and is cancelled although all slots are taken", function* (t) {
      const { interrupted, waiting } = yield* whileFull(t)
      assert.strictEqual(yield* AsyncResult.cancel(waiting), "Requested")
      yield* t.awaitReason(waiting, "Cancelled")
      assert.strictEqual(interrupted(), 1)
    })
  })

  describe("guarantee 7: a handler that works holds its slot", () => {
    /** Runs `count` handlers with two slots, and returns how many were at work at once. */
    const mostAtWork = Effect.fnUntraced(function* (
      t: Fixture,
      count: number,
      handler: (
        stop: AsyncResult.AsyncResult<number>,
        work: Effect.Effect<void>
      ) => Effect.Effect<unknown, unknown, Services>
    ) {
      let atWork = 0
      let most = 0
      const work = Effect.acquireUseRelease(
        Effect.sync(() => (most = Math.max(most, ++atWork))),
        () => Effect.sleep(t.duration(0.2)),
        () => Effect.sync(() => atWork--)
      )
      const stop = yield* Elsewhere.delay()
      yield* t.startWorker(
        [Work],
        Work.toLayer((n) =>
          handler(stop, work).pipe(Effect.as(n), Effect.orDie, Effect.provideContext(t.context))
        ),
        { concurrency: 2 }
      )
      const handles = yield* Work.delayAll(Array.from({ length: count }, (_, n) => n))
      yield* t.complete("they end", AsyncResult.all(handles))
      return most
    })

    test("beside a fiber that waits", function* (t) {
      const most = yield* mostAtWork(t, 12, (stop, work) => Effect.raceFirst(AsyncResult.get(stop), work))
      assert.strictEqual(most, 2)
    })

    test("although it has left a fiber behind that waits", function* (t) {
      const most = yield* mostAtWork(t, 12, (stop, work) =>
        Effect.andThen(
          Effect.forkDetach(Effect.ignore(AsyncResult.get(stop)), { startImmediately: true }),
          work
        )
      )
      assert.strictEqual(most, 2)
    })
  })
}
