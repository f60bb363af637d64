import { assert, describe, it } from "@effect/vitest"
import { TaskFailed } from "chicory"
import { Effect, Exit, Option, Schema, SchemaGetter, SchemaTransformation } from "effect"
import * as TaskCodec from "../../../src/internal/task/TaskCodec.ts"

const boom = (): never => {
  throw new TypeError("boom")
}

/** Decodes and encodes by code that throws. */
const Throwing = Schema.String.pipe(
  Schema.decodeTo(
    Schema.String,
    SchemaTransformation.transform<string, string>({ decode: boom, encode: boom })
  )
)

/** Dies in another turn. */
const DyingLater = Schema.String.pipe(
  Schema.decodeTo(Schema.String, {
    decode: SchemaGetter.transformEffect(() => Effect.andThen(Effect.yieldNow, Effect.sync(boom))),
    encode: SchemaGetter.transformEffect(() => Effect.andThen(Effect.yieldNow, Effect.sync(boom)))
  })
)

const Checked = Schema.String.check(Schema.makeFilter(boom))
const Defaulted = Schema.Struct({
  a: Schema.String.pipe(Schema.withConstructorDefault(Effect.sync(boom)))
})

interface Tree {
  readonly children: ReadonlyArray<Tree>
}
const Tree = Schema.Struct({
  children: Schema.Array(Schema.suspend((): Schema.Codec<Tree> => Tree))
})
const endlessTree = (): unknown => {
  const tree = { children: [] as Array<unknown> }
  tree.children.push(tree)
  return tree
}
const circular = (): unknown => {
  const value: Record<string, unknown> = {}
  value["self"] = value
  return value
}
const hostile = {
  get a(): string {
    return boom()
  }
}

/** Checks that a coding fails with a `SchemaError` that has such a cause. */
const assertFails = Effect.fnUntraced(function* (
  coding: Effect.Effect<unknown, Schema.SchemaError>,
  cause: string
) {
  const exit = yield* Effect.exit(coding)
  assert.isFalse(Exit.hasDies(exit))
  const error = Option.getOrThrow(Exit.findErrorOption(exit))
  assert.instanceOf(error, Schema.SchemaError)
  assert.include(String(error.cause), cause)
  assert.notInclude(error.message, "boom")
})

describe("a payload", () => {
  for (const [what, schema, value] of [
    ["a transformation that throws", Throwing, "a"],
    ["a transformation that dies later", DyingLater, "a"],
    ["a check that throws", Checked, "a"],
    ["a default that dies", Defaulted, {}],
    ["a getter that throws", Schema.Struct({ a: Schema.String }), hostile]
  ] as const) {
    it.effect(`does not encode, where it meets ${what}`, () =>
      assertFails(TaskCodec.payload<Schema.Codec<unknown>>(schema as never).encode(value), "boom")
    )
  }

  for (const [what, schema, value] of [
    ["as JSON", Schema.Json, circular()],
    ["as unknown", Schema.Unknown, circular()],
    ["as a tree", Tree, endlessTree()]
  ] as const) {
    it.effect(`that contains itself does not encode, ${what}`, () =>
      assertFails(TaskCodec.payload<Schema.Codec<unknown>>(schema as never).encode(value), "")
    )
  }

  it.effect("does not decode, where a transformation throws or dies", () =>
    Effect.gen(function* () {
      yield* assertFails(TaskCodec.payload(Throwing).decode("a"), "boom")
      yield* assertFails(TaskCodec.payload(DyingLater).decode("a"), "boom")
    })
  )

  it("that needs no waiting is coded at once", () => {
    const codec = TaskCodec.payload(Schema.Struct({ a: Schema.Date }))
    assert.isTrue(Exit.isExit(codec.encode({ a: new Date(0) })))
    assert.isTrue(Exit.isExit(codec.decode({ a: "1970-01-01T00:00:00.000Z" })))
  })
})

describe("an exit and progress", () => {
  for (const [what, schema] of [
    ["throws", Throwing],
    ["dies later", DyingLater]
  ] as const) {
    const codec = TaskCodec.result({ success: schema, error: schema, progress: schema })
    it.effect(`do not decode and do not encode, where a transformation ${what}`, () =>
      Effect.gen(function* () {
        const failure = { _tag: "Failed", error: "a", retriesExhausted: false }
        yield* assertFails(codec.decodeExit(`{"_tag":"Success","value":"a"}`), "boom")
        yield* assertFails(codec.decodeExit(JSON.stringify({ _tag: "Failure", reason: failure })), "boom")
        yield* assertFails(codec.encodeExit({ _tag: "Success", value: "a" }), "boom")
        yield* assertFails(codec.decodeProgress(`"a"`), "boom")
        yield* assertFails(codec.encodeProgress("a"), "boom")
      })
    )
  }
})

describe("the reason UnknownTask", () => {
  const { decodeExit, encodeExit } = TaskCodec.untyped

  it.effect("is stored with the workers that it names", () =>
    Effect.gen(function* () {
      const reason = new TaskFailed.UnknownTask({ workers: ["host-1", "host-2"] })
      const stored = yield* decodeExit(yield* encodeExit({ _tag: "Failure", reason }))
      assert.deepStrictEqual(stored, { _tag: "Failure", reason })
    })
  )

  it.effect("of a record without workers names none", () =>
    Effect.gen(function* () {
      const stored = yield* decodeExit('{"_tag":"Failure","reason":{"_tag":"UnknownTask"}}')
      assert(stored._tag === "Failure" && stored.reason._tag === "UnknownTask")
      assert.deepStrictEqual(stored.reason.workers, [])
    })
  )
})
