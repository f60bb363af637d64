/** Documents on a server whose memory is full, and documents that other programs have written. */
import { assert } from "@effect/vitest"
import { RedisStore } from "chicory/redis"
import { Effect } from "effect"
import { describeWithServers, type Server } from "./server.ts"
import { clientOf, testWithServer as test } from "./storeFixture.ts"

const KIB = 1024
const base = "{t:0}"

const documentsOf = Effect.fnUntraced(function* ({ url }: Server) {
  const client = yield* clientOf(url)
  const { backend } = yield* Effect.provideContext(RedisStore.makeDrivers({ prefix: "t", shards: 3 }), client)
  assert(backend.documents !== undefined)
  return backend.documents
})

const place = (key: string) => ({ kind: "pause", key })

describeWithServers("documents on Redis", () => {
  test("are written and removed while the memory is full, and what they add is counted", {}, (server) =>
    Effect.gen(function* () {
      const { write } = yield* documentsOf(server)
      const overrun = Effect.map(server.command("GET", `${base}:overrun`), Number)
      const a = place("a")
      yield* server.command("CONFIG", "SET", "maxmemory", "1")
      const value = "x".repeat(64 * KIB)
      assert.deepStrictEqual(yield* write([{ ...a, expected: undefined, version: "v1", value }]), [true])
      assert.approximately(yield* overrun, 64 * KIB, 500)
      for (const [version, expected] of [
        ["v2", "v1"],
        ["v3", "v2"]
      ] as const) {
        assert.deepStrictEqual(yield* write([{ ...a, expected, version, value }]), [true])
      }
      assert.approximately(yield* overrun, 64 * KIB, 500)
      assert.deepStrictEqual(yield* write([{ ...a, expected: "v3", version: "v4", value: undefined }]), [
        true
      ])
      assert.approximately(yield* overrun, 0, 500)
    })
  )

  test(
    "a text that is no document fails its readers with an error that names it, and no others",
    {},
    (server) =>
      Effect.gen(function* () {
        const { get, list, write } = yield* documentsOf(server)
        for (const key of ["a", "b", "c"]) {
          yield* write([{ ...place(key), expected: undefined, version: "v1", value: key }])
        }
        yield* server.command("HSET", `${base}:documents:pause`, "b", "nonsense")
        const message = `the key ${base}:documents:pause is corrupt: b holds`
        assert.include(String(yield* Effect.flip(get([place("b")]))), message)
        assert.include(String(yield* Effect.flip(list({ kind: "pause", limit: 32 }))), message)
        assert.strictEqual((yield* get([place("c")]))[0]?.value, "c")
        assert.strictEqual((yield* list({ kind: "pause", limit: 32, after: "b" })).length, 1)
        // a key whose text is gone is passed over, and created anew
        yield* server.command("HDEL", `${base}:documents:pause`, "b")
        assert.deepStrictEqual(
          (yield* list({ kind: "pause", limit: 32 })).map(({ key }) => key),
          ["a", "c"]
        )
        const again = { ...place("b"), expected: undefined, version: "v2", value: "new" }
        assert.deepStrictEqual(yield* write([again]), [true])
        assert.strictEqual((yield* list({ kind: "pause", limit: 32 })).length, 3)
      })
  )

  test("never expire, and lie in two keys of the first shard for each kind", {}, (server) =>
    Effect.gen(function* () {
      const { write } = yield* documentsOf(server)
      for (const key of ["a", "b", "c", "d"]) {
        yield* write([{ ...place(key), expected: undefined, version: "v1", value: key }])
      }
      const keys = (yield* server.command("KEYS", "*:documents*")) as ReadonlyArray<string>
      assert.deepStrictEqual(keys.toSorted(), [`${base}:documents-order:pause`, `${base}:documents:pause`])
      for (const key of keys) assert.strictEqual(yield* server.command("PTTL", key), -1)
      for (const key of ["a", "b", "c", "d"]) {
        yield* write([{ ...place(key), expected: "v1", version: "v2", value: undefined }])
      }
      assert.deepStrictEqual(yield* server.command("KEYS", "*:documents*"), [])
    })
  )
})
