/** MariaDB with a `max_allowed_packet` that is smaller than what the library takes by itself. */
import { assert, describe } from "@effect/vitest"
import { AsyncResult, DeadLetters, Task } from "chicory"
import { Effect, Option, Schedule, Schema } from "effect"
import { SqlClient } from "effect/sql"
import { isPermanent } from "../../src/sql/isPermanent.ts"
import * as Migrations from "../../src/sql/schema/Migrations.ts"
import * as SqlDrivers from "../../src/sql/SqlDrivers.ts"
import { limitsSuite, sharedServer } from "../support/limitsSuite.ts"
import { startWorker } from "../support/storeFixture.ts"
import * as MysqlClient from "./MysqlClient.ts"
import { describeWithOwnMariadb, openStore, startServer, testWithServer as test } from "./ownServer.ts"

const MIB = 1024 * 1024
const small = { settings: { "max-allowed-packet": "1M" } }

const makeDrivers = Effect.fnUntraced(function* (url: string) {
  const client = yield* MysqlClient.make({ url, maxConnections: 6 })
  const settings = { prefix: `t_${crypto.randomUUID().replaceAll("-", "")}` }
  return yield* Effect.andThen(Migrations.run(settings), SqlDrivers.make(settings)).pipe(
    Effect.provideService(SqlClient.SqlClient, client)
  )
})

/** Lowers the limit to 1 MiB, also for the connections of clients, which are opened anew. */
const lowerLimit = (url: string) =>
  Effect.gen(function* () {
    const sql = yield* MysqlClient.make({ url, maxConnections: 1 })
    yield* sql.unsafe("SET GLOBAL max_allowed_packet = 1048576")
    const rows = yield* sql.unsafe<{ readonly id: number }>(
      "SELECT id FROM information_schema.processlist WHERE user = 'root' AND id <> CONNECTION_ID()"
    )
    for (const { id } of rows) yield* Effect.ignore(sql.unsafe(`KILL ${id}`))
  }).pipe(Effect.scoped)

/** Returns a text of that many characters. */
const Give = Task.make("give", { payload: Schema.Int, success: Schema.String })
const Refuse = Task.make("refuse", { payload: Schema.String, error: Schema.String })

describeWithOwnMariadb("mariadb with a max_allowed_packet of 1 MiB", () => {
  const server = sharedServer(startServer(small))
  limitsSuite(Effect.flatMap(server, ({ url }) => makeDrivers(url)))

  describe("the store", () => {
    test("takes values half as large, so that a dead letter fits", small, ({ url }) =>
      Effect.gen(function* () {
        const { backend, broker } = yield* makeDrivers(url)
        assert.strictEqual(backend.capabilities.maxBytes, (MIB - 64 * 1024) / 2)
        assert.strictEqual(broker.capabilities.maxBytes, backend.capabilities.maxBytes)
      })
    )

    test(
      "reports a statement over the limit as permanent, also where it lost its connection",
      small,
      ({ url }) =>
        Effect.gen(function* () {
          const { broker } = yield* makeDrivers(url)
          const envelope = { id: "a", task: "a", queue: "default", priority: 0, delayMillis: 0 }
          const publish = broker.publish([{ ...envelope, body: "x".repeat(2 * MIB) }])
          // the server answers, or closes the connection before it has read the statement
          for (let n = 0; n < 20; n++) assert.isTrue(isPermanent(yield* Effect.flip(publish)))
        })
    )

    test("reports a lost connection as retryable", small, (server) =>
      Effect.gen(function* () {
        const { broker } = yield* makeDrivers(server.url)
        const envelope = { id: "a", task: "a", queue: "default", priority: 0, delayMillis: 0 }
        const publish = broker.publish([{ ...envelope, body: "x".repeat(MIB / 2) }])
        yield* publish
        yield* server.kill
        for (let n = 0; n < 5; n++) assert.isFalse(isPermanent(yield* Effect.flip(publish)))
      })
    )
  })
})

describeWithOwnMariadb("mariadb whose max_allowed_packet is lowered while a process runs", () => {
  const options = { timeout: "20 seconds" } as const

  test("a payload over it fails with a permanent error", {}, ({ url }) =>
    Effect.gen(function* () {
      const store = yield* openStore({ url })
      yield* lowerLimit(url)
      // a connection that closes before the server's answer was read is taken for an outage
      const error = yield* Refuse.delay("x".repeat(2 * MIB)).pipe(
        Effect.retry({
          while: (error) => error._tag === "BackendError" && error.retryable,
          schedule: Schedule.spaced("10 millis"),
          times: 100
        }),
        Effect.flip,
        Effect.provideContext(store)
      )
      assert(error._tag === "BackendError", error._tag)
      assert.isFalse(error.retryable)
      assert.include(error.message, "max_allowed_packet")
    })
  )

  test("a result over it ends its task as ResultInvalid after one run", {}, ({ url }) =>
    Effect.gen(function* () {
      const store = yield* openStore({ url })
      let runs = 0
      const handler = Give.toLayer((size) => Effect.sync(() => (runs++, "x".repeat(size))))
      yield* startWorker(store, Give, handler, { lease: "2 seconds" })
      yield* lowerLimit(url)
      yield* Effect.gen(function* () {
        const give = (size: number) =>
          Effect.retry(Give.delay(size), { schedule: Schedule.spaced("50 millis"), times: 20 })
        const failed = yield* Effect.flip(AsyncResult.get(yield* give(2 * MIB), options))
        assert(failed._tag === "TaskFailed" && failed.reason._tag === "ResultInvalid", failed.message)
        assert.strictEqual(runs, 1)
        assert.strictEqual(yield* DeadLetters.count(Give), 1)
        assert.strictEqual(yield* AsyncResult.get(yield* give(1), options), "x")
      }).pipe(Effect.provideContext(store))
    })
  )

  test("a failed task whose payload exceeds it ends, with a dead letter without the payload", {}, ({ url }) =>
    Effect.gen(function* () {
      const before = yield* openStore({ url })
      const handle = yield* Effect.provideContext(Refuse.delay("x".repeat(3 * MIB)), before)
      yield* lowerLimit(url)
      const store = yield* openStore({ url })
      let runs = 0
      const handler = Refuse.toLayer(() => Effect.suspend(() => (runs++, Effect.fail("no"))))
      yield* startWorker(store, Refuse, handler, { lease: "2 seconds" })
      yield* Effect.gen(function* () {
        const failed = yield* Effect.flip(AsyncResult.get(handle, options))
        assert(failed._tag === "TaskFailed" && failed.reason._tag === "ResultInvalid", failed.message)
        assert.strictEqual(runs, 1)
        const [letter] = yield* DeadLetters.list(Refuse)
        assert.deepStrictEqual(letter?.taskId, Option.some(handle.taskId))
        assert.strictEqual(letter?.raw, "")
        const small = yield* Effect.flip(AsyncResult.get(yield* Refuse.delay("small"), options))
        assert(small._tag === "TaskFailed" && small.reason._tag === "Failed", small.message)
      }).pipe(Effect.provideContext(store))
    })
  )
})
