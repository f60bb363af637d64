import { runInNewContext } from "node:vm"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Data, Schema } from "effect"
import { BRIEF_LIMITS, decodeDefect, Defect, encodeDefect } from "../../src/internal/defectCodec.ts"

class Missing extends Data.TaggedError("Missing")<{ readonly id: number }> {}

const encode = Schema.encodeSync(Schema.fromJsonString(Defect))
const decode = Schema.decodeSync(Schema.fromJsonString(Defect))
const roundTrip = (defect: unknown): unknown => decode(encode(defect))

const findOrder = (): Error => new TypeError("no order", { cause: readRow() })
const readRow = (): Error => new Missing({ id: 7 })

const fail = (): never => {
  throw new Error("no")
}
const hostile = new Proxy({}, { getPrototypeOf: fail, get: fail, has: fail, ownKeys: fail })
const circular = new Error("round")
circular.cause = circular

describe("a defect", () => {
  it("that is an error keeps its name, message, stack and causes", () => {
    const decoded = roundTrip(findOrder()) as Error
    assert.instanceOf(decoded, Error)
    assert.deepStrictEqual([decoded.name, decoded.message], ["TypeError", "no order"])
    assert.match(
      decoded.stack!,
      /^TypeError: no order\n {4}at findOrder \(.*defectCodec\.test\.ts:\d+:\d+\)\n/
    )
    const cause = decoded.cause as Error
    assert.deepStrictEqual([cause.name, cause.message], ["Missing", `{"id":7}`])
    assert.match(cause.stack!, /^Missing: \{"id":7\}\n {4}at readRow \(/)
    const pretty = Cause.pretty(Cause.die(decoded))
    for (const part of ["TypeError: no order", "at findOrder", "[cause]: Missing", "at readRow"]) {
      assert.include(pretty, part)
    }
    assert.notInclude(pretty, "defectCodec.ts")
  })

  it("without a stack gets none", () => {
    const defect = new Error("x")
    delete defect.stack
    assert.strictEqual((roundTrip(defect) as Error).stack, "Error: x")
    assert.strictEqual((decode(`{"name":"Error","message":"x"}`) as Error).stack, "Error: x")
  })

  it("of another realm is an error", () => {
    const decoded = roundTrip(runInNewContext("new RangeError('far')")) as Error
    assert.instanceOf(decoded, Error)
    assert.deepStrictEqual([decoded.name, decoded.message], ["RangeError", "far"])
  })

  for (const [what, defect, decoded] of [
    ["a text", "boom", "boom"],
    ["an object", { field: "x" }, { field: "x" }],
    ["an object with a message", { message: "x", code: 1 }, { message: "x", code: 1 }],
    ["a number", 7, "7"],
    ["undefined", undefined, "undefined"],
    ["null", null, null],
    ["a bigint", 7n, "7n"],
    ["a function", fail, String(fail)],
    ["an object that throws when it is looked at", hostile, "an object"]
  ] as const) {
    it(`that is ${what} is readable`, () => assert.deepStrictEqual(roundTrip(defect), decoded))
  }

  it("that is its own cause ends there", () => {
    assert.isUndefined((roundTrip(circular) as Error).cause)
  })

  it("is cut to its limits", () => {
    const long = (depth: number): Error => {
      const error = new Error("m".repeat(100_000), depth === 0 ? undefined : { cause: long(depth - 1) })
      error.stack = `Error: ${error.message}\n${"    at somewhere (file.ts:1:1)\n".repeat(10_000)}`
      return error
    }
    for (const [limits, most] of [
      [undefined, 33 * 1024],
      [BRIEF_LIMITS, 5 * 1024]
    ] as const) {
      const json = encodeDefect(long(20), limits)
      assert.isAtMost(JSON.stringify(json).length, most)
      const { cause, message, stack } = decodeDefect(json) as Error
      assert.isTrue(message.endsWith("…"))
      assert.isTrue(stack!.endsWith("at somewhere (file.ts:1:1)"))
      assert.instanceOf(cause, Error)
    }
    assert.isAtMost(encode("x".repeat(100_000)).length, 9 * 1024)
    assert.isAtMost(encode({ field: "x".repeat(100_000) }).length, 9 * 1024)
  })
})
