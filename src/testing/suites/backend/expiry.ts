/** Expiry of tasks that wait for too long. */
import { assert, describe } from "@effect/vitest"
import { Effect } from "effect"
import * as Suite from "../Suite.ts"
import { success, retry, RELEASE, type Fixture, type Test } from "./fixture.ts"

/** Registers the tests. */
export const expiry = (test: Test): void => {
  describe("expiry", () => {
    const waits = [
      [
        "a waiting task",
        { attempt: 0, worker: null },
        (t: Fixture) => Effect.asVoid(t.create("a", { expiresMillis: t.time.units(5) }))
      ],
      [
        "a task that waits for its retry",
        { attempt: 1, worker: "worker of t1" },
        (t: Fixture) =>
          Effect.andThen(
            t.create("a", { expiresMillis: t.time.units(5) }),
            t.startAndSettle("a", "t1", retry(t.time.long))
          )
      ],
      [
        "a released task",
        { attempt: 0, worker: "worker of t1" },
        (t: Fixture) =>
          Effect.andThen(
            t.create("a", { expiresMillis: t.time.units(5) }),
            t.startAndSettle("a", "t1", RELEASE)
          )
      ]
    ] as const
    for (const [what, last, wait] of waits) {
      test(`a message ends ${what} after its expiry, and is dropped`, function* (t) {
        yield* wait(t)
        yield* t.time.pass(6)
        assert.deepStrictEqual(yield* t.start("a", "t9"), {
          _tag: "Drop",
          ended: { reason: "Expired", crashes: 0, ...last }
        })
        yield* t.expectEndedByStore("a", "Expired")
        assert.deepStrictEqual(yield* t.start("a", "t9"), { _tag: "Drop" })
      })

      test(`a read ends ${what} after its expiry`, function* (t) {
        yield* wait(t)
        yield* t.time.pass(6)
        yield* t.expectEndedByStore("a", "Expired")
        assert.strictEqual(yield* t.sweepAll, 0)
      })

      test(`the sweep ends ${what} after its expiry`, function* (t) {
        yield* wait(t)
        yield* t.time.pass(6)
        assert.strictEqual(yield* t.sweepAll, 1)
        yield* t.expectEndedByStore("a", "Expired")
      })
    }

    test("the sweep ends a retry after its expiry, although it checked the task while it ran", function* (t) {
      const retentionMillis = t.time.units(4)
      yield* t.create("a", { expiresMillis: t.time.units(5), retentionMillis })
      yield* t.startRun("a", "t1", { retentionMillis })
      yield* t.time.pass(6)
      assert.strictEqual(yield* t.sweepAll, 0)
      yield* t.settleRun("a", "t1", retry(t.time.long))
      assert.strictEqual(yield* t.sweepAll, 1)
      yield* t.expectEndedByStore("a", "Expired")
    })

    test("a subscription ends a waiting task after its expiry", function* (t) {
      yield* t.create("a", { expiresMillis: t.time.units(1) })
      yield* t.time.pass(2)
      const found = yield* Suite.only(t.driver.subscribe(["a"]))
      assert.strictEqual(found?.ended, "Expired")
    })

    test("a task does not expire before its time", function* (t) {
      yield* t.create("a", { expiresMillis: t.time.long })
      yield* t.time.pass(2)
      assert.strictEqual(yield* t.sweepAll, 0)
      assert.strictEqual((yield* t.read("a")).state, "PENDING")
      yield* t.startRun("a", "t1")
      yield* t.create("b", { expiresMillis: t.time.long })
      yield* t.startAndSettle("b", "t1", retry())
      assert.strictEqual((yield* t.read("b")).state, "RETRY")
      yield* t.startRun("b", "t2")
    })

    test("a running task does not expire", function* (t) {
      yield* t.create("a", { expiresMillis: t.time.units(5) })
      yield* t.startRun("a", "t1")
      yield* t.time.pass(6)
      assert.strictEqual(yield* t.sweepAll, 0)
      assert.strictEqual((yield* t.read("a")).state, "STARTED")
      yield* t.settleRun("a", "t1", success())
    })

    test("an expired task leaves no dead letter, and cannot be cancelled", function* (t) {
      yield* t.create("a", { expiresMillis: t.time.units(1) })
      yield* t.time.pass(2)
      assert.strictEqual(yield* t.cancel("a"), "AlreadyDone")
      yield* t.expectEndedByStore("a", "Expired")
      assert.strictEqual(yield* t.driver.countDeadLetters(undefined), 0)
    })
  })
}
