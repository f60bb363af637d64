/** `read`, `subscribe`, and hints of changes. */
import { assert, describe } from "@effect/vitest"
import { Effect, Stream } from "effect"
import type { TaskRecord } from "../../../BackendDriver.ts"
import * as Suite from "../Suite.ts"
import { failureWithDeadLetter, record, success, retry, type Fixture, type Test } from "./fixture.ts"
import { worker } from "./workers.ts"

/** Registers the tests. */
export const hints = (test: Test): void => {
  describe("reads and hints", () => {
    test("read answers a batch in order, with unknown and repeated ids", function* (t) {
      yield* t.driver.create([record("a"), record("b")])
      const found = yield* t.driver.read(["b", "nobody", "a", "b"])
      assert.deepStrictEqual(
        found.map((one) => one?.id),
        ["b", undefined, "a", "b"]
      )
    })

    test("subscribe returns the records", function* (t) {
      yield* t.create("a")
      const before = yield* t.read("a")
      assert.deepStrictEqual(yield* t.driver.subscribe(["a", "nobody"]), [before, undefined])
    })

    test("subscribe and unsubscribe are safe to repeat", function* (t) {
      yield* t.create("a")
      yield* t.driver.subscribe(["a", "a"])
      yield* t.driver.subscribe(["a"])
      yield* t.driver.unsubscribe(["a", "a", "nobody"])
      yield* t.driver.unsubscribe(["a"])
    })

    /** Collects hints. Returns a function that makes a change, and expects a hint of the id after it. */
    const collectHints = Effect.fnUntraced(function* (t: Fixture) {
      const hintedIds = new Set<string>()
      const hintedRecords: Array<TaskRecord> = []
      let all = false
      yield* Stream.runForEach(t.driver.hints ?? Stream.empty, (hint) =>
        Effect.sync(() => {
          if (hint === "resync") all = true
          else
            for (const one of hint) {
              hintedIds.add(typeof one === "string" ? one : one.id)
              if (typeof one !== "string") hintedRecords.push(one)
            }
        })
      ).pipe(Effect.forkScoped)
      // the stream may start late, so a change is repeated until it is hinted
      yield* t.create("probe")
      yield* t.driver.subscribe(["probe"])
      yield* t.startRun("probe", "t1")
      let changes = 0
      yield* t.time.eventually(
        "a change of a subscribed task is hinted",
        Effect.suspend(() => Effect.as(t.renew("probe", "t1", `${changes++}`), all || hintedIds.has("probe")))
      )
      const expectHint = Effect.fnUntraced(function* (id: string, change: Effect.Effect<unknown, unknown>) {
        all = false
        hintedIds.clear()
        yield* change
        yield* t.time.eventually(
          `a change of ${id} is hinted`,
          Effect.sync(() => all || hintedIds.has(id))
        )
      })
      return Object.assign(expectHint, { hintedRecords })
    })

    const testHint = (title: string, change: (t: Fixture) => Effect.Effect<unknown, unknown>): void =>
      test(title, function* (t, context) {
        if (!t.driver.capabilities.hints) return yield* Suite.skip(context, "the driver gives no hints")
        const expectHint = yield* collectHints(t)
        yield* t.create("a")
        yield* t.startRun("a", "t1")
        yield* t.driver.subscribe(["a"])
        yield* expectHint("a", change(t))
      })

    testHint("the end of a subscribed task is hinted", (t) => t.settleRun("a", "t1", success()))
    testHint("a retry of a subscribed task is hinted", (t) => t.settleRun("a", "t1", retry()))
    testHint("progress of a subscribed task is hinted", (t) => t.renew("a", "t1", "progress"))
    testHint("the forgetting of a subscribed task is hinted", (t) => t.driver.forget(["a"]))

    test("the start of a subscribed task is hinted", function* (t, context) {
      if (!t.driver.capabilities.hints) return yield* Suite.skip(context, "the driver gives no hints")
      const expectHint = yield* collectHints(t)
      yield* t.create("a")
      yield* t.driver.subscribe(["a"])
      yield* expectHint("a", t.startRun("a", "t1"))
    })

    test("a subscription to the end hints the end alone, and one to changes hints every change", function* (t, context) {
      if (!t.driver.capabilities.hints) return yield* Suite.skip(context, "the driver gives no hints")
      const expectHint = yield* collectHints(t)
      yield* t.create("a")
      yield* t.create("b")
      yield* t.driver.subscribe(["a", "b"], "end")
      yield* t.startRun("a", "t1")
      yield* expectHint("a", t.settleRun("a", "t1", success()))
      yield* t.driver.subscribe(["b"])
      yield* expectHint("b", t.startRun("b", "t2"))
      yield* t.driver.subscribe(["b"], "end")
      yield* expectHint("b", t.renew("b", "t2", "progress"))
      yield* expectHint("b", t.settleRun("b", "t2", success()))
    })

    test("a task that is subscribed before it exists is hinted when it is created, and when it ends", function* (t, context) {
      if (!t.driver.capabilities.hints) return yield* Suite.skip(context, "the driver gives no hints")
      const expectHint = yield* collectHints(t)
      yield* t.driver.subscribe(["a"])
      yield* expectHint("a", t.create("a"))
      yield* t.driver.subscribe(["b", "c"], "end")
      yield* t.driver.unsubscribe(["c"])
      yield* t.create("b")
      yield* t.startRun("b", "t1")
      yield* expectHint("b", t.settleRun("b", "t1", success()))
    })

    test("a record that a hint carries is the last one of its task", function* (t, context) {
      if (!t.driver.capabilities.hints) return yield* Suite.skip(context, "the driver gives no hints")
      const expectHint = yield* collectHints(t)
      for (const id of ["a", "b", "c", "d"]) yield* t.create(id)
      yield* t.driver.subscribe(["a", "b", "c", "d"], "end")
      yield* t.startRun("a", "t1")
      yield* expectHint("a", t.settleRun("a", "t1", success()))
      yield* t.startRun("b", "t2")
      yield* t.renew("b", "t2", "progress")
      yield* expectHint("b", t.settleRun("b", "t2", success("x".repeat(20_000))))
      yield* t.startRun("c", "t3")
      yield* expectHint("c", t.settleRun("c", "t3", failureWithDeadLetter()))
      yield* expectHint("d", t.cancel("d"))
      for (const hinted of expectHint.hintedRecords) {
        assert.deepStrictEqual(hinted, yield* t.read(hinted.id))
      }
    })

    test("the end of a record that was created with a subscription is hinted", function* (t, context) {
      if (t.driver.capabilities.subscribesCreated !== true) {
        return yield* Suite.skip(context, "the driver does not subscribe when it creates a record")
      }
      const expectHint = yield* collectHints(t)
      yield* t.create("a", { subscribe: true })
      yield* t.startRun("a", "t1")
      yield* expectHint("a", t.settleRun("a", "t1", success()))
      yield* t.create("b", { subscribe: true, delayMillis: t.time.units(1000) })
      yield* expectHint("b", t.cancel("b"))
    })

    test("a cancel request is hinted without a subscription", function* (t, context) {
      if (!t.driver.capabilities.hints) return yield* Suite.skip(context, "the driver gives no hints")
      const expectHint = yield* collectHints(t)
      yield* t.create("a")
      yield* t.startRun("a", "t1")
      yield* expectHint("a", t.cancel("a"))
    })

    const NOT_RELIABLE = "the driver's hints are not reliable"

    test("the end of a task by its time is hinted when it comes, where hints are reliable", function* (t, context) {
      if (t.driver.capabilities.reliableHints !== true) return yield* Suite.skip(context, NOT_RELIABLE)
      const expectHint = yield* collectHints(t)
      yield* t.create("a", { expiresMillis: t.time.units(4) })
      yield* t.create("b")
      yield* t.startRun("b", "t1", { deliveryMode: "at-most-once", leaseMillis: t.time.units(2) })
      yield* t.driver.subscribe(["a", "b"], "end")
      yield* expectHint("b", Effect.void)
      yield* t.expectEndedByStore("b", "WorkerLost")
      yield* expectHint("a", Effect.void)
      yield* t.expectEndedByStore("a", "Expired")
    })

    test("what has outlived its time is removed while hints run, where they are reliable", function* (t, context) {
      if (t.driver.capabilities.reliableHints !== true) return yield* Suite.skip(context, NOT_RELIABLE)
      yield* collectHints(t)
      yield* t.create("a")
      yield* t.startAndSettle("a", "t1", failureWithDeadLetter("Failed", t.time.units(1), t.time.units(1)))
      yield* t.create("b", { reservedMillis: t.time.units(2) })
      yield* t.driver.heartbeat(worker("silent"), t.time.units(1))
      yield* t.time.pass(3)
      assert.strictEqual(yield* t.sweep(100), 0)
      assert.isUndefined(yield* t.readOptional("b"))
    })

    test("the driver has hints exactly if its capabilities say so", function* (t) {
      yield* t.driver.unsubscribe(["nobody"])
      assert.strictEqual(t.driver.hints !== undefined, t.driver.capabilities.hints)
    })
  })
}
