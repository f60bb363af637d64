import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Cause, Effect, Exit, Schema } from "effect"
import * as TaskMessage from "../../src/TaskMessage.ts"
import {
  assertAnswers,
  bytes,
  elementOf,
  loneSurrogate,
  oneOf,
  text,
  json,
  manyRuns,
  textLike,
  wellFormed
} from "./randomValues.ts"

const message = {
  v: 1,
  id: "a",
  generation: 0,
  task: "count",
  queue: "default",
  payload: { n: 1 },
  retries: 0,
  priority: 100,
  expires: 1000,
  traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
  enqueuedAt: 1_800_000_000_000
}
const isMessage = Schema.is(TaskMessage.TaskMessage)
const textWith = (field: string, value: string): string =>
  JSON.stringify({ ...message, [field]: "here" }).replace(`"${field}":"here"`, `"${field}":${value}`)

const counts = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER }))
const name = Arbitrary.filter(wellFormed, (text) => text.length > 0 && text.length <= 255)
const head = Arbitrary.all({
  v: Arbitrary.Constant(TaskMessage.version),
  id: name,
  generation: Arbitrary.schema(counts),
  task: name,
  queue: name,
  retries: Arbitrary.schema(counts),
  priority: Arbitrary.schema(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 255 }))),
  traceparent: elementOf([message.traceparent, `fe-${"a".repeat(32)}-${"b".repeat(16)}-00`])
})

describe("guarantee 10: TaskMessage.decode", () => {
  it.effect.prop(
    "answers a message or a failure for any text",
    { text: textLike(message) },
    ({ text }) => Effect.sync(() => assertAnswers(TaskMessage.decode(text), isMessage)),
    manyRuns
  )

  it.effect.prop(
    "fails for values other than text",
    { other: Arbitrary.all([json, bytes]) },
    ({ other: [value, some] }) =>
      Effect.sync(() => {
        assertAnswers(TaskMessage.decode(some), isMessage)
        assertAnswers(TaskMessage.decode(value), isMessage)
      }),
    manyRuns
  )

  it.effect.prop(
    "round-trips a message with any payload",
    { head, payload: json },
    ({ head, payload }) =>
      Effect.gen(function* () {
        const text = TaskMessage.encode(head, JSON.stringify(payload))
        const decoded = yield* TaskMessage.decode(text)
        // JSON has no negative zero
        assert.deepStrictEqual(JSON.parse(JSON.stringify(decoded)), JSON.parse(text))
        assert.strictEqual(decoded.id, head.id)
        const { payload: again, ...rest } = decoded
        assert.deepStrictEqual(JSON.parse(TaskMessage.encode(rest, JSON.stringify(again))), JSON.parse(text))
      }),
    manyRuns
  )

  it.effect.prop(
    "reads a traceparent of 55 characters or none, whatever the message has in its place",
    {
      other: oneOf<unknown>(
        json,
        text,
        Arbitrary.map(text, (odd) => `00-${odd}`),
        Arbitrary.map(text, (odd) => `${message.traceparent}${odd}`),
        Arbitrary.map(text, (odd) => `01${message.traceparent.slice(2)}-${odd.repeat(1000)}`)
      )
    },
    ({ other }) =>
      Effect.gen(function* () {
        const { traceparent, ...rest } = yield* TaskMessage.decode(
          JSON.stringify({ ...message, traceparent: other })
        )
        assert.isTrue(traceparent === undefined || traceparent.length === 55, traceparent)
        const { traceparent: _, ...others } = message
        assert.deepStrictEqual<unknown>(rest, others)
      }),
    manyRuns
  )

  it.effect.prop(
    "fails with the version for any other version",
    { v: Arbitrary.filter(json, (v) => v !== 1) },
    ({ v }) =>
      Effect.sync(() => {
        const decoded = TaskMessage.decode(JSON.stringify({ ...message, v }))
        assert(Exit.isFailure(decoded))
        assert.include(String(Cause.squash(decoded.cause)), `["v"]`)
      }),
    manyRuns
  )

  it("keeps lone surrogates and unusual keys in a payload", () => {
    const payload = `{"__proto__":{"polluted":true},"\\ud800":"\\udc00\\u0000","constructor":1}`
    const decoded = Exit.getSuccess(TaskMessage.decode(textWith("payload", payload)))
    assert(decoded._tag === "Some")
    const found = decoded.value.payload as object
    assert.deepStrictEqual(Object.keys(found), ["__proto__", loneSurrogate, "constructor"])
    assert.strictEqual(Object.getPrototypeOf(found), Object.prototype)
    assert.strictEqual(JSON.stringify(found), payload)
    assert.notProperty({}, "polluted")
  })

  it("reads no fields from a prototype", () => {
    assert.isTrue(Exit.isFailure(TaskMessage.decode(`{"__proto__":${JSON.stringify(message)}}`)))
  })

  for (const field of ["generation", "retries", "priority", "expires"]) {
    it(`fails for out-of-range numbers as ${field}`, () => {
      const numbers = ["-1", "1e999", "-1e999", "-1e308", "-9007199254740991"]
      if (field === "priority") numbers.push("256", "1e15")
      if (field !== "expires") numbers.push("1.5", "9007199254740993")
      const taken = numbers.filter((number) => Exit.isSuccess(TaskMessage.decode(textWith(field, number))))
      assert.deepStrictEqual(taken, [])
    })
  }

  it("fails for ids that a store would change", () => {
    const ids = [loneSurrogate, `a${loneSurrogate}b`, "x".repeat(10_000)]
    const taken = ids.filter((id) => Exit.isSuccess(TaskMessage.decode(JSON.stringify({ ...message, id }))))
    assert.deepStrictEqual(taken, [])
  })

  it("names the invalid field without its content", () => {
    const secret = "hunter2"
    for (const text of [
      JSON.stringify({ ...message, v: 2, payload: { secret } }),
      JSON.stringify({ ...message, priority: secret }),
      `{"secret":"${secret}"`,
      secret
    ]) {
      const decoded = TaskMessage.decode(text)
      assert(Exit.isFailure(decoded))
      assert.notInclude(String(Cause.squash(decoded.cause)), secret)
    }
  })
})
