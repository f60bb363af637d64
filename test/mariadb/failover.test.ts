/** Guarantee 9 on MariaDB: a failover that leaves the connections of a pool with a server that can only read. */
import { assert, describe } from "@effect/vitest"
import { AsyncResult } from "chicory"
import { SqlStore } from "chicory/sql"
import { Context, Effect, Fiber, Latch, Layer, Schedule } from "effect"
import { SqlClient, type SqlConnection } from "effect/sql"
import { makeNetwork } from "../support/network.ts"
import type { OwnServer } from "../support/ownServers.ts"
import { Count, countingHandler, eventually, roundTrip, startWorker, timed } from "../support/storeFixture.ts"
import * as MysqlClient from "./MysqlClient.ts"
import { describeWithOwnMariadb, openStore, startServer, testWithServer as test } from "./ownServer.ts"

type Row = Readonly<Record<string, unknown>>

/** Runs statements as root, on a new connection. */
const administer = ({ url }: OwnServer, ...statements: ReadonlyArray<string>) =>
  Effect.provide(
    Effect.flatMap(SqlClient.SqlClient, (sql) =>
      Effect.forEach(statements, (statement) => sql.unsafe<Row>(statement))
    ),
    MysqlClient.layer({ url, maxConnections: 1 })
  )

/** Returns the URL of a new user, to whom `read_only` applies, as it does not to root. */
const createApp = (server: OwnServer) =>
  Effect.as(
    administer(server, "CREATE USER app@'%'", "GRANT ALL ON test.* TO app@'%'"),
    server.url.replace("root@", "app@")
  )

/** Counts the connections of the stores that match a condition. */
const connectionsOf = (server: OwnServer, condition = "TRUE") =>
  Effect.map(
    administer(
      server,
      `SELECT count(*) AS n FROM information_schema.processlist WHERE user = 'app' AND ${condition}`
    ),
    ([rows]) => Number(rows![0]!["n"])
  )

const enqueue = Count.delay({ n: 50, millis: 0 })

/** Calls fail as retryable, with the message of the server. */
const refused = (message: RegExp) =>
  Effect.map(
    Effect.flip(enqueue),
    (error) => "retryable" in error && error.retryable && message.test(error.message)
  ).pipe(Effect.orElseSucceed(() => false))

/** Each connection that is still read-only may refuse a call. */
const untilAccepted = Effect.retry({ schedule: Schedule.spaced("30 millis"), times: 300 })

describeWithOwnMariadb("guarantee 9: failovers of MariaDB that keep connections", () => {
  describe.concurrent("read-only connections", () => {
    test(
      "worker and producer come back when new connections can write, and a task that succeeded meanwhile ends once",
      {},
      (server) =>
        Effect.gen(function* () {
          const url = yield* createApp(server)
          const producer = yield* openStore({ url })
          const runs = countingHandler()
          yield* startWorker(yield* openStore({ url }), Count, runs.layer, { concurrency: 4 })
          yield* Effect.gen(function* () {
            const running = yield* Count.delay({ n: 1, millis: 2_000 })
            yield* runs.untilBegun(1)
            yield* administer(server, "SET GLOBAL tx_read_only = 1", "KILL USER app")
            yield* eventually(refused(/READ ONLY transaction/))
            yield* runs.untilEnded(1)
            // every connection of both pools is read-only
            yield* Effect.all(
              Array.from({ length: 8 }, () => Effect.exit(enqueue)),
              { concurrency: "unbounded" }
            )
            yield* administer(server, "SET GLOBAL tx_read_only = 0")
            const [millis, values] = yield* timed(
              Effect.all([AsyncResult.get(running), untilAccepted(roundTrip(51))], { concurrency: 2 })
            )
            assert.deepStrictEqual(values, [1, 51])
            assert.isBelow(millis, 10_000)
            assert.strictEqual(runs.begun.filter((n) => n === 1).length, 1)
          }).pipe(Effect.provideContext(producer))
        })
    )

    test("a failover to another server moves all connections", {}, (demoted) =>
      Effect.gen(function* () {
        const promoted = yield* startServer()
        const [url, target] = [yield* createApp(demoted), yield* createApp(promoted)]
        yield* Effect.scoped(openStore({ url: target }))
        const network = yield* makeNetwork(url)
        const producer = yield* openStore(network)
        yield* startWorker(yield* openStore(network), Count, countingHandler().layer, { concurrency: 4 })
        yield* Effect.gen(function* () {
          yield* Effect.forEach([1, 2, 3, 4], roundTrip, { concurrency: "unbounded" })
          yield* administer(demoted, "SET GLOBAL read_only = 1")
          yield* eventually(refused(/--read-only/))
          yield* network.redirect(target)
          yield* untilAccepted(enqueue)
          const hasMoved = Effect.map(connectionsOf(demoted), (left) => left === 0)
          yield* eventually(Effect.andThen(Effect.exit(enqueue), hasMoved))
          // the demoted server, from which reads were let through, has other data than the promoted one
          assert.strictEqual(yield* roundTrip(51), 51)
        }).pipe(Effect.provideContext(producer))
      })
    )

    test("connections that can write and the transactions of callers are not ended", {}, (server) =>
      Effect.gen(function* () {
        const url = yield* createApp(server)
        const context = yield* Layer.build(
          Layer.provideMerge(SqlStore.layer(), MysqlClient.layer({ url, maxConnections: 4 }))
        )
        const sql = Context.get(context, SqlClient.SqlClient)
        const isOpen = (id: number) => Effect.map(connectionsOf(server, `id = ${id}`), (found) => found === 1)
        const idOf = (connection: SqlConnection.Connection) =>
          Effect.map(connection.execute("SELECT CONNECTION_ID() AS id", [], undefined), ([row]) =>
            Number(row.id)
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
              yield* first.execute("SET SESSION TRANSACTION READ ONLY", [], undefined)
              return [yield* idOf(first), yield* idOf(second)] as const
            })
          )
          assert.isTrue(yield* refused(/READ ONLY transaction/))
          yield* eventually(Effect.map(isOpen(readOnly), (open) => !open))
          yield* enqueue
          assert.isTrue(yield* isOpen(writable))
          yield* mayCommit.open
          yield* Fiber.join(transaction)
          const [rows] = yield* administer(server, "SELECT count(*) AS n FROM words")
          assert.strictEqual(Number(rows![0]!["n"]), 2)
        }).pipe(Effect.provideContext(context))
      })
    )
  })
})
