/** `withdraw`: what becomes of tasks whose messages were removed. */
import { assert, describe } from "@effect/vitest"
import { Effect } from "effect"
import type { PurgedMessage } from "../../../BrokerDriver.ts"
import { record, RELEASE, retry, success, type Fixture, type Test } from "./fixture.ts"

const message = (id: string, more?: Partial<PurgedMessage>): PurgedMessage => ({
  id,
  incarnation: "",
  generation: 0,
  ...more
})

/** Registers the tests. */
export const withdraw = (test: Test): void => {
  describe("withdraw", () => {
    test("ends waiting tasks as cancelled, without a dead letter", function* (t) {
      yield* t.driver.create([record("a"), record("b")])
      yield* t.startAndSettle("b", "t1", retry(t.time.long))
      yield* t.driver.withdraw([message("a"), message("b")])
      yield* t.expectEndedByStore("a", "Cancelled")
      yield* t.expectEndedByStore("b", "Cancelled")
      assert.strictEqual(yield* t.driver.countDeadLetters(undefined), 0)
    })

    test("ends an expired task as expired", function* (t) {
      yield* t.create("a", { expiresMillis: t.time.units(1) })
      yield* t.time.pass(2)
      yield* t.driver.withdraw([message("a")])
      yield* t.expectEndedByStore("a", "Expired")
    })

    test("changes no task of another incarnation or generation, no ended task, and skips unknown ids", function* (t) {
      yield* t.driver.create([record("a", { incarnation: "x1" }), record("b"), record("c")])
      yield* t.startAndSettle("c", "t1", success())
      const before = yield* t.driver.read(["a", "b", "c"])
      yield* t.driver.withdraw([
        message("nobody"),
        message("a"),
        message("a", { incarnation: "x2" }),
        message("b", { generation: 1 }),
        message("c")
      ])
      assert.deepStrictEqual(yield* t.driver.read(["a", "b", "c"]), before)
    })

    test("lets a running task continue: it is not asked to stop, and its end is stored", function* (t) {
      yield* t.create("a")
      yield* t.startRun("a", "t1")
      yield* t.driver.withdraw([message("a"), message("a")])
      assert.strictEqual(yield* t.renew("a", "t1"), "Held")
      assert.isFalse((yield* t.read("a")).cancelRequested)
      assert.strictEqual(yield* t.sweepAll, 0)
      yield* t.settleRun("a", "t1", success("done"))
      assert.strictEqual((yield* t.read("a")).exit, "done")
    })

    for (const [what, outcome] of [
      ["retry", retry()],
      ["release", RELEASE]
    ] as const) {
      test(`a ${what} of a running task ends it as cancelled`, function* (t) {
        yield* t.create("a")
        yield* t.startRun("a", "t1")
        yield* t.driver.withdraw([message("a")])
        assert.strictEqual(yield* t.settle("a", "t1", outcome), "Cancelled")
        yield* t.expectEndedByStore("a", "Cancelled")
      })
    }

    for (const [what, notice] of Object.entries<(t: Fixture) => Effect.Effect<void, unknown>>({
      "a start": (t) => Effect.map(t.start("a", "t2"), (started) => assert.strictEqual(started._tag, "Drop")),
      "a read": () => Effect.void,
      "the sweep": (t) => Effect.map(t.sweepAll, (swept) => assert.strictEqual(swept, 1))
    })) {
      test(`${what} ends a running task once its lease has lapsed`, function* (t) {
        yield* t.create("a")
        yield* t.startRun("a", "t1", { leaseMillis: t.time.units(1) })
        yield* t.driver.withdraw([message("a")])
        yield* t.time.pass(2)
        yield* notice(t)
        yield* t.expectEndedByStore("a", "Cancelled")
        assert.strictEqual(yield* t.driver.countDeadLetters(undefined), 0)
      })
    }

    test("a cancel after it asks the run to stop", function* (t) {
      yield* t.create("a")
      yield* t.startRun("a", "t1")
      yield* t.driver.withdraw([message("a")])
      assert.strictEqual(yield* t.cancel("a"), "Requested")
      yield* t.driver.withdraw([message("a")])
      assert.strictEqual(yield* t.renew("a", "t1"), "CancelRequested")
    })
  })
}
