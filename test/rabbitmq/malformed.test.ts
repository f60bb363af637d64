/** What others send to a queue: nothing of it may stop those who had no part in it, and none of it is lost. */
import { assert, describe, it } from "@effect/vitest"
import type { GetMessage, Options } from "amqplib"
import { AsyncResult, Backend, Broker, DeadLetters, type Worker } from "chicory"
import { SqliteBackend } from "chicory/sqlite"
import { Effect, Exit, Layer, Logger, Option, type Scope } from "effect"
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
import * as TemporaryPlaces from "../support/temporaryLocations.ts"
import { describeWithRabbit, isUp, sharedUrl, withChannel } from "./server.ts"
import { openStore, readyOn, sharedBackend, temporaryPrefix } from "./shared.ts"

/** A message of a bare client. */
interface Sent {
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

/** Marks a message as this library's. */
const ours: Options.Publish = { appId: "chicory" }

/** Headers and properties of others, and some that pretend to be ours. */
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

/** Headers that name a task, beside bytes that are no message. */
const addressed: ReadonlyArray<Record<string, unknown>> = [
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

/** What the client library decodes, and does not encode. */
const stubborn: ReadonlyArray<Options.Publish> = [
  { headers: { number: { "!": "double", value: -1e300 } } },
  { headers: { due: { "!": "double", value: -1e300 } } },
  { headers: { odd: Object.create({ "!": "table-like", more: 1 }) as unknown } },
  { headers: { when: { "!": "timestamp", value: "18446744073709551615" } } },
  { timestamp: 2 ** 64 - 2048 },
  { headers: { fine: { "!": "int64", value: "9223372036854775807" } } }
]

const message = (id: string, task: string, payload: unknown) =>
  JSON.stringify({ v: 1, id, generation: 0, task, queue: "default", payload, retries: 0, priority: 100 })

// #endregion

/** The queue of a test. */
const queueOf = (prefix: string) => {
  const names = new Names(prefix)
  return {
    /** Sends straight to the queue, and waits until it holds all. */
    send: (...sent: ReadonlyArray<Sent>) =>
      withChannel(sharedUrl, async (channel) => {
        for (const { content, options } of sent) {
          channel.sendToQueue(names.queue("default"), Buffer.from(content as string), {
            mandatory: true,
            ...options
          })
        }
        await channel.waitForConfirms()
      }),
    /** Takes what was rejected, once there is so much. */
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
    /** Waits until no message is left, by the store and by the server. */
    drained: eventually(
      Effect.map(
        Effect.all([Broker.counts(["default"]), readyOn(prefix, "default")]),
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
      // its queue is made
      yield* Effect.provideContext(Broker.counts(["default"]), store)
      yield* Effect.provideContext(body(queueOf(prefix), store), store)
    })
  )

const sqlite = Effect.map(temporaryFile, (filename) => Layer.orDie(SqliteBackend.layer({ filename })))

/** Waits until there are so many letters, and gives them. */
const letters = (count: number) =>
  Effect.andThen(eventually(Effect.map(DeadLetters.count(), (found) => found >= count)), DeadLetters.list())

/** Messages of another producer for that task, with each of the headers and properties. */
const foreign = (
  task: string,
  payload: (n: number) => unknown,
  options: ReadonlyArray<Options.Publish>
): ReadonlyArray<Sent> =>
  options.map((options, n) => ({ content: message(`foreign ${n}`, task, payload(n)), options }))

await describeWithRabbit("garbage on RabbitMQ", () => {
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
      test("what is no message becomes a dead letter with exactly its bytes", ({ drained, send }, store) =>
        Effect.gen(function* () {
          yield* work(store)
          yield* send(...contents.map((content) => ({ content })))
          const found = yield* letters(contents.length)
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

      test("it does so whatever its headers and properties", ({ drained, send }, store) =>
        Effect.gen(function* () {
          yield* work(store)
          const sent = [{ headers: { id: 7 } }, ...odd, ...stubborn].map((options, n) => ({
            content: `no message ${n}`,
            options
          }))
          yield* send(...sent)
          assert.sameMembers(
            (yield* letters(sent.length)).map(({ raw }) => raw),
            sent.map(({ content }) => content)
          )
          assert.strictEqual(yield* roundTrip(1), 1)
          yield* drained
        }))

      test("what a record can hardly be made of runs, or is kept, and holds up none that came with it", ({
        drained,
        send
      }, store) =>
        Effect.gen(function* () {
          const good = ["good 0", "good 1", "good 2"]
          const odd = ["\0", "a\0b", "x".repeat(255), "é".repeat(255), "\n", "{a}", "%zz"]
          const bodies = [...good.slice(0, 2), ...odd, ...good.slice(2)].map((id) => messageOf(id))
          bodies.push(messageWith("last", "generation", `${Number.MAX_SAFE_INTEGER}`))
          yield* send(...bodies.map((content) => ({ content })))
          // all of them are claimed at once
          yield* work(store)
          for (const id of [...good, ...odd]) {
            const exit = yield* Effect.exit(AsyncResult.get(Count.result(id), { timeout: "10 seconds" }))
            assert.deepStrictEqual(exit, Exit.succeed(1), JSON.stringify(id))
          }
          assert.strictEqual(yield* roundTrip(1), 1)
          yield* drained
          // the last one has run, or is kept
          const kept = (yield* DeadLetters.list()).map(({ raw }) => raw)
          const last = yield* AsyncResult.state(Count.result("last"))
          assert.deepStrictEqual(kept, last === "SUCCESS" ? [] : bodies.slice(-1))
        }))

      test("where its properties name a task, that ends with it", ({ drained, send }, store) =>
        Effect.gen(function* () {
          yield* work(store)
          const sent = addressed.map((headers, n) => ({
            content: `no message ${n}`,
            options: { ...ours, messageId: `task ${n}`, type: "count", headers }
          }))
          yield* send(...sent)
          const found = yield* letters(sent.length)
          assert.sameMembers(
            found.map(({ raw }) => raw),
            sent.map(({ content }) => content)
          )
          assert.isTrue(found.every(({ reason }) => reason._tag === "PayloadInvalid"))
          const failed = yield* Effect.flip(AsyncResult.get(Count.result("task 0"), { timeout: "5 seconds" }))
          assert(failed._tag === "TaskFailed")
          assert.strictEqual(failed.reason._tag, "PayloadInvalid")
          assert.strictEqual(yield* roundTrip(1), 1)
          yield* drained
        }))

      test("a message of another producer runs, whatever its headers and properties", ({
        drained,
        send
      }, store) =>
        Effect.gen(function* () {
          const runs = yield* work(store)
          const options = [{}, ...odd, ...stubborn]
          yield* send(...foreign("count", (n) => ({ n, millis: 0 }), options))
          yield* runs.untilEnded(options.length)
          assert.sameMembers(
            runs.ended,
            options.map((_, n) => n)
          )
          yield* drained
          assert.strictEqual(yield* DeadLetters.count(), 0)
        }))

      const puttingBack = (name: string, options: ReadonlyArray<Options.Publish>) =>
        test(name, ({ drained, send }, store) =>
          Effect.gen(function* () {
            yield* work(store, { unknownTaskGrace: "1200 millis" })
            const sent = foreign("nobody's", (n) => n, options)
            const before = performance.now()
            yield* send(...sent)
            const found = yield* Effect.timeout(letters(sent.length), "10 seconds")
            assert.isAtLeast(performance.now() - before, 1000)
            assert.sameMembers(
              found.map(({ reason, raw }) => `${reason._tag} ${textOf(raw)}`),
              sent.map(({ content }) => `UnknownTask ${textOf(content)}`)
            )
            yield* drained
          })
        )

      puttingBack("one of an unknown task is put back, and ends when the time for it is over", [{}, ...odd])

      puttingBack("it does so though the client library cannot send again what is in its headers", [
        {},
        ...stubborn
      ])

      puttingBack("it does so though it says that it is due in years", [{ ...ours, timestamp: 8.64e15 }])
    })
  }

  describe.concurrent("without results", () => {
    const parking = (name: string, sent: ReadonlyArray<Sent>) =>
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

    parking(
      "what is no message is parked with its bytes, and the reason",
      contents.map((content) => ({ content }))
    )

    parking(
      "it is so whatever its headers and properties",
      odd.map((options, n) => ({ content: `no message ${n}`, options }))
    )

    parking(
      "it is so though the client library cannot send again what is in its headers",
      [{}, ...stubborn].map((options, n) => ({ content: `no message ${n}`, options }))
    )

    withStore(
      "the id and the task that its properties name are parked with it",
      Effect.succeed(Backend.layerNotConfigured),
      ({ send, takeRejected }, store) =>
        Effect.gen(function* () {
          yield* startWorker(store, Count, countingHandler().layer)
          const head = { ...ours, messageId: "a", type: "count" }
          yield* send({ content: "no message", options: { ...head, headers: { generation: 7 } } })
          const [parked] = yield* takeRejected(1)
          assert.deepInclude(parked?.properties, head)
          assert.deepInclude(parked?.properties.headers, { generation: 7, reason: "PayloadInvalid" })
        })
    )

    withStore(
      "a message of another producer runs",
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

/** Results in a database, which does not hold every id. */
const inDatabase = <P extends StoreLocation>(
  place: TemporaryPlaces.TemporaryLocation<P>,
  bad: ReadonlyArray<string>
): void =>
  it.live("an id that the database cannot hold is a dead letter, and holds up none that came with it", () =>
    Effect.gen(function* () {
      const where = yield* TemporaryPlaces.rabbitmq(place)
      const store = yield* Layer.build(layer(where))
      yield* Effect.gen(function* () {
        yield* Broker.counts(["default"])
        const { drained, send } = queueOf(where.rabbitmq.prefix)
        const good = ["good 0", "good 1", "good 2"]
        const ids = [...good.slice(0, 1), ...bad, ...good.slice(1)]
        yield* send(...ids.map((id) => ({ content: messageOf(id) })))
        yield* startWorker(store, Count, countingHandler().layer)
        const values = yield* AsyncResult.all(
          good.map((id) => Count.result(id)),
          { timeout: "10 seconds" }
        )
        assert.deepStrictEqual(values, [1, 1, 1])
        const found = yield* Effect.timeout(letters(bad.length), "10 seconds")
        assert.sameMembers(
          found.map(({ raw }) => raw),
          bad.map((id) => messageOf(id))
        )
        assert.strictEqual(yield* roundTrip(1), 1)
        yield* drained
      }).pipe(Effect.provideContext(store))
      // what cannot be started is warned of
    }).pipe(Effect.provide(Logger.layer([])))
  )

/** Both servers are needed; of the two, the one that is missing is named. */
const withRabbit = (describeWithDatabase: typeof describeWithPostgres) =>
  isRabbitUp ? describeWithDatabase : describeWithRabbit
const isRabbitUp = await Effect.runPromise(isUp)

await withRabbit(describeWithPostgres)("garbage on RabbitMQ, with results in PostgreSQL", () =>
  inDatabase(TemporaryPlaces.postgres, ["\0", "a\0b", loneSurrogate, "x".repeat(300)])
)
await withRabbit(describeWithMariadb)("garbage on RabbitMQ, with results in MariaDB", () =>
  inDatabase(TemporaryPlaces.mariadb, [loneSurrogate, "x".repeat(300)])
)
