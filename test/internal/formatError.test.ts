import { assert, describe, it } from "@effect/vitest"
import * as Describe from "../../src/internal/formatError.ts"

const circular: Record<string, unknown> = Object.create(null) as Record<string, unknown>
circular["self"] = circular

const fail = (): never => {
  throw new Error("no")
}

const values: ReadonlyArray<readonly [what: string, value: unknown, formatted: string]> = [
  ["an error and its cause", new Error("outer", { cause: new Error("inner") }), "Error: outer: inner"],
  ["a text", "text", "text"],
  ["an object", { a: 1 }, `{"a":1}`],
  ["undefined", undefined, "undefined"],
  ["a bigint", 1n, "1"],
  ["a circular object without a prototype", circular, "object"],
  ["an object that throws when it is serialized", { toJSON: fail, toString: fail }, "object"],
  ["an error whose message throws", Object.defineProperty(new Error(), "message", { get: fail }), "object"],
  ["an object that throws when it is inspected", new Proxy({}, { getPrototypeOf: fail, get: fail }), "object"]
]

describe("formatError", () => {
  for (const [what, value, formatted] of values) {
    it(`formats ${what}`, () => assert.strictEqual(Describe.formatError(value), formatted))
  }
})
