/** Malformed messages from other clients: none is lost, and none stops other tasks. */
import { assert, describe, it } from "@effect/vitest"
import type { GetMessage, Options } from "amqplib"
import { AsyncResult, Backend, Broker, DeadLetters, type Worker } from "chicory"
import type { NewRecord } from "chicory/driver"
import { SqliteBackend } from "chicory/sqlite"
import { Duration, Effect, Exit, Layer, Logger, Option, type Scope } from "effect"
import { Names } from "../../src/rabbitmq/Names.ts"
import { messageOf, messageWith, nested } from "../fuzz/bodies.ts"
import { loneSurrogate } from "../fuzz/randomValues.ts"
import { describeWithMariadb } from "../mariadb/server.ts"
import { describeWithPostgres } from "../postgres/server.ts"
import { temporaryFile } from "../sqlite/temporary.ts"
import {
  Count,
  countingHandler,
  eventually,
  roundTrip,
  type Store,
  startWorker
} from "../support/storeFixture.ts"
import { layer, type StoreLocation } from "../support/storeLocations.ts"
import * as temporaryLocations from "../support/temporaryLocations.ts"
import { describeWithRabbit, isUp, sharedUrl, withChannel } from "./server.ts"
import { openStore, countReady, sharedBackend, temporaryPrefix } from "./shared.ts"

/** A message as a bare AMQP client publishes it. */
interface RawMessage {
  readonly content: Uint8Array | string
  readonly options?: Options.Publish
}

const textOf = (body: string | Uint8Array): string =>
  typeof body === "string" ? body : `bytes ${Array.from(body).join(" ")}`

// #region Messages

const contents: ReadonlyArray<Uint8Array | string> = [
  Uint8Array.of(255, 254, 0, 10, 195, 40, 195, 188),
  Uint8Array.of(0x80),
  "\u0000",
  "hello",
  "",
  "}{",
  "null",
  "7",
  "[1, 2, 3]",
  `{"v":1,"task":"count"}`,
  `{"v":2,"id":"a","generation":0,"task":"count","queue":"default","payload":1,"retries":0,"priority":1}`,
  "🌶️ grüße \u2028",
  nested,
  messageOf("a").slice(0, -1),
  messageOf(loneSurrogate),
  messageOf("x".repeat(256)),
  messageOf("x".repeat(10_000)),
  messageOf("a", { queue: loneSurrogate }),
  messageWith("a", "generation", "-1"),
  messageWith("a", "retries", "-9007199254740991"),
  messageWith("a", "priority", "1e15"),
  messageWith("a", "expires", "1e999"),
  messageWith("a", "expires", "-1e308")
]

/** The record of a task that waits. */
const recordOf = (id: string): NewRecord => ({
  id,
  task: "count",
  incarnation: "",
  queue: "default",
  key: undefined,
  payloadHash: "",
  delayMillis: 0,
  expiresMillis: undefined,
  retentionMillis: undefined,
  reservedMillis: undefined
})

/** Marks a message as one of this library. */
const ours: Options.Publish = { appId: "chicory" }

/** Headers and properties of other clients, some of which claim to be of this library. */
const odd: ReadonlyArray<Options.Publish> = [
  ...[
    { task: "count" },
    { id: ["a"], task: { b: 1 } },
    { id: null, task: null, generation: null, expires: null, due: null },
    { due: "yesterday" },
    { due: { "!": "timestamp", value: 1_700_000_000 } },
    { due: -1 },
    { generation: "one", expires: "soon" },
    { "x-death": "of boredom" },
    { "x-death": [1, null, { count: "many" }] },
    { "x-delivery-count": "seven" },
    { reason: "none" },
    { deep: { deeper: [{ deepest: true }] }, bytes: Buffer.of(255) }
  ].map((headers) => ({ headers })),
  { expiration: "60000" },
  { replyTo: "nowhere" },
  { correlationId: "x".repeat(255), messageId: "", type: "count", appId: "another" },
  { contentType: "text/plain", contentEncoding: "gzip" },
  { priority: 255, persistent: false, timestamp: 2 ** 53 },
  { ...ours, headers: { id: ["a"], task: null, generation: "one", expires: "soon" } },
  { ...ours, timestamp: 2 ** 53, headers: { expires: -1, generation: -1 } }
]

/** Headers beside an id and a task name, for bytes that are not a message. */
const addressedHeaders: ReadonlyArray<Record<string, unknown>> = [
  {},
  { id: "", task: "" },
  { id: "x".repeat(5_000) },
  { id: "\u0000", task: "\u0000" },
  { generation: 1.5 },
  { generation: -1 },
  { generation: 2 ** 40 },
  { generation: 1e300 },
  { expires: -1 },
  { expires: 0 },
  { expires: 1.5 },
  { expires: 1e300 },
  { due: 8.64e15 },
  { due: { "!": "double", value: -1e300 } }
]

/** Properties that amqplib decodes but cannot encode. */
const notEncodable: ReadonlyArray<Options.Publish> = [
  { headers: { number: { "!": "double", value: -1e300 } } },
  { headers: { due: { "!": "double", value: -1e300 } } },
  { headers: { odd: Object.create({ "!": "table-like", more: 1 }) as unknown } },
  { headers: { when: { "!": "timestamp", value: "18446744073709551615" } } },
  { timestamp: 2 ** 64 - 2048 },
  { headers: { fine: { "!": "int64", value: "9223372036854775807" } } }
]

/** Makes a message whose sender has written no record. */
const message = (id: string, task: string, payload: unknown) =>
  messageOf(id, { task, payload, unrecorded: true })

// #endregion

/** Access to the queue of a test. */
const queueOf = (prefix: string) => {
  const names = new Names(prefix)
  return {
    /** Publishes to the queue, and waits until the server has confirmed all messages. */
    send: (...sent: ReadonlyArray<RawMessage>) =>
      withChannel(sharedUrl, async (channel) => {
        for (const { content, options } of sent) {
          channel.sendToQueue(names.queue("default"), Buffer.from(content as string), {
            mandatory: true,
            ...options
          })
        }
        await channel.waitForConfirms()
      }),
    /** Waits until at least `count` messages are rejected, and takes them. */
    takeRejected: (count: number) =>
      Effect.andThen(
        eventually(
          withChannel(
            sharedUrl,
            async (channel) =>
              (await channel.checkQueue(names.rejectedQueue("default"))).messageCount >= count
          ).pipe(Effect.catch(() => Effect.succeed(false)))
        ),
        withChannel(sharedUrl, async (channel) => {
          const taken: Array<GetMessage> = []
          while (true) {
            const one = await channel.get(names.rejectedQueue("default"), { noAck: true })
            if (one === false) return taken
            taken.push(one)
          }
        })
      ),
    /** Waits until neither the store nor the server knows of a message. */
    drained: eventually(
      Effect.map(
        Effect.all([Broker.counts(["default"]), countReady(prefix, "default")]),
        ([[counts], ready]) => counts!.ready + counts!.delayed + counts!.claimed + ready === 0
      )
    )
  }
}

type Queue = ReturnType<typeof queueOf>

const withStore = (
  name: string,
  backend: Effect.Effect<Layer.Layer<Backend.Backend>, unknown, Scope.Scope>,
  body: (
    queue: Queue,
    store: Store
  ) => Effect.Effect<void, unknown, Scope.Scope | Backend.Backend | Broker.Broker>
) =>
  it.live(name, () =>
    Effect.gen(function* () {
      const prefix = yield* temporaryPrefix()
      const store = yield* openStore(prefix, yield* backend)
      // declares the queue
      yield* Effect.provideContext(Broker.counts(["default"]), store)
      yield* Effect.provideContext(body(queueOf(prefix), store), store)
    })
  )

const sqlite = Effect.map(temporaryFile, (filename) => Layer.orDie(SqliteBackend.layer({ filename })))

/** Waits for at least `count` dead letters, and returns them. */
const awaitDeadLetters = (count: number) =>
  Effect.andThen(eventually(Effect.map(DeadLetters.count(), (found) => found >= count)), DeadLetters.list())

/** Messages of another client for that task, one for each of the options. */
const foreign = (
  task: string,
  payload: (n: number) => unknown,
  options: ReadonlyArray<Options.Publish>
): ReadonlyArray<RawMessage> =>
  options.map((options, n) => ({ content: message(`foreign ${n}`, task, payload(n)), options }))

await describeWithRabbit("malformed messages on RabbitMQ", () => {
  for (const [what, backend] of [
    ["memory", sharedBackend],
    ["sqlite", sqlite]
  ] as const) {
    const test = (name: string, body: Parameters<typeof withStore>[2]) => withStore(name, backend, body)
    const work = (store: Store, options?: Worker.Options) => {
      const runs = countingHandler()
      return Effect.as(startWorker(store, Count, runs.layer, options), runs)
    }

    describe.concurrent(`with results in ${what}`, () => {
      test("guarantee 8: an undecodable message becomes a dead letter with exactly its bytes", ({
        drained,
        send
      }, store) =>
        Effect.gen(function* () {
          yield* work(store)
          yield* send(...contents.map((content) => ({ content })))
          const found = yield* awaitDeadLetters(contents.length)
          assert.sameMembers(
            found.map(({ raw }) => textOf(raw)),
            contents.map(textOf)
          )
          for (const { queue, reason, taskId } of found) {
            assert.strictEqual(queue, "default")
            assert.strictEqual(reason._tag, "PayloadInvalid")
            assert.isTrue(Option.isNone(taskId))
          }
          assert.strictEqual(yield* roundTrip(1), 1)
          yield* drained
        }))

      test("an undecodable message becomes a dead letter whatever its headers and properties", ({
        drained,
        send
      }, store) =>
        Effect.gen(function* () {
          yield* work(store)
          const sent = [{ headers: { id: 7 } }, ...odd, ...notEncodable].map((options, n) => ({
            content: `no message ${n}`,
            options
          }))
          yield* send(...sent)
          assert.sameMembers(
            (yield* awaitDeadLetters(sent.length)).map(({ raw }) => raw),
            sent.map(({ content }) => content)
          )
          assert.strictEqual(yield* roundTrip(1), 1)
          yield* drained
        }))

      test("a message with an extreme id or generation runs or becomes a dead letter, and does not hold up its batch", ({
        drained,
        send
      }, store) =>
        Effect.gen(function* () {
          const good = ["good 0", "good 1", "good 2"]
          const odd = ["\0", "a\0b", "x".repeat(255), "é".repeat(255), "\n", "{a}", "%zz"]
          const bodies = [...good.slice(0, 2), ...odd, ...good.slice(2)].map((id) =>
            message(id, "count", { n: 1, millis: 0 })
          )
          bodies.push(messageOf("last", { generation: Number.MAX_SAFE_INTEGER, unrecorded: true }))
          yield* send(...bodies.map((content) => ({ content })))
          // started after the publishes, so that all are claimed at once
          yield* work(store)
          for (const id of [...good, ...odd]) {
            const exit = yield* Effect.exit(AsyncResult.get(Count.result(id)))
            assert.deepStrictEqual(exit, Exit.succeed(1), JSON.stringify(id))
          }
          assert.strictEqual(yield* roundTrip(1), 1)
          yield* drained
          // the last one has run, or is a dead letter
          const kept = (yield* DeadLetters.list()).map(({ raw }) => raw)
          const last = yield* AsyncResult.state(Count.result("last"))
          assert.deepStrictEqual(kept, last === "SUCCESS" ? [] : bodies.slice(-1))
        }))

      test("an undecodable message whose properties name a task ends that task", ({ drained, send }, store) =>
        Effect.gen(function* () {
          yield* work(store)
          const { create } = yield* Backend.Backend
          yield* create.many(addressedHeaders.map((_, n) => recordOf(`task ${n}`)))
          const sent = addressedHeaders.map((headers, n) => ({
            content: `no message ${n}`,
            options: { ...ours, messageId: `task ${n}`, type: "count", headers }
          }))
          yield* send(...sent)
          const found = yield* awaitDeadLetters(sent.length)
          assert.sameMembers(
            found.map(({ raw }) => raw),
            sent.map(({ content }) => content)
          )
          assert.isTrue(found.every(({ reason }) => reason._tag === "PayloadInvalid"))
          const failed = yield* Effect.flip(AsyncResult.get(Count.result("task 0")))
          assert(failed._tag === "TaskFailed")
          assert.strictEqual(failed.reason._tag, "PayloadInvalid")
          assert.strictEqual(yield* roundTrip(1), 1)
          yield* drained
        }))

      test("a valid message of another client runs, whatever its headers and properties", ({
        drained,
        send
      }, store) =>
        Effect.gen(function* () {
          const runs = yield* work(store)
          const options = [{}, ...odd, ...notEncodable]
          yield* send(...foreign("count", (n) => ({ n, millis: 0 }), options))
          yield* runs.untilEnded(options.length)
          assert.sameMembers(
            runs.ended,
            options.map((_, n) => n)
          )
          yield* drained
          assert.strictEqual(yield* DeadLetters.count(), 0)
        }))

      const testUnknownTask = (name: string, options: ReadonlyArray<Options.Publish>) =>
        test(name, ({ drained, send }, store) =>
          Effect.gen(function* () {
            yield* work(store, { unknownTaskGrace: "1200 millis" })
            const sent = foreign("no such task", (n) => n, options)
            const before = performance.now()
            yield* send(...sent)
            const found = yield* Effect.timeout(awaitDeadLetters(sent.length), "10 seconds")
            assert.isAtLeast(performance.now() - before, 1000)
            assert.sameMembers(
              found.map(({ reason, raw }) => `${reason._tag} ${textOf(raw)}`),
              sent.map(({ content }) => `UnknownTask ${textOf(content)}`)
            )
            yield* drained
          })
        )

      testUnknownTask("a message of an unknown task is put back, and ends once its grace is over", [
        {},
        ...odd
      ])

      testUnknownTask("a message of an unknown task ends although amqplib cannot encode its headers", [
        {},
        ...notEncodable
      ])

      testUnknownTask("a message of an unknown task ends although its timestamp is years ahead", [
        { ...ours, timestamp: 8.64e15 }
      ])
    })
  }

  describe.concurrent("without a backend", () => {
    const testParking = (name: string, sent: ReadonlyArray<RawMessage>) =>
      withStore(name, Effect.succeed(Backend.layerNotConfigured), ({ drained, send, takeRejected }, store) =>
        Effect.gen(function* () {
          const runs = countingHandler()
          yield* startWorker(store, Count, runs.layer)
          yield* send(...sent)
          const parked = yield* Effect.timeout(takeRejected(sent.length), "10 seconds")
          assert.sameMembers(
            parked.map(({ content }) => content.toString("hex")),
            sent.map(({ content }) => Buffer.from(content as string).toString("hex"))
          )
          for (const { properties } of parked) {
            const headers: Record<string, unknown> = properties.headers ?? {}
            assert.strictEqual(headers["reason"], "PayloadInvalid")
          }
          yield* Count.send({ n: 1, millis: 0 })
          yield* runs.untilEnded(1)
          yield* drained
        })
      )

    testParking(
      "an undecodable message is parked with its bytes and the reason",
      contents.map((content) => ({ content }))
    )

    testParking(
      "an undecodable message is parked whatever its headers and properties",
      odd.map((options, n) => ({ content: `no message ${n}`, options }))
    )

    testParking(
      "an undecodable message is parked although amqplib cannot encode its headers",
      [{}, ...notEncodable].map((options, n) => ({ content: `no message ${n}`, options }))
    )

    withStore(
      "a parked message keeps the id and the task of its properties, for 14 days",
      Effect.succeed(Backend.layerNotConfigured),
      ({ send, takeRejected }, store) =>
        Effect.gen(function* () {
          yield* startWorker(store, Count, countingHandler().layer)
          const head = { ...ours, messageId: "a", type: "count" }
          yield* send({ content: "no message", options: { ...head, headers: { generation: 7 } } })
          const [parked] = yield* takeRejected(1)
          assert.deepInclude(parked?.properties, head)
          assert.deepInclude(parked?.properties.headers, { generation: 7, reason: "PayloadInvalid" })
          assert.strictEqual(parked?.properties.expiration, String(Duration.toMillis(Duration.days(14))))
        })
    )

    withStore(
      "a valid message of another client runs",
      Effect.succeed(Backend.layerNotConfigured),
      ({ drained, send }, store) =>
        Effect.gen(function* () {
          const runs = countingHandler()
          yield* startWorker(store, Count, runs.layer)
          yield* send({ content: message("foreign", "count", { n: 7, millis: 0 }) })
          yield* runs.untilEnded(1)
          assert.deepStrictEqual(runs.ended, [7])
          yield* drained
        })
    )
  })
})

/** Tests ids that the database of the backend cannot store. */
const testRefusedIds = <P extends StoreLocation>(
  locations: temporaryLocations.TemporaryLocation<P>,
  bad: ReadonlyArray<string>
): void =>
  it.live(
    "a message whose id the database cannot store becomes a dead letter, and does not hold up its batch",
    () =>
      Effect.gen(function* () {
        const location = yield* temporaryLocations.rabbitmq(locations)
        const store = yield* Layer.build(layer(location))
        yield* Effect.gen(function* () {
          yield* Broker.counts(["default"])
          const { drained, send } = queueOf(location.rabbitmq.prefix)
          const bodyOf = (id: string) => messageOf(id, { unrecorded: true })
          const good = ["good 0", "good 1", "good 2"]
          const ids = [...good.slice(0, 1), ...bad, ...good.slice(1)]
          yield* send(...ids.map((id) => ({ content: bodyOf(id) })))
          yield* startWorker(store, Count, countingHandler().layer)
          const values = yield* AsyncResult.all(good.map((id) => Count.result(id)))
          assert.deepStrictEqual(values, [1, 1, 1])
          const found = yield* awaitDeadLetters(bad.length)
          assert.sameMembers(
            found.map(({ raw }) => raw),
            bad.map(bodyOf)
          )
          assert.strictEqual(yield* roundTrip(1), 1)
          yield* drained
        }).pipe(Effect.provideContext(store))
        // silences the warnings about messages that cannot be started
      }).pipe(Effect.provide(Logger.layer([])))
  )

/** Requires both servers. A skipped suite names the one that is missing. */
const withRabbit = (describeWithDatabase: typeof describeWithPostgres) =>
  isRabbitUp ? describeWithDatabase : describeWithRabbit
const isRabbitUp = await Effect.runPromise(isUp)

await withRabbit(describeWithPostgres)("malformed messages on RabbitMQ, with results in PostgreSQL", () =>
  testRefusedIds(temporaryLocations.postgres, ["\0", "a\0b", loneSurrogate, "x".repeat(300)])
)
await withRabbit(describeWithMariadb)("malformed messages on RabbitMQ, with results in MariaDB", () =>
  testRefusedIds(temporaryLocations.mariadb, [loneSurrogate, "x".repeat(300)])
)
