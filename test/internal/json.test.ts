import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit } from "effect"
import { MAX_DEPTH, parse, stringify } from "../../src/internal/json.ts"

describe("JSON", () => {
  for (const json of [null, 0, "", "\ud800", [], { a: [1, { b: null }] }]) {
    it(`${JSON.stringify(json)} round-trips`, () =>
      assert.deepStrictEqual(Effect.runSync(Effect.flatMap(stringify(json), parse)), json))
  }

  it("undefined is written as null", () => assert.deepStrictEqual(stringify(undefined), Exit.succeed("null")))

  const nested = (levels: number, inner = "") => `${"[".repeat(levels)}${inner}${"]".repeat(levels)}`
  /** Brackets inside a string do not count as nesting. */
  const quoted = JSON.stringify(`"\\"${"[{".repeat(2 * MAX_DEPTH)}\\`)

  it.effect("values nested to the maximum depth are read and written", () =>
    Effect.gen(function* () {
      for (const text of [
        nested(MAX_DEPTH),
        nested(MAX_DEPTH, quoted),
        `[${quoted},${nested(MAX_DEPTH - 1)}]`
      ]) {
        assert.strictEqual(yield* Effect.flatMap(parse(text), stringify), text)
      }
    })
  )

  it.effect("an envelope around a value of the maximum depth is read", () =>
    Effect.asVoid(parse(`{"payload":${nested(MAX_DEPTH)}}`))
  )

  it.effect("values nested deeper are neither written nor read", () =>
    Effect.gen(function* () {
      const deep = nested(MAX_DEPTH + 1, quoted)
      assert.include(
        (yield* Effect.flip(stringify(JSON.parse(deep)))).message,
        "Expected at most 1000 levels of nesting"
      )
      for (const text of [nested(100_000), "[".repeat(100_000), `{"a":`.repeat(100_000)]) {
        assert.include((yield* Effect.flip(parse(text))).message, "Expected at most 1000 levels of nesting")
      }
    })
  )

  for (const none of ["", "{", "[1,]", undefined, null, 7, Uint8Array.of(91, 93)]) {
    it.effect(`${String(none)} is rejected`, () =>
      Effect.map(Effect.flip(parse(none)), ({ message }) => assert.match(message, /^Expected (JSON|a text)$/))
    )
  }
})
