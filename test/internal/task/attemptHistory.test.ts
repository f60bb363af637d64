import { assert, describe, it } from "@effect/vitest"
import { DateTime, Duration, Option, Schema } from "effect"
import { maxHistorySize } from "../../../src/internal/defaults.ts"
import * as attemptHistory from "../../../src/internal/task/attemptHistory.ts"
import { Died, Failed, RetriesExhausted, TimedOut } from "../../../src/TaskFailed.ts"

class RateLimited extends Schema.TaggedError<RateLimited>()("RateLimited", { message: Schema.String }) {}

const failed = (error: unknown): attemptHistory.RetryReason => new Failed({ error, retriesExhausted: false })

const encode = (reason: attemptHistory.RetryReason, attempt = 1, generation = 0, worker = "w1"): string =>
  attemptHistory.encode({ reason, attempt, startedAt: 1_000, failedAt: 2_000 }, { generation, worker })

const decode = (history: string | undefined, attempt = 1_000, generation = 0) =>
  attemptHistory.decode(history, { attempt, generation })

const only = (history: string) => {
  const [attempt, ...others] = decode(history)
  assert(attempt !== undefined)
  assert.strictEqual(others.length, 0)
  return attempt
}

describe("attemptHistory", () => {
  it("keeps reason, tag, message, worker and times of an attempt", () => {
    const { stack, ...rest } = only(encode(failed(new RateLimited({ message: "later" })), 3))
    assert.deepStrictEqual(rest, {
      attempt: 3,
      reason: "Failed",
      tag: "RateLimited",
      message: "later",
      worker: "w1",
      startedAt: DateTime.makeUnsafe(1_000),
      failedAt: DateTime.makeUnsafe(2_000)
    })
    assert.match(Option.getOrThrow(stack), /^ {4}at .*attemptHistory\.test\.ts/)
  })

  for (const [what, reason, expected] of [
    ["a defect", new Died({ defect: new TypeError("no luck") }), ["Died", "TypeError", "no luck"]],
    ["an error that is a text", failed("no luck"), ["Failed", "string", "no luck"]],
    [
      "a timeout",
      new TimedOut({ timeout: Duration.seconds(3) }),
      ["TimedOut", "TimedOut", new TimedOut({ timeout: Duration.seconds(3) }).message]
    ],
    [
      "a retry that the handler asked for",
      new RetriesExhausted(),
      ["RetryRequested", "RetryRequested", "the handler asked for a retry"]
    ]
  ] as const) {
    it(`keeps ${what}`, () => {
      const attempt = only(encode(reason))
      assert.deepStrictEqual([attempt.reason, attempt.tag, attempt.message], [...expected])
      if (what !== "a defect") assert.deepStrictEqual(attempt.stack, Option.none())
    })
  }

  for (const [what, text] of [
    ["letters", "x"],
    ["letters of three bytes", "語"],
    ["emoji", "🌶️"],
    ["control characters", "\u0000"],
    ["quotes", `"\\`],
    ["lone surrogates", "\ud800"]
  ] as const) {
    it(`bounds an entry of ${what}, which is one line of ASCII`, () => {
      const error = new Error(text.repeat(100_000))
      error.name = text.repeat(1_000)
      error.stack = `Error: x\n${`    at ${text.repeat(20)} (file.js:1:1)\n`.repeat(1_000)}`
      const entry = encode(new Died({ defect: error }), 1, 0, text.repeat(1_000))
      assert.isAtMost(entry.length, 8 * 1024)
      assert.match(entry, /^[\x20-\x7e]+\n$/)
      const { message, stack, tag, worker } = only(entry)
      assert.isAtMost(Buffer.byteLength(message), 1024)
      assert.isAtMost(Buffer.byteLength(Option.getOrElse(stack, () => "")), 2048)
      for (const kept of [message, tag, worker]) assert.isTrue(kept.isWellFormed())
      if (text === "x") assert.isAtLeast(message.length, 1_000)
      assert.isAtLeast(message.length, 100)
    })
  }

  it("keeps a message of three-byte letters up to its bytes", () => {
    const { message } = only(encode(failed("語".repeat(1_000))))
    assert.isAtLeast(Buffer.byteLength(message), 1_000)
  })

  it("shows the newest 20 of many attempts, the oldest first", () => {
    const history = Array.from({ length: 30 }, (_, n) => encode(failed("no"), n + 1)).join("")
    const attempts = decode(history).map(({ attempt }) => attempt)
    assert.deepStrictEqual(
      attempts,
      Array.from({ length: 20 }, (_, n) => n + 11)
    )
  })

  it("leaves out the first line where it was cut, and lines that do not decode", () => {
    const [first, second] = [encode(failed("first"), 1), encode(failed("second"), 2)]
    for (const cut of [1, 10, first.length - 2, first.length - 1]) {
      const attempts = decode(`${first.slice(cut)}garbage\n{"attempt":1}\n${second}[]\n`)
      assert.deepStrictEqual(
        attempts.map(({ message }) => message),
        ["second"]
      )
    }
    for (const garbage of ["", "\n", "null", "{", "🌶️", "1\n2\n"]) assert.deepStrictEqual(decode(garbage), [])
    assert.deepStrictEqual(decode(undefined), [])
  })

  it("always shows the last attempt of a history that was cut to its size", () => {
    const error = new Error("\u0001".repeat(100_000))
    error.stack = `Error: x\n${"    at \u0001 (file.js:1:1)\n".repeat(1_000)}`
    let history = ""
    for (let attempt = 1; attempt <= 10; attempt++) {
      history = (history + encode(new Died({ defect: error }), attempt)).slice(-maxHistorySize)
      assert.strictEqual(decode(history).at(-1)?.attempt, attempt)
    }
  })

  it("leaves out attempts of another generation, and those after the record was read", () => {
    const history = [
      encode(failed("old"), 1, 0),
      encode(failed("first"), 1, 1),
      encode(failed("next"), 2, 1)
    ].join("")
    const messages = decode(history, 1, 1).map(({ message }) => message)
    assert.deepStrictEqual(messages, ["first"])
  })
})
