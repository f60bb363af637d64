/** Arbitraries of unusual values, and the assertion on a decoder that receives them. */
import { assert } from "@effect/vitest"
import { Arbitrary, Cause, Exit, Schema } from "effect"
import { isFullRun } from "../support/fullRun.ts"

/** How often a property is checked. */
export const manyRuns = { arbitrary: { runs: isFullRun ? 2000 : 300 } }

/** One of several arbitraries. */
export const oneOf = <A>(...all: ReadonlyArray<Arbitrary.Arbitrary<A>>): Arbitrary.Arbitrary<A> =>
  Arbitrary.flatMap(below(all.length), (n) => all[n]!)

const below = (count: number) =>
  Arbitrary.schema(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: count - 1 })))

/** One of the values. */
export const elementOf = <A>(values: ReadonlyArray<A>): Arbitrary.Arbitrary<A> =>
  Arbitrary.map(below(values.length), (n) => values[n]!)

/** A lone surrogate. It is built at run time because a source file in UTF-8 cannot hold it. */
export const loneSurrogate = String.fromCharCode(0xd800)

const texts: ReadonlyArray<string> = [
  "",
  "-",
  "%",
  "%zz",
  "%00",
  "\0",
  "\n",
  " \t\r\n\u2028",
  loneSurrogate,
  `a${loneSurrogate}${loneSurrogate}`,
  "🌶️",
  "a\u0308",
  "{0}:1",
  "__proto__",
  "constructor",
  "NaN",
  "Infinity",
  "-1",
  "1e999",
  "9".repeat(400),
  "9007199254740993",
  "base64:",
  "base64-text:",
  "x".repeat(10_000)
]

/** Any text, often an unusual one. */
export const text: Arbitrary.Arbitrary<string> = oneOf(Arbitrary.schema(Schema.String), elementOf(texts))

/** Any well-formed text, which a store keeps as it is. */
export const wellFormed: Arbitrary.Arbitrary<string> = Arbitrary.filter(text, (value) => value.isWellFormed())

const values: ReadonlyArray<Schema.Json> = [
  null,
  true,
  0,
  -0,
  -1,
  1.5,
  Number.MAX_SAFE_INTEGER,
  2 ** 53,
  -(2 ** 60),
  1e308,
  -1e308,
  5e-324,
  [],
  {},
  [[[[[[[[]]]]]]]],
  { _tag: "Success" },
  { length: 3, 0: 1 },
  JSON.parse(`{"__proto__":{"polluted":true},"constructor":{"prototype":{"polluted":true}}}`) as Schema.Json,
  ...texts
]

/** Any JSON, often an unusual value. */
export const json: Arbitrary.Arbitrary<Schema.Json> = oneOf(Arbitrary.schema(Schema.Json), elementOf(values))

/** Any bytes. */
export const bytes: Arbitrary.Arbitrary<Uint8Array> = Arbitrary.map(
  Arbitrary.array(below(256), { maxLength: 64 }),
  (all) => Uint8Array.from(all)
)

/** Any value, including values without a JSON form. */
export const anything: Arbitrary.Arbitrary<unknown> = oneOf<unknown>(
  json,
  bytes,
  elementOf<unknown>([
    undefined,
    NaN,
    Infinity,
    -Infinity,
    2n ** 60n,
    Symbol("s"),
    () => 1,
    new Date(NaN),
    new Map()
  ])
)

/** A damaged JSON text: a field missing, replaced or repeated; the text cut off or with other text inside. */
export const damaged = (whole: Readonly<Record<string, unknown>>): Arbitrary.Arbitrary<string> => {
  const keys = Object.keys(whole)
  const is = JSON.stringify(whole)
  return Arbitrary.flatMap(
    Arbitrary.all([elementOf(keys), json, text, below(is.length), below(5)]),
    ([key, value, odd, at, how]) =>
      Arbitrary.Constant(
        [
          () => JSON.stringify(Object.fromEntries(Object.entries(whole).filter(([name]) => name !== key))),
          () => JSON.stringify({ ...whole, [key]: value }),
          () => `${is.slice(0, -1)},${JSON.stringify(key)}:${JSON.stringify(value)}}`,
          () => is.slice(0, at),
          () => `${is.slice(0, at)}${odd}${is.slice(at)}`
        ][how]!()
      )
  )
}

/** Any text, any JSON text, or a damaged form of the given value. */
export const textLike = (whole: Readonly<Record<string, unknown>>): Arbitrary.Arbitrary<string> =>
  oneOf(
    text,
    Arbitrary.map(json, (value) => JSON.stringify(value)),
    damaged(whole),
    damaged(whole)
  )

/** Asserts that a decoder returns a valid value or a typed failure with a message. */
export const assertAnswers = <A>(
  exit: Exit.Exit<A, { readonly message: string }>,
  is: (value: A) => boolean
): void => {
  if (Exit.isSuccess(exit)) return assert.isTrue(is(exit.value), `not what it should be: ${String(exit)}`)
  assert.isFalse(Cause.hasDies(exit.cause), String(exit))
  for (const reason of exit.cause.reasons) {
    if (Cause.isFailReason(reason)) assert.isAbove(reason.error.message.length, 0)
  }
  assert.notProperty({}, "polluted")
}
