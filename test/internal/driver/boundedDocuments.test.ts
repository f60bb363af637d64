import { assert, it } from "@effect/vitest"
import { Backend } from "chicory"
import type { Documents, DocumentWrite } from "chicory/driver"
import { Array as Arr, Effect } from "effect"

/** Makes the documents of a facade over a store in memory, and counts the items of each call of its driver. */
const make = Effect.gen(function* () {
  const calls: Array<number> = []
  const driver = yield* Backend.makeDriverMemory
  const { documents } = driver
  assert(documents !== undefined)
  const counted: Documents<never> = {
    get: (keys) =>
      Effect.andThen(
        Effect.sync(() => calls.push(keys.length)),
        documents.get(keys)
      ),
    write: (writes) =>
      Effect.andThen(
        Effect.sync(() => calls.push(writes.length)),
        documents.write(writes)
      ),
    list: (query) =>
      Effect.andThen(
        Effect.sync(() => calls.push(query.limit)),
        documents.list(query)
      )
  }
  const backend = yield* Backend.make({ ...driver, documents: counted })
  assert(backend.documents !== undefined)
  return { calls, documents: backend.documents }
})

const valid: DocumentWrite = { kind: "pause", key: "a", version: "v1", expected: undefined, value: "1" }
const KIB = 1024

const refused: ReadonlyArray<readonly [what: string, write: Partial<DocumentWrite>, message: RegExp]> = [
  ["an empty kind", { kind: "" }, /The kind of a document must be 1 to 32 of a to z and -, but is ""/],
  ["a kind with a capital", { kind: "Pause" }, /kind/],
  ["a long kind", { kind: "k".repeat(33) }, /kind/],
  ["an empty key", { key: "" }, /The key of a document must be a text of 1 to 255 characters/],
  ["a long key", { key: "k".repeat(256) }, /key/],
  ["a key with a lone surrogate", { key: "\ud800" }, /key/],
  ["a key with a NUL", { key: "a\0" }, /The key of a document must be a text without NUL/],
  ["an empty version", { version: "" }, /The version of a document must be 1 to 36 visible ASCII/],
  ["a version with a space", { version: "1 2" }, /version/],
  ["a long version", { version: "v".repeat(37) }, /version/],
  ["an invalid expected version", { expected: "" }, /version/],
  [
    "a version that replaces itself",
    { expected: "v1" },
    /The version v1 of the document a is the one that it replaces/
  ],
  [
    "a large value",
    { value: "x".repeat(64 * KIB + 1) },
    /The value of the document a has 65537 bytes, and may/
  ],
  ["a value that is large in UTF-8", { value: "é".repeat(32 * KIB + 1) }, /has 65538 bytes/],
  ["a value with a NUL", { value: "\0" }, /NUL/],
  ["a value with a lone surrogate", { value: "\udc00" }, /lone surrogate/]
]

for (const [what, write, message] of refused) {
  it.effect(`${what} does not reach the driver`, () =>
    Effect.gen(function* () {
      const { calls, documents } = yield* make
      const error = yield* Effect.flip(documents.write([valid, { ...valid, ...write }]))
      assert.strictEqual(error._tag, "BackendError")
      assert(error._tag === "BackendError")
      assert.isFalse(error.retryable)
      assert.strictEqual(error.operation, "memory backend: documents.write")
      assert.match(error.message, message)
      assert.isBelow(error.message.length, 500)
      assert.deepStrictEqual(calls, [])
    })
  )
}

it.effect("keys and pages out of bounds do not reach the driver", () =>
  Effect.gen(function* () {
    const { calls, documents } = yield* make
    const pages = [
      { kind: "Pause", limit: 1 },
      { kind: "pause", limit: 0 },
      { kind: "pause", limit: 33 },
      { kind: "pause", limit: 1, after: "" },
      { kind: "pause", limit: 1, prefix: "\0" }
    ]
    for (const page of pages) {
      const error = yield* Effect.flip(documents.list(page))
      assert.isTrue(error._tag === "BackendError" && !error.retryable)
    }
    const error = yield* Effect.flip(documents.get([{ kind: "pause", key: "" }]))
    assert.isTrue(error._tag === "BackendError" && !error.retryable)
    assert.deepStrictEqual(calls, [])
    assert.deepStrictEqual(yield* documents.list({ kind: "pause", limit: 32, prefix: "" }), [])
  })
)

it.effect("values and keys at their bounds are written", () =>
  Effect.gen(function* () {
    const { documents } = yield* make
    const largest = {
      kind: "k".repeat(32),
      key: "é".repeat(255),
      version: "~".repeat(36),
      value: "é".repeat(32 * KIB)
    }
    assert.deepStrictEqual(yield* documents.write([{ ...largest, expected: undefined }]), [true])
    assert.deepStrictEqual(yield* documents.get([largest]), [largest])
  })
)

it.effect("calls with more than 32 keys or writes are split, and answered in order", () =>
  Effect.gen(function* () {
    const { calls, documents } = yield* make
    const keys = Arr.map(Arr.range(1, 70), (n) => `${n}`)
    const writes = Arr.map(keys, (key) => ({ ...valid, key, value: key }))
    assert.isTrue((yield* documents.write(writes)).every(Boolean))
    const found = yield* documents.get(writes)
    assert.deepStrictEqual(
      found.map((one) => one?.value),
      keys
    )
    assert.deepStrictEqual(calls, [32, 32, 6, 32, 32, 6])
  })
)
