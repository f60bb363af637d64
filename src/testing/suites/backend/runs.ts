/** How runs start, hold their lease and end. */
import { assert, describe } from "@effect/vitest"
import { Array as Arr, Effect } from "effect"
import type { Settled, Settlement } from "../../../BackendDriver.ts"
import type { Batch } from "../../../BrokerDriver.ts"
import { record, success, failure, burial, retry, RELEASE, type Test } from "./fixture.ts"

/** Registers these tests. */
export const runs = (test: Test): void => {
  describe("start", () => {
    test("runs what waits", function* (on) {
      yield* on.create("a")
      const started = yield* on.run("a", "t1")
      assert.isTrue(Number.isSafeInteger(started.fence))
      assert.deepStrictEqual([started.attempt, started.retries, started.crashes], [1, 0, 0])
      const found = yield* on.read("a")
      assert.strictEqual(found.state, "STARTED")
      assert.strictEqual(found.attempt, 1)
      assert.strictEqual(found.worker, "worker of t1")
      assert.isNumber(found.startedAt)
      assert.isNull(found.finishedAt)
    })

    test("creates a record that is missing", function* (on) {
      const started = yield* on.run("a", "t1", { generation: 2 })
      assert.strictEqual(started.attempt, 1)
      const found = yield* on.read("a")
      assert.deepStrictEqual([found.state, found.task, found.generation], ["STARTED", "mail", 2])
    })

    test("a record that it created takes over the hash of the enqueue", function* (on) {
      yield* on.run("a", "t1")
      const same = Effect.fnUntraced(function* (payloadHash: string) {
        const created = yield* on.create("a", { payloadHash })
        assert(created._tag === "Existing")
        assert.isTrue(created.published)
        return created.same
      })
      assert.isTrue(yield* same("h"))
      assert.isTrue(yield* same("h"))
      assert.isFalse(yield* same("other"))
    })

    test("a record that it created takes over the key of the enqueue", function* (on) {
      yield* on.run("a", "t1")
      yield* on.create("a", { key: "k", payloadHash: "h" })
      const again = yield* on.create("b", { key: "k", payloadHash: "h" })
      assert(again._tag === "Existing")
      assert.deepStrictEqual([again.id, again.same], ["a", true])
    })

    test("a record that it created for another task is a conflict", function* (on) {
      yield* on.run("a", "t1", { task: "other" })
      const created = yield* on.create("a", { payloadHash: "h" })
      assert(created._tag === "Existing")
      assert.isFalse(created.same)
    })

    test("repeated with the token of the open run, answers that run again", function* (on) {
      yield* on.create("a")
      const first = yield* on.run("a", "t1")
      assert.deepStrictEqual(yield* on.start("a", "t1"), first)
      assert.strictEqual((yield* on.read("a")).attempt, 1)
    })

    test("repeated with the token of the open run, holds its lease anew", function* (on) {
      yield* on.create("a")
      yield* on.crash("a", "t1")
      yield* on.run("a", "t1")
      assert.strictEqual((yield* on.start("a", "t2"))._tag, "Busy")
      assert.strictEqual((yield* on.read("a")).crashes, 0)
    })

    test("is busy under a live lease", function* (on) {
      yield* on.create("a")
      yield* on.run("a", "t1")
      const started = yield* on.start("a", "t2")
      assert(started._tag === "Busy")
      assert.isAbove(started.millis, on.time.long / 2)
      assert.isAtMost(started.millis, on.time.long)
      assert.strictEqual((yield* on.read("a")).attempt, 1)
    })

    test("is busy before a retry is due", function* (on) {
      yield* on.create("a")
      yield* on.play("a", "t1", retry(on.time.long))
      const started = yield* on.start("a", "t2")
      assert(started._tag === "Busy")
      assert.isAbove(started.millis, on.time.long / 2)
      assert.isAtMost(started.millis, on.time.long)
      assert.strictEqual((yield* on.read("a")).state, "RETRY")
    })

    test("runs a retry that is due", function* (on) {
      yield* on.create("a")
      yield* on.play("a", "t1", retry(on.time.units(1)))
      yield* on.time.pass(2)
      const started = yield* on.run("a", "t2")
      assert.deepStrictEqual([started.attempt, started.retries, started.crashes], [2, 1, 0])
    })

    test("drops a message whose record is final", function* (on) {
      yield* on.driver.create([record("a"), record("b")])
      yield* on.play("a", "t1", success())
      yield* on.play("b", "t1", failure())
      for (const id of ["a", "b"]) {
        const before = yield* on.read(id)
        assert.strictEqual((yield* on.start(id, "t2"))._tag, "Drop")
        assert.strictEqual((yield* on.start(id, "t1"))._tag, "Drop")
        assert.deepStrictEqual(yield* on.read(id), before)
      }
    })

    test("takes over a newer generation, and drops the messages of the older", function* (on) {
      yield* on.create("a")
      yield* on.play("a", "t1", retry())
      const started = yield* on.run("a", "t2", { generation: 1 })
      assert.deepStrictEqual([started.attempt, started.retries, started.crashes], [1, 0, 0])
      assert.strictEqual((yield* on.read("a")).generation, 1)
      assert.strictEqual((yield* on.start("a", "t3", { generation: 0 }))._tag, "Drop")
    })

    test("raises the fence by one with every run", function* (on) {
      yield* on.create("a")
      const first = yield* on.crash("a", "t1")
      const second = yield* on.run("a", "t2")
      yield* on.end("a", "t2", retry())
      const third = yield* on.run("a", "t3")
      yield* on.end("a", "t3", RELEASE)
      const fourth = yield* on.run("a", "t4")
      assert.deepStrictEqual(
        [second.fence, third.fence, fourth.fence],
        [first.fence + 1, first.fence + 2, first.fence + 3]
      )
    })

    test("keeps the time of the first start", function* (on) {
      yield* on.create("a")
      yield* on.play("a", "t1", retry())
      const { startedAt } = yield* on.read("a")
      yield* on.time.pass(1)
      yield* on.run("a", "t2")
      assert.strictEqual((yield* on.read("a")).startedAt, startedAt)
    })

    test("answers a batch in order", function* (on) {
      yield* on.driver.create([record("a"), record("b")])
      yield* on.run("a", "t0")
      yield* on.play("b", "t0", success())
      const started = yield* on.driver.start([on.ask("a", "t1"), on.ask("b", "t1"), on.ask("c", "t1")])
      assert.deepStrictEqual(
        started.map(({ _tag }) => _tag),
        ["Busy", "Drop", "Run"]
      )
    })

    test("applies one id twice in a batch in order", function* (on) {
      yield* on.create("a")
      const started = yield* on.driver.start([on.ask("a", "t1"), on.ask("a", "t2"), on.ask("a", "t1")])
      assert.deepStrictEqual(
        started.map(({ _tag }) => _tag),
        ["Run", "Busy", "Run"]
      )
      assert.strictEqual((yield* on.read("a")).worker, "worker of t1")
    })

    test("gives a task to one of many that ask at once", function* (on) {
      yield* on.create("a")
      for (const id of ["a", "missing"]) {
        const started = yield* Effect.forEach(Arr.range(1, 50), (n) => on.start(id, `t${n}`), {
          concurrency: "unbounded"
        })
        assert.strictEqual(started.filter(({ _tag }) => _tag === "Run").length, 1)
        assert.strictEqual(started.filter(({ _tag }) => _tag === "Busy").length, 49)
      }
    })

    test("gives a lapsed run to one of many that ask at once", function* (on) {
      yield* on.create("a")
      yield* on.crash("a", "t0")
      const started = yield* Effect.forEach(Arr.range(1, 20), (n) => on.start("a", `t${n}`), {
        concurrency: "unbounded"
      })
      assert.strictEqual(started.filter(({ _tag }) => _tag === "Run").length, 1)
      assert.strictEqual((yield* on.read("a")).crashes, 1)
    })
  })

  describe("renew", () => {
    test("extends the lease", function* (on) {
      yield* on.create("a")
      yield* on.run("a", "t1", { leaseMillis: on.time.units(1) })
      assert.strictEqual(yield* on.renew("a", "t1"), "Held")
      yield* on.time.pass(2)
      assert.strictEqual((yield* on.start("a", "t2"))._tag, "Busy")
    })

    test("holds a run after its lease ran out, as long as nobody took it over", function* (on) {
      yield* on.create("a")
      yield* on.crash("a", "t1")
      assert.strictEqual(yield* on.renew("a", "t1"), "Held")
      assert.strictEqual((yield* on.start("a", "t2"))._tag, "Busy")
    })

    test("tells a run that was taken over that it is lost", function* (on) {
      yield* on.create("a")
      yield* on.crash("a", "t1")
      yield* on.run("a", "t2")
      assert.strictEqual(yield* on.renew("a", "t1", "stale"), "Lost")
      assert.isNull((yield* on.read("a")).progress)
      assert.strictEqual(yield* on.renew("a", "t2"), "Held")
    })

    test("finds nothing to hold where no run is open", function* (on) {
      yield* on.driver.create([record("waiting"), record("retry"), record("final")])
      yield* on.play("retry", "t1", retry())
      yield* on.play("final", "t1", success())
      for (const id of ["waiting", "retry", "final", "missing"]) {
        assert.strictEqual(yield* on.renew(id, "t1", "progress"), "Lost", id)
      }
      assert.isUndefined(yield* on.find("missing"))
      assert.isNull((yield* on.read("final")).progress)
    })

    test("writes progress, and keeps it where none is given", function* (on) {
      const progress = Effect.map(on.read("a"), (found) => found.progress)
      yield* on.create("a")
      yield* on.run("a", "t1")
      yield* on.renew("a", "t1", `{"done":1}`)
      assert.strictEqual(yield* progress, `{"done":1}`)
      yield* on.renew("a", "t1", `{"done":2}`)
      yield* on.renew("a", "t1")
      assert.strictEqual(yield* progress, `{"done":2}`)
      yield* on.end("a", "t1", success())
      assert.strictEqual(yield* progress, `{"done":2}`)
    })

    test("tells of a cancel request, and holds the lease", function* (on) {
      yield* on.create("a")
      yield* on.run("a", "t1", { leaseMillis: on.time.units(1) })
      yield* on.cancel("a")
      assert.strictEqual(yield* on.renew("a", "t1"), "CancelRequested")
      yield* on.time.pass(2)
      assert.strictEqual((yield* on.start("a", "t2"))._tag, "Busy")
      assert.strictEqual(yield* on.renew("a", "t1"), "CancelRequested")
    })

    test("answers a batch in order, and applies one id twice in order", function* (on) {
      const leaseMillis = on.time.long
      yield* on.driver.create([record("a"), record("b")])
      yield* on.run("a", "t1")
      const renewed = yield* on.driver.renew([
        { id: "missing", token: "t1", leaseMillis },
        { id: "a", token: "t1", leaseMillis, progress: "1" },
        { id: "b", token: "t1", leaseMillis },
        { id: "a", token: "t1", leaseMillis, progress: "2" }
      ])
      assert.deepStrictEqual(renewed, ["Lost", "Held", "Lost", "Held"])
      assert.strictEqual((yield* on.read("a")).progress, "2")
    })
  })

  describe("settle", () => {
    test("stores a success", function* (on) {
      yield* on.create("a")
      yield* on.play("a", "t1", success(`{"value":42}`))
      const found = yield* on.read("a")
      assert.deepStrictEqual(
        [found.state, found.exit, found.ended, found.worker, found.attempt],
        ["SUCCESS", `{"value":42}`, null, "worker of t1", 1]
      )
      assert(found.enqueuedAt !== null && found.startedAt !== null && found.finishedAt !== null)
      assert.isTrue(found.enqueuedAt <= found.startedAt && found.startedAt <= found.finishedAt)
    })

    test("stores a failure", function* (on) {
      yield* on.create("a")
      yield* on.play("a", "t1", failure(`{"error":"no"}`))
      const found = yield* on.read("a")
      assert.deepStrictEqual([found.state, found.exit, found.ended], ["FAILURE", `{"error":"no"}`, null])
      assert.isNumber(found.finishedAt)
      assert.strictEqual(yield* on.driver.countDeadLetters(undefined), 0)
    })

    test("stores a failure with its dead letter", function* (on) {
      yield* on.create("a")
      yield* on.play("a", "t1", retry())
      yield* on.play("a", "t2", burial("Died", undefined, undefined, { queue: "slow", body: "the body" }))
      assert.strictEqual((yield* on.read("a")).exit, `{"failure":"Died"}`)
      const { at, ...letter } = yield* on.letter
      assert.isNumber(at)
      assert.deepStrictEqual(letter, {
        id: "a:0",
        taskId: "a",
        task: "mail",
        generation: 0,
        queue: "slow",
        reason: "Died",
        exit: `{"failure":"Died"}`,
        worker: "worker of t2",
        body: "the body",
        attempts: 2
      })
    })

    test("puts a retry back, and counts it", function* (on) {
      yield* on.create("a")
      yield* on.play("a", "t1", retry())
      const found = yield* on.read("a")
      assert.deepStrictEqual(
        [found.state, found.attempt, found.retries, found.crashes, found.exit],
        ["RETRY", 1, 1, 0, null]
      )
      assert.isNull(found.finishedAt)
      const started = yield* on.run("a", "t2")
      assert.deepStrictEqual([started.attempt, started.retries], [2, 1])
    })

    test("puts a released run back, and counts nothing", function* (on) {
      yield* on.create("a")
      yield* on.play("a", "t1", RELEASE)
      const found = yield* on.read("a")
      assert.deepStrictEqual([found.state, found.attempt, found.retries, found.crashes], ["PENDING", 0, 0, 0])
      const started = yield* on.run("a", "t2")
      assert.deepStrictEqual([started.attempt, started.retries, started.crashes], [1, 0, 0])
    })

    test("puts a retry that is released back as a retry, due at once", function* (on) {
      yield* on.create("a")
      yield* on.play("a", "t1", retry(on.time.units(1)))
      yield* on.time.pass(2)
      yield* on.play("a", "t2", RELEASE)
      const found = yield* on.read("a")
      assert.deepStrictEqual([found.state, found.attempt, found.retries], ["RETRY", 1, 1])
      assert.strictEqual((yield* on.run("a", "t3")).attempt, 2)
    })

    test("keeps the crashes of a run that is released", function* (on) {
      yield* on.create("a")
      yield* on.crash("a", "t1")
      yield* on.play("a", "t2", RELEASE)
      const found = yield* on.read("a")
      assert.deepStrictEqual([found.state, found.attempt, found.crashes], ["PENDING", 1, 1])
    })

    for (const [what, outcome] of [
      ["success", success()],
      ["failure", burial()],
      ["retry", retry()],
      ["release", RELEASE]
    ] as const) {
      test(`a repeated ${what} is stored once`, function* (on) {
        yield* on.create("a")
        yield* on.play("a", "t1", outcome)
        const before = yield* on.read("a")
        yield* on.time.pass(1)
        assert.strictEqual(yield* on.settle("a", "t1", outcome), "Stored")
        assert.deepStrictEqual(yield* on.read("a"), before)
        assert.strictEqual(yield* on.driver.countDeadLetters(undefined), what === "failure" ? 1 : 0)
      })

      test(`a ${what} of a run that was taken over writes nothing`, function* (on) {
        yield* on.create("a")
        yield* on.crash("a", "t1")
        yield* on.run("a", "t2")
        const before = yield* on.read("a")
        assert.strictEqual(yield* on.settle("a", "t1", outcome), "Lost")
        assert.deepStrictEqual(yield* on.read("a"), before)
        assert.strictEqual(yield* on.driver.countDeadLetters(undefined), 0)
        yield* on.end("a", "t2", success())
      })

      test(`a ${what} never changes a final record`, function* (on) {
        yield* on.driver.create([record("a"), record("b")])
        yield* on.play("a", "t1", success("first"))
        yield* on.play("b", "t1", failure("first"))
        for (const id of ["a", "b"]) {
          const before = yield* on.read(id)
          assert.strictEqual(yield* on.settle(id, "t2", outcome), "Lost")
          yield* on.settle(id, "t1", outcome)
          assert.deepStrictEqual(yield* on.read(id), before)
        }
        assert.strictEqual(yield* on.driver.countDeadLetters(undefined), 0)
      })

      test(`a ${what} of a task that nobody knows writes nothing`, function* (on) {
        assert.strictEqual(yield* on.settle("a", "t1", outcome), "Lost")
        assert.isUndefined(yield* on.find("a"))
        assert.strictEqual(yield* on.driver.countDeadLetters(undefined), 0)
      })

      test(`a ${what} after a lease that ran out is stored, where nobody took the run over`, function* (on) {
        yield* on.create("a")
        yield* on.crash("a", "t1")
        yield* on.end("a", "t1", outcome)
        assert.notStrictEqual((yield* on.read("a")).state, "STARTED")
      })
    }

    test("a settlement that is repeated after the next start is lost", function* (on) {
      yield* on.create("a")
      yield* on.play("a", "t1", retry())
      yield* on.run("a", "t2")
      const before = yield* on.read("a")
      assert.strictEqual(yield* on.settle("a", "t1", retry()), "Lost")
      assert.deepStrictEqual(yield* on.read("a"), before)
    })

    test("a run that was put back can settle nothing more", function* (on) {
      yield* on.driver.create([record("a"), record("b")])
      yield* on.play("a", "t1", retry())
      yield* on.play("b", "t1", RELEASE)
      for (const id of ["a", "b"]) {
        assert.strictEqual(yield* on.settle(id, "t1", success()), "Lost")
        assert.isNull((yield* on.read(id)).finishedAt)
      }
    })

    test("stores one of many outcomes that come at once", function* (on) {
      const outcomes = [success("s"), failure("f"), retry(), RELEASE]
      const states = ["SUCCESS", "FAILURE", "RETRY", "PENDING"]
      for (const [round, rotated] of outcomes
        .map((_, n) => [...outcomes.slice(n), ...outcomes.slice(0, n)])
        .entries()) {
        const id = `id-${round}`
        yield* on.create(id)
        yield* on.run(id, "t1")
        const settled = yield* Effect.forEach(rotated, (outcome) => on.settle(id, "t1", outcome), {
          concurrency: "unbounded"
        })
        assert.strictEqual(settled.filter((answer) => answer === "Stored").length, 1)
        const winner = rotated[settled.indexOf("Stored")]
        const expected = states[outcomes.findIndex((outcome) => outcome === winner)]
        assert.strictEqual((yield* on.read(id)).state, expected)
      }
    })

    test("answers a batch in order, and applies one id twice in order", function* (on) {
      yield* on.driver.create([record("a"), record("b"), record("c")])
      yield* on.run("a", "t1")
      yield* on.run("b", "t1")
      const batch: Batch<Settlement> = [
        { id: "missing", token: "t1", outcome: success() },
        { id: "a", token: "t1", outcome: retry() },
        { id: "b", token: "t1", outcome: success() },
        { id: "a", token: "t1", outcome: success() },
        { id: "b", token: "t1", outcome: success() },
        { id: "c", token: "t1", outcome: success() }
      ]
      const expected: Array<Settled> = ["Lost", "Stored", "Stored", "Lost", "Stored", "Lost"]
      assert.deepStrictEqual(yield* on.driver.settle(batch), expected)
      const states = Effect.map(
        on.driver.read(["a", "b", "c"]),
        Arr.map((found) => found?.state)
      )
      assert.deepStrictEqual(yield* states, ["RETRY", "SUCCESS", "PENDING"])
    })
  })
}
