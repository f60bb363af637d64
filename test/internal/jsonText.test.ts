import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit } from "effect"
import * as JsonText from "../../src/internal/jsonText.ts"

describe("JSON texts", () => {
  for (const json of [null, 0, "", "\ud800", [], { a: [1, { b: null }] }]) {
    it(`${JSON.stringify(json)} comes back as it was`, () => {
      const text = JsonText.stringify(json)
      assert(Exit.isSuccess(text))
      assert.deepStrictEqual(JsonText.parse(text.value), json)
    })
  }

  it("nothing is written as null", () =>
    assert.deepStrictEqual(JsonText.stringify(undefined), Exit.succeed("null")))

  it.effect("what is nested too deep to be written is told so", () =>
    Effect.gen(function* () {
      const deep = JsonText.parse(`${"[".repeat(100_000)}${"]".repeat(100_000)}`)
      assert.isDefined(deep)
      assert.include((yield* Effect.flip(JsonText.stringify(deep))).message, "it makes no JSON")
    })
  )
})
