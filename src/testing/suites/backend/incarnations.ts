/** Incarnations: the enqueues of one id, which have nothing to do with one another. */
import { assert, describe } from "@effect/vitest"
import { Effect } from "effect"
import { failureWithDeadLetter, record, retry, success, type Fixture, type Test } from "./fixture.ts"

/** Registers the tests. */
export const incarnations = (test: Test): void => {
  describe("incarnations", () => {
    const first = { incarnation: "first1" }
    const second = { incarnation: "second2" }
    /** Makes a task that leaves a dead letter, forgets it, and enqueues its id anew. */
    const failAndEnqueueAnew = (t: Fixture) =>
      Effect.gen(function* () {
        yield* t.create("a", first)
        yield* t.startAndSettle("a", "t1", failureWithDeadLetter(), first)
        yield* t.driver.forget(["a"])
        yield* t.create("a", second)
        return yield* t.onlyDeadLetter
      })

    test("the record keeps the incarnation of its enqueue, and a repeated enqueue returns it", function* (t) {
      assert.strictEqual((yield* t.create("a", { ...first, payloadHash: "h" }))._tag, "Created")
      assert.strictEqual((yield* t.read("a")).incarnation, "first1")
      assert.deepStrictEqual(yield* t.create("a", { ...second, payloadHash: "h" }), {
        _tag: "Existing",
        id: "a",
        incarnation: "first1",
        generation: 0,
        same: true,
        published: true
      })
    })

    test("a message of another incarnation is dropped, and changes nothing", function* (t) {
      yield* t.create("a", second)
      const before = yield* t.read("a")
      for (const more of [{}, first, { ...first, generation: 1 }]) {
        assert.strictEqual((yield* t.start("a", "t1", more))._tag, "Drop")
      }
      assert.deepStrictEqual(yield* t.read("a"), before)
      yield* t.startRun("a", "t2", second)
    })

    test("a message of another incarnation does not end a lapsed run", function* (t) {
      yield* t.create("a", second)
      yield* t.lapsedRun("a", "t1", { ...second, maxCrashes: 1 })
      assert.strictEqual((yield* t.start("a", "t2", { ...first, maxCrashes: 1 }))._tag, "Drop")
      assert.strictEqual((yield* t.read("a")).state, "STARTED")
      yield* t.settleRun("a", "t1", success())
    })

    test("a message of another incarnation is dropped while a retry waits", function* (t) {
      yield* t.create("a", second)
      yield* t.startAndSettle("a", "t1", retry(), second)
      assert.strictEqual((yield* t.start("a", "t2", first))._tag, "Drop")
      assert.strictEqual((yield* t.read("a")).state, "RETRY")
    })

    test("an id is enqueued anew once its record is forgotten", function* (t) {
      yield* t.create("a", first)
      yield* t.cancel("a")
      yield* t.driver.forget(["a"])
      assert.strictEqual((yield* t.create("a", second))._tag, "Created")
      assert.strictEqual((yield* t.start("a", "t1", first))._tag, "Drop")
      yield* t.startAndSettle("a", "t2", success(), second)
    })

    test("the id of a forgotten task that has not ended is a conflict", function* (t) {
      yield* t.driver.create([record("a", first), record("b", first)])
      yield* t.startRun("b", "t1", first)
      yield* t.driver.forget(["a", "b"])
      for (const id of ["a", "b"]) {
        const again = yield* t.create(id, second)
        assert(again._tag === "Existing")
        assert.isFalse(again.same)
      }
      yield* t.settleRun("b", "t1", success())
      assert.strictEqual((yield* t.create("b", second))._tag, "Created")
    })

    test("a dead letter of another incarnation opens nothing, and stays", function* (t) {
      const letter = yield* failAndEnqueueAnew(t)
      const refused = { letter, replayable: false }
      const before = yield* t.read("a")
      assert.deepStrictEqual(yield* t.reopen(letter.id), refused)
      assert.deepStrictEqual(yield* t.read("a"), before)
      yield* t.startAndSettle("a", "t2", success("kept"), second)
      assert.deepStrictEqual(yield* t.reopen(letter.id), refused)
      assert.deepStrictEqual([(yield* t.read("a")).state, (yield* t.read("a")).exit], ["SUCCESS", "kept"])
      assert.deepStrictEqual(yield* t.onlyDeadLetter, letter)
    })

    test("each incarnation has dead letters of its own", function* (t) {
      const letter = yield* failAndEnqueueAnew(t)
      yield* t.time.pass(0.1)
      yield* t.startAndSettle("a", "t2", failureWithDeadLetter("Died"), second)
      const letters = yield* t.deadLetters()
      assert.deepStrictEqual(
        letters.map(({ generation, id, incarnation, reason, taskId }) => [
          id,
          taskId,
          incarnation,
          generation,
          reason
        ]),
        [
          ["a:0.second2", "a", "second2", 0, "Died"],
          ["a:0.first1", "a", "first1", 0, "Failed"]
        ]
      )
      assert.strictEqual(letter.id, "a:0.first1")
      assert.deepStrictEqual(yield* t.driver.getDeadLetters([letter.id]), [letter])
      assert.deepStrictEqual(yield* t.driver.removeDeadLetters([letter.id]), [true])
      assert.strictEqual((yield* t.onlyDeadLetter).id, "a:0.second2")
    })

    /** Expects that a request under the key finds the second incarnation of `a`, also after a sweep. */
    const expectKeyOfSecond = (t: Fixture, key: string) =>
      Effect.gen(function* () {
        for (const id of ["b", "c"]) {
          const found = yield* t.create(id, { key, payloadHash: "h" })
          assert(found._tag === "Existing")
          assert.deepStrictEqual([found.id, found.incarnation], ["a", "second2"])
          yield* t.sweepAll
        }
      })
    /** Creates `a` under a key in its first incarnation, and ends it with a retention of one unit. */
    const endUnderKey = (t: Fixture, key: string) => {
      const retentionMillis = t.time.units(1)
      return Effect.andThen(
        t.create("a", { ...first, key, payloadHash: "h", retentionMillis }),
        t.startAndSettle("a", "t1", success("1", retentionMillis), first)
      )
    }

    test("the sweep of an earlier task leaves its key to a later one of the same id", function* (t) {
      yield* endUnderKey(t, "k")
      yield* t.time.pass(2)
      assert.strictEqual((yield* t.create("a", { ...second, key: "k", payloadHash: "h" }))._tag, "Created")
      yield* t.sweepAll
      yield* expectKeyOfSecond(t, "k")
    })

    test("the retention of a forgotten task does not end the key of a later one of the same id", function* (t) {
      yield* endUnderKey(t, "k")
      yield* t.driver.forget(["a"])
      assert.strictEqual((yield* t.create("a", { ...second, key: "k", payloadHash: "h" }))._tag, "Created")
      yield* t.time.pass(2)
      yield* t.sweepAll
      yield* expectKeyOfSecond(t, "k")
    })

    test("an id takes its key again after another task held it", function* (t) {
      yield* endUnderKey(t, "k")
      yield* t.time.pass(2)
      assert.strictEqual((yield* t.create("d", { key: "k", payloadHash: "h" }))._tag, "Created")
      yield* t.driver.forget(["d"])
      assert.strictEqual((yield* t.create("a", { ...second, key: "k", payloadHash: "h" }))._tag, "Created")
      yield* expectKeyOfSecond(t, "k")
    })

    test("a task does not hold the key of an earlier one of the same id", function* (t) {
      yield* endUnderKey(t, "k")
      yield* t.time.pass(2)
      yield* t.create("a", { ...second, key: "other", payloadHash: "h" })
      assert.strictEqual((yield* t.create("d", { key: "k", payloadHash: "h" }))._tag, "Created")
      yield* expectKeyOfSecond(t, "other")
    })

    test("a key that a reopened task adopts outlives the sweep of its first life", function* (t) {
      const retentionMillis = t.time.units(1)
      const request = { key: "k", payloadHash: "h" }
      yield* t.create("a", { ...second, ...request, retentionMillis })
      yield* t.startAndSettle("a", "t1", failureWithDeadLetter("Failed", undefined, retentionMillis), second)
      yield* t.time.pass(2)
      yield* t.reopen("a:0.second2")
      const found = yield* t.create("a", { ...first, ...request })
      assert(found._tag === "Existing")
      assert.deepStrictEqual([found.incarnation, found.same], ["second2", true])
      yield* t.sweepAll
      yield* expectKeyOfSecond(t, "k")
    })

    test("a replay without a record creates one in the incarnation of the dead letter", function* (t) {
      yield* t.create("a", first)
      yield* t.startAndSettle("a", "t1", failureWithDeadLetter(), first)
      yield* t.driver.forget(["a"])
      assert.isTrue((yield* t.reopen("a:0.first1"))?.replayable)
      const found = yield* t.read("a")
      assert.deepStrictEqual([found.state, found.incarnation, found.generation], ["PENDING", "first1", 1])
      assert.strictEqual((yield* t.start("a", "t2", { ...second, generation: 1 }))._tag, "Drop")
      yield* t.startAndSettle("a", "t3", success(), { ...first, generation: 1 })
    })
  })
}
