/** Documents: small values, written by compare-and-set. */
import { assert, describe, type TestContext } from "@effect/vitest"
import { Array as Arr, Effect } from "effect"
import type { Documents, DocumentWrite } from "../../../BackendDriver.ts"
import * as Suite from "../Suite.ts"
import type { Fixture, Test } from "./fixture.ts"

const NO_DOCUMENTS = "the driver keeps no documents"

/** Makes a write of the document `a` with version and value. */
const write = (version: string, value: string | undefined, more?: Partial<DocumentWrite>): DocumentWrite => ({
  kind: "pause",
  key: "a",
  expected: undefined,
  version,
  value,
  ...more
})

/** Makes the operations of one document, and of many of its kind. */
const operations = ({ get, list, write: writeAll }: Documents) => ({
  get,
  list,
  writeAll,
  write: (one: DocumentWrite) => Suite.only(writeAll([one])),
  read: (key = "a", kind = "pause") => Suite.only(get([{ kind, key }])),
  keys: (limit = 32, after?: string, prefix?: string) =>
    Effect.map(list({ kind: "pause", limit, after, prefix }), (found) => found.map(({ key }) => key))
})

/** Registers the tests. */
export const documents = (test: Test): void => {
  const testDocuments = (
    title: string,
    body: (
      d: ReturnType<typeof operations>,
      t: Fixture,
      context: TestContext
    ) => Effect.fn.Return<void, unknown>
  ) =>
    test(title, function* (t, context) {
      if (t.driver.documents === undefined) return yield* Suite.skip(context, NO_DOCUMENTS)
      yield* body(operations(t.driver.documents), t, context)
    })

  describe("documents", () => {
    testDocuments("a document is read as it was written", function* (d) {
      assert.isUndefined(yield* d.read())
      assert.isTrue(yield* d.write(write("v1", `{"by":"é 😀"}`)))
      assert.deepStrictEqual(yield* d.read(), {
        kind: "pause",
        key: "a",
        version: "v1",
        value: `{"by":"é 😀"}`
      })
    })

    testDocuments("a write replaces the version that it expects, and no other", function* (d) {
      yield* d.write(write("v1", "1"))
      assert.isTrue(yield* d.write(write("v2", "2", { expected: "v1" })))
      assert.isFalse(yield* d.write(write("v3", "3", { expected: "v1" })))
      assert.isFalse(yield* d.write(write("v3", "3")))
      const found = yield* d.read()
      assert.deepStrictEqual([found?.version, found?.value], ["v2", "2"])
    })

    testDocuments("a write that expects a version creates no document", function* (d) {
      assert.isFalse(yield* d.write(write("v2", "2", { expected: "v1" })))
      assert.isUndefined(yield* d.read())
    })

    testDocuments("a repeated write answers the same, and not once another has followed", function* (d) {
      const first = write("v1", "1")
      assert.isTrue(yield* d.write(first))
      assert.isTrue(yield* d.write(first))
      const second = write("v2", "2", { expected: "v1" })
      assert.isTrue(yield* d.write(second))
      assert.isTrue(yield* d.write(second))
      assert.isFalse(yield* d.write(first))
      assert.strictEqual((yield* d.read())?.value, "2")
    })

    testDocuments("a removal needs the version that is there, and is safe to repeat", function* (d) {
      yield* d.write(write("v1", "1"))
      assert.isFalse(yield* d.write(write("v2", undefined)))
      assert.isFalse(yield* d.write(write("v2", undefined, { expected: "v0" })))
      const removal = write("v2", undefined, { expected: "v1" })
      assert.isTrue(yield* d.write(removal))
      assert.isTrue(yield* d.write(removal))
      assert.isUndefined(yield* d.read())
      assert.deepStrictEqual(yield* d.keys(), [])
    })

    testDocuments("a version of a document that was removed is refused by its successor", function* (d) {
      yield* d.write(write("v1", "1"))
      yield* d.write(write("v2", undefined, { expected: "v1" }))
      assert.isTrue(yield* d.write(write("v3", "3")))
      assert.isFalse(yield* d.write(write("v4", "4", { expected: "v1" })))
      assert.isFalse(yield* d.write(write("v4", undefined, { expected: "v2" })))
      assert.strictEqual((yield* d.read())?.value, "3")
    })

    testDocuments("a batch is answered in order, and writes of one key are applied in order", function* (d) {
      assert.deepStrictEqual(
        yield* d.writeAll([
          write("v1", "1"),
          write("v1", "b", { key: "b" }),
          write("v2", "2"),
          write("v3", "3", { expected: "v1" })
        ]),
        [true, true, false, true]
      )
      const found = yield* d.get([
        { kind: "pause", key: "b" },
        { kind: "pause", key: "nothing" },
        { kind: "pause", key: "a" },
        { kind: "pause", key: "b" }
      ])
      assert.deepStrictEqual(
        found.map((one) => one?.value),
        ["b", undefined, "3", "b"]
      )
    })

    testDocuments("kinds are apart", function* (d) {
      yield* d.write(write("v1", "of a pause"))
      yield* d.write(write("v1", "of a contract", { kind: "contract" }))
      assert.strictEqual((yield* d.read("a", "contract"))?.value, "of a contract")
      assert.strictEqual((yield* d.read())?.value, "of a pause")
      assert.deepStrictEqual(
        (yield* d.list({ kind: "contract", limit: 32 })).map(({ value }) => value),
        ["of a contract"]
      )
      assert.deepStrictEqual(yield* d.list({ kind: "nothing", limit: 32 }), [])
    })

    testDocuments("are listed page by page, in the order of the bytes of their keys", function* (d) {
      // U+FFFD sorts before U+1F600 by bytes, and after it by UTF-16 units
      const ordered = [" ", "%", "A", "B", "a", "a ", "a:b", "b", "é", "\ufffd", "😀"]
      for (const key of ordered.toReversed()) yield* d.write(write("v1", key, { key }))
      assert.deepStrictEqual(yield* d.keys(), ordered)
      assert.deepStrictEqual(yield* d.keys(4), ordered.slice(0, 4))
      assert.deepStrictEqual(yield* d.keys(4, ordered[3]), ordered.slice(4, 8))
      assert.deepStrictEqual(yield* d.keys(4, ordered[7]), ordered.slice(8))
      assert.deepStrictEqual(yield* d.keys(4, ordered.at(-1)), [])
    })

    testDocuments("are listed by the prefix of their keys, which has no wildcards", function* (d) {
      const keys = ["%", "%a", "A:1", "[a", "_", "a", "a:", "a:1", "a:2", "a:é", "a;", "ab", "😀", "😀a"]
      for (const key of keys) yield* d.write(write("v1", key, { key }))
      const of = (prefix: string, after?: string, limit = 32) => d.keys(limit, after, prefix)
      assert.deepStrictEqual(yield* of(""), keys)
      assert.deepStrictEqual(yield* of("a:"), ["a:", "a:1", "a:2", "a:é"])
      assert.deepStrictEqual(yield* of("a:", undefined, 3), ["a:", "a:1", "a:2"])
      assert.deepStrictEqual(yield* of("a:", "a:2", 3), ["a:é"])
      assert.deepStrictEqual(yield* of("a:", "a:é"), [])
      assert.deepStrictEqual(yield* of("%"), ["%", "%a"])
      assert.deepStrictEqual(yield* of("_"), ["_"])
      assert.deepStrictEqual(yield* of("["), ["[a"])
      assert.deepStrictEqual(yield* of("😀"), ["😀", "😀a"])
      assert.deepStrictEqual(yield* of("z"), [])
    })

    testDocuments("keys that are alike are apart", function* (d) {
      const signs = Array.from(" +-([]{}*?'\"\\/$:\n\t\u0001\u007f")
      const keys = [
        "a",
        "A",
        "a ",
        " a",
        "a\n",
        "ss",
        "ß",
        "\u00e9",
        "e\u0301",
        "ﬁ",
        "fi",
        "{a}:b",
        "__proto__",
        ...signs
      ]
      const written = yield* Effect.forEach(keys, (key) => d.write(write("v1", `of ${key}`, { key })))
      assert.isTrue(written.every(Boolean))
      for (const key of keys)
        assert.strictEqual((yield* d.read(key))?.value, `of ${key}`, JSON.stringify(key))
    })

    testDocuments("a value may be empty", function* (d) {
      assert.isTrue(yield* d.write(write("v1", "")))
      assert.strictEqual((yield* d.read())?.value, "")
      assert.isFalse(yield* d.write(write("v2", "2")))
      assert.isTrue(yield* d.write(write("v2", "2", { expected: "v1" })))
    })

    testDocuments("keys and values may be as long as allowed", function* (d) {
      const keys: Arr.NonEmptyReadonlyArray<string> = ["k".repeat(255), "é".repeat(255), "😀".repeat(127)]
      const value = "é".repeat(32 * 1024)
      for (const key of keys) assert.isTrue(yield* d.write(write("v".repeat(36), value, { key })))
      const found = yield* d.get(Arr.map(keys, (key) => ({ kind: "pause", key })))
      for (const one of found) assert.strictEqual(one?.value, value)
    })

    testDocuments("a call and a page have as many documents of the largest size as allowed", function* (d) {
      const value = "x".repeat(64 * 1024)
      const keys = Arr.map(Arr.range(10, 41), (n) => `${n}`)
      const written = yield* d.writeAll(Arr.map(keys, (key) => write("v1", value, { key })))
      assert.deepStrictEqual(
        written,
        Arr.map(keys, () => true)
      )
      const found = yield* d.get(Arr.map(keys, (key) => ({ kind: "pause", key })))
      assert.isTrue(found.every((one) => one?.value === value))
      const listed = yield* d.list({ kind: "pause", limit: 32 })
      assert.deepStrictEqual(listed, found)
    })

    testDocuments("of many writers at once one writes a version", function* (d) {
      yield* d.write(write("v1", "1"))
      const written = yield* Effect.forEach(
        Arr.range(1, 20),
        (n) => d.write(write(`of-${n}`, `${n}`, { expected: "v1" })),
        { concurrency: "unbounded" }
      )
      assert.strictEqual(written.filter(Boolean).length, 1)
      assert.strictEqual((yield* d.read())?.value, `${written.indexOf(true) + 1}`)
    })

    testDocuments(
      "no increment is lost of many at once that are tried until they are written",
      function* (d) {
        const increment = Effect.fnUntraced(function* (n: number): Effect.fn.Return<void, unknown> {
          for (let attempt = 1; ; attempt++) {
            const found = yield* d.read()
            const value = `${Number(found?.value ?? 0) + 1}`
            const version = `${n}-${attempt}`
            if (yield* d.write(write(version, value, { expected: found?.version }))) return
          }
        })
        yield* Effect.forEach(Arr.range(1, 20), increment, { concurrency: "unbounded" })
        assert.strictEqual((yield* d.read())?.value, "20")
      }
    )

    testDocuments("writes of the same keys in opposite orders at once all are answered", function* (d) {
      const keys = ["a", "b", "c", "d"] as const
      const written = yield* Effect.forEach(
        Arr.range(1, 12),
        (n) => {
          const ordered = n % 2 === 0 ? keys : (["d", "c", "b", "a"] as const)
          return d.writeAll(Arr.map(ordered, (key) => write(`of-${n}`, `${n}`, { key })))
        },
        { concurrency: "unbounded" }
      )
      assert.strictEqual(written.flat().filter(Boolean).length, keys.length)
    })

    testDocuments("of many creators at once one creates", function* (d) {
      const written = yield* Effect.forEach(Arr.range(1, 20), (n) => d.write(write(`of-${n}`, `${n}`)), {
        concurrency: "unbounded"
      })
      assert.strictEqual(written.filter(Boolean).length, 1)
      assert.strictEqual((yield* d.read())?.value, `${written.indexOf(true) + 1}`)
    })
  })
}
