/** Guarantee 9 on PostgreSQL: a failover that leaves the connections of a pool with a server that can only read. */
import { assert, describe } from "@effect/vitest"
import { AsyncResult } from "chicory"
import { SqlStore } from "chicory/sql"
import { Context, Effect, Exit, Fiber, Latch, Layer } from "effect"
import { SqlClient, type SqlConnection } from "effect/sql"
import { makeNetwork } from "../support/network.ts"
import { Count, countingHandler, eventually, roundTrip, startWorker, timed } from "../support/storeFixture.ts"
import { testOn } from "../support/testOn.ts"
import {
  crashesOf,
  numberOf,
  numbers,
  report,
  retryUntilAccepted,
  retryableMessageOf,
  untilListening
} from "./outageFixture.ts"
import {
  clientOf,
  describeWithOwnPostgres,
  type OwnServer,
  openStore,
  startServer,
  testWithServer as test
} from "./ownServer.ts"

/** A process listens on another connection after 25 seconds without an echo. */
const testLong = testOn(startServer, 120_000)

/** Creates the user of the stores, who has no privilege but to create tables. */
const createApp = (server: OwnServer) =>
  Effect.andThen(server.query("CREATE ROLE app LOGIN"), server.query("GRANT CREATE ON SCHEMA public TO app"))

const setDefault = (server: OwnServer, value: "on" | "off") =>
  server.query(`ALTER ROLE app SET default_transaction_read_only = ${value}`)

const APP = "usename = 'app'"

const connectionsOf = (server: OwnServer) => numberOf(server, "count(*)", `pg_stat_activity WHERE ${APP}`)

const enqueue = Count.delay({ n: 50, millis: 0 })

describeWithOwnPostgres("guarantee 9: failovers of PostgreSQL that keep connections", () => {
  describe.concurrent("read-only connections", () => {
    test(
      "worker and producer come back when new connections can write, and a task that succeeded meanwhile ends once",
      {},
      (server) =>
        Effect.gen(function* () {
          yield* createApp(server)
          const login = { url: server.urlOf({ user: "app" }) }
          const producer = yield* openStore(login)
          const runs = countingHandler()
          yield* startWorker(yield* openStore(login), Count, runs.layer, { concurrency: 4 })
          yield* Effect.gen(function* () {
            const running = yield* Count.delay({ n: 1, millis: 2_000 })
            yield* runs.untilBegun(1)
            yield* setDefault(server, "on")
            yield* server.cut(APP)
            const refused = retryableMessageOf(enqueue)
            yield* eventually(
              Effect.map(refused, (message) => message.includes("read-only transaction")).pipe(
                Effect.orElseSucceed(() => false)
              )
            )
            yield* runs.untilEnded(1)
            // every connection of both pools is read-only
            yield* Effect.all(
              numbers(8).map(() => refused),
              { concurrency: "unbounded" }
            )
            yield* setDefault(server, "off")
            const [millis, values] = yield* timed(
              Effect.andThen(
                retryUntilAccepted(enqueue),
                Effect.all([AsyncResult.get(running), retryUntilAccepted(roundTrip(51))], { concurrency: 2 })
              )
            )
            yield* report("new connections can write", millis)
            assert.deepStrictEqual(values, [1, 51])
            assert.isBelow(millis, 10_000)
            assert.strictEqual(runs.begun.filter((n) => n === 1).length, 1)
            assert.strictEqual(yield* crashesOf(server), 0)
          }).pipe(Effect.provideContext(producer))
        })
    )

    testLong(
      "a failover to another server moves all connections, and the listening ones too",
      {},
      (demoted) =>
        Effect.gen(function* () {
          const promoted = yield* startServer({})
          for (const server of [demoted, promoted]) yield* createApp(server)
          yield* Effect.scoped(openStore({ url: promoted.urlOf({ user: "app" }) }))
          const network = yield* makeNetwork(demoted.urlOf({ user: "app" }))
          const producer = yield* openStore(network)
          yield* startWorker(yield* openStore(network), Count, countingHandler().layer, { concurrency: 4 })
          yield* Effect.gen(function* () {
            yield* Effect.forEach(numbers(4), roundTrip, { concurrency: "unbounded" })
            yield* untilListening(demoted, 2)
            yield* demoted.setReadOnly(true)
            yield* network.redirect(promoted.url)
            yield* retryUntilAccepted(enqueue)
            // the demoted server has other data than the promoted one, and lets reads through until then
            yield* eventually(Effect.map(connectionsOf(demoted), (left) => left === 0))
            yield* untilListening(promoted, 2)
            assert.strictEqual(yield* roundTrip(51), 51)
          }).pipe(Effect.provideContext(producer))
        })
    )

    test(
      "a server that stays read-only gets few new connections, however many calls it refuses",
      {},
      (server) =>
        Effect.gen(function* () {
          yield* createApp(server)
          const network = yield* makeNetwork(server.urlOf({ user: "app" }))
          const producer = yield* openStore(network)
          yield* server.setReadOnly(true)
          yield* Effect.gen(function* () {
            yield* eventually(Effect.map(Effect.exit(enqueue), Exit.isFailure))
            const before = network.accepted()
            let calls = 0
            yield* Effect.exit(enqueue).pipe(
              Effect.tap(() => Effect.sync(() => calls++)),
              Effect.forever,
              Effect.timeoutOption("3 seconds")
            )
            const accepted = network.accepted() - before
            yield* report(`new connections in 3 s, with ${calls} calls (a count)`, accepted)
            assert.isAbove(accepted, 3)
            // pauses from 10 millis to a second, and the pool refilled
            assert.isBelow(accepted, 40)
          }).pipe(Effect.provideContext(producer))
        })
    )

    test("connections that can write and the transactions of callers are not ended", {}, (server) =>
      Effect.gen(function* () {
        yield* createApp(server)
        const context = yield* Layer.build(
          Layer.provideMerge(
            SqlStore.layer({ notify: false }),
            clientOf(server.urlOf({ user: "app" }), { maxConnections: 4 })
          )
        )
        const sql = Context.get(context, SqlClient.SqlClient)
        const isOpen = (pid: number) =>
          Effect.map(
            numberOf(server, "count(*)", `pg_stat_activity WHERE pid = ${pid}`),
            (found) => found === 1
          )
        const pidOf = (connection: SqlConnection.Connection) =>
          Effect.map(connection.execute("SELECT pg_backend_pid() AS pid", [], undefined), ([row]) =>
            Number(row.pid)
          )
        yield* Effect.gen(function* () {
          yield* sql.unsafe("CREATE TABLE words (word TEXT)")
          const begun = yield* Latch.make()
          const mayCommit = yield* Latch.make()
          const transaction = yield* Effect.gen(function* () {
            yield* sql.unsafe("INSERT INTO words VALUES ('one')")
            yield* begun.open
            yield* mayCommit.await
            yield* sql.unsafe("INSERT INTO words VALUES ('two')")
          }).pipe(sql.withTransaction, Effect.forkChild)
          yield* begun.await
          // the pool lends the connection first that was returned last
          const [readOnly, writable] = yield* Effect.scoped(
            Effect.gen(function* () {
              const first = yield* sql.reserve
              const second = yield* sql.reserve
              yield* first.execute("SET default_transaction_read_only = on", [], undefined)
              return [yield* pidOf(first), yield* pidOf(second)] as const
            })
          )
          assert.include(yield* retryableMessageOf(enqueue), "read-only transaction")
          yield* eventually(Effect.map(isOpen(readOnly), (open) => !open))
          yield* enqueue
          const inReadOnly = sql.withTransaction(
            Effect.andThen(sql.unsafe("SET TRANSACTION READ ONLY"), enqueue)
          )
          assert.include(yield* retryableMessageOf(inReadOnly), "read-only transaction")
          yield* Effect.sleep("200 millis")
          assert.isTrue(yield* isOpen(writable))
          yield* mayCommit.open
          yield* Fiber.join(transaction)
          assert.strictEqual(yield* numberOf(server, "count(*)", "words"), 2)
        }).pipe(Effect.provideContext(context))
      })
    )
  })
})
