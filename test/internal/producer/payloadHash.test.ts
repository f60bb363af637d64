import { assert, describe, it } from "@effect/vitest"
import { Chunk, Effect, Hash, HashMap, HashSet, Option, Schema } from "effect"
import { payloadHash } from "../../../src/internal/producer/payloadHash.ts"
import * as TaskCodec from "../../../src/internal/task/TaskCodec.ts"

/** Hashes the payloads of a task. */
const hashesOf = <S extends Schema.Codec<unknown, unknown>>(
  schema: S,
  payloads: ReadonlyArray<S["~type.make.in"]>
): ReadonlyArray<string> => {
  const codec = TaskCodec.payload(schema)
  return payloads.map((payload) => {
    const { json, value } = Effect.runSync(codec.encode(payload))
    return payloadHash(value, json)
  })
}

const assertSame = <S extends Schema.Codec<unknown, unknown>>(
  schema: S,
  ...payloads: ReadonlyArray<S["~type.make.in"]>
) => assert.strictEqual(new Set(hashesOf(schema, payloads)).size, 1)

const assertDifferent = <S extends Schema.Codec<unknown, unknown>>(
  schema: S,
  ...payloads: ReadonlyArray<S["~type.make.in"]>
) => assert.strictEqual(new Set(hashesOf(schema, payloads)).size, payloads.length)

class Point extends Schema.Class<Point>("Point")({ x: Schema.Number, y: Schema.optional(Schema.Number) }) {}

describe("the hash of a payload", () => {
  it("is the same whatever the order of an object's keys", () => {
    const Labels = Schema.Record(Schema.String, Schema.Number)
    assertSame(Labels, { red: 1, blue: 2, 10: 3, 9: 4 }, { 9: 4, blue: 2, 10: 3, red: 1 })
    assertSame(Schema.Array(Labels), [{ a: 1, b: 2 }], [{ b: 2, a: 1 }])
    assertSame(Schema.Json, { a: { b: [1, { c: 2, d: 3 }] }, e: 4 }, { e: 4, a: { b: [1, { d: 3, c: 2 }] } })
    assertSame(Schema.Struct({ a: Schema.Number, b: Schema.Number }), { a: 1, b: 2 }, { b: 2, a: 1 })
  })

  it("tells other keys and values apart", () => {
    const Labels = Schema.Record(Schema.String, Schema.Json)
    const proto: Record<string, number> = JSON.parse('{"__proto__":1}')
    assertDifferent(
      Labels,
      {},
      proto,
      { a: 1 },
      { a: "1" },
      { b: 1 },
      { a: null },
      { a: [1] },
      { a: { 0: 1 } }
    )
  })

  it("depends on the order of an array", () => {
    assertDifferent(Schema.Array(Schema.Number), [1, 2], [2, 1], [1], [])
    assertDifferent(Schema.Chunk(Schema.Number), Chunk.make(1, 2), Chunk.make(2, 1))
  })

  it("is the same for a field that is undefined and one that is absent", () => {
    assertSame(Point, { x: 1 }, { x: 1, y: undefined }, new Point({ x: 1 }))
    const Nested = Schema.Struct({ points: Schema.Array(Point), by: Schema.Record(Schema.String, Point) })
    assertSame(
      Nested,
      { points: [{ x: 1 }], by: { a: { x: 2, y: undefined } } },
      { points: [{ x: 1, y: undefined }], by: { a: { x: 2 } } }
    )
  })

  it("tells null and an absent field apart", () => {
    const Patch = Schema.Struct({ email: Schema.optional(Schema.NullOr(Schema.String)) })
    assertDifferent(Patch, {}, { email: null })
    assertSame(Patch, {}, { email: undefined })
  })

  it("is the same for equal sets and maps", () => {
    assertSame(Schema.ReadonlySet(Schema.String), new Set(["a", "b", "c"]), new Set(["c", "b", "a"]))
    assertDifferent(
      Schema.ReadonlySet(Schema.String),
      new Set(["a", "b"]),
      new Set(["a", "c"]),
      new Set(["a"])
    )
    const Tags = Schema.ReadonlyMap(Schema.String, Schema.Record(Schema.String, Schema.Number))
    assertSame(
      Tags,
      new Map([
        ["a", { x: 1, y: 2 }],
        ["b", {}]
      ]),
      new Map([
        ["b", {}],
        ["a", { y: 2, x: 1 }]
      ])
    )
    const Nested = Schema.Struct({ tags: Schema.Option(Schema.ReadonlySet(Schema.Number)) })
    assertSame(Nested, { tags: Option.some(new Set([1, 2])) }, { tags: Option.some(new Set([2, 1])) })
  })

  it("tells a set from the texts of its items", () => {
    const NumbersOrTexts = Schema.Union([Schema.ReadonlySet(Schema.Number), Schema.Array(Schema.String)])
    assertDifferent(NumbersOrTexts, new Set([1, 2]), ["1", "2"])
    const Sets = Schema.ReadonlySet(Schema.Union([Schema.Number, Schema.String]))
    assertDifferent(Sets, new Set([1, 2]), new Set([1, "2"]), new Set(["1", "2"]))
    assertSame(Sets, new Set([1, "1", "2"]), new Set(["2", "1", 1]))
    const Nested = Schema.ReadonlySet(Schema.ReadonlySet(Schema.Number))
    assertSame(Nested, new Set([new Set([1, 2]), new Set([3])]), new Set([new Set([3]), new Set([2, 1])]))
  })

  it("is the same for equal hash sets and maps, also where the hashes of their keys collide", () => {
    assert.strictEqual(Hash.string("fF"), Hash.string("AA"))
    const Sizes = Schema.HashMap(Schema.String, Schema.Number)
    const [first, second] = [HashMap.make(["fF", 1], ["AA", 2]), HashMap.make(["AA", 2], ["fF", 1])]
    assert.notDeepEqual(Array.from(first), Array.from(second))
    assertSame(Sizes, first, second)
    const Names = Schema.HashSet(Schema.String)
    assertSame(Names, HashSet.make("fF", "AA"), HashSet.make("AA", "fF"))
  })

  it("is the same for equal numbers", () => {
    assertSame(Schema.Number, 0, -0)
    assertSame(Schema.Number, 1e21, 1_000_000_000_000_000_000_000)
    assertDifferent(
      Schema.Number,
      1e21,
      1e22,
      0.1,
      0.1 + Number.EPSILON,
      Number.NaN,
      Number.POSITIVE_INFINITY
    )
  })
})
