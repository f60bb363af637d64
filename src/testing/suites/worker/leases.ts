/** Guarantee 6: a run holds a renewable lease, apart from the task's timeout, and a worker that loses it interrupts the handler. */
import { assert, describe } from "@effect/vitest"
import { Effect, Schema } from "effect"
import * as AsyncResult from "../../../AsyncResult.ts"
import * as Task from "../../../Task.ts"
import { Gate, type Test } from "./fixture.ts"

const Slow = Task.make("slow", { success: Schema.String })

/** Registers the tests. */
export const leases = (test: Test): void => {
  describe("guarantee 6: a run holds a lease that is renewed", () => {
    test("a handler that runs longer than several leases runs once", function* (t) {
      let runs = 0
      const handler = Slow.toLayer(() =>
        Effect.suspend(() => {
          runs++
          return Effect.as(Effect.sleep(t.duration(12)), "done")
        })
      )
      const options = { lease: t.duration(5) }
      yield* t.startWorker([Slow], handler, options)
      yield* t.startWorker([Slow], handler, options)
      const handle = yield* Slow.delay()
      assert.strictEqual(yield* t.awaitValue(handle), "done")
      assert.strictEqual(runs, 1)
      const { attempt, crashes } = yield* t.read(handle.taskId)
      assert.deepStrictEqual({ attempt, crashes }, { attempt: 1, crashes: 0 })
      yield* t.untilDrained()
    })

    test("renewals that fail for less than a lease do not end the run", function* (t) {
      const gate = new Gate()
      const worker = yield* t.startSeparateWorker(
        [Slow],
        Slow.toLayer(() => Effect.as(gate.pass, "done")),
        { lease: t.duration(9) }
      )
      const handle = yield* Slow.delay()
      yield* t.until("it runs", () => gate.entered === 1)
      yield* t.time.pass(1)
      worker.faults.set("fails", ["backend.renew", "broker.renew"])
      yield* t.time.pass(3)
      worker.faults.heal()
      yield* t.time.pass(8)
      gate.open()
      assert.strictEqual(yield* t.awaitValue(handle), "done")
      assert.strictEqual(gate.entered, 1)
    })

    test("many runs are renewed in few calls", function* (t) {
      const gate = new Gate()
      yield* t.startWorker(
        [Slow],
        Slow.toLayer(() => Effect.as(gate.pass, "done")),
        { lease: t.duration(3), concurrency: 50 }
      )
      const handles = yield* Effect.forEach(Array.from({ length: 50 }), () => Slow.delay())
      yield* t.until("all of them run", () => gate.entered === 50)
      const before = t.faults.count("backend.renew")
      yield* t.time.pass(6)
      assert.isAtMost(t.faults.count("backend.renew") - before, 12)
      gate.open()
      yield* t.complete("they end", AsyncResult.all(handles))
      assert.strictEqual(gate.entered, 50)
    })

    test("a lease shorter than the task's timeout does not end the run", function* (t) {
      const Timed = Task.make("timed", { timeout: t.duration(20), success: Schema.String })
      yield* t.startWorker(
        [Timed],
        Timed.toLayer(() => Effect.as(Effect.sleep(t.duration(5)), "done")),
        { lease: t.duration(1) }
      )
      assert.strictEqual(yield* t.awaitValue(yield* Timed.delay()), "done")
    })
  })

  describe("guarantee 6: a worker that loses a lease interrupts the handler", () => {
    test("a renewal that returns Lost interrupts the handler", function* (t) {
      const gate = new Gate()
      let interrupted = 0
      yield* t.startWorker(
        [Slow],
        Slow.toLayer(() =>
          gate.pass.pipe(
            Effect.as("stale"),
            Effect.onInterrupt(() => Effect.sync(() => interrupted++))
          )
        ),
        { lease: t.duration(9) }
      )
      const handle = yield* Slow.delay()
      yield* t.until("it runs", () => gate.entered === 1)
      const [run] = t.faults.starts
      assert(run !== undefined)
      // the lease lapses in the store alone; repeated, as a renewal of the worker may extend it again
      const takeOver = Effect.gen(function* () {
        yield* t.drivers.backend.renew([{ id: run.id, token: run.token, leaseMillis: 1 }])
        yield* t.time.pass(0.1)
        const [taken] = yield* t.drivers.backend.start([{ ...run, token: "another", worker: "another" }])
        return taken?._tag === "Run"
      })
      yield* t.time.eventually("another worker takes the run over", takeOver)
      yield* t.time.pass(4.5)
      assert.strictEqual(interrupted, 1, "its next renewal returns Lost")
      gate.open()
      yield* t.time.pass(1)
      assert.strictEqual(yield* AsyncResult.state(handle), "STARTED")
      assert.strictEqual((yield* t.read(handle.taskId)).worker, "another")
    })

    test("a lease without a successful renewal, by the worker's clock, interrupts the handler", function* (t) {
      const gate = new Gate()
      let interrupted = 0
      yield* t.startWorker(
        [Slow],
        Slow.toLayer(() =>
          gate.pass.pipe(
            Effect.as("done"),
            Effect.onInterrupt(() => Effect.sync(() => interrupted++))
          )
        ),
        { lease: t.duration(3) }
      )
      const handle = yield* Slow.delay()
      yield* t.until("it runs", () => gate.entered === 1)
      t.faults.set("fails", ["backend.renew", "broker.renew", "broker.claim"])
      yield* t.time.pass(2)
      assert.strictEqual(interrupted, 0)
      yield* t.until("the handler is interrupted", () => interrupted === 1)
      t.faults.heal()
      gate.open()
      assert.strictEqual(yield* t.awaitValue(handle), "done")
      assert.strictEqual(gate.entered, 2)
      assert.isAtLeast((yield* t.read(handle.taskId)).crashes, 1)
    })

    test("a lease lapses by the worker's clock although the store does not answer", function* (t) {
      const gate = new Gate()
      let interrupted = 0
      const worker = yield* t.startSeparateWorker(
        [Slow],
        Slow.toLayer(() =>
          gate.pass.pipe(
            Effect.as("done"),
            Effect.onInterrupt(() => Effect.sync(() => interrupted++))
          )
        ),
        { lease: t.duration(3) }
      )
      const handle = yield* Slow.delay()
      yield* t.until("it runs", () => gate.entered === 1)
      worker.faults.set("hangs", ["backend.renew", "broker.renew", "broker.claim", "backend.settle"])
      yield* t.time.pass(2)
      assert.strictEqual(interrupted, 0)
      yield* t.until("the handler is interrupted", () => interrupted === 1)
      worker.faults.heal()
      gate.open()
      assert.strictEqual(yield* t.awaitValue(handle), "done")
    })

    test("the handler is interrupted within one lease and one renewal interval", function* (t) {
      let interrupted = false
      const gate = new Gate()
      const worker = yield* t.startSeparateWorker(
        [Slow],
        Slow.toLayer(() =>
          gate.pass.pipe(
            Effect.as("done"),
            Effect.onInterrupt(() => Effect.sync(() => (interrupted = true)))
          )
        ),
        { lease: t.duration(6) }
      )
      yield* Slow.delay()
      yield* t.until("it runs", () => gate.entered === 1)
      worker.faults.cut()
      yield* t.time.pass(8.5)
      assert.isTrue(interrupted)
    })
  })
}
