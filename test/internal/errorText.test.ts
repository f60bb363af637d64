import { assert, describe, it } from "@effect/vitest"
import { Data, Effect, Exit, Redacted, Schema } from "effect"
import { errorCause, errorMessage, errorStack, errorTag, truncate } from "../../src/internal/errorText.ts"

class Declined extends Schema.TaggedError<Declined>()("Declined", { amount: Schema.Number }) {}
class Refused extends Data.TaggedError("Refused")<{ readonly message: string }> {}
class Unnamed extends Error {}

const fail = (): never => {
  throw new Error("no")
}
const hostile = new Proxy({}, { getPrototypeOf: fail, get: fail, has: fail, ownKeys: fail })
const circular: Record<string, unknown> = { name: "loop" }
circular["self"] = circular

const bytes = (text: string) => new TextEncoder().encode(text).length

const chargeCard = (): never => {
  throw new TypeError("two\nlines")
}
const thrown = (): unknown => {
  const exit = Effect.runSyncExit(
    Effect.gen(function* () {
      yield* Effect.void
      chargeCard()
    })
  )
  const reason = Exit.isFailure(exit) ? exit.cause.reasons[0] : undefined
  return reason?._tag === "Die" ? reason.defect : undefined
}

const values: ReadonlyArray<readonly [what: string, value: unknown, tag: string, message: string]> = [
  ["a built-in error", new TypeError("not a function"), "TypeError", "not a function"],
  ["an error whose class sets no name", new Unnamed("x"), "Unnamed", "x"],
  ["a tagged error with a message", new Refused({ message: "no funds" }), "Refused", "no funds"],
  ["a tagged error without a message", new Declined({ amount: 3 }), "Declined", `{"amount":3}`],
  ["an error without anything", new Error(), "Error", ""],
  ["a text", "boom", "string", "boom"],
  ["an object", { field: "x" }, "object", `{"field":"x"}`],
  ["an object with a tag", { _tag: "Odd", a: 1 }, "Odd", `{"_tag":"Odd","a":1}`],
  ["a circular object", circular, "object", `{"name":"loop"}`],
  ["an object with a redacted value", { key: Redacted.make("s3cret") }, "object", `{"key":"<redacted>"}`],
  ["an array", [1, 2], "Array", "[1,2]"],
  ["null", null, "null", "null"],
  ["undefined", undefined, "undefined", "undefined"],
  ["a bigint", 1n, "bigint", "1n"],
  ["a symbol", Symbol("s"), "symbol", "Symbol(s)"],
  ["an object that throws when it is looked at", hostile, "object", "an object"]
]

describe("errorText", () => {
  for (const [what, value, tag, message] of values) {
    it(`gives the tag and the message of ${what}`, () => {
      assert.strictEqual(errorTag(value), tag)
      assert.strictEqual(errorMessage(value, 1024), message)
    })
  }

  it("gives the frames of the user's code, from the innermost, without the message and Effect's runtime", () => {
    const frames = errorStack(thrown(), 8192)!.split("\n")
    assert.match(frames[0]!, /^ {4}at chargeCard \(.*errorText\.test\.ts:\d+:\d+\)$/)
    assert.isTrue(
      frames.every((frame) => frame.startsWith("    at ") && frame.includes("errorText.test.ts")),
      frames.join("\n")
    )
  })

  it("cuts a stack between two frames", () => {
    const frames = errorStack(thrown(), 8192)!.split("\n")
    const first = frames[0]!
    assert.strictEqual(errorStack(thrown(), bytes(first) + 10), first)
    assert.isUndefined(errorStack(thrown(), 10))
  })

  it("reads a stack with a million blank lines before its frames", () => {
    const error = new Error("x")
    error.stack = `Other: y${"\n".repeat(1_000_000)}    at charge (file.ts:1:1)`
    assert.strictEqual(errorStack(error, 8192), "    at charge (file.ts:1:1)")
  })

  it("gives no frames of what has none", () => {
    for (const value of [
      "boom",
      null,
      { stack: 1 },
      hostile,
      Object.assign(new Error("x"), { stack: "x" })
    ]) {
      assert.isUndefined(errorStack(value, 8192))
    }
  })

  it("gives the error that an error wraps, and the first of several", () => {
    const inner = new Error("inner")
    assert.strictEqual(errorCause(new Error("outer", { cause: inner })), inner)
    assert.strictEqual(errorCause(new AggregateError([inner, new Error("second")])), inner)
    assert.isUndefined(errorCause(inner))
    assert.isUndefined(errorCause(hostile))
  })

  it("cuts a text between two characters, within its bytes", () => {
    assert.strictEqual(truncate("äöü", 6), "äöü")
    assert.strictEqual(truncate("äöüß", 7), "äö…")
    assert.strictEqual(truncate("😀😀", 7), "😀…")
    assert.strictEqual(bytes(truncate("x".repeat(5000), 1024)), 1024)
  })
})
