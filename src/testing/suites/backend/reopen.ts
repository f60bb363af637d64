/** `reopen`: the next generation of a task, from its dead letter. */
import { assert, describe } from "@effect/vitest"
import { Effect } from "effect"
import type { NewRecord } from "../../../BackendDriver.ts"
import { success, failureWithDeadLetter, RELEASE, retry, parked, type Fixture, type Test } from "./fixture.ts"

/** Registers the tests. */
export const reopen = (test: Test): void => {
  describe("reopen", () => {
    /** Makes a task fail with a dead letter. */
    const bury = (t: Fixture, id: string, more?: Partial<NewRecord>) =>
      Effect.andThen(t.create(id, more), t.startAndSettle(id, `${id}-0`, failureWithDeadLetter()))

    test("opens the next generation of a task, with its counts at zero and no expiry", function* (t) {
      yield* t.create("a", { expiresMillis: t.time.units(20) })
      yield* t.lapsedRun("a", "t1")
      yield* t.startRun("a", "t2")
      yield* t.renew("a", "t2", "progress")
      yield* t.settleRun("a", "t2", retry())
      yield* t.startAndSettle("a", "t3", failureWithDeadLetter())
      const letter = yield* t.onlyDeadLetter
      assert.deepStrictEqual(yield* t.reopen("a:0"), { letter, replayable: true })
      const found = yield* t.read("a")
      assert.deepStrictEqual([found.state, found.generation, found.task], ["PENDING", 1, "mail"])
      assert.deepStrictEqual([found.attempt, found.retries, found.crashes], [0, 0, 0])
      assert.deepStrictEqual(
        [found.exit, found.ended, found.startedAt, found.finishedAt],
        [null, null, null, null]
      )
      assert.isNull(found.expiresAt)
      assert.isFalse(found.cancelRequested)
      assert.deepStrictEqual(yield* t.onlyDeadLetter, letter)
    })

    test("a reopened task runs in its next generation, and drops messages of the last one", function* (t) {
      yield* bury(t, "a")
      yield* t.reopen("a:0")
      assert.strictEqual((yield* t.start("a", "t1"))._tag, "Drop")
      const started = yield* t.startRun("a", "t2", { generation: 1 })
      assert.deepStrictEqual([started.attempt, started.retries, started.crashes], [1, 0, 0])
      yield* t.settleRun("a", "t2", success("again"))
      const found = yield* t.read("a")
      assert.deepStrictEqual([found.state, found.exit, found.generation], ["SUCCESS", "again", 1])
    })

    test("removes an earlier cancel request", function* (t) {
      yield* t.create("a")
      yield* t.startRun("a", "t1")
      yield* t.cancel("a")
      yield* t.settleRun("a", "t1", failureWithDeadLetter())
      yield* t.reopen("a:0")
      yield* t.startRun("a", "t2", { generation: 1 })
      assert.strictEqual(yield* t.renew("a", "t2"), "Held")
    })

    test("is safe to repeat", function* (t) {
      yield* bury(t, "a")
      const [first, second] = yield* t.driver.reopen(["a:0", "a:0"], t.time.long)
      assert.strictEqual(first?.letter.id, "a:0")
      assert.deepStrictEqual(second, first)
      assert.deepStrictEqual(yield* t.reopen("a:0"), first)
      const found = yield* t.read("a")
      assert.deepStrictEqual([found.state, found.generation], ["PENDING", 1])
    })

    test("leaves a record of a later generation alone", function* (t) {
      yield* bury(t, "a")
      yield* t.reopen("a:0")
      yield* t.startRun("a", "t1", { generation: 1 })
      assert.isTrue((yield* t.reopen("a:0"))?.replayable)
      assert.strictEqual((yield* t.read("a")).state, "STARTED")
      yield* t.settleRun("a", "t1", success())
      assert.isTrue((yield* t.reopen("a:0"))?.replayable)
      const found = yield* t.read("a")
      assert.deepStrictEqual([found.state, found.generation], ["SUCCESS", 1])
    })

    test("creates a record that is missing", function* (t) {
      yield* bury(t, "a")
      yield* t.driver.forget(["a"])
      yield* t.driver.reopen(["a:0", "a:0"], t.time.long)
      const found = yield* t.read("a")
      assert.deepStrictEqual([found.state, found.generation, found.task], ["PENDING", 1, "mail"])
      const created = yield* t.create("a")
      assert(created._tag === "Existing")
      assert.deepStrictEqual([created.published, created.generation], [false, 1])
      assert.strictEqual((yield* t.start("a", "t1"))._tag, "Drop")
      yield* t.startAndSettle("a", "t2", success(), { generation: 1 })
    })

    test("the retention of the last generation does not end the next one", function* (t) {
      yield* t.create("a")
      yield* t.startAndSettle("a", "t1", failureWithDeadLetter("Failed", undefined, t.time.units(5)))
      yield* t.reopen("a:0")
      yield* t.time.pass(6)
      assert.strictEqual(yield* t.sweepAll, 0)
      assert.strictEqual((yield* t.read("a")).state, "PENDING")
    })

    test("the fence continues to grow over the generations", function* (t) {
      yield* t.create("a")
      const first = yield* t.startRun("a", "t1")
      yield* t.settleRun("a", "t1", failureWithDeadLetter())
      yield* t.reopen("a:0")
      const second = yield* t.startRun("a", "t2", { generation: 1 })
      assert.strictEqual(second.fence, first.fence + 1)
    })

    test("the fence continues to grow where the record is missing", function* (t) {
      yield* t.create("a")
      const first = yield* t.startRun("a", "t1")
      yield* t.settleRun("a", "t1", failureWithDeadLetter())
      yield* t.driver.forget(["a"])
      yield* t.reopen("a:0")
      const second = yield* t.startRun("a", "t2", { generation: 1 })
      assert.isAbove(second.fence, first.fence)
    })

    test("the key still leads to the reopened task", function* (t) {
      yield* bury(t, "a", { key: "k", payloadHash: "h" })
      yield* t.reopen("a:0")
      const again = yield* t.create("b", { key: "k", payloadHash: "h" })
      assert(again._tag === "Existing")
      assert.deepStrictEqual([again.id, again.same], ["a", true])
    })

    test("each generation has its own dead letter", function* (t) {
      yield* bury(t, "a")
      yield* t.reopen("a:0")
      yield* t.time.pass(0.1)
      yield* t.startAndSettle("a", "t1", failureWithDeadLetter("Died"), { generation: 1 })
      const letters = yield* t.deadLetters()
      assert.deepStrictEqual(
        letters.map(({ generation, id, reason }) => [id, generation, reason]),
        [
          ["a:1", 1, "Died"],
          ["a:0", 0, "Failed"]
        ]
      )
    })

    test("a task that is enqueued again under the same id has a new dead letter", function* (t) {
      yield* bury(t, "b")
      yield* bury(t, "a")
      yield* t.driver.forget(["b"])
      yield* t.time.pass(0.1)
      yield* t.create("b")
      yield* t.startAndSettle("b", "t1", failureWithDeadLetter("Died"))
      const letters = yield* t.deadLetters()
      assert.deepStrictEqual(
        letters.map(({ id, reason }) => [id, reason]),
        [
          ["b:0", "Died"],
          ["a:0", "Failed"]
        ]
      )
    })

    test("a task that was opened and whose message was never sent is removed after its time", function* (t) {
      yield* bury(t, "a", { key: "k", payloadHash: "h" })
      yield* t.reopen("a:0", t.time.units(1))
      assert.strictEqual((yield* t.read("a")).state, "PENDING")
      yield* t.time.pass(2)
      yield* t.sweepAll
      assert.isUndefined(yield* t.readOptional("a"))
      assert.strictEqual((yield* t.start("a", "t1", { generation: 1 }))._tag, "NoRecord")
      assert.strictEqual((yield* t.create("b", { key: "k", payloadHash: "h" }))._tag, "Created")
    })

    test("a record that a replay created and whose message was never sent is removed after its time", function* (t) {
      yield* bury(t, "a")
      yield* t.driver.forget(["a"])
      yield* t.reopen("a:0", t.time.units(1))
      yield* t.time.pass(2)
      yield* t.sweepAll
      assert.isUndefined(yield* t.readOptional("a"))
    })

    test("a replay after a removed one opens the same generation, and a message of either runs once", function* (t) {
      yield* bury(t, "a")
      yield* t.reopen("a:0", t.time.units(1))
      yield* t.time.pass(2)
      yield* t.sweepAll
      yield* t.reopen("a:0")
      assert.strictEqual((yield* t.read("a")).generation, 1)
      const started = yield* t.startRun("a", "t1", { generation: 1 })
      assert.strictEqual(started.fence, 2)
      yield* t.settleRun("a", "t1", success())
      assert.strictEqual((yield* t.start("a", "t2", { generation: 1 }))._tag, "Drop")
    })

    test("an opened task stays once it is marked as published, or has run", function* (t) {
      for (const id of ["a", "b", "c"]) yield* bury(t, id)
      yield* t.driver.forget(["c"])
      yield* t.driver.reopen(["a:0", "b:0", "c:0"], t.time.units(3))
      const marks = [
        { id: "a", incarnation: "", generation: 1 },
        { id: "c", incarnation: "", generation: 1 }
      ] as const
      assert.deepStrictEqual(yield* t.driver.markPublished(marks), [true, true])
      yield* t.startAndSettle("b", "t1", RELEASE, { generation: 1 })
      yield* t.time.pass(4)
      assert.strictEqual(yield* t.sweepAll, 0)
      for (const id of ["a", "b", "c"]) assert.strictEqual((yield* t.read(id)).state, "PENDING")
    })

    test("a repeated replay renews the reservation, and shortens none", function* (t) {
      yield* bury(t, "a")
      yield* bury(t, "b")
      yield* t.driver.reopen(["a:0", "b:0"], t.time.units(4))
      yield* t.time.pass(1)
      yield* t.reopen("a:0")
      yield* t.driver.reopen(["a:0", "b:0"], t.time.units(0.5))
      yield* t.time.pass(4)
      yield* t.sweepAll
      assert.strictEqual((yield* t.read("a")).state, "PENDING")
      assert.isUndefined(yield* t.readOptional("b"))
    })

    test("a repeated replay reserves no task whose message was sent", function* (t) {
      yield* bury(t, "a")
      yield* t.reopen("a:0")
      yield* t.markPublished("a", 1)
      yield* t.reopen("a:0", t.time.units(1))
      yield* t.time.pass(2)
      assert.strictEqual(yield* t.sweepAll, 0)
      assert.strictEqual((yield* t.read("a")).state, "PENDING")
    })

    test("a late mark of an older generation leaves the reservation of the next one", function* (t) {
      yield* t.create("a", { reservedMillis: t.time.long })
      yield* t.startAndSettle("a", "t1", failureWithDeadLetter())
      yield* t.reopen("a:0")
      // the producer of the task
      assert.isTrue(yield* t.markPublished("a", 0))
      yield* t.startAndSettle("a", "t2", failureWithDeadLetter(), { generation: 1 })
      yield* t.reopen("a:1", t.time.units(3))
      // the first replay
      assert.isTrue(yield* t.markPublished("a", 1))
      yield* t.time.pass(4)
      yield* t.sweepAll
      assert.isUndefined(yield* t.readOptional("a"))
      assert.isFalse(yield* t.markPublished("a", 2))
    })

    test("a request that finds an opened task without a message renews it, and gets its generation", function* (t) {
      yield* bury(t, "a", { key: "k", payloadHash: "h" })
      yield* t.reopen("a:0", t.time.units(3))
      const found = yield* t.create("b", { key: "k", payloadHash: "h", reservedMillis: t.time.long })
      assert.deepStrictEqual(found, {
        _tag: "Existing",
        id: "a",
        incarnation: "",
        generation: 1,
        same: true,
        published: false
      })
      yield* t.time.pass(4)
      yield* t.sweepAll
      assert.strictEqual((yield* t.read("a")).state, "PENDING")
    })

    test("opens a task that ended as WorkerLost", function* (t) {
      yield* t.create("a")
      yield* t.lapsedRun("a", "t1", { maxCrashes: 1 })
      yield* t.start("a", "t2", { maxCrashes: 1 })
      assert.strictEqual((yield* t.reopen("a:0"))?.letter.reason, "WorkerLost")
      const found = yield* t.read("a")
      assert.deepStrictEqual([found.state, found.ended, found.crashes], ["PENDING", null, 0])
    })

    test("returns a parked message, and opens nothing", function* (t) {
      yield* t.driver.parkMessage([parked("p")])
      const reopened = yield* t.reopen("p")
      assert(reopened !== undefined)
      const { letter, replayable } = reopened
      assert.isTrue(replayable)
      assert.deepStrictEqual([letter.id, letter.taskId, letter.task], ["p", null, null])
      assert.isUndefined(yield* t.readOptional("p"))
    })

    test("returns nothing for unknown dead letters", function* (t) {
      yield* t.create("a")
      assert.deepStrictEqual(yield* t.driver.reopen(["nobody", "a:0"], t.time.long), [undefined, undefined])
      const found = yield* t.read("a")
      assert.deepStrictEqual([found.state, found.generation], ["PENDING", 0])
    })
  })
}
