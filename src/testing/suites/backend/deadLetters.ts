/** Dead letters and their replay. */
import { assert, describe } from "@effect/vitest"
import { Array as Arr, Effect } from "effect"
import type { DeadLetter, NewRecord, Outcome } from "../../../BackendDriver.ts"
import * as Suite from "../Suite.ts"
import { record, success, burial, retry, parked, bytesOf, type Subject, type Test } from "./fixture.ts"

/** Registers these tests. */
export const letters = (test: Test): void => {
  describe("reopen", () => {
    /** A task that failed with a dead letter. */
    const bury = (on: Subject, id: string, more?: Partial<NewRecord>) =>
      Effect.andThen(on.create(id, more), on.play(id, `${id}-0`, burial()))

    test("opens a task for its next generation, with nothing counted and no expiry", function* (on) {
      yield* on.create("a", { expiresMillis: on.time.units(20) })
      yield* on.crash("a", "t1")
      yield* on.run("a", "t2")
      yield* on.renew("a", "t2", "progress")
      yield* on.end("a", "t2", retry())
      yield* on.play("a", "t3", burial())
      const letter = yield* on.letter
      assert.deepStrictEqual(yield* on.reopen("a:0"), letter)
      const found = yield* on.read("a")
      assert.deepStrictEqual([found.state, found.generation, found.task], ["PENDING", 1, "mail"])
      assert.deepStrictEqual([found.attempt, found.retries, found.crashes], [0, 0, 0])
      assert.deepStrictEqual(
        [found.exit, found.ended, found.startedAt, found.finishedAt],
        [null, null, null, null]
      )
      assert.isNull(found.expiresAt)
      assert.isFalse(found.cancelRequested)
      assert.deepStrictEqual(yield* on.letter, letter)
    })

    test("the task runs in its next generation, and messages of the last are dropped", function* (on) {
      yield* bury(on, "a")
      yield* on.reopen("a:0")
      assert.strictEqual((yield* on.start("a", "t1"))._tag, "Drop")
      const started = yield* on.run("a", "t2", { generation: 1 })
      assert.deepStrictEqual([started.attempt, started.retries, started.crashes], [1, 0, 0])
      yield* on.end("a", "t2", success("again"))
      const found = yield* on.read("a")
      assert.deepStrictEqual([found.state, found.exit, found.generation], ["SUCCESS", "again", 1])
    })

    test("what an earlier cancel asked for is over", function* (on) {
      yield* on.create("a")
      yield* on.run("a", "t1")
      yield* on.cancel("a")
      yield* on.end("a", "t1", burial())
      yield* on.reopen("a:0")
      yield* on.run("a", "t2", { generation: 1 })
      assert.strictEqual(yield* on.renew("a", "t2"), "Held")
    })

    test("is safe to repeat", function* (on) {
      yield* bury(on, "a")
      const letters = yield* on.driver.reopen(["a:0", "a:0"])
      assert.deepStrictEqual(
        letters.map((letter) => letter?.id),
        ["a:0", "a:0"]
      )
      assert.strictEqual((yield* on.reopen("a:0"))?.id, "a:0")
      const found = yield* on.read("a")
      assert.deepStrictEqual([found.state, found.generation], ["PENDING", 1])
    })

    test("leaves a record of a later generation alone", function* (on) {
      yield* bury(on, "a")
      yield* on.reopen("a:0")
      yield* on.run("a", "t1", { generation: 1 })
      assert.strictEqual((yield* on.reopen("a:0"))?.id, "a:0")
      assert.strictEqual((yield* on.read("a")).state, "STARTED")
      yield* on.end("a", "t1", success())
      assert.strictEqual((yield* on.reopen("a:0"))?.id, "a:0")
      const found = yield* on.read("a")
      assert.deepStrictEqual([found.state, found.generation], ["SUCCESS", 1])
    })

    test("writes a record that is missing", function* (on) {
      yield* bury(on, "a")
      yield* on.driver.forget(["a"])
      yield* on.driver.reopen(["a:0", "a:0"])
      const found = yield* on.read("a")
      assert.deepStrictEqual([found.state, found.generation, found.task], ["PENDING", 1, "mail"])
      const created = yield* on.create("a")
      assert.isTrue(created._tag === "Existing" && created.published)
      assert.strictEqual((yield* on.start("a", "t1"))._tag, "Drop")
      yield* on.play("a", "t2", success(), { generation: 1 })
    })

    test("the retention of the last generation does not end the next", function* (on) {
      yield* on.create("a")
      yield* on.play("a", "t1", burial("Failed", undefined, on.time.units(5)))
      yield* on.reopen("a:0")
      yield* on.time.pass(6)
      assert.strictEqual(yield* on.sweepAll, 0)
      assert.strictEqual((yield* on.read("a")).state, "PENDING")
    })

    test("the fence grows on over the generations", function* (on) {
      yield* on.create("a")
      const first = yield* on.run("a", "t1")
      yield* on.end("a", "t1", burial())
      yield* on.reopen("a:0")
      const second = yield* on.run("a", "t2", { generation: 1 })
      assert.strictEqual(second.fence, first.fence + 1)
    })

    test("the fence grows on where the record is gone", function* (on) {
      yield* on.create("a")
      const first = yield* on.run("a", "t1")
      yield* on.end("a", "t1", burial())
      yield* on.driver.forget(["a"])
      yield* on.reopen("a:0")
      const second = yield* on.run("a", "t2", { generation: 1 })
      assert.isAbove(second.fence, first.fence)
    })

    test("the key still leads to the task", function* (on) {
      yield* bury(on, "a", { key: "k", payloadHash: "h" })
      yield* on.reopen("a:0")
      const again = yield* on.create("b", { key: "k", payloadHash: "h" })
      assert(again._tag === "Existing")
      assert.deepStrictEqual([again.id, again.same], ["a", true])
    })

    test("each generation has a dead letter of its own", function* (on) {
      yield* bury(on, "a")
      yield* on.reopen("a:0")
      yield* on.time.pass(0.1)
      yield* on.play("a", "t1", burial("Died"), { generation: 1 })
      const letters = yield* on.letters()
      assert.deepStrictEqual(
        letters.map(({ generation, id, reason }) => [id, generation, reason]),
        [
          ["a:1", 1, "Died"],
          ["a:0", 0, "Failed"]
        ]
      )
    })

    test("a task enqueued anew under the same id has a dead letter anew", function* (on) {
      yield* bury(on, "b")
      yield* bury(on, "a")
      yield* on.driver.forget(["b"])
      yield* on.time.pass(0.1)
      yield* on.create("b")
      yield* on.play("b", "t1", burial("Died"))
      const letters = yield* on.letters()
      assert.deepStrictEqual(
        letters.map(({ id, reason }) => [id, reason]),
        [
          ["b:0", "Died"],
          ["a:0", "Failed"]
        ]
      )
    })

    test("opens the task of a run that was lost", function* (on) {
      yield* on.create("a")
      yield* on.crash("a", "t1", { maxCrashes: 1 })
      yield* on.start("a", "t2", { maxCrashes: 1 })
      assert.strictEqual((yield* on.reopen("a:0"))?.reason, "WorkerLost")
      const found = yield* on.read("a")
      assert.deepStrictEqual([found.state, found.ended, found.crashes], ["PENDING", null, 0])
    })

    test("answers a parked letter, and opens nothing", function* (on) {
      yield* on.driver.parkMessage([parked("p")])
      const letter = yield* on.reopen("p")
      assert(letter !== undefined)
      assert.deepStrictEqual([letter.id, letter.taskId, letter.task], ["p", null, null])
      assert.isUndefined(yield* on.find("p"))
    })

    test("does not know other letters", function* (on) {
      yield* on.create("a")
      assert.deepStrictEqual(yield* on.driver.reopen(["nobody", "a:0"]), [undefined, undefined])
      const found = yield* on.read("a")
      assert.deepStrictEqual([found.state, found.generation], ["PENDING", 0])
    })
  })

  describe("dead letters", () => {
    const fill = (on: Subject) =>
      Effect.forEach(["a", "b", "c", "d", "e"], (id) =>
        Effect.andThen(on.play(id, "t1", burial(), { task: id < "c" ? "mail" : "other" }), on.time.pass(0.1))
      )

    test("are listed newest first, page by page", function* (on) {
      yield* fill(on)
      const ids = (letters: ReadonlyArray<DeadLetter>) => letters.map(({ id }) => id)
      assert.deepStrictEqual(ids(yield* on.letters()), ["e:0", "d:0", "c:0", "b:0", "a:0"])
      assert.deepStrictEqual(ids(yield* on.page(2)), ["e:0", "d:0"])
      assert.deepStrictEqual(ids(yield* on.page(2, "d:0")), ["c:0", "b:0"])
      assert.deepStrictEqual(ids(yield* on.page(2, "b:0")), ["a:0"])
      assert.deepStrictEqual(ids(yield* on.page(2, "a:0")), [])
    })

    test("are listed and counted by task", function* (on) {
      yield* fill(on)
      yield* on.driver.parkMessage([parked("p")])
      const ids = (letters: ReadonlyArray<DeadLetter>) => letters.map(({ id }) => id)
      assert.deepStrictEqual(ids(yield* on.letters("other")), ["e:0", "d:0", "c:0"])
      assert.deepStrictEqual(ids(yield* on.page(1, "e:0", "other")), ["d:0"])
      assert.deepStrictEqual(ids(yield* on.letters("nobody")), [])
      assert.strictEqual(yield* on.driver.countDeadLetters("other"), 3)
      assert.strictEqual(yield* on.driver.countDeadLetters("mail"), 2)
      assert.strictEqual(yield* on.driver.countDeadLetters("nobody"), 0)
      assert.strictEqual(yield* on.driver.countDeadLetters(undefined), 6)
    })

    test("are read by their ids, and nothing is opened", function* (on) {
      yield* on.create("a")
      yield* on.play("a", "t1", burial())
      yield* on.driver.parkMessage([parked("p"), parked("gone", { retentionMillis: on.time.units(1) })])
      yield* on.time.pass(2)
      const found = yield* on.driver.getDeadLetters(["p", "nobody", "a:0", "gone", "a:0"])
      const [newer, older] = yield* on.letters()
      assert.deepStrictEqual(found, [newer, undefined, older, undefined, older])
      const { generation, state } = yield* on.read("a")
      assert.deepStrictEqual([state, generation], ["FAILURE", 0])
    })

    test("a page after a letter that was removed misses none", function* (on) {
      yield* fill(on)
      yield* on.driver.removeDeadLetters(["d:0"])
      const rest = (yield* on.page(100, "d:0")).map(({ id }) => id)
      assert.deepStrictEqual(rest.slice(-3), ["c:0", "b:0", "a:0"])
    })

    test("those of the same moment are paged through, each once", function* (on) {
      const ids = Arr.map(Arr.range(1, 7), (n) => `p${n}`)
      yield* on.driver.parkMessage(Arr.map(ids, (id) => parked(id)))
      const seen: Array<string> = []
      for (let last: string | undefined; ;) {
        const letters = yield* on.page(3, last)
        if (letters.length === 0) break
        seen.push(...letters.map(({ id }) => id))
        last = seen.at(-1)
      }
      assert.deepStrictEqual(seen.toSorted(), ids)
    })

    test("are removed, and removing is safe to repeat", function* (on) {
      yield* fill(on)
      const removed = yield* on.driver.removeDeadLetters(["a:0", "nobody", "b:0", "a:0"])
      assert.deepStrictEqual(removed, [true, false, true, false])
      assert.deepStrictEqual(yield* on.driver.removeDeadLetters(["b:0"]), [false])
      assert.strictEqual(yield* on.driver.countDeadLetters(undefined), 3)
      assert.isUndefined(yield* on.reopen("a:0"))
      assert.strictEqual((yield* on.read("a")).state, "FAILURE")
    })

    test("have a retention of their own, which the record outlives", function* (on) {
      yield* on.driver.create([record("a"), record("b"), record("c")])
      yield* on.play("a", "t1", burial("Failed", on.time.units(1)))
      yield* on.play("b", "t1", burial("Failed", on.time.long))
      yield* on.play("c", "t1", burial())
      yield* on.driver.parkMessage([parked("p", { retentionMillis: on.time.units(1) })])
      yield* on.time.pass(2)
      assert.deepStrictEqual((yield* on.letters()).map(({ id }) => id).toSorted(), ["b:0", "c:0"])
      assert.strictEqual(yield* on.driver.countDeadLetters(undefined), 2)
      assert.deepStrictEqual(yield* on.driver.reopen(["a:0", "p"]), [undefined, undefined])
      yield* on.sweepAll
      assert.strictEqual(yield* on.driver.countDeadLetters(undefined), 2)
      assert.strictEqual((yield* on.read("a")).state, "FAILURE")
    })

    test("are removed by the sweep", function* (on) {
      yield* on.driver.parkMessage([parked("p", { retentionMillis: on.time.units(1) }), parked("q")])
      yield* on.time.pass(2)
      assert.strictEqual(yield* on.sweepAll, 1)
      assert.strictEqual((yield* on.letter).id, "q")
    })

    test("outlive the record", function* (on) {
      yield* on.create("a")
      yield* on.play("a", "t1", burial("Failed", on.time.long, on.time.units(1)))
      yield* on.time.pass(2)
      yield* on.sweepAll
      assert.isUndefined(yield* on.find("a"))
      assert.strictEqual((yield* on.letter).id, "a:0")
    })

    test("of a lost run have the retention that the run was started with", function* (on) {
      const lost = { maxCrashes: 1, deadLetterRetentionMillis: on.time.units(1) }
      yield* on.crash("a", "t1", lost)
      yield* on.start("a", "t2", { maxCrashes: 1 })
      assert.strictEqual(yield* on.driver.countDeadLetters(undefined), 1)
      yield* on.time.pass(2)
      assert.strictEqual(yield* on.driver.countDeadLetters(undefined), 0)
    })

    test("are parked without a run, once", function* (on) {
      yield* on.driver.parkMessage([parked("p", { body: Suite.bytes, queue: "slow" }), parked("p")])
      yield* on.driver.parkMessage([parked("p")])
      const { at, body, ...letter } = yield* on.letter
      assert.isNumber(at)
      assert.deepStrictEqual(bytesOf(body), Array.from(Suite.bytes))
      assert.deepStrictEqual(letter, {
        id: "p",
        taskId: null,
        task: null,
        generation: 0,
        queue: "slow",
        reason: "PayloadInvalid",
        exit: `{"failure":"undecodable"}`,
        worker: null,
        attempts: 0
      })
    })
  })

  describe("texts and bytes", () => {
    for (const [what, text] of Suite.texts) {
      test(`${what} comes back as it was`, function* (on) {
        yield* on.driver.create([record("a"), record("b")])
        yield* on.run("a", "t1")
        yield* on.renew("a", "t1", text)
        yield* on.end("a", "t1", success(text))
        const found = yield* on.read("a")
        assert.isTrue(found.progress === text && found.exit === text)
        yield* on.run("b", "t1")
        const message = { queue: "default", body: text }
        yield* on.end("b", "t1", {
          ...burial("Failed", undefined, undefined, message),
          exit: text
        } as Outcome)
        const letter = yield* on.letter
        assert.isTrue(letter.body === text && letter.exit === text)
      })
    }

    test("bytes come back as they were, also from a run that was lost", function* (on) {
      const message = { queue: "default", body: Suite.bytes }
      yield* on.play("a", "t1", burial("Failed", undefined, undefined, message))
      yield* on.crash("b", "t1")
      yield* on.start("b", "t2", { ...message, maxCrashes: 1 })
      for (const letter of yield* on.letters()) {
        assert.deepStrictEqual(bytesOf(letter.body), Array.from(Suite.bytes), letter.id)
      }
      assert.strictEqual(yield* on.driver.countDeadLetters(undefined), 2)
    })
  })
}
