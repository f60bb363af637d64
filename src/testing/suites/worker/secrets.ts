/** No secrets: no text of the library has a value of a payload, a result, an error or progress. */
import { assert, describe } from "@effect/vitest"
import { Effect, Schema, SchemaTransformation } from "effect"
import * as DeadLetters from "../../../DeadLetters.ts"
import * as Task from "../../../Task.ts"
import { TaskContext } from "../../../TaskContext.ts"
import { captureLogs } from "./captureLogs.ts"
import type { Test } from "./fixture.ts"

const SECRET = "s3cret-marker"

/** A text of at most 40 characters; for a longer one its check quotes it. */
const Short = Schema.String.check(
  Schema.makeFilter((text) => text.length <= 40 || `${text} is longer than 40 characters`)
)
/** A text whose decoding and encoding quote it as they throw, if it ends with `!`. */
const quoting = (text: string): string => {
  if (text.endsWith("!")) throw new TypeError(`cannot read ${text}`)
  return text
}
const Quoting = Short.pipe(
  Schema.decodeTo(
    Schema.String,
    SchemaTransformation.transform<string, string>({ decode: quoting, encode: quoting })
  )
)

class Declined extends Schema.TaggedError<Declined>("chicory/testing/secrets/Declined")("Declined", {
  card: Quoting
}) {}

const long = `${SECRET} ${"x".repeat(40)}`
const thrown = `${SECRET}!`

const options = { success: Quoting, error: Declined, progress: Quoting }
const Loose = Task.make("secrets", {
  payload: Schema.Record(Schema.String, Schema.String),
  success: Schema.String,
  error: Schema.Struct({ card: Schema.String })
})
const Strict = Task.make("secrets", { payload: Schema.Record(Schema.String, Quoting), ...options })
const Keyed = Task.make("secrets.keyed", {
  payload: { email: Schema.String, n: Schema.Int },
  idempotencyKey: ({ email }) => email
})
const LongKey = Task.make("secrets.longKey", {
  payload: { email: Schema.String },
  idempotencyKey: ({ email }) => email.repeat(100)
})
const ThrowingKey = Task.make("secrets.throwingKey", {
  payload: { email: Schema.String },
  idempotencyKey: ({ email }) => quoting(`${email}!`)
})

/** What the handler does with its task, by the payload's `how`. */
const handlers: { readonly [how: string]: Effect.Effect<string, Declined, TaskContext> } = {
  fails: Effect.suspend(() => Effect.fail(new Declined({ card: SECRET }))),
  dies: Effect.die(new Error(SECRET)),
  "dies of an object": Effect.die({ card: SECRET }),
  "fails with an error that does not encode": Effect.suspend(() =>
    Effect.fail(Object.assign(new Declined({ card: "" }), { card: long }))
  ),
  "fails with an error that throws": Effect.suspend(() =>
    Effect.fail(Object.assign(new Declined({ card: "" }), { card: thrown }))
  ),
  "fails with another error": Effect.suspend(() => Effect.fail(new Error(SECRET) as never)),
  "gives a result that does not encode": Effect.succeed(long),
  "gives a result that throws": Effect.succeed(thrown),
  "writes progress that does not encode": Effect.as(Strict.progress(long), ""),
  "writes progress that throws": Effect.as(Strict.progress(thrown), ""),
  "asks for a retry": TaskContext.use(({ retry }) => retry({ error: new Declined({ card: SECRET }) }))
}

/** Returns the texts that an error of the library has itself: not those of the error that it wraps. */
const textsOf = (u: unknown): ReadonlyArray<string> => {
  if (typeof u !== "object" || u === null) return []
  const { issue, message, name, reason } = u as { readonly [key: string]: unknown }
  return [message, issue, name, ...textsOf(reason)].filter((text) => typeof text === "string")
}

/** Registers the tests. */
export const secrets = (test: Test): void => {
  describe("no text of the library has a value", () => {
    test("that a handler failed with, gave, or wrote", function* (t) {
      const texts: Array<string> = []
      const logs = captureLogs()
      yield* logs.capture(
        t.startWorker(
          [Strict],
          Strict.toLayer(({ how }) => handlers[how ?? ""] ?? Effect.succeed(""))
        )
      )
      for (const how of Object.keys(handlers)) {
        const failed = yield* t.awaitFailure(yield* Strict.delay({ how }))
        texts.push(...textsOf(failed), failed.toString())
        assert.isAbove(failed.message.length, 0, how)
      }
      for (const letter of [...(yield* DeadLetters.list(Strict)), ...(yield* DeadLetters.list())]) {
        texts.push(...textsOf(letter.reason))
      }
      yield* t.until("the failures are logged", () => logs.lines.length > Object.keys(handlers).length)
      texts.push(...logs.lines.map(({ annotations, text }) => `${text} ${JSON.stringify(annotations)}`))
      for (const text of texts) assert.notInclude(text, SECRET)
    })

    test("of a payload that does not encode, or of its idempotency key", function* () {
      const errors: ReadonlyArray<unknown> = [
        yield* Effect.flip(Strict.delay({ a: long })),
        yield* Effect.flip(Strict.delay({ [SECRET]: long })),
        yield* Effect.flip(Strict.delay({ a: thrown })),
        yield* Effect.flip(Strict.delay({ a: { b: SECRET } as never })),
        yield* Effect.flip(Strict.delay(SECRET as never)),
        yield* Effect.flip(Strict.delayAll([{ a: long }])),
        yield* Effect.flip(LongKey.delay({ email: SECRET })),
        yield* Effect.flip(ThrowingKey.delay({ email: SECRET })),
        yield* Effect.andThen(
          Keyed.delay({ email: SECRET, n: 1 }),
          Effect.flip(Keyed.delay({ email: SECRET, n: 2 }))
        )
      ]
      for (const text of errors.flatMap(textsOf)) assert.notInclude(text, SECRET)
    })

    test("of a payload, a result, an error or a message that does not decode", function* (t) {
      const texts: Array<string> = []
      for (const [i, payload] of [{ a: long }, { [SECRET]: long }, { a: thrown }, SECRET].entries()) {
        const body = {
          v: 1,
          id: `p${i}`,
          generation: 0,
          task: "secrets",
          queue: "default",
          retries: 0,
          priority: 1,
          payload
        }
        yield* t.publishRaw(`p${i}`, "secrets", JSON.stringify(body))
      }
      yield* t.publishRaw("m0", "secrets", `{"payload":"${SECRET}"`)
      yield* t.publishRaw("m1", "secrets", JSON.stringify({ v: SECRET, id: SECRET, task: SECRET }))
      const strict = yield* t.startWorker(
        [Strict],
        Strict.toLayer(() => Effect.succeed(""))
      )
      yield* t.untilDrained()
      for (const id of ["p0", "p1", "p2", "p3"]) {
        texts.push(...textsOf(yield* t.awaitReason(Strict.result(id), "PayloadInvalid")))
      }
      for (const letter of yield* DeadLetters.list(Strict)) {
        assert(letter.payload._tag === "Failure")
        texts.push(...textsOf(letter.payload.failure), ...textsOf(letter.reason))
      }
      for (const { id, reason } of yield* DeadLetters.list()) {
        texts.push(...textsOf(reason), ...textsOf(yield* Effect.exit(DeadLetters.replay(id))))
      }
      yield* strict.stop
      yield* t.startWorker(
        [Loose],
        Loose.toLayer(({ fails, gives }) =>
          fails === undefined ? Effect.succeed(gives ?? "") : Effect.fail({ card: fails })
        )
      )
      for (const payload of [{ gives: long }, { gives: thrown }, { fails: long }, { fails: thrown }]) {
        const { taskId } = yield* Loose.delay(payload)
        const failed = yield* t.awaitFailure(Strict.result(taskId))
        texts.push(...textsOf(failed))
      }
      for (const { reason } of yield* DeadLetters.list(Strict)) texts.push(...textsOf(reason))
      for (const text of texts) assert.notInclude(text, SECRET)
    })
  })
}
