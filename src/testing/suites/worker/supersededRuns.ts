/** Guarantee 3: a superseded run writes nothing, and a lapsed run that was not taken over can be settled. */
import { assert, describe } from "@effect/vitest"
import { Effect, Option, Schema } from "effect"
import * as AsyncResult from "../../../AsyncResult.ts"
import * as DeadLetters from "../../../DeadLetters.ts"
import * as Task from "../../../Task.ts"
import { TaskContext } from "../../../TaskContext.ts"
import { Gate, type Fixture, type Test } from "./fixture.ts"

const Slow = Task.make("slow", {
  payload: Schema.Void,
  success: Schema.String,
  error: Schema.String,
  progress: Schema.String
})

/**
 * Takes a task over from a worker whose connection was cut and is back. Its handler, which cannot be interrupted, continues
 * when the gate opens.
 */
const superseded = Effect.fnUntraced(function* (
  t: Fixture,
  late: Effect.Effect<string, string, TaskContext>
) {
  const [first, second] = [new Gate(), new Gate()]
  const options = { lease: t.duration(3) }
  const old = yield* t.startSeparateWorker(
    [Slow],
    Slow.toLayer(() => Effect.uninterruptible(Effect.andThen(first.pass, late))),
    options
  )
  const handle = yield* Slow.delay()
  yield* t.until("it runs", () => first.entered === 1)
  old.faults.cut()
  yield* t.startWorker(
    [Slow],
    Slow.toLayer(() => Effect.as(second.pass, "fresh")),
    options
  )
  yield* t.until("it was taken over", () => second.entered === 1)
  // the worker may write what it still holds, but does not claim the task again
  old.faults.set("fails", ["broker.claim"])
  first.open()
  yield* t.time.pass(3)
  return { handle, old, second }
})

/** Registers the tests. */
export const supersededRuns = (test: Test): void => {
  describe("guarantee 3: a worker whose run was superseded writes nothing", () => {
    test("a superseded worker cannot store a success", function* (t) {
      const { handle, old, second } = yield* superseded(t, Effect.succeed("stale"))
      assert.strictEqual(yield* AsyncResult.state(handle), "STARTED")
      assert.strictEqual((yield* old.stats).succeeded, 0)
      second.open()
      assert.strictEqual(yield* t.awaitValue(handle), "fresh")
      yield* t.untilDrained()
    })

    test("a superseded worker cannot store a failure or a dead letter", function* (t) {
      const { handle, second } = yield* superseded(t, Effect.fail("stale"))
      assert.strictEqual(yield* AsyncResult.state(handle), "STARTED")
      assert.strictEqual(yield* DeadLetters.count(), 0)
      second.open()
      assert.strictEqual(yield* t.awaitValue(handle), "fresh")
      yield* t.untilDrained()
    })

    test("a superseded worker cannot write progress", function* (t) {
      const late = Effect.as(Slow.progress("stale"), "stale")
      const { handle, second } = yield* superseded(t, late)
      const seen = Option.getOrThrow(yield* AsyncResult.poll(handle))
      assert.isTrue(Option.isNone(seen.progress))
      second.open()
      assert.strictEqual(yield* t.awaitValue(handle), "fresh")
    })

    test("a superseded worker cannot write after the task has ended", function* (t) {
      const { handle, second } = yield* superseded(t, Effect.succeed("stale"))
      second.open()
      assert.strictEqual(yield* t.awaitValue(handle), "fresh")
      yield* t.time.pass(3)
      assert.strictEqual(yield* t.awaitValue(handle), "fresh")
    })

    test("a superseded worker does not ack the message of the current run", function* (t) {
      const { handle, second } = yield* superseded(t, Effect.succeed("stale"))
      const { claimed, delayed, ready } = yield* t.counts()
      assert.strictEqual(claimed + delayed + ready, 1)
      second.open()
      assert.strictEqual(yield* t.awaitValue(handle), "fresh")
      yield* t.untilDrained()
    })

    test("the fence grows with every run", function* (t) {
      const fences: Array<number> = []
      const handle = yield* Slow.delay()
      yield* t.startAndVanish()
      yield* t.time.pass(2)
      yield* t.startAndVanish()
      yield* t.startWorker(
        [Slow],
        Slow.toLayer(() => TaskContext.useSync(({ fence }) => `${fences.push(fence)}`))
      )
      yield* t.awaitValue(handle)
      assert.deepStrictEqual(fences, [3])
    })
  })

  describe("guarantee 3: a lapsed run that was not taken over is still held", () => {
    test("a lapsed run can be settled before it is taken over", function* (t) {
      const handle = yield* Slow.delay()
      const run = yield* t.startAndVanish()
      yield* t.time.pass(2)
      const exit = JSON.stringify({ _tag: "Success", value: "late" })
      const settled = yield* run.settle({ _tag: "Success", exit, retentionMillis: t.time.long })
      assert.strictEqual(settled, "Stored")
      assert.strictEqual(yield* t.awaitValue(handle), "late")
    })

    test("a lapsed run can be renewed before it is taken over", function* (t) {
      const gate = new Gate()
      const handle = yield* Slow.delay()
      const run = yield* t.startAndVanish()
      yield* t.time.pass(2)
      const [answer] = yield* t.drivers.backend.renew([
        { id: handle.taskId, token: run.token, leaseMillis: t.time.units(3) }
      ])
      assert.strictEqual(answer, "Held")
      yield* t.startWorker(
        [Slow],
        Slow.toLayer(() => Effect.as(gate.pass, "taken over"))
      )
      yield* t.time.pass(1)
      assert.strictEqual(gate.entered, 0)
      gate.open()
      assert.strictEqual(yield* t.awaitValue(handle), "taken over")
    })

    test("a lapsed run that its own worker takes over interrupts the older run", function* (t) {
      const [first, second] = [new Gate(), new Gate()]
      let interrupted = 0
      yield* t.startWorker(
        [Slow],
        Slow.toLayer(() =>
          TaskContext.use(({ fence }) =>
            fence > 1
              ? Effect.as(second.pass, "fresh")
              : first.pass.pipe(
                  Effect.as("stale"),
                  Effect.onInterrupt(() => Effect.sync(() => interrupted++))
                )
          )
        )
      )
      const handle = yield* Slow.delay()
      yield* t.until("it runs", () => first.entered === 1)
      const [run] = t.faults.starts
      assert(run !== undefined && typeof run.body === "string")
      const { body, id, token } = run
      // the lease lapses in the store alone; repeated, as a renewal of the worker may extend it again
      const again = Effect.gen(function* () {
        yield* t.drivers.backend.renew([{ id, token, leaseMillis: 1 }])
        yield* t.time.pass(0.5)
        yield* t.publishRaw(id, "slow", body)
        yield* t.time.pass(0.5)
        return second.entered === 1
      })
      yield* t.time.eventually("it runs again", again)
      yield* t.until("the older run is interrupted", () => interrupted === 1)
      second.open()
      assert.strictEqual(yield* t.awaitValue(handle), "fresh")
    })

    test("a lapsed run that its own worker takes over is a separate run", function* (t) {
      const [first, second] = [new Gate(), new Gate()]
      let runs = 0
      const worker = yield* t.startSeparateWorker(
        [Slow],
        Slow.toLayer(() =>
          Effect.suspend(() =>
            ++runs === 1
              ? Effect.uninterruptible(Effect.as(first.pass, "stale"))
              : Effect.as(second.pass, `fresh ${runs}`)
          )
        ),
        { lease: t.duration(4), concurrency: 2 }
      )
      const handle = yield* Slow.delay()
      yield* t.until("it runs", () => first.entered === 1)
      worker.faults.set("fails", ["backend.renew", "broker.renew"])
      yield* t.until("it runs again", () => {
        if (second.entered === 1) worker.faults.heal()
        return second.entered === 1
      })
      first.open()
      // several leases: the second run is renewed after the first has ended
      yield* t.time.pass(9)
      assert.strictEqual(runs, 2)
      second.open()
      assert.strictEqual(yield* t.awaitValue(handle), "fresh 2")
      yield* t.untilDrained()
    })
  })
}
