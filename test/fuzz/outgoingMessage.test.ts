import { assert, describe, it } from "@effect/vitest"
import type { Message } from "amqplib"
import { Arbitrary, Effect, Schema } from "effect"
import * as delayQueues from "../../src/rabbitmq/delayQueues.ts"
import * as OutgoingMessage from "../../src/rabbitmq/OutgoingMessage.ts"
import { elementOf, anything, bytes, oneOf, manyRuns, text, wellFormed } from "./randomValues.ts"

const messageOf = (properties: object, content: Uint8Array = Buffer.of()): Message => ({
  content: Buffer.from(content),
  fields: { deliveryTag: 1, redelivered: false, exchange: "", routingKey: "" },
  properties: properties as Message["properties"]
})

const odd: Arbitrary.Arbitrary<unknown> = oneOf(
  anything,
  elementOf<unknown>([
    { "!": "timestamp", value: 1_700_000_000 },
    { "!": "double", value: -1e300 },
    { "!": "int64", value: "9223372036854775807" },
    2 ** 53,
    2 ** 64,
    -1,
    1.5
  ])
)
const names = [
  "appId",
  "messageId",
  "type",
  "timestamp",
  "headers",
  "id",
  "task",
  "generation",
  "expires",
  "waited",
  "oversized",
  "due"
]

const millis = oneOf(Arbitrary.schema(Schema.Int), elementOf([0, 0.5, 1, 2 ** 31, 2 ** 53, 1e300, Infinity]))

/** Whether the client library can write a time as a timestamp that this library reads again. */
const isTime = (time: unknown): boolean =>
  time === undefined || (Number.isSafeInteger(time) && (time as number) >= 0)

describe("guarantee 10: RabbitMQ message properties", () => {
  it.effect.prop(
    "arbitrary properties decode to typed fields",
    {
      app: elementOf<unknown>(["chicory", "another", undefined, 7]),
      name: elementOf(names),
      value: odd,
      headers: odd,
      content: bytes
    },
    ({ app, content, headers, name, value }) =>
      Effect.sync(() => {
        for (const properties of [
          { appId: app, headers: {}, [name]: value },
          { appId: app, headers: { [name]: value } },
          { appId: app, headers, messageId: value, type: value },
          {
            appId: app,
            messageId: "a",
            type: "count",
            timestamp: value,
            headers: Object.create({ id: value }) as object
          }
        ]) {
          const message = messageOf(properties, content)
          const { dueAt, generation, id, incarnation, oversizedBytes, task, waitedMillis } =
            OutgoingMessage.readProperties(message)
          for (const name of [id, incarnation, task])
            assert.isTrue(name === undefined || typeof name === "string")
          for (const count of [generation, dueAt, oversizedBytes]) assert.isTrue(isTime(count))
          assert.isTrue(waitedMillis === undefined || (Number.isFinite(waitedMillis) && waitedMillis >= 0))
          // it can be sent again with its bytes
          const copy = OutgoingMessage.fromDelivered(message, { queue: "q", delayMillis: 0, reason: "odd" })
          assert.deepStrictEqual(copy.content, message.content)
          assert.isTrue(isTime(copy.properties.timestamp))
          assert.isTrue(
            [...Buffer.from(OutgoingMessage.readBody(message))].every((byte, at) => byte === content[at])
          )
        }
      }),
    manyRuns
  )

  it.effect.prop(
    "the fields of a task round-trip",
    {
      id: Arbitrary.filter(wellFormed, ({ length }) => length > 0 && length <= 255),
      task: wellFormed,
      generation: elementOf([0, 1, 2 ** 40]),
      incarnation: elementOf(["", "0f", "z".repeat(32)])
    },
    ({ generation, id, incarnation, task }) =>
      Effect.sync(() => {
        const name = task.slice(0, 255)
        const { properties } = OutgoingMessage.fromEnvelope(
          {
            id,
            task: name,
            queue: "q",
            priority: 0,
            delayMillis: 5,
            incarnation,
            generation,
            body: "{}"
          },
          1_800_000_000_000
        )
        for (const property of [properties.messageId, properties.type]) {
          assert.isTrue(property === undefined || Buffer.byteLength(property) <= 255)
        }
        assert.deepInclude(OutgoingMessage.readProperties(messageOf(properties)), {
          id,
          task: name,
          incarnation,
          generation,
          dueAt: 1_800_000_000_005
        })
      }),
    manyRuns
  )

  it.effect.prop(
    "any delay encodes to valid properties and delay queues",
    { millis: Arbitrary.filter(millis, (time) => time >= 0) },
    ({ millis }) =>
      Effect.sync(() => {
        const { properties } = OutgoingMessage.fromEnvelope(
          { id: "a", task: "t", queue: "q", priority: 0, delayMillis: millis, body: "{}" },
          1_800_000_000_000
        )
        assert.isTrue(isTime(properties.timestamp), String(properties.timestamp))
        assert.isTrue(
          isTime(
            OutgoingMessage.fromDelivered(messageOf({}), { queue: "q", delayMillis: 0, dueAt: millis })
              .properties.timestamp
          )
        )
        const rounded = delayQueues.roundDelay(millis)
        assert.isAtMost(rounded, delayQueues.MAX_DELAY_MILLIS)
        assert.isAtLeast(rounded, Math.min(millis, delayQueues.MAX_DELAY_MILLIS))
        assert.strictEqual(
          delayQueues.exponentsOf(rounded).reduce((all, exponent) => all + 2 ** exponent, 0),
          rounded
        )
        assert.isBelow(delayQueues.routingKey(rounded, "q").length, 255)
      }),
    manyRuns
  )

  it.effect.prop(
    "UTF-8 bytes decode to text, and other bytes stay bytes",
    { text, bytes },
    ({ bytes, text }) =>
      Effect.sync(() => {
        assert.strictEqual(OutgoingMessage.readBody(messageOf({}, Buffer.from(text))), text.toWellFormed())
        assert.deepStrictEqual(
          Buffer.from(OutgoingMessage.readBody(messageOf({}, bytes))),
          Buffer.from(bytes)
        )
      }),
    manyRuns
  )
})
