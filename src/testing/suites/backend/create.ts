/** `create`: records, ids and keys. */
import { assert, describe } from "@effect/vitest"
import { Array as Arr, Effect } from "effect"
import { record, success, retry, type Test } from "./fixture.ts"

/** Registers the tests. */
export const create = (test: Test): void => {
  describe("create", () => {
    test("writes the record of a waiting task", function* (t) {
      assert.deepStrictEqual(yield* t.create("a"), { _tag: "Created" })
      const { dueAt: _, enqueuedAt, queue: _q, ...rest } = yield* t.read("a")
      assert.isNumber(enqueuedAt)
      assert.deepStrictEqual(rest, {
        id: "a",
        task: "mail",
        state: "PENDING",
        incarnation: "",
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

    test("writes the time at which the task expires", function* (t) {
      yield* t.create("a", { expiresMillis: t.time.long })
      const { enqueuedAt, expiresAt } = yield* t.read("a")
      assert(expiresAt !== null)
      assert.approximately(expiresAt - enqueuedAt, t.time.long, t.time.units(10))
    })

    test("answers a batch in order", function* (t) {
      yield* t.create("b")
      const created = yield* t.driver.create([record("a"), record("b"), record("c")])
      assert.deepStrictEqual(
        created.map(({ _tag }) => _tag),
        ["Created", "Existing", "Created"]
      )
    })

    test("returns the task that holds a key", function* (t) {
      yield* t.create("a", { key: "k", payloadHash: "h" })
      assert.deepStrictEqual(yield* t.create("b", { key: "k", payloadHash: "h" }), {
        _tag: "Existing",
        id: "a",
        incarnation: "",
        generation: 0,
        same: true,
        published: true
      })
      assert.isUndefined(yield* t.readOptional("b"))
    })

    test("returns a conflict for another payload under a key", function* (t) {
      yield* t.create("a", { key: "k", payloadHash: "h" })
      assert.deepStrictEqual(yield* t.create("b", { key: "k", payloadHash: "other" }), {
        _tag: "Existing",
        id: "a",
        incarnation: "",
        generation: 0,
        same: false,
        published: true
      })
    })

    test("scopes keys by the task's name", function* (t) {
      yield* t.create("a", { key: "k", payloadHash: "h" })
      const other = yield* t.create("b", { task: "other", key: "k", payloadHash: "h" })
      assert.strictEqual(other._tag, "Created")
    })

    test("accepts any text as a key", function* (t) {
      const keys = [`' " \\ ; -- %`, "🌶️", "K", "k", "k ", "k:1", "k*"]
      for (const [index, key] of keys.entries()) {
        const made = yield* t.create(`id-${index}`, { key, payloadHash: "h" })
        assert.strictEqual(made._tag, "Created", key)
      }
      for (const [index, key] of keys.entries()) {
        const again = yield* t.create("other", { key, payloadHash: "h" })
        assert.strictEqual(again._tag === "Existing" ? again.id : again._tag, `id-${index}`, key)
      }
    })

    test("returns the task of a key in any state", function* (t) {
      const again = Effect.map(t.create("b", { key: "k", payloadHash: "h" }), (created) => created._tag)
      yield* t.create("a", { key: "k", payloadHash: "h" })
      yield* t.startRun("a", "t1")
      assert.strictEqual(yield* again, "Existing")
      yield* t.settleRun("a", "t1", retry())
      assert.strictEqual(yield* again, "Existing")
      yield* t.startAndSettle("a", "t2", success())
      assert.strictEqual(yield* again, "Existing")
    })

    test("accepts an id that is given again for the same task", function* (t) {
      yield* t.create("a", { payloadHash: "h" })
      assert.deepStrictEqual(yield* t.create("a", { payloadHash: "h" }), {
        _tag: "Existing",
        id: "a",
        incarnation: "",
        generation: 0,
        same: true,
        published: true
      })
      for (const payloadHash of ["other", "h"]) {
        const again = yield* t.create("a", { payloadHash })
        assert(again._tag === "Existing")
        assert.strictEqual(again.same, payloadHash === "h")
      }
    })

    test("returns a conflict for an id that another task has taken", function* (t) {
      yield* t.create("a", { payloadHash: "h" })
      const other = yield* t.create("a", { task: "other", payloadHash: "h" })
      assert(other._tag === "Existing")
      assert.strictEqual(other.id, "a")
      assert.isFalse(other.same)
      assert.strictEqual((yield* t.read("a")).task, "mail")
    })

    test("compares no payload hash where none was given", function* (t) {
      yield* t.create("a")
      const again = yield* t.create("a")
      assert(again._tag === "Existing")
      assert.isTrue(again.same)
    })

    test("is safe to repeat", function* (t) {
      const one = { key: "k", payloadHash: "h", reservedMillis: t.time.long }
      yield* t.create("a", one)
      const before = yield* t.read("a")
      yield* t.time.pass(1)
      assert.deepStrictEqual(yield* t.create("a", one), {
        _tag: "Existing",
        id: "a",
        incarnation: "",
        generation: 0,
        same: true,
        published: false
      })
      assert.deepStrictEqual(yield* t.read("a"), before)
    })

    test("applies repeated keys in a batch in order", function* (t) {
      const one = { key: "k", payloadHash: "h" }
      const [first, second, third] = yield* t.driver.create([
        record("a", one),
        record("b", one),
        record("a", one)
      ])
      assert.strictEqual(first?._tag, "Created")
      assert(second?._tag === "Existing")
      assert.strictEqual(second.id, "a")
      assert(third?._tag === "Existing")
      assert.isUndefined(yield* t.readOptional("b"))
    })

    test("gives a key to one of many concurrent callers", function* (t) {
      const answers = yield* Effect.forEach(
        Arr.range(1, 50),
        (n) => t.create(`id-${n}`, { key: "k", payloadHash: "h" }),
        { concurrency: "unbounded" }
      )
      assert.strictEqual(answers.filter(({ _tag }) => _tag === "Created").length, 1)
      const holder = `id-${answers.findIndex(({ _tag }) => _tag === "Created") + 1}`
      for (const answer of answers) if (answer._tag === "Existing") assert.strictEqual(answer.id, holder)
    })

    test("writes a large batch", function* (t) {
      const ids = Arr.map(Arr.range(1, 1000), (n) => `id-${n}`)
      const created = yield* t.driver.create(Arr.map(ids, (id) => record(id)))
      assert.isTrue(created.length === 1000 && created.every(({ _tag }) => _tag === "Created"))
      const found = yield* t.driver.read(ids)
      assert.deepStrictEqual(
        found.map((one) => one?.id),
        ids
      )
    })
  })
}
