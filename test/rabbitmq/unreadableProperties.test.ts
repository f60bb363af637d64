/** Messages whose headers are nested too deeply for amqplib: they lose their headers, and no connection is lost. */
import { createRequire } from "node:module"
import { dirname, join } from "node:path"
import { PassThrough } from "node:stream"
import { assert, describe, it } from "@effect/vitest"
import type { ChannelModel } from "amqplib"
import { AsyncResult, Broker, DeadLetters } from "chicory"
import { Effect } from "effect"
import { Names } from "../../src/rabbitmq/Names.ts"
import { dropUnreadableProperties } from "../../src/rabbitmq/unreadableProperties.ts"
import { messageOf } from "../fuzz/bodies.ts"
import { Count, countingHandler, eventually, roundTrip, startWorker } from "../support/storeFixture.ts"
import { describeWithRabbit, openConnection, sharedUrl } from "./server.ts"
import { openStore, sharedBackend, temporaryPrefix } from "./shared.ts"
import { warningsOf } from "./storeFixture.ts"

// #region Frames

const amqplib = dirname(createRequire(import.meta.url).resolve("amqplib"))
const load = createRequire(join(amqplib, "package.json"))

/** Modules of the installed amqplib. */
const { BasicPublish, encodeMethod } = load("./lib/defs.js") as {
  readonly BasicPublish: number
  readonly encodeMethod: (method: number, channel: number, fields: object) => Buffer
}
const { Connection } = load("./lib/connection.js") as {
  readonly Connection: new (stream: PassThrough) => { readonly recvFrame: () => unknown }
}

const METHOD = 1
const HEADER = 2
const BODY = 3
const END = 206

const frame = (type: number, channel: number, payload: Buffer, end = END): Buffer => {
  const head = Buffer.alloc(7)
  head.writeUInt8(type, 0)
  head.writeUInt16BE(channel, 1)
  head.writeUInt32BE(payload.length, 3)
  return Buffer.concat([head, payload, Buffer.of(end)])
}

/** A content header whose headers are tables within tables. */
const nestedHeader = (depth: number, bodyBytes: number): Buffer => {
  // the name "a", the type of a table, and its length
  const level = 7
  const tables = Buffer.alloc(4 + depth * level)
  tables.writeUInt32BE(depth * level, 0)
  for (let n = 0; n < depth; n++) {
    const at = 4 + n * level
    tables.write("\u0001aF", at, "latin1")
    tables.writeUInt32BE((depth - n - 1) * level, at + 3)
  }
  const head = Buffer.alloc(14)
  head.writeUInt16BE(60, 0)
  head.writeBigUInt64BE(BigInt(bodyBytes), 4)
  // the flag of the headers
  head.writeUInt16BE(0x2000, 12)
  return Buffer.concat([head, tables])
}

/** More than a stack holds, in a frame that the server takes. */
const TOO_DEEP = 18_000

/** The connection of the installed amqplib, and the bytes that it receives. */
const makeConnection = () => {
  const stream = new PassThrough({ highWaterMark: 2 ** 20 })
  const connection = new Connection(stream)
  dropUnreadableProperties({ connection } as unknown as ChannelModel)
  return {
    connection,
    receive: (...chunks: ReadonlyArray<Buffer>) => chunks.forEach((chunk) => stream.write(chunk))
  }
}

describe("the frame of properties", () => {
  it("that amqplib cannot decode has no properties, and the frames behind it are whole", () => {
    const { connection, receive } = makeConnection()
    receive(frame(HEADER, 7, nestedHeader(TOO_DEEP, 2)), frame(BODY, 7, Buffer.from("{}")))
    assert.deepStrictEqual(connection.recvFrame(), { id: 60, channel: 7, size: 2, fields: { headers: {} } })
    assert.deepStrictEqual(connection.recvFrame(), { channel: 7, content: Buffer.from("{}") })
    assert.isFalse(connection.recvFrame())
  })

  it("that arrives in parts is read once it is whole", () => {
    const { connection, receive } = makeConnection()
    const header = frame(HEADER, 7, nestedHeader(TOO_DEEP, 2))
    receive(header.subarray(0, 50_000))
    assert.isFalse(connection.recvFrame())
    receive(header.subarray(50_000))
    assert.deepInclude(connection.recvFrame() as object, { channel: 7, size: 2 })
  })

  it("that amqplib can decode is decoded", () => {
    const { connection, receive } = makeConnection()
    receive(frame(HEADER, 7, nestedHeader(2, 0)))
    const { fields } = connection.recvFrame() as { readonly fields: { readonly headers: object } }
    assert.deepStrictEqual(fields.headers, { a: { a: {} } })
  })

  it("that is damaged fails, as any other damaged frame", () => {
    for (const type of [HEADER, METHOD]) {
      const { connection, receive } = makeConnection()
      receive(frame(type, 7, nestedHeader(2, 0), 0))
      assert.throws(() => connection.recvFrame(), "Invalid frame")
    }
  })

  it("of a method that cannot be decoded fails", () => {
    const { connection, receive } = makeConnection()
    receive(frame(METHOD, 7, Buffer.of(255, 255, 255, 255)))
    assert.throws(() => connection.recvFrame())
  })
})

// #endregion

/** Publishes a message with headers that amqplib cannot encode. */
const publishNested = (queue: string, body: Buffer) =>
  Effect.scoped(
    Effect.gen(function* () {
      const model = yield* openConnection(sharedUrl)
      const channel = yield* Effect.promise(() => model.createConfirmChannel())
      const { ch } = channel as unknown as { readonly ch: number }
      const { channels } = model.connection as unknown as {
        readonly channels: Record<number, { readonly buffer: PassThrough }>
      }
      const { [ch]: open } = channels
      const confirmed = new Promise((resolve) => channel.on("ack", resolve))
      const fields = { ticket: 0, exchange: "", routingKey: queue, mandatory: true, immediate: false }
      open!.buffer.write(encodeMethod(BasicPublish, ch, fields))
      open!.buffer.write(frame(HEADER, ch, nestedHeader(TOO_DEEP, body.length)))
      open!.buffer.write(frame(BODY, ch, body))
      yield* Effect.promise(() => confirmed)
    })
  )

await describeWithRabbit("headers that are nested too deeply", () => {
  it.live("guarantee 8: hold up neither their message nor any other, and cost no connection", () =>
    Effect.gen(function* () {
      const prefix = yield* temporaryPrefix()
      const queue = new Names(prefix).queue("default")
      const logged = yield* warningsOf(
        Effect.gen(function* () {
          const store = yield* openStore(prefix, yield* sharedBackend)
          yield* Effect.gen(function* () {
            // declares the queue
            yield* Broker.counts(["default"])
            yield* publishNested(queue, Buffer.from(messageOf("nested", { unrecorded: true })))
            yield* publishNested(queue, Buffer.from("no message"))
            yield* startWorker(store, Count, countingHandler().layer)
            assert.strictEqual(yield* AsyncResult.get(Count.result("nested")), 1)
            assert.strictEqual(yield* roundTrip(2), 2)
            yield* eventually(Effect.map(DeadLetters.count(), (count) => count === 1))
            const [letter] = yield* DeadLetters.list()
            assert.strictEqual(letter!.raw, "no message")
          }).pipe(Effect.provideContext(store))
        })
      )
      assert.lengthOf(logged, 1)
      assert.include(logged[0], "it is parked as a dead letter (PayloadInvalid)")
    })
  )
})
