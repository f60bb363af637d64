import { createHash } from "node:crypto"
import { assert, describe, it } from "@effect/vitest"
import { Task } from "chicory"
import type { BrokerDriver, Envelope, NewRecord } from "chicory/driver"
import { Context, DateTime, Duration, Effect, Schema } from "effect"
import { TestClock } from "effect/testing"
import type { EnqueueOptions } from "../../../src/EnqueueOptions.ts"
import * as defaults from "../../../src/internal/defaults.ts"
import { send, sendAll } from "../../../src/internal/producer/prepare.ts"
import { definitionOf } from "../../../src/internal/task/TaskDefinition.ts"
import * as TaskMessage from "../../../src/TaskMessage.ts"
import * as MemoryFixture from "../../support/memoryFixture.ts"

const Plain = Task.make("plain", { payload: { n: Schema.Number } })
const Full = Task.make("full", {
  payload: { n: Schema.Number },
  queue: "full",
  priority: 200,
  expires: "1 minute",
  retention: "1 hour"
})
const Keyed = Task.make("keyed", {
  payload: { n: Schema.Number.pipe(Schema.withConstructorDefault(Effect.succeed(1))) },
  idempotencyKey: ({ n }) => `key ${n}`
})

const make = Effect.fnUntraced(function* (changes?: (driver: BrokerDriver<never>) => Partial<BrokerDriver>) {
  const fixture = yield* MemoryFixture.make({ hints: false, broker: changes })
  yield* TestClock.setTime(1_000)
  // the schemas of these tasks need no services
  const provide = <A, E>(effect: Effect.Effect<A, E, unknown>): Effect.Effect<A, E> =>
    Effect.provideContext(effect as Effect.Effect<A, E>, fixture.context)
  return {
    fixture,
    send: (task: Task.Any, payload: unknown, options?: EnqueueOptions) =>
      provide(send(definitionOf(task), payload, options)),
    sendAll: (task: Task.Any, payloads: Iterable<unknown>) => provide(sendAll(definitionOf(task), payloads)),
    /** The last message and the last record. */
    last: () => ({
      message: fixture.items("publish").at(-1) as Envelope,
      record: fixture.items("create").at(-1) as NewRecord
    }),
    assertNothingSent: () => assert.strictEqual(fixture.count("publish", "create"), 0)
  }
})

describe("the options of a call", () => {
  it.effect("default to those of the task", () =>
    Effect.gen(function* () {
      const { last, send } = yield* make()
      yield* send(Full, { n: 1 })
      const { message, record } = last()
      assert.deepInclude(message, { queue: "full", priority: 200, delayMillis: 0 })
      assert.deepInclude(record, { expiresMillis: 60_000, retentionMillis: 3_600_000 })
    })
  )

  it.effect("override those of the task", () =>
    Effect.gen(function* () {
      const { last, send } = yield* make()
      yield* send(Full, { n: 1 }, { queue: "other", priority: 3, delay: "2 seconds", expires: "5 seconds" })
      const { message, record } = last()
      assert.deepInclude(message, { queue: "other", priority: 3, delayMillis: 2_000 })
      assert.strictEqual(record.expiresMillis, 5_000)
    })
  )

  it.effect("default to the queue, priority and retention of the library", () =>
    Effect.gen(function* () {
      const { last, send } = yield* make()
      yield* send(Plain, { n: 1 })
      const { message, record } = last()
      assert.deepInclude(message, { queue: "default", priority: 100 })
      assert.isUndefined(record.expiresMillis)
      assert.strictEqual(record.retentionMillis, 86_400_000)
    })
  )

  it.effect("turn a due time into a delay by this process's clock", () =>
    Effect.gen(function* () {
      const { last, send } = yield* make()
      yield* send(Plain, { n: 1 }, { at: DateTime.makeUnsafe(3_500) })
      assert.strictEqual(last().message.delayMillis, 2_500)
    })
  )

  it.effect("turn a due time in the past into no delay", () =>
    Effect.gen(function* () {
      const { last, send } = yield* make()
      yield* send(Plain, { n: 1 }, { at: 500 })
      assert.strictEqual(last().message.delayMillis, 0)
    })
  )

  it.effect("turn a delay below zero into no delay", () =>
    Effect.gen(function* () {
      const { last, send } = yield* make()
      for (const delay of [-3, "-3 seconds", Duration.millis(-3), Duration.negativeInfinity] as const) {
        yield* send(Plain, { n: 1 }, { delay })
        assert.strictEqual(last().message.delayMillis, 0)
      }
    })
  )
})

describe("a reservation", () => {
  it.effect("has the key and the SHA-256 hash of the encoded payload", () =>
    Effect.gen(function* () {
      const { last, send } = yield* make()
      yield* send(Keyed, { n: 7 })
      const hash = createHash("sha256").update(`{"n":7}`).digest("base64url")
      assert.deepInclude(last().record, { key: "key 7", payloadHash: hash })
    })
  )

  it.effect("takes its key from the payload with its defaults", () =>
    Effect.gen(function* () {
      const { last, send } = yield* make()
      yield* send(Keyed, {})
      assert.strictEqual(last().record.key, "key 1")
    })
  )

  it.effect("has the hash without a key for a given id", () =>
    Effect.gen(function* () {
      const { last, send } = yield* make()
      assert.strictEqual(yield* send(Plain, { n: 7 }, { id: "mine" }), "mine")
      const { key, payloadHash } = last().record
      assert.isUndefined(key)
      assert.lengthOf(payloadHash, 43)
    })
  )

  it.effect("is not made without a key and an id", () =>
    Effect.gen(function* () {
      const { last, send } = yield* make()
      yield* send(Plain, { n: 7 })
      assert.deepInclude(last().record, { key: undefined, payloadHash: "" })
    })
  )
})

describe("an incarnation", () => {
  it.effect("is made for each enqueue of a given id, and is in the message and the record", () =>
    Effect.gen(function* () {
      const { last, send } = yield* make()
      const incarnations: Array<string> = []
      for (const id of ["mine", "other"]) {
        yield* send(Plain, { n: 7 }, { id })
        const { message, record } = last()
        assert.match(record.incarnation, /^[0-9a-f]{12}$/)
        assert.strictEqual(message.incarnation, record.incarnation)
        assert.strictEqual((yield* TaskMessage.decode(message.body)).incarnation, record.incarnation)
        incarnations.push(record.incarnation)
      }
      assert.notStrictEqual(incarnations[0], incarnations[1])
    })
  )

  it.effect("is empty for an id that is made here, also with a key", () =>
    Effect.gen(function* () {
      const { last, send } = yield* make()
      for (const task of [Plain, Keyed]) {
        yield* send(task, { n: 7 })
        const { message, record } = last()
        assert.deepStrictEqual([record.incarnation, message.incarnation], ["", undefined])
        assert.notInclude(message.body, "incarnation")
      }
    })
  )
})

describe("a payload", () => {
  it.effect("fails with EncodeError when it does not encode", () =>
    Effect.gen(function* () {
      const { assertNothingSent, send } = yield* make()
      assert.strictEqual((yield* Effect.flip(send(Plain, { n: "one" })))._tag, "EncodeError")
      assertNothingSent()
    })
  )

  const Text = Task.make("text", { payload: Schema.String })

  it.effect("may have as many bytes as the limit", () =>
    Effect.gen(function* () {
      const { last, send } = yield* make()
      yield* send(Text, "x".repeat(defaults.maxBytes - 2))
      assert.strictEqual((yield* TaskMessage.decode(last().message.body)).task, "text")
    })
  )

  it.effect("fails with PayloadTooLarge beyond the limit, counted in bytes", () =>
    Effect.gen(function* () {
      const { assertNothingSent, send } = yield* make()
      const error = yield* Effect.flip(send(Text, "\u20ac".repeat(defaults.maxBytes / 3)))
      assert.strictEqual(error._tag, "PayloadTooLarge")
      assertNothingSent()
    })
  )
})

describe("the limit of a payload", () => {
  const Text = Task.make("text", { payload: Schema.String })

  it.effect("is that of the store which takes less", () =>
    Effect.gen(function* () {
      for (const [ofBackend, ofBroker] of [
        [100, 200],
        [200, 100]
      ] as const) {
        const fixture = yield* MemoryFixture.make({
          hints: false,
          backend: (driver) => ({
            capabilities: { ...driver.capabilities, hints: false, maxBytes: ofBackend }
          }),
          broker: (driver) => ({ capabilities: { ...driver.capabilities, maxBytes: ofBroker } })
        })
        const sendText = (size: number) => Effect.provideContext(Text.send("x".repeat(size)), fixture.context)
        yield* sendText(98)
        const error = yield* Effect.flip(sendText(99))
        assert(error._tag === "PayloadTooLarge", error._tag)
        assert.deepStrictEqual([error.bytes, error.limit], [101, 100])
      }
    })
  )
})

describe("Unsupported", () => {
  const without = (capabilities: Partial<BrokerDriver["capabilities"]>) =>
    make((driver) => ({ capabilities: { ...driver.capabilities, ...capabilities } }))

  it.effect("answers a priority where the broker has none", () =>
    Effect.gen(function* () {
      const { assertNothingSent, send } = yield* without({ priorities: 1 })
      assert.strictEqual((yield* Effect.flip(send(Full, { n: 1 })))._tag, "Unsupported")
      assertNothingSent()
      yield* send(Plain, { n: 1 })
    })
  )

  it.effect("answers a delay longer than the broker allows", () =>
    Effect.gen(function* () {
      const { assertNothingSent, send } = yield* without({ maxDelayMillis: 1_000 })
      const error = yield* Effect.flip(send(Plain, { n: 1 }, { delay: 1_001 }))
      assert.strictEqual(error._tag, "Unsupported")
      assertNothingSent()
      yield* send(Plain, { n: 1 }, { delay: 1_000 })
    })
  )

  it.effect("answers an enqueue in a SQL transaction that the stores are not part of", () =>
    Effect.gen(function* () {
      const { assertNothingSent, send } = yield* make()
      // under these keys effect/sql keeps the service of an open transaction
      const service = Context.Service<object>("test/transaction")
      const current = Context.Reference<Context.Key<never, object> | undefined>(
        "effect/sql/CurrentTransactionService",
        { defaultValue: () => undefined }
      )
      const error = yield* Effect.flip(send(Plain, { n: 1 })).pipe(
        Effect.provideService(current, service as unknown as Context.Key<never, object>),
        Effect.provideService(service, {})
      )
      assert.strictEqual(error._tag, "Unsupported")
      assertNothingSent()
    })
  )
})

describe("sendAll", () => {
  it.effect("stops at the first payload that fails and reports the accepted ids", () =>
    Effect.gen(function* () {
      const { fixture, sendAll } = yield* make()
      const partial = yield* Effect.flip(sendAll(Plain, [{ n: 1 }, { n: 2 }, { n: "three" }, { n: 4 }]))
      assert.strictEqual(partial.error._tag, "EncodeError")
      assert.deepStrictEqual(
        partial.accepted,
        (fixture.items("create") as ReadonlyArray<NewRecord>).map(({ id }) => id)
      )
      assert.lengthOf(partial.accepted, 2)
    })
  )

  it.effect("sends batches of at most 256 tasks", () =>
    Effect.gen(function* () {
      const { fixture, sendAll } = yield* make()
      const ids = yield* sendAll(
        Plain,
        Array.from({ length: 600 }, (_, n) => ({ n }))
      )
      assert.lengthOf(ids, 600)
      assert.strictEqual(fixture.count("publish"), 3)
    })
  )
})
