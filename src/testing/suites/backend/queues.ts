/** The queue and the due time of a record, which users see while a task waits. A driver may leave them out. */
import { assert, describe, type TestContext } from "@effect/vitest"
import { Effect } from "effect"
import type { TaskRecord } from "../../../BackendDriver.ts"
import * as Suite from "../Suite.ts"
import { failureWithDeadLetter, type Fixture, RELEASE, retry, success, type Test } from "./fixture.ts"

/** Reads the record of a task that exists, and reports the test as skipped for a driver that does not keep the field. */
const readWith = <K extends "queue" | "dueAt">(
  t: Fixture,
  context: TestContext,
  id: string,
  field: K
): Effect.Effect<TaskRecord, unknown> =>
  Effect.tap(t.read(id), (found) =>
    found[field] === undefined ? Suite.skip(context, `the driver does not keep ${field}`) : Effect.void
  )

/** Registers the tests. */
export const queues = (test: Test): void => {
  describe("queue", () => {
    test("is kept for the life of the record", function* (t, context) {
      yield* t.create("a", { queue: "slow lane" })
      const queue = Effect.map(readWith(t, context, "a", "queue"), (found) => found.queue)
      assert.strictEqual(yield* queue, "slow lane")
      yield* t.startRun("a", "t1")
      assert.strictEqual(yield* queue, "slow lane")
      yield* t.settleRun("a", "t1", retry())
      assert.strictEqual(yield* queue, "slow lane")
      yield* t.startAndSettle("a", "t2", RELEASE)
      yield* t.startAndSettle("a", "t3", success())
      assert.strictEqual(yield* queue, "slow lane")
    })

    test("is kept by an at-most-once task", function* (t, context) {
      yield* t.create("a", { queue: "slow" })
      yield* readWith(t, context, "a", "queue")
      const run = { queue: "slow", deliveryMode: "at-most-once", maxCrashes: 1 } as const
      yield* t.startAndSettle("a", "t1", success(), run)
      assert.strictEqual((yield* t.read("a")).queue, "slow")
      yield* t.create("b", { queue: "slow" })
      yield* t.lapsedRun("b", "t1", run)
      assert.strictEqual((yield* t.expectEndedByStore("b", "WorkerLost")).queue, "slow")
      assert.strictEqual((yield* t.onlyDeadLetter).queue, "slow")
    })

    test("accepts any text", function* (t, context) {
      for (const [index, queue] of [`' " \\ ; -- %20`, "🌶️", "two words\t", "-"].entries()) {
        yield* t.create(`id-${index}`, { queue })
        assert.strictEqual((yield* readWith(t, context, `id-${index}`, "queue")).queue, queue)
      }
    })

    test("is that of the task, and not that of a message that comes over another queue", function* (t, context) {
      yield* t.create("a", { queue: "slow" })
      yield* readWith(t, context, "a", "queue")
      yield* t.lapsedRun("a", "t1", { queue: "other" })
      yield* t.start("a", "t2", { queue: "other", maxCrashes: 1 })
      assert.strictEqual((yield* t.onlyDeadLetter).queue, "other")
      assert.strictEqual((yield* t.read("a")).queue, "slow")
    })

    test("stays through a replay, also where the record is gone", function* (t, context) {
      for (const queue of ["slow", "two words", "-"]) {
        yield* t.create(queue, { queue })
        yield* readWith(t, context, queue, "queue")
        const message = { queue, body: "a message" }
        yield* t.startAndSettle(
          queue,
          "t1",
          failureWithDeadLetter("Failed", undefined, t.time.units(1), message)
        )
        const { id } = yield* t.onlyDeadLetter
        yield* t.reopen(id)
        assert.strictEqual((yield* t.read(queue)).queue, queue)
        yield* t.startAndSettle(
          queue,
          "t2",
          failureWithDeadLetter("Failed", undefined, t.time.units(1), message),
          { generation: 1 }
        )
        yield* t.time.pass(2)
        assert.isUndefined(yield* t.readOptional(queue))
        yield* t.reopen(`${queue}:1`)
        assert.strictEqual((yield* t.read(queue)).queue, queue)
        yield* t.driver.removeDeadLetters([id, `${queue}:1`])
      }
    })
  })

  describe("dueAt", () => {
    test("is the end of the delay of a task that was not started", function* (t, context) {
      yield* t.create("a", { delayMillis: t.time.long })
      const { dueAt, enqueuedAt } = yield* readWith(t, context, "a", "dueAt")
      assert.approximately(dueAt! - enqueuedAt, t.time.long, t.time.units(10))
      yield* t.create("b")
      assert.isNull((yield* t.read("b")).dueAt)
    })

    test("of a delay keeps no message from its run", function* (t, context) {
      yield* t.create("a", { delayMillis: t.time.long })
      yield* readWith(t, context, "a", "dueAt")
      yield* t.startRun("a", "t1")
      assert.isNull((yield* t.read("a")).dueAt)
      yield* t.settleRun("a", "t1", RELEASE)
      assert.isNull((yield* t.read("a")).dueAt)
    })

    test("is the time of the retry of a task that waits for one", function* (t, context) {
      yield* t.create("a")
      yield* readWith(t, context, "a", "dueAt")
      yield* t.startAndSettle("a", "t1", retry(t.time.units(1)))
      const { dueAt, startedAt } = yield* t.read("a")
      assert.approximately(dueAt! - startedAt!, t.time.units(1), t.time.units(10))
      yield* t.time.pass(2)
      assert.strictEqual((yield* t.read("a")).dueAt, dueAt)
      yield* t.startRun("a", "t2")
      assert.isNull((yield* t.read("a")).dueAt)
      yield* t.settleRun("a", "t2", RELEASE)
      assert.isNull((yield* t.read("a")).dueAt)
    })

    test("ends with the task", function* (t, context) {
      yield* t.create("a", { delayMillis: t.time.long })
      yield* readWith(t, context, "a", "dueAt")
      yield* t.create("b")
      yield* t.startAndSettle("b", "t1", retry(t.time.long))
      yield* t.create("c", { delayMillis: t.time.long, expiresMillis: t.time.units(1) })
      yield* t.cancel("a")
      yield* t.cancel("b")
      yield* t.time.pass(2)
      assert.isNull((yield* t.expectEndedByStore("a", "Cancelled")).dueAt)
      assert.isNull((yield* t.expectEndedByStore("b", "Cancelled")).dueAt)
      assert.isNull((yield* t.expectEndedByStore("c", "Expired")).dueAt)
    })

    test("is none after a replay", function* (t, context) {
      yield* t.create("a", { delayMillis: t.time.long })
      yield* readWith(t, context, "a", "dueAt")
      yield* t.startAndSettle("a", "t1", failureWithDeadLetter())
      yield* t.reopen("a:0")
      assert.isNull((yield* t.read("a")).dueAt)
    })
  })
}
