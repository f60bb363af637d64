/** Guarantee 9: a lost connection never ends a worker. */
import { assert, describe } from "@effect/vitest"
import { Effect, Schema } from "effect"
import * as AsyncResult from "../../../AsyncResult.ts"
import * as Task from "../../../Task.ts"
import * as Suite from "../Suite.ts"
import { captureLogs } from "./captureLogs.ts"
import { Gate, type Test } from "./fixture.ts"

const Work = Task.make("work", { payload: Schema.Int, success: Schema.Int, progress: Schema.Int })

/** Registers the tests. */
export const workerOutages = (test: Test): void => {
  describe("guarantee 9: a lost connection never ends a worker", () => {
    test("a worker claims again once the broker is back", function* (t) {
      const worker = yield* t.startSeparateWorker([Work], Work.toLayer(Effect.succeed))
      assert.strictEqual(yield* t.awaitValue(yield* Work.delay(1)), 1)
      worker.faults.cut()
      yield* t.time.pass(5)
      const handle = yield* Work.delay(2)
      yield* t.time.pass(3)
      assert.strictEqual(yield* AsyncResult.state(handle), "PENDING")
      worker.faults.heal()
      assert.strictEqual(yield* t.awaitValue(handle), 2)
      yield* t.untilDrained()
    })

    test("an outage is one line when it begins and one when it is over", function* (t) {
      const logs = captureLogs()
      const gate = new Gate()
      const worker = yield* logs.capture(
        t.startSeparateWorker(
          [Work],
          Work.toLayer((n) => Effect.as(gate.pass, n)),
          { lease: t.duration(30) }
        )
      )
      const handles = yield* Work.delayAll([1, 2, 3])
      yield* t.until("they run", () => gate.entered === 3)
      worker.faults.cut()
      yield* t.time.pass(2)
      // their outcomes are saved once the store is back
      gate.open()
      yield* t.time.pass(10)
      worker.faults.heal()
      yield* t.complete("they end", AsyncResult.all(handles))
      yield* t.untilDrained()
      yield* t.until("the end is logged", () => logs.beginning("The store ").length > 0)
      const about = logs.lines.filter(
        ({ level, text }) => level !== "Debug" && !/^(Started a worker|The client of the store )/.test(text)
      )
      const ofStores = about.filter(({ text }) => /^(Failed to call the store|The store) /.test(text))
      // a backend and a broker that are two stores have an outage each
      const { fusion } = t.drivers.backend
      const stores = fusion !== undefined && fusion.store === t.drivers.broker.store ? 1 : 2
      assert.deepStrictEqual(about, ofStores)
      assert.isAtMost(about.length, 2 * stores)
      assert.deepStrictEqual([about[0]?.level, about.at(-1)?.level], ["Warn", "Info"])
      assert.isTrue(about.every(({ annotations }) => annotations["worker"] === worker.id))
      assert.match(about.at(-1)?.text ?? "", /answers again; it recovered after \d+\.\d s$/)
    })

    test("a worker starts although its store is not there yet", function* (t) {
      t.faults.cut()
      yield* t.startWorker([Work], Work.toLayer(Effect.succeed))
      yield* t.time.pass(4)
      t.faults.heal()
      assert.strictEqual(yield* t.awaitValue(yield* Work.delay(1)), 1)
    })

    test("a worker claims without a wakeup", function* (t) {
      const worker = yield* t.startSeparateWorker([Work], Work.toLayer(Effect.succeed))
      worker.faults.set("fails", ["broker.ready"])
      worker.faults.interruptStreams()
      assert.strictEqual(yield* t.awaitValue(yield* Work.delay(1)), 1)
    })

    test("a worker subscribes to wakeups again after they were interrupted", function* (t) {
      const worker = yield* t.startSeparateWorker([Work], Work.toLayer(Effect.succeed))
      for (let n = 0; n < 5; n++) {
        worker.faults.interruptStreams()
        assert.strictEqual(yield* t.awaitValue(yield* Work.delay(n)), n)
      }
    })

    test("a defect of a driver counts as a failure", function* (t) {
      let dying = 5
      t.faults.modeOf = (operation) => {
        if (operation === "broker.claim" && dying-- > 0) throw new TypeError("a driver with a bug")
        return "passes"
      }
      yield* t.startWorker([Work], Work.toLayer(Effect.succeed))
      assert.strictEqual(yield* t.awaitValue(yield* Work.delay(1)), 1)
      assert.isBelow(dying, 0)
    })

    test("tasks end although the broker fails while they start, run and end", function* (t) {
      let seed = 1
      const worker = yield* t.startSeparateWorker(
        [Work],
        Work.toLayer((n) => Effect.as(Effect.sleep(t.duration(0.1)), n)),
        { lease: t.duration(3), concurrency: 4 }
      )
      // every third call on average, in an irregular sequence that calls cannot fall in step with
      worker.faults.modeOf = () => {
        seed = (seed * 48_271) % 2_147_483_647
        return seed % 3 === 0 ? "fails" : "passes"
      }
      const handles = yield* Work.delayAll(Array.from({ length: 30 }, (_, n) => n))
      const values = yield* t.complete("they end", AsyncResult.all(handles))
      assert.deepStrictEqual(
        values,
        Array.from({ length: 30 }, (_, n) => n)
      )
      worker.faults.heal()
      yield* t.untilDrained()
    })

    test("a claim whose answer was lost costs one lease", function* (t, context) {
      if (t.drivers.broker.capabilities.lease !== "store")
        return yield* Suite.skip(context, "a connection holds the claims")
      t.faults.set("answer lost", ["broker.claim"], 1)
      const handle = yield* Work.delay(1)
      yield* t.startWorker([Work], Work.toLayer(Effect.succeed), { lease: t.duration(2) })
      assert.strictEqual(yield* t.awaitValue(handle), 1)
      assert.strictEqual((yield* t.read(handle.taskId)).crashes, 0)
    })

    test("progress that cannot be written does not end the handler", function* (t) {
      const worker = yield* t.startSeparateWorker(
        [Work],
        Work.toLayer((n) => Effect.as(Work.progress(n), n))
      )
      worker.faults.set("fails", ["backend.renew"])
      assert.strictEqual(yield* t.awaitValue(yield* Work.delay(1)), 1)
    })
  })
}
