import { assert, describe, it } from "@effect/vitest"
import * as defaults from "../../../src/internal/defaults.ts"
import { maxMessageBytes } from "../../../src/internal/driver/maxMessageBytes.ts"
import * as TaskMessage from "../../../src/TaskMessage.ts"

describe("the limit of a message", () => {
  it("holds the largest payload and the largest of all other fields", () => {
    // JSON writes a control character as six bytes
    const name = "\u0001".repeat(255)
    const message = TaskMessage.encode(
      {
        v: TaskMessage.version,
        id: name,
        incarnation: "z".repeat(32),
        generation: Number.MAX_SAFE_INTEGER,
        task: name,
        queue: name,
        retries: Number.MAX_SAFE_INTEGER,
        priority: 255,
        expires: Number.MAX_VALUE,
        unrecorded: true,
        traceparent: `00-${"0".repeat(32)}-${"0".repeat(16)}-00`,
        enqueuedAt: -Number.MAX_VALUE
      },
      JSON.stringify("x".repeat(defaults.maxBytes - 2))
    )
    assert.isBelow(Buffer.byteLength(message), maxMessageBytes)
  })
})
