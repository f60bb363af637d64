/** Tasks for tests of producers, and what such a test finds in a broker. */
import { assert } from "@effect/vitest"
import { Broker, Task } from "chicory"
import { Effect, Schema } from "effect"
import type { TaskMessage } from "../../src/TaskMessage.ts"
import type * as MemoryFixture from "./memoryFixture.ts"
import { withoutAges } from "./withoutAges.ts"

export const Add = Task.make("add", {
  payload: { a: Schema.Number, b: Schema.Number },
  success: Schema.Number
})
export const Keyed = Task.make("keyed", {
  payload: { order: Schema.String, amount: Schema.Number },
  success: Schema.String,
  idempotencyKey: ({ order }) => order
})

/** A payload of `Add`. */
export const onePayload = { a: 1, b: 2 }

/** Checks that a call has sent and stored nothing. */
export const assertNothingEnqueued = (on: MemoryFixture.MemoryFixture) =>
  Effect.gen(function* () {
    assert.strictEqual(on.count("publish", "create", "enqueue"), 0)
    const [counts] = withoutAges(yield* Broker.counts(["default"]))
    assert.deepStrictEqual(counts, { ready: 0, delayed: 0, claimed: 0 })
  })

interface Message extends Omit<TaskMessage, "payload"> {
  readonly payload: Readonly<Record<string, number>>
}

/** Claims up to 100 messages of a queue and returns them decoded, in order. */
export const claimAll = (on: MemoryFixture.MemoryFixture, queue = "default") =>
  Effect.map(
    on.brokerDriver.claim({ queues: [queue], max: 100, leaseMillis: 60_000, worker: "w1" }),
    (deliveries) => deliveries.map(({ body }) => JSON.parse(String(body)) as Message)
  )
