/** Guarantee 6: a run holds a lease that is renewed, apart from the task's timeout; who loses it stops. */
import { assert, describe } from "@effect/vitest"
import { Effect, Schema } from "effect"
import * as AsyncResult from "../../../AsyncResult.ts"
import * as Task from "../../../Task.ts"
import { Gate, type Test } from "./fixture.ts"

const Slow = Task.make("slow", { success: Schema.String })

/** Registers the tests. */
export const leases = (test: Test): void => {
  describe("6: a run holds a lease that is renewed", () => {
    test("a handler may take longer than several leases, and runs once", function* (on) {
      let runs = 0
      const handler = Slow.toLayer(() =>
        Effect.suspend(() => {
          runs++
          return Effect.as(Effect.sleep(on.duration(8)), "done")
        })
      )
      const options = { lease: on.duration(2) }
      yield* on.work([Slow], handler, options)
      yield* on.work([Slow], handler, options)
      const handle = yield* Slow.delay()
      assert.strictEqual(yield* on.value(handle), "done")
      assert.strictEqual(runs, 1)
      const { attempt, crashes } = yield* on.read(handle.taskId)
      assert.deepStrictEqual({ attempt, crashes }, { attempt: 1, crashes: 0 })
      yield* on.drained()
    })

    test("renewals that fail for less than a lease are made up for", function* (on) {
      const gate = new Gate()
      const worker = yield* on.workApart(
        [Slow],
        Slow.toLayer(() => Effect.as(gate.pass, "done")),
        { lease: on.duration(9) }
      )
      const handle = yield* Slow.delay()
      yield* on.until("it runs", () => gate.entered === 1)
      yield* on.time.pass(1)
      worker.faults.set("fails", ["backend.renew", "broker.renew"])
      yield* on.time.pass(3)
      worker.faults.heal()
      yield* on.time.pass(8)
      gate.open()
      assert.strictEqual(yield* on.value(handle), "done")
      assert.strictEqual(gate.entered, 1)
    })

    test("many runs are renewed in few calls", function* (on) {
      const gate = new Gate()
      yield* on.work(
        [Slow],
        Slow.toLayer(() => Effect.as(gate.pass, "done")),
        { lease: on.duration(3), concurrency: 50 }
      )
      const handles = yield* Effect.forEach(Array.from({ length: 50 }), () => Slow.delay())
      yield* on.until("all of them run", () => gate.entered === 50)
      const before = on.faults.count("backend.renew")
      yield* on.time.pass(6)
      assert.isAtMost(on.faults.count("backend.renew") - before, 12)
      gate.open()
      yield* on.within("they end", AsyncResult.all(handles))
      assert.strictEqual(gate.entered, 50)
    })

    test("the lease has nothing to do with the task's timeout", function* (on) {
      const Timed = Task.make("timed", { timeout: on.duration(20), success: Schema.String })
      yield* on.work(
        [Timed],
        Timed.toLayer(() => Effect.as(Effect.sleep(on.duration(5)), "done")),
        { lease: on.duration(1) }
      )
      assert.strictEqual(yield* on.value(yield* Timed.delay()), "done")
    })
  })

  describe("6: a worker that loses a lease interrupts the handler", () => {
    test("when the store says that it was superseded", function* (on) {
      const gate = new Gate()
      let interrupted = 0
      yield* on.work(
        [Slow],
        Slow.toLayer(() =>
          gate.pass.pipe(
            Effect.as("stale"),
            Effect.onInterrupt(() => Effect.sync(() => interrupted++))
          )
        ),
        { lease: on.duration(9) }
      )
      const handle = yield* Slow.delay()
      yield* on.until("it runs", () => gate.entered === 1)
      const [run] = on.faults.starts
      assert(run !== undefined)
      // the store alone sees the lease run out; a renewal of the worker's may come between
      const takeOver = Effect.gen(function* () {
        yield* on.drivers.backend.renew([{ id: run.id, token: run.token, leaseMillis: 1 }])
        yield* on.time.pass(0.1)
        const [taken] = yield* on.drivers.backend.start([{ ...run, token: "another", worker: "another" }])
        return taken?._tag === "Run"
      })
      yield* on.time.eventually("another takes it over", takeOver)
      yield* on.time.pass(4.5)
      assert.strictEqual(interrupted, 1, "it is told by its next renewal")
      gate.open()
      yield* on.time.pass(1)
      assert.strictEqual(yield* AsyncResult.state(handle), "STARTED")
      assert.strictEqual((yield* on.read(handle.taskId)).worker, "another")
    })

    test("when its own clock says that no renewal succeeded", function* (on) {
      const gate = new Gate()
      let interrupted = 0
      yield* on.work(
        [Slow],
        Slow.toLayer(() =>
          gate.pass.pipe(
            Effect.as("done"),
            Effect.onInterrupt(() => Effect.sync(() => interrupted++))
          )
        ),
        { lease: on.duration(3) }
      )
      const handle = yield* Slow.delay()
      yield* on.until("it runs", () => gate.entered === 1)
      on.faults.set("fails", ["backend.renew", "broker.renew", "broker.claim"])
      yield* on.time.pass(2)
      assert.strictEqual(interrupted, 0)
      yield* on.until("the handler is interrupted", () => interrupted === 1)
      on.faults.heal()
      gate.open()
      assert.strictEqual(yield* on.value(handle), "done")
      assert.strictEqual(gate.entered, 2)
    })

    test("when its own clock says so, also if the store does not answer at all", function* (on) {
      const gate = new Gate()
      let interrupted = 0
      const worker = yield* on.workApart(
        [Slow],
        Slow.toLayer(() =>
          gate.pass.pipe(
            Effect.as("done"),
            Effect.onInterrupt(() => Effect.sync(() => interrupted++))
          )
        ),
        { lease: on.duration(3) }
      )
      const handle = yield* Slow.delay()
      yield* on.until("it runs", () => gate.entered === 1)
      worker.faults.set("hangs", ["backend.renew", "broker.renew", "broker.claim", "backend.settle"])
      yield* on.time.pass(2)
      assert.strictEqual(interrupted, 0)
      yield* on.until("the handler is interrupted", () => interrupted === 1)
      worker.faults.heal()
      gate.open()
      assert.strictEqual(yield* on.value(handle), "done")
    })

    test("and does so within a lease and a renewal's interval", function* (on) {
      let interrupted = false
      const gate = new Gate()
      const worker = yield* on.workApart(
        [Slow],
        Slow.toLayer(() =>
          gate.pass.pipe(
            Effect.as("done"),
            Effect.onInterrupt(() => Effect.sync(() => (interrupted = true)))
          )
        ),
        { lease: on.duration(6) }
      )
      yield* Slow.delay()
      yield* on.until("it runs", () => gate.entered === 1)
      worker.faults.cut()
      yield* on.time.pass(8.5)
      assert.isTrue(interrupted)
    })
  })
}
