import { assert, describe, it } from "@effect/vitest"
import { TaskFailed } from "chicory"
import { Effect, Exit, Option, Schema, SchemaIssue, SchemaTransformation } from "effect"
import { redactIssues } from "../../src/internal/redactIssue.ts"
import * as TaskCodec from "../../src/internal/task/TaskCodec.ts"

const SECRET = "s3cret-marker"

interface Tree {
  readonly label: string
  readonly children: ReadonlyArray<Tree>
}
const Tree = Schema.Struct({
  label: Schema.String.check(Schema.isMaxLength(3)),
  children: Schema.Array(Schema.suspend((): Schema.Codec<Tree> => Tree))
})

const isKnown = Schema.makeFilter((text: string) => `"${text}" is unknown`)
const isWritten = Schema.makeFilter((text: string) => `"${text}" is unknown`, { message: "unknown to us" })
const isExpected = Schema.makeFilter((text: string) => `"${text}" is unknown`, { expected: "a known text" })
const samePasswords = Schema.makeFilter(({ a, b }: { readonly a: string; readonly b: string }) => ({
  path: ["b"],
  issue: `${a} is not ${b}`
}))
const everyKey = Schema.makeFilter((record: Readonly<Record<string, number>>) => ({
  path: Object.keys(record),
  issue: "no"
}))
const Failing = Schema.String.pipe(
  Schema.decodeTo(
    Schema.String,
    SchemaTransformation.transformEffect<string, string>({
      decode: (text, options) =>
        Effect.fail(new SchemaIssue.InvalidValue({ message: `cannot read ${text}` }, text, options)),
      encode: Effect.succeed
    })
  )
)
class Card extends Schema.Class<Card>("Card")({ number: Schema.String.check(Schema.isMaxLength(4)) }) {}

const cases: ReadonlyArray<
  readonly [what: string, schema: Schema.Constraint, encoded: unknown, message: string]
> = [
  ["a wrong type", Schema.Struct({ a: Schema.Int }), { a: SECRET }, `Expected number\n  at ["a"]`],
  ["a literal", Schema.Literals(["a", "b"]), SECRET, `Expected "a" | "b"`],
  ["a union", Schema.Union([Schema.Int, Schema.Boolean]), SECRET, "Expected number | boolean"],
  ["a missing key", Schema.Struct({ a: Schema.Int }), {}, `Missing key\n  at ["a"]`],
  [
    "a built-in check",
    Schema.String.check(Schema.isMaxLength(3)),
    SECRET,
    "Expected a value with a length of at most 3"
  ],
  ["a check that quotes the value", Schema.String.check(isKnown), SECRET, "Expected a valid value"],
  ["a check with a message of its own", Schema.String.check(isWritten), SECRET, "unknown to us"],
  ["a check with what it expects", Schema.String.check(isExpected), SECRET, "Expected a known text"],
  [
    "a check that names a property",
    Schema.Struct({ a: Schema.String, b: Schema.String }).check(samePasswords),
    { a: SECRET, b: `${SECRET}2` },
    `Expected a valid value\n  at ["b"]`
  ],
  [
    "a check that names the key of a record",
    Schema.Record(Schema.String, Schema.Int).check(everyKey),
    { [SECRET]: 1 },
    `Expected a valid value\n  at ["<key>"]`
  ],
  ["a transformation that quotes the value", Failing, SECRET, "Expected a valid value"],
  ["a text of JSON", Schema.fromJsonString(Schema.Int), SECRET, "Expected a valid JSON string"],
  [
    "the key of a record",
    Schema.Struct({ prices: Schema.Record(Schema.String, Schema.Int) }),
    { prices: { [SECRET]: "x" } },
    `Expected number\n  at ["prices"]["<key>"]`
  ],
  [
    "a nested value",
    Tree,
    { label: "a", children: [{ label: SECRET, children: [] }] },
    `Expected a value with a length of at most 3\n  at ["children"][0]["label"]`
  ],
  ["a class", Card, { number: SECRET }, `Expected a value with a length of at most 4\n  at ["number"]`],
  [
    "a key that is in excess",
    Schema.Struct({ a: Schema.Int }),
    { a: 1, [SECRET]: SECRET },
    `Expected no excess property\n  at ["<key>"]`
  ],
  [
    "several values",
    Schema.Struct({ a: Schema.Int, b: Schema.Int }),
    { a: SECRET, b: SECRET },
    `Expected number\n  at ["a"]\nExpected number\n  at ["b"]`
  ]
]

/** What an issue may have at most: the values that it is about. */
const options = { reportInput: true, errors: "all", onExcessProperty: "error" } as const

describe("an issue has the path and what is expected, and no value", () => {
  for (const [what, schema, encoded, message] of cases) {
    it(`of ${what}`, () => {
      const codec = Schema.toCodecJson(schema as Schema.Codec<unknown>)
      const exit = Effect.runSyncExit(Schema.decodeUnknownEffect(codec)(encoded, options))
      const error = redactIssues(codec.ast)(Option.getOrThrow(Exit.findErrorOption(exit)))
      assert.instanceOf(error, Schema.SchemaError)
      assert.strictEqual(error.message, message)
      assert.notInclude(JSON.stringify(error.issue), SECRET)
    })
  }

  it("and the issues of all codecs of a task are such", () => {
    const schema = Schema.String.check(isKnown)
    const payload = TaskCodec.payload(schema)
    const result = TaskCodec.result({ success: schema, error: schema, progress: schema })
    const failure = { _tag: "Failed", error: SECRET, retriesExhausted: false } as const
    for (const coding of [
      payload.encode(SECRET),
      payload.decode(SECRET),
      result.encodeExit({ _tag: "Success", value: SECRET }),
      result.encodeExit({ _tag: "Failure", reason: new TaskFailed.Failed(failure) }),
      result.decodeExit(JSON.stringify({ _tag: "Success", value: SECRET })),
      result.decodeExit(JSON.stringify({ _tag: "Failure", reason: failure })),
      result.encodeProgress(SECRET),
      result.decodeProgress(JSON.stringify(SECRET))
    ]) {
      const error = Effect.runSync(Effect.flip(coding as Effect.Effect<unknown, Schema.SchemaError>))
      assert.match(error.message, /^Expected a valid value(\n|$)/)
    }
  })
})
