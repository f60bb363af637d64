/** What docs/payloads.md says of values that JSON changes. */
import { assert, describe, it } from "@effect/vitest"
import { BigDecimal, Duration, Effect, HashMap, Option, Schema } from "effect"
import { stringify } from "../src/internal/json.ts"
import * as TaskCodec from "../src/internal/task/TaskCodec.ts"

/** Sends a value as a payload, and returns what arrives. */
const arrived = Effect.fnUntraced(function* <S extends Schema.Codec<unknown, unknown>>(
  schema: S,
  value: S["~type.make.in"]
) {
  const codec = TaskCodec.payload(schema)
  const { json } = yield* codec.encode(value)
  return yield* codec.decode(JSON.parse(yield* stringify(json)))
})

const assertArrives = Effect.fnUntraced(function* <S extends Schema.Codec<unknown, unknown>>(
  schema: S,
  sent: S["~type.make.in"],
  expected: unknown
) {
  const received = yield* arrived(schema, sent)
  assert.deepStrictEqual(received, expected)
})

class Point extends Schema.Class<Point>("Point")({ x: Schema.Number, y: Schema.optional(Schema.Number) }) {}

describe("a payload", () => {
  it.effect("arrives as it was sent", () =>
    Effect.gen(function* () {
      yield* assertArrives(Point, new Point({ x: 1 }), new Point({ x: 1 }))
      yield* assertArrives(
        Schema.Struct({ a: Schema.optional(Schema.Number) }),
        { a: undefined },
        { a: undefined }
      )
      const number = Schema.Number
      for (const value of [Number.NaN, Number.NEGATIVE_INFINITY, 1e21, 5e-324]) {
        yield* assertArrives(number, value, value)
      }
      yield* assertArrives(Schema.BigInt, 12n, 12n)
      yield* assertArrives(Schema.Date, new Date(0), new Date(0))
      yield* assertArrives(Schema.ReadonlySet(number), new Set([2, 1]), new Set([2, 1]))
      yield* assertArrives(Schema.ReadonlyMap(number, number), new Map([[2, 1]]), new Map([[2, 1]]))
      assert.isTrue(
        Option.contains(
          Option.fromUndefinedOr(yield* arrived(Schema.Option(number), Option.some(1))),
          Option.some(1)
        )
      )
      const sizes = HashMap.make(["a", 1])
      assert.isTrue(HashMap.has(yield* arrived(Schema.HashMap(Schema.String, number), sizes), "a"))
      assert.isTrue(Duration.equals(yield* arrived(Schema.Duration, Duration.nanos(1n)), Duration.nanos(1n)))
    })
  )

  it.effect("is null for undefined where null is allowed too", () =>
    Effect.gen(function* () {
      const optional = Schema.Struct({ a: Schema.optional(Schema.NullOr(Schema.Number)) })
      yield* assertArrives(optional, { a: undefined }, { a: null })
      yield* assertArrives(optional, {}, {})
      const nullish = Schema.Struct({ a: Schema.NullishOr(Schema.Number) })
      yield* assertArrives(nullish, { a: undefined }, { a: null })
    })
  )

  it.effect("is the other member of a union that is written as a text", () =>
    Effect.gen(function* () {
      const { BigInt, Date: DateSchema, Number: NumberSchema, String: Text } = Schema
      for (const either of [Schema.Union([BigInt, Text]), Schema.Union([Text, BigInt])]) {
        yield* assertArrives(either, "12", 12n)
        yield* assertArrives(either, "x", "x")
      }
      const epoch = "1970-01-01T00:00:00.000Z"
      yield* assertArrives(Schema.Union([DateSchema, Text]), epoch, new Date(0))
      yield* assertArrives(Schema.Union([DateSchema, Text]), "x", "x")
      yield* assertArrives(Schema.Union([Text, DateSchema]), epoch, epoch)
      yield* assertArrives(Schema.Union([NumberSchema, Text]), "Infinity", Number.POSITIVE_INFINITY)
      yield* assertArrives(Schema.Union([NumberSchema, Text]), "1", "1")
      yield* assertArrives(Schema.Union([Text, NumberSchema]), "Infinity", "Infinity")
    })
  )

  it.effect("is kept by members with tags, and by an optional key", () =>
    Effect.gen(function* () {
      const tagged = Schema.Union([
        Schema.TaggedStruct("Number", { value: Schema.BigInt }),
        Schema.TaggedStruct("Text", { value: Schema.String })
      ])
      yield* assertArrives(tagged, { _tag: "Text", value: "12" }, { _tag: "Text", value: "12" })
      const note = Schema.Struct({ note: Schema.optionalKey(Schema.NullOr(Schema.String)) })
      yield* assertArrives(note, {}, {})
      yield* assertArrives(note, { note: null }, { note: null })
    })
  )

  it.effect("has no negative zero, no excess field, and no trailing zeros of a decimal", () =>
    Effect.gen(function* () {
      yield* assertArrives(Schema.Number, -0, 0)
      const sent = { a: 1, b: 2 }
      yield* assertArrives(Schema.Struct({ a: Schema.Number }), sent, { a: 1 })
      const decimal = yield* arrived(Schema.BigDecimal, BigDecimal.fromStringUnsafe("1.10"))
      assert.strictEqual(decimal.scale, 1)
      assert.isTrue(BigDecimal.equals(decimal, BigDecimal.fromStringUnsafe("1.10")))
    })
  )

  it.effect("is a date's text for any value, and refused for an unknown one", () =>
    Effect.gen(function* () {
      yield* assertArrives(Schema.Any, new Date(0), "1970-01-01T00:00:00.000Z")
      const error = yield* Effect.flip(arrived(Schema.Unknown, { at: new Date(0) }))
      assert.strictEqual(error._tag, "SchemaError")
    })
  )
})
