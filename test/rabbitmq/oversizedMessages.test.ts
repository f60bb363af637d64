/** Messages that are larger than any of this library: their bodies are dropped, and they become dead letters. */
import { createRequire } from "node:module"
import { dirname, join } from "node:path"
import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import type { Channel, Message, Options } from "amqplib"
import { AsyncResult, Backend, Broker, DeadLetters } from "chicory"
import { Effect, Layer, Option, type Scope } from "effect"
import { maxMessageBytes } from "../../src/internal/driver/maxMessageBytes.ts"
import { Names } from "../../src/rabbitmq/Names.ts"
import { fromDelivered, readProperties } from "../../src/rabbitmq/OutgoingMessage.ts"
import { droppedBytesOf, dropOversizedBodies } from "../../src/rabbitmq/oversizedMessages.ts"
import { messageOf } from "../fuzz/bodies.ts"
import * as processes from "../support/processes.ts"
import * as ProcessTasks from "../support/processTasks.ts"
import {
  Count,
  countingHandler,
  eventually,
  roundTrip,
  type Store,
  startWorker
} from "../support/storeFixture.ts"
import * as storeLocations from "../support/storeLocations.ts"
import * as temporaryLocations from "../support/temporaryLocations.ts"
import { describeWithRabbit, sharedUrl, withChannel } from "./server.ts"
import { openStore, sharedBackend, temporaryPrefix } from "./shared.ts"

// #region Frames

/** The channel of the installed amqplib, over a connection that sends nothing. */
const AmqplibChannel = (() => {
  const { resolve } = createRequire(import.meta.url)
  const load = createRequire(resolve("amqplib"))
  const { Channel: Installed } = load(join(dirname(resolve("amqplib")), "lib/channel_model.js")) as {
    readonly Channel: new (connection: object) => Channel & {
      readonly accept: (frame: object) => void
      readonly registerConsumer: (tag: string, callback: (message: Message) => void) => void
      readonly closeBecause: (reason: string, code: number, onClosed: () => void) => void
      readonly toClosed: () => void
      /** What handles the next frame of a message. */
      readonly handleMessage: { readonly name: string }
    }
  }
  return Installed
})()

const DELIVER = 3932220
const GET_OK = 3932231
const CHANNEL_CLOSE_OK = 1310761
const HEADER = 60

const LIMIT = 1000

/** A channel with a limit of 1,000 bytes, and what its consumer receives. */
const makeChannel = () => {
  const errors: Array<unknown> = []
  const received: Array<Message> = []
  const channel = new AmqplibChannel({ sendMethod: () => true, releaseChannel: () => {} })
  channel.on("error", (error) => errors.push(error))
  channel.registerConsumer("consumer", (message) => received.push(message))
  dropOversizedBodies(channel, LIMIT)
  const begin = (id: number, size: number, deliveryTag: number) => {
    channel.accept({ id, channel: 1, fields: { consumerTag: "consumer", deliveryTag } })
    channel.accept({ id: HEADER, channel: 1, size, fields: { messageId: String(deliveryTag), headers: {} } })
  }
  const body = (...sizes: ReadonlyArray<number>) => {
    for (const size of sizes) channel.accept({ channel: 1, content: Buffer.alloc(size, "x") })
  }
  return {
    channel,
    errors,
    /** Delivers the frames of a message up to its content header. */
    deliver: (size: number, deliveryTag: number) => begin(DELIVER, size, deliveryTag),
    answerGet: (size: number, deliveryTag: number) => begin(GET_OK, size, deliveryTag),
    body,
    received: () =>
      received.map((message) => [
        message.fields.deliveryTag,
        message.properties.messageId as string,
        message.content.length,
        droppedBytesOf(message)
      ])
  }
}

describe("the frames of an oversized message", () => {
  it("its body is dropped frame by frame, and it is handed on empty with its size after the last one", () => {
    const { body, channel, deliver, errors, received } = makeChannel()
    const { handleMessage: waiting } = channel
    deliver(LIMIT * 3, 1)
    const { handleMessage: afterHeader } = channel
    body(LIMIT, LIMIT)
    // amqplib has seen the delivery alone
    assert.strictEqual(channel.handleMessage, afterHeader)
    assert.deepStrictEqual(received(), [])
    body(LIMIT)
    assert.strictEqual(channel.handleMessage, waiting)
    assert.deepStrictEqual(received(), [[1, "1", 0, LIMIT * 3]])
    assert.deepStrictEqual(errors, [])
  })

  it("messages of up to the limit are whole, before it and behind it", () => {
    const { body, deliver, errors, received } = makeChannel()
    deliver(LIMIT, 1)
    body(LIMIT - 1, 1)
    deliver(LIMIT + 1, 2)
    body(1, LIMIT)
    deliver(0, 3)
    deliver(LIMIT, 4)
    body(LIMIT)
    assert.deepStrictEqual(received(), [
      [1, "1", LIMIT, undefined],
      [2, "2", 0, LIMIT + 1],
      [3, "3", 0, undefined],
      [4, "4", LIMIT, undefined]
    ])
    assert.deepStrictEqual(errors, [])
  })

  it("one that was fetched is handed on empty too", async () => {
    const { answerGet, body, channel } = makeChannel()
    const fetching = channel.get("queue")
    answerGet(LIMIT * 2, 7)
    body(LIMIT, LIMIT)
    const message = await fetching
    assert(message !== false)
    assert.deepStrictEqual(
      [message.fields.deliveryTag, message.content.length, droppedBytesOf(message)],
      [7, 0, LIMIT * 2]
    )
  })

  it("a channel that is closed while it arrives closes as any other", () => {
    const { body, channel, deliver, errors, received } = makeChannel()
    let closed = false
    deliver(LIMIT * 2, 1)
    channel.closeBecause("a test", 200, () => {
      closed = true
    })
    body(LIMIT, LIMIT)
    channel.accept({ id: CHANNEL_CLOSE_OK, channel: 1, fields: {} })
    assert.isTrue(closed)
    assert.deepStrictEqual([received(), errors], [[], []])
  })

  it("a copy of it still has its size", () => {
    const { channel, deliver, body } = makeChannel()
    let message: Message | undefined
    channel.registerConsumer("consumer", (delivered) => {
      message = delivered
    })
    deliver(LIMIT * 2, 1)
    body(LIMIT, LIMIT)
    const { content, properties } = fromDelivered(message!, { queue: "q", delayMillis: 1000 })
    const copy = { content, properties } as unknown as Message
    assert.strictEqual(readProperties(copy).oversizedBytes, LIMIT * 2)
    // no other message is oversized, whatever its headers say
    assert.isUndefined(readProperties({ ...copy, content: Buffer.from("{}") }).oversizedBytes)
  })
})

// #endregion

// #region Servers

const MiB = 2 ** 20
const OVERSIZED = 20 * MiB

/** A message that would run if it were smaller. */
const oversizedBody = (id: string, bytes: number): Buffer =>
  Buffer.from(
    messageOf(id, { unrecorded: true, payload: { n: 1, millis: 0, rest: null } }).replace(
      `"rest":null`,
      `"rest":[${"1,".repeat((bytes - 200) / 2)}1]`
    )
  )

const publish = (prefix: string, ...sent: ReadonlyArray<readonly [Buffer, Options.Publish?]>) =>
  withChannel(sharedUrl, async (channel) => {
    for (const [content, options] of sent) {
      channel.sendToQueue(new Names(prefix).queue("default"), content, { mandatory: true, ...options })
    }
    await channel.waitForConfirms()
  })

const untilDrained = eventually(
  Effect.map(
    Broker.counts(["default"]),
    ([counts]) => counts!.ready + counts!.delayed + counts!.claimed === 0
  )
)

const untilDeadLetters = (count: number) =>
  Effect.andThen(eventually(Effect.map(DeadLetters.count(), (found) => found >= count)), DeadLetters.list())

/** How the reason of an oversized message of that size begins. */
const issueOf = (bytes: number) =>
  `the message has ${bytes} bytes, and a message has at most ${maxMessageBytes}`

const withStore = (
  backend: Layer.Layer<Backend.Backend>,
  body: (
    store: Store,
    prefix: string
  ) => Effect.Effect<void, unknown, Scope.Scope | Backend.Backend | Broker.Broker>
) =>
  Effect.gen(function* () {
    const prefix = yield* temporaryPrefix()
    const store = yield* openStore(prefix, backend)
    // declares the queue
    yield* Effect.provideContext(Broker.counts(["default"]), store)
    yield* Effect.provideContext(body(store, prefix), store)
  })

await describeWithRabbit("oversized messages on RabbitMQ", () => {
  it.live("guarantee 8: one becomes a dead letter that says its size, and the messages around it run", () =>
    Effect.flatMap(sharedBackend, (backend) =>
      withStore(backend, (store, prefix) =>
        Effect.gen(function* () {
          const body = oversizedBody("big", OVERSIZED)
          const small = (id: string) => Buffer.from(messageOf(id, { unrecorded: true }))
          yield* publish(prefix, [small("before")], [body], [small("behind")], [body], [small("last")])
          yield* startWorker(store, Count, countingHandler().layer)
          const handles = ["before", "behind", "last"].map((id) => Count.result(id))
          assert.deepStrictEqual(yield* AsyncResult.all(handles), [1, 1, 1])
          for (const { queue, raw, reason, taskId } of yield* untilDeadLetters(2)) {
            assert(reason._tag === "PayloadInvalid")
            assert.include(reason.issue, issueOf(body.length))
            assert.deepStrictEqual([queue, raw, Option.isNone(taskId)], ["default", "", true])
          }
          assert.strictEqual(yield* roundTrip(2), 2)
          yield* untilDrained
        })
      )
    )
  )

  it.live("one whose properties name a task ends that task", () =>
    Effect.flatMap(sharedBackend, (backend) =>
      withStore(backend, (store, prefix) =>
        Effect.gen(function* () {
          // its own message waits for longer than the test takes
          const handle = yield* Count.delay({ n: 1, millis: 0 }, { id: "named", delay: "1 hour" })
          const { read } = yield* Backend.Backend
          const record = yield* read.one("named")
          const properties = {
            appId: "chicory",
            messageId: "named",
            type: "count",
            headers: { incarnation: record!.incarnation }
          }
          yield* publish(prefix, [oversizedBody("named", OVERSIZED), properties])
          yield* startWorker(store, Count, countingHandler().layer)
          const failed = yield* Effect.flip(AsyncResult.get(handle))
          assert(failed._tag === "TaskFailed" && failed.reason._tag === "PayloadInvalid")
          assert.match(failed.reason.issue, /^the message has \d+ bytes/)
        })
      )
    )
  )

  it.live("without a backend its rejected copy says its size", () =>
    withStore(Backend.layerNotConfigured, (store, prefix) =>
      Effect.gen(function* () {
        const runs = countingHandler()
        const body = oversizedBody("big", OVERSIZED)
        yield* publish(prefix, [body])
        yield* startWorker(store, Count, runs.layer)
        yield* Count.send({ n: 7, millis: 0 })
        yield* runs.untilEnded(1)
        yield* untilDrained
        const rejected = yield* withChannel(sharedUrl, (channel) =>
          channel.get(new Names(prefix).rejectedQueue("default"), { noAck: true })
        )
        assert(rejected !== false)
        assert.strictEqual(rejected.content.length, 0)
        assert.deepInclude(rejected.properties.headers, { reason: "PayloadInvalid", oversized: body.length })
      })
    )
  )

  it.live("a purge removes it", () =>
    withStore(Backend.layerNotConfigured, (_, prefix) =>
      Effect.gen(function* () {
        yield* publish(prefix, [oversizedBody("big", OVERSIZED)], [Buffer.from(messageOf("small"))])
        assert.strictEqual(yield* Broker.purge("default"), 2)
      })
    )
  )

  it.live(
    "guarantee 8: a worker whose memory it exceeds stays alive and runs the next task",
    () =>
      Effect.gen(function* () {
        const location = yield* temporaryLocations.rabbitmq(temporaryLocations.sqlite)
        yield* Effect.gen(function* () {
          yield* Broker.counts(["default"])
          const body = oversizedBody("big", 60 * MiB)
          yield* publish(location.rabbitmq.prefix, [body])
          const worker = yield* processes.startWorker(
            location,
            {},
            {
              env: { NODE_OPTIONS: "--max-old-space-size=128" },
              extendEnv: true
            }
          )
          const [letter] = yield* untilDeadLetters(1)
          assert(letter!.reason._tag === "PayloadInvalid")
          assert.include(letter!.reason.issue, issueOf(body.length))
          const later = yield* ProcessTasks.Count.delay({ n: 2, millis: 0 })
          assert.strictEqual((yield* AsyncResult.get(later)).pid, worker.pid)
        }).pipe(Effect.provide(Layer.mergeAll(NodeServices.layer, storeLocations.layer(location))))
      }),
    { timeout: 60_000 }
  )
})

// #endregion
