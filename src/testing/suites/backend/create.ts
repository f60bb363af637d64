/** What an enqueue writes. */
import { assert, describe } from "@effect/vitest"
import { Array as Arr, Effect } from "effect"
import { record, RELEASE, success, retry, type Test } from "./fixture.ts"

/** Registers these tests. */
export const records = (test: Test): void => {
  describe("create", () => {
    test("writes a record that waits", function* (on) {
      assert.deepStrictEqual(yield* on.create("a"), { _tag: "Created" })
      const { enqueuedAt, ...rest } = yield* on.read("a")
      assert.isNumber(enqueuedAt)
      assert.deepStrictEqual(rest, {
        id: "a",
        task: "mail",
        state: "PENDING",
        generation: 0,
        attempt: 0,
        retries: 0,
        crashes: 0,
        exit: null,
        progress: null,
        worker: null,
        cancelRequested: false,
        ended: null,
        startedAt: null,
        finishedAt: null,
        expiresAt: null
      })
    })

    test("writes when the task expires", function* (on) {
      yield* on.create("a", { expiresMillis: on.time.long })
      const { enqueuedAt, expiresAt } = yield* on.read("a")
      assert(enqueuedAt !== null && expiresAt !== null)
      assert.approximately(expiresAt - enqueuedAt, on.time.long, on.time.units(10))
    })

    test("answers a batch in order", function* (on) {
      yield* on.create("b")
      const created = yield* on.driver.create([record("a"), record("b"), record("c")])
      assert.deepStrictEqual(
        created.map(({ _tag }) => _tag),
        ["Created", "Existing", "Created"]
      )
    })

    test("leads from a key to the task that holds it", function* (on) {
      yield* on.create("a", { key: "k", payloadHash: "h" })
      assert.deepStrictEqual(yield* on.create("b", { key: "k", payloadHash: "h" }), {
        _tag: "Existing",
        id: "a",
        same: true,
        published: true
      })
      assert.isUndefined(yield* on.find("b"))
    })

    test("tells another payload under a key", function* (on) {
      yield* on.create("a", { key: "k", payloadHash: "h" })
      assert.deepStrictEqual(yield* on.create("b", { key: "k", payloadHash: "other" }), {
        _tag: "Existing",
        id: "a",
        same: false,
        published: true
      })
    })

    test("scopes keys by the task's name", function* (on) {
      yield* on.create("a", { key: "k", payloadHash: "h" })
      const other = yield* on.create("b", { task: "other", key: "k", payloadHash: "h" })
      assert.strictEqual(other._tag, "Created")
    })

    test("takes any text for a key", function* (on) {
      const keys = [`' " \\ ; -- %`, "🌶️", "K", "k", "k ", "k:1", "k*"]
      for (const [index, key] of keys.entries()) {
        const made = yield* on.create(`id-${index}`, { key, payloadHash: "h" })
        assert.strictEqual(made._tag, "Created", key)
      }
      for (const [index, key] of keys.entries()) {
        const again = yield* on.create("other", { key, payloadHash: "h" })
        assert.strictEqual(again._tag === "Existing" ? again.id : again._tag, `id-${index}`, key)
      }
    })

    test("leads to a task in any state", function* (on) {
      const again = Effect.map(on.create("b", { key: "k", payloadHash: "h" }), (created) => created._tag)
      yield* on.create("a", { key: "k", payloadHash: "h" })
      yield* on.run("a", "t1")
      assert.strictEqual(yield* again, "Existing")
      yield* on.end("a", "t1", retry())
      assert.strictEqual(yield* again, "Existing")
      yield* on.play("a", "t2", success())
      assert.strictEqual(yield* again, "Existing")
    })

    test("takes an id that is given again for the same task", function* (on) {
      yield* on.create("a", { payloadHash: "h" })
      assert.deepStrictEqual(yield* on.create("a", { payloadHash: "h" }), {
        _tag: "Existing",
        id: "a",
        same: true,
        published: true
      })
      for (const payloadHash of ["other", "h"]) {
        const again = yield* on.create("a", { payloadHash })
        assert(again._tag === "Existing")
        assert.strictEqual(again.same, payloadHash === "h")
      }
    })

    test("tells an id that another task has taken", function* (on) {
      yield* on.create("a", { payloadHash: "h" })
      const other = yield* on.create("a", { task: "other", payloadHash: "h" })
      assert(other._tag === "Existing")
      assert.strictEqual(other.id, "a")
      assert.isFalse(other.same)
      assert.strictEqual((yield* on.read("a")).task, "mail")
    })

    test("compares no hash that was not given", function* (on) {
      yield* on.create("a")
      const again = yield* on.create("a")
      assert(again._tag === "Existing")
      assert.isTrue(again.same)
    })

    test("is safe to repeat", function* (on) {
      const one = { key: "k", payloadHash: "h", published: false }
      yield* on.create("a", one)
      const before = yield* on.read("a")
      yield* on.time.pass(1)
      assert.deepStrictEqual(yield* on.create("a", one), {
        _tag: "Existing",
        id: "a",
        same: true,
        published: false
      })
      assert.deepStrictEqual(yield* on.read("a"), before)
    })

    test("applies one key twice in a batch in order", function* (on) {
      const one = { key: "k", payloadHash: "h" }
      const [first, second, third] = yield* on.driver.create([
        record("a", one),
        record("b", one),
        record("a", one)
      ])
      assert.strictEqual(first?._tag, "Created")
      assert(second?._tag === "Existing")
      assert.strictEqual(second.id, "a")
      assert(third?._tag === "Existing")
      assert.isUndefined(yield* on.find("b"))
    })

    test("gives a key to one of many that ask at once", function* (on) {
      const answers = yield* Effect.forEach(
        Arr.range(1, 50),
        (n) => on.create(`id-${n}`, { key: "k", payloadHash: "h" }),
        { concurrency: "unbounded" }
      )
      assert.strictEqual(answers.filter(({ _tag }) => _tag === "Created").length, 1)
      const holder = `id-${answers.findIndex(({ _tag }) => _tag === "Created") + 1}`
      for (const answer of answers) if (answer._tag === "Existing") assert.strictEqual(answer.id, holder)
    })

    test("writes a large batch", function* (on) {
      const ids = Arr.map(Arr.range(1, 1000), (n) => `id-${n}`)
      const created = yield* on.driver.create(Arr.map(ids, (id) => record(id)))
      assert.isTrue(created.length === 1000 && created.every(({ _tag }) => _tag === "Created"))
      const found = yield* on.driver.read(ids)
      assert.deepStrictEqual(
        found.map((one) => one?.id),
        ids
      )
    })
  })

  describe("reservations", () => {
    test("a reservation is unpublished until it is marked", function* (on) {
      const again = Effect.map(on.create("a"), (created) => created._tag === "Existing" && created.published)
      yield* on.create("a", { published: false })
      assert.isFalse(yield* again)
      yield* on.driver.markPublished(["a"])
      assert.isTrue(yield* again)
    })

    test("marking is safe to repeat, and passes over what is not there", function* (on) {
      yield* on.create("a", { published: false })
      yield* on.driver.markPublished(["nobody", "a", "a"])
      yield* on.driver.markPublished(["a"])
      const again = yield* on.create("a")
      assert.isTrue(again._tag === "Existing" && again.published)
      assert.isUndefined(yield* on.find("nobody"))
    })

    test("a run proves that a reservation was published", function* (on) {
      yield* on.create("a", { published: false, retentionMillis: on.time.units(1) })
      yield* on.play("a", "t1", RELEASE, { retentionMillis: on.time.units(1) })
      const again = yield* on.create("a")
      assert.isTrue(again._tag === "Existing" && again.published)
      yield* on.time.pass(2)
      assert.strictEqual(yield* on.sweepAll, 0)
      assert.strictEqual((yield* on.read("a")).state, "PENDING")
    })

    test("the sweep removes a reservation that was not published for as long as its retention", function* (on) {
      const retentionMillis = on.time.units(1)
      yield* on.driver.create([
        record("a", { published: false, retentionMillis, key: "k" }),
        record("b", { published: false, retentionMillis }),
        record("c", { published: false, retentionMillis: on.time.long })
      ])
      yield* on.driver.markPublished(["b"])
      yield* on.time.pass(2)
      yield* on.sweepAll
      assert.isUndefined(yield* on.find("a"))
      assert.strictEqual((yield* on.create("d", { key: "k" }))._tag, "Created")
      assert.strictEqual((yield* on.read("b")).state, "PENDING")
      assert.strictEqual((yield* on.read("c")).state, "PENDING")
    })

    test("a reservation that ended before it was marked as published is kept no longer for that", function* (on) {
      yield* on.create("a", { published: false, retentionMillis: on.time.units(1) })
      assert.strictEqual(yield* on.cancel("a"), "Cancelled")
      yield* on.driver.markPublished(["a"])
      yield* on.time.pass(2)
      yield* on.sweepAll
      assert.isUndefined(yield* on.find("a"))
    })
  })
}
