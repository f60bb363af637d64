import { assert, describe, it } from "@effect/vitest"
import * as Describe from "../../src/internal/formatError.ts"

const circular: Record<string, unknown> = Object.create(null) as Record<string, unknown>
circular["self"] = circular

const fail = (): never => {
  throw new Error("no")
}

const values: ReadonlyArray<readonly [what: string, value: unknown, formatted: string]> = [
  ["an error and its cause", new Error("outer", { cause: new Error("inner") }), "Error: outer: inner"],
  ["the first of several errors", new AggregateError([new Error("refused")]), "AggregateError: refused"],
  [
    "a URL without its credentials",
    new Error("no route to amqp://me:s3c@ret@host:5672/x?a=1"),
    "Error: no route to amqp://host:5672/x?a=1"
  ],
  [
    "a URL without its password parameter",
    "postgres://host/db?sslpassword=s3cret&a=1",
    "postgres://host/db?sslpassword=<redacted>&a=1"
  ],
  ["a text", "text", "text"],
  ["an object", { a: 1 }, `{"a":1}`],
  ["undefined", undefined, "undefined"],
  ["a bigint", 1n, "1n"],
  ["a circular object without a prototype", circular, "{}"],
  ["an object that throws when it is serialized", { toJSON: fail, toString: fail }, "an object"],
  ["an error whose message throws", Object.defineProperty(new Error(), "message", { get: fail }), "Error"],
  [
    "an object that throws when it is inspected",
    new Proxy({}, { getPrototypeOf: fail, get: fail }),
    "an object"
  ]
]

describe("formatError", () => {
  for (const [what, value, formatted] of values) {
    it(`formats ${what}`, () => assert.strictEqual(Describe.formatError(value), formatted))
  }
})
