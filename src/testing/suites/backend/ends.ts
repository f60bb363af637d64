/** How tasks end without a run, and how long records stay. */
import { assert, describe } from "@effect/vitest"
import { Array as Arr, Effect } from "effect"
import * as Suite from "../Suite.ts"
import { record, parked, success, failure, retry, RELEASE, type Subject, type Test } from "./fixture.ts"

/** Registers these tests. */
export const ends = (test: Test): void => {
  describe("cancel", () => {
    test("ends a waiting task at once", function* (on) {
      yield* on.create("a")
      assert.strictEqual(yield* on.cancel("a"), "Cancelled")
      yield* on.expectEnd("a", "Cancelled")
      assert.strictEqual((yield* on.start("a", "t1"))._tag, "Drop")
      assert.strictEqual(yield* on.driver.countDeadLetters(undefined), 0)
    })

    test("ends a task that waits for its retry at once", function* (on) {
      yield* on.create("a")
      yield* on.play("a", "t1", retry(on.time.long))
      assert.strictEqual(yield* on.cancel("a"), "Cancelled")
      const found = yield* on.expectEnd("a", "Cancelled")
      assert.deepStrictEqual([found.attempt, found.retries], [1, 1])
    })

    test("asks a running task to stop", function* (on) {
      yield* on.create("a")
      yield* on.run("a", "t1")
      assert.isFalse((yield* on.read("a")).cancelRequested)
      assert.strictEqual(yield* on.cancel("a"), "Requested")
      const found = yield* on.read("a")
      assert.deepStrictEqual([found.state, found.cancelRequested, found.ended], ["STARTED", true, null])
    })

    test("asks a run whose lease ran out to stop", function* (on) {
      yield* on.create("a")
      yield* on.crash("a", "t1")
      assert.strictEqual(yield* on.cancel("a"), "Requested")
      assert.strictEqual(yield* on.renew("a", "t1"), "CancelRequested")
    })

    test("changes nothing that is final", function* (on) {
      yield* on.create("a")
      yield* on.play("a", "t1", success())
      const before = yield* on.read("a")
      assert.strictEqual(yield* on.cancel("a"), "AlreadyDone")
      assert.deepStrictEqual(yield* on.read("a"), before)
    })

    test("does not know an id that was never enqueued", function* (on) {
      assert.strictEqual(yield* on.cancel("a"), "Unknown")
      assert.isUndefined(yield* on.find("a"))
    })

    test("is safe to repeat", function* (on) {
      yield* on.driver.create([record("a"), record("b")])
      yield* on.run("b", "t1")
      assert.deepStrictEqual(yield* on.driver.cancel(["a", "b"]), ["Cancelled", "Requested"])
      const before = yield* on.driver.read(["a", "b"])
      yield* on.time.pass(1)
      yield* on.driver.cancel(["a", "b"])
      assert.deepStrictEqual(yield* on.driver.read(["a", "b"]), before)
    })

    test("answers a batch in order, and applies one id twice in order", function* (on) {
      yield* on.driver.create([record("a"), record("b"), record("c")])
      yield* on.run("b", "t1")
      yield* on.play("c", "t1", success())
      assert.deepStrictEqual(yield* on.driver.cancel(["missing", "c", "b", "a", "a"]), [
        "Unknown",
        "AlreadyDone",
        "Requested",
        "Cancelled",
        "AlreadyDone"
      ])
    })

    test("a run that ends under the request wins", function* (on) {
      yield* on.driver.create([record("a"), record("b")])
      for (const id of ["a", "b"]) {
        yield* on.run(id, "t1")
        yield* on.cancel(id)
      }
      yield* on.end("a", "t1", success("done"))
      yield* on.end("b", "t1", failure("failed"))
      const [a, b] = yield* on.driver.read(["a", "b"])
      assert.deepStrictEqual([a?.state, a?.exit, a?.ended], ["SUCCESS", "done", null])
      assert.deepStrictEqual([b?.state, b?.exit, b?.ended], ["FAILURE", "failed", null])
    })

    for (const [what, outcome] of [
      ["retry", retry()],
      ["release", RELEASE]
    ] as const) {
      test(`a ${what} under the request ends as cancelled`, function* (on) {
        yield* on.create("a")
        yield* on.run("a", "t1")
        yield* on.cancel("a")
        assert.strictEqual(yield* on.settle("a", "t1", outcome), "Cancelled")
        const before = yield* on.expectEnd("a", "Cancelled")
        assert.strictEqual(yield* on.settle("a", "t1", outcome), "Cancelled")
        assert.deepStrictEqual(yield* on.read("a"), before)
        assert.strictEqual((yield* on.start("a", "t2"))._tag, "Drop")
        assert.strictEqual(yield* on.driver.countDeadLetters(undefined), 0)
      })
    }
  })

  describe("expiry", () => {
    const waits = {
      "a task that waits": (on: Subject) =>
        Effect.asVoid(on.create("a", { expiresMillis: on.time.units(5) })),
      "a task that waits for its retry": (on: Subject) =>
        Effect.andThen(
          on.create("a", { expiresMillis: on.time.units(5) }),
          on.play("a", "t1", retry(on.time.long))
        ),
      "a task that was put back": (on: Subject) =>
        Effect.andThen(on.create("a", { expiresMillis: on.time.units(5) }), on.play("a", "t1", RELEASE)),
      "a record that a run created": (on: Subject) =>
        on.play("a", "t1", retry(on.time.long), { expiresMillis: on.time.units(5) })
    }
    for (const [what, wait] of Object.entries(waits)) {
      test(`a message ends ${what} too long, and is dropped`, function* (on) {
        yield* wait(on)
        yield* on.time.pass(6)
        assert.strictEqual((yield* on.start("a", "t9"))._tag, "Drop")
        yield* on.expectEnd("a", "Expired")
      })

      test(`a read ends ${what} too long`, function* (on) {
        yield* wait(on)
        yield* on.time.pass(6)
        yield* on.expectEnd("a", "Expired")
        assert.strictEqual(yield* on.sweepAll, 0)
      })

      test(`the sweep ends ${what} too long`, function* (on) {
        yield* wait(on)
        yield* on.time.pass(6)
        assert.strictEqual(yield* on.sweepAll, 1)
        yield* on.expectEnd("a", "Expired")
      })
    }

    test("a watch ends a task that waits too long", function* (on) {
      yield* on.create("a", { expiresMillis: on.time.units(1) })
      yield* on.time.pass(2)
      const found = yield* Suite.only(on.driver.subscribe(["a"]))
      assert.strictEqual(found?.ended, "Expired")
    })

    test("a task does not expire before its time", function* (on) {
      yield* on.create("a", { expiresMillis: on.time.long })
      yield* on.time.pass(2)
      assert.strictEqual(yield* on.sweepAll, 0)
      assert.strictEqual((yield* on.read("a")).state, "PENDING")
      yield* on.run("a", "t1")
      yield* on.play("b", "t1", retry(), { expiresMillis: on.time.long })
      assert.strictEqual((yield* on.read("b")).state, "RETRY")
      yield* on.run("b", "t2")
    })

    test("a task that runs does not expire", function* (on) {
      yield* on.create("a", { expiresMillis: on.time.units(5) })
      yield* on.run("a", "t1")
      yield* on.time.pass(6)
      assert.strictEqual(yield* on.sweepAll, 0)
      assert.strictEqual((yield* on.read("a")).state, "STARTED")
      yield* on.end("a", "t1", success())
    })

    test("an expired task leaves no dead letter, and is not to be cancelled", function* (on) {
      yield* on.create("a", { expiresMillis: on.time.units(1) })
      yield* on.time.pass(2)
      assert.strictEqual(yield* on.cancel("a"), "AlreadyDone")
      yield* on.expectEnd("a", "Expired")
      assert.strictEqual(yield* on.driver.countDeadLetters(undefined), 0)
    })
  })

  describe("retention", () => {
    test("starts at the end of the task", function* (on) {
      const retentionMillis = on.time.units(1)
      yield* on.create("a", { retentionMillis })
      yield* on.time.pass(2)
      assert.strictEqual((yield* on.read("a")).state, "PENDING")
      yield* on.run("a", "t1", { retentionMillis })
      yield* on.time.pass(2)
      assert.strictEqual(yield* on.sweepAll, 0)
      assert.strictEqual((yield* on.read("a")).state, "STARTED")
    })

    test("a record that outlived it is not there, whether or not it was swept", function* (on) {
      const retentionMillis = on.time.units(1)
      yield* on.create("a", { key: "k", payloadHash: "h", retentionMillis })
      yield* on.play("a", "t1", success("1", retentionMillis))
      yield* on.time.pass(2)
      assert.isUndefined(yield* on.find("a"))
      assert.isUndefined(yield* Suite.only(on.driver.subscribe(["a"])))
      assert.strictEqual(yield* on.cancel("a"), "Unknown")
      assert.strictEqual(yield* on.renew("a", "t1"), "Lost")
      assert.strictEqual(yield* on.settle("a", "t1", failure()), "Lost")
      assert.strictEqual((yield* on.create("b", { key: "k", payloadHash: "other" }))._tag, "Created")
      assert.strictEqual((yield* on.create("a", { payloadHash: "other" }))._tag, "Created")
    })

    test("a record stays for as long as it", function* (on) {
      yield* on.create("a", { retentionMillis: on.time.units(1) })
      yield* on.play("a", "t1", success("1", on.time.long))
      yield* on.time.pass(2)
      assert.strictEqual(yield* on.sweepAll, 0)
      assert.strictEqual((yield* on.read("a")).state, "SUCCESS")
    })

    test("without one, a record stays for ever", function* (on) {
      yield* on.create("a", { retentionMillis: on.time.units(1) })
      yield* on.play("a", "t1", success())
      yield* on.time.pass(3)
      assert.strictEqual(yield* on.sweepAll, 0)
      assert.strictEqual((yield* on.read("a")).state, "SUCCESS")
    })

    test("holds for the ends that the store decides", function* (on) {
      const retentionMillis = on.time.units(1)
      yield* on.driver.create([
        record("expired", { retentionMillis, expiresMillis: on.time.units(1) }),
        record("cancelled", { retentionMillis })
      ])
      yield* on.cancel("cancelled")
      yield* on.crash("lost", "t1", { retentionMillis, maxCrashes: 1 })
      yield* on.start("lost", "t2", { retentionMillis, maxCrashes: 1 })
      yield* on.driver.read(["expired"])
      yield* on.time.pass(2)
      assert.deepStrictEqual(yield* on.driver.read(["expired", "cancelled", "lost"]), [
        undefined,
        undefined,
        undefined
      ])
    })

    test("the sweep removes what outlived it, once", function* (on) {
      yield* on.driver.create([record("a"), record("b"), record("c")])
      yield* on.play("a", "t1", success("1", on.time.units(1)))
      yield* on.play("b", "t1", success("1", on.time.units(1)))
      yield* on.play("c", "t1", success("1", on.time.long))
      yield* on.time.pass(2)
      assert.strictEqual(yield* on.driver.sweep(100), on.driver.capabilities.expiresRecords ? 0 : 2)
      assert.strictEqual(yield* on.driver.sweep(100), 0)
      assert.deepStrictEqual(
        (yield* on.driver.read(["a", "b", "c"])).map((found) => found?.state),
        [undefined, undefined, "SUCCESS"]
      )
    })

    test("the sweep keeps to its limit", function* (on) {
      const ids = Arr.map(Arr.range(1, 5), (n) => `id-${n}`)
      yield* on.driver.create(Arr.map(ids, (id) => record(id)))
      yield* Effect.forEach(ids, (id) => on.play(id, "t1", success("1", on.time.units(1))))
      yield* on.time.pass(2)
      const swept = yield* Effect.replicateEffect(on.driver.sweep(2), 4)
      assert.deepStrictEqual(swept, on.driver.capabilities.expiresRecords ? [0, 0, 0, 0] : [2, 2, 1, 0])
      yield* on.driver.parkMessage(Arr.map(ids, (id) => parked(id, { retentionMillis: on.time.units(1) })))
      yield* on.time.pass(2)
      const sweptLetters = yield* Effect.replicateEffect(on.driver.sweep(2), 4)
      assert.deepStrictEqual(sweptLetters, [2, 2, 1, 0])
    })

    test("the sweep finds nothing in an empty store", function* (on) {
      assert.strictEqual(yield* on.driver.sweep(100), 0)
    })
  })

  describe("forget", () => {
    test("removes a final record, and frees its key", function* (on) {
      yield* on.create("a", { key: "k", payloadHash: "h" })
      yield* on.play("a", "t1", success())
      yield* on.driver.forget(["a"])
      assert.isUndefined(yield* on.find("a"))
      assert.strictEqual((yield* on.create("b", { key: "k", payloadHash: "other" }))._tag, "Created")
    })

    test("a key of a record that is gone does not lead to a later task of the same id", function* (on) {
      yield* on.create("a", { key: "k", payloadHash: "h" })
      yield* on.play("a", "t1", success())
      yield* on.driver.forget(["a"])
      yield* on.create("a", { payloadHash: "h" })
      assert.strictEqual((yield* on.create("b", { key: "k", payloadHash: "h" }))._tag, "Created")
    })

    test("marks an unfinished record, and frees its key", function* (on) {
      yield* on.create("a", { key: "k", payloadHash: "h" })
      yield* on.driver.forget(["a"])
      const found = yield* on.read("a")
      assert.deepStrictEqual([found.state, found.ended, found.finishedAt], ["PENDING", "Forgotten", null])
      assert.strictEqual((yield* on.create("b", { key: "k", payloadHash: "other" }))._tag, "Created")
    })

    test("the end of a forgotten task does not free a key that another has taken", function* (on) {
      yield* on.create("a", { key: "k", payloadHash: "h" })
      yield* on.driver.forget(["a"])
      yield* on.create("b", { key: "k", payloadHash: "h" })
      yield* on.play("a", "t1", success())
      const again = yield* on.create("c", { key: "k", payloadHash: "h" })
      assert.strictEqual(again._tag === "Existing" ? again.id : again._tag, "b")
    })

    test("lets a task run on, and removes the record when it ends", function* (on) {
      yield* on.driver.create([record("a"), record("b")])
      yield* on.play("a", "t1", retry())
      yield* on.driver.forget(["a", "b"])
      yield* on.run("a", "t2")
      assert.strictEqual(yield* on.renew("a", "t2", "1"), "Held")
      const found = yield* on.read("a")
      assert.deepStrictEqual([found.state, found.ended, found.attempt], ["STARTED", "Forgotten", 2])
      yield* on.end("a", "t2", retry())
      assert.strictEqual((yield* on.read("a")).ended, "Forgotten")
      yield* on.play("a", "t3", success())
      yield* on.play("b", "t1", failure())
      assert.deepStrictEqual(yield* on.driver.read(["a", "b"]), [undefined, undefined])
    })

    test("the ends that the store decides remove the record too", function* (on) {
      yield* on.driver.create([
        record("expired", { expiresMillis: on.time.units(1) }),
        record("cancelled"),
        record("asked"),
        record("lost")
      ])
      yield* on.run("asked", "t1")
      yield* on.run("lost", "t1", { leaseMillis: on.time.units(1), maxCrashes: 1 })
      yield* on.driver.forget(["expired", "cancelled", "asked", "lost"])
      assert.deepStrictEqual(yield* on.driver.cancel(["cancelled", "asked"]), ["Cancelled", "Requested"])
      assert.strictEqual(yield* on.settle("asked", "t1", RELEASE), "Cancelled")
      yield* on.time.pass(2)
      assert.strictEqual((yield* on.start("lost", "t2", { maxCrashes: 1 }))._tag, "Drop")
      const found = yield* on.driver.read(["expired", "cancelled", "asked", "lost"])
      assert.deepStrictEqual(found, [undefined, undefined, undefined, undefined])
    })

    test("is safe to repeat, and passes over what is not there", function* (on) {
      yield* on.driver.create([record("a"), record("b")])
      yield* on.play("a", "t1", success())
      yield* on.driver.forget(["nobody", "a", "a", "b", "b"])
      yield* on.driver.forget(["a", "b"])
      assert.isUndefined(yield* on.find("nobody"))
      assert.isUndefined(yield* on.find("a"))
      assert.strictEqual((yield* on.read("b")).ended, "Forgotten")
    })
  })
}
