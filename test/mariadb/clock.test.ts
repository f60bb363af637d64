/** The clock of a MariaDB store: epoch milliseconds, whatever the time zone of the server and of its sessions. */
import { assert } from "@effect/vitest"
import { Effect, type Scope } from "effect"
import { SqlClient } from "effect/sql"
import { mysqlDialect } from "../../src/sql/dialect/mysqlDialect.ts"
import * as Migrations from "../../src/sql/schema/Migrations.ts"
import * as SqlDrivers from "../../src/sql/SqlDrivers.ts"
import type { OwnServer } from "../support/ownServers.ts"
import { withoutAges } from "../support/withoutAges.ts"
import * as MysqlClient from "./MysqlClient.ts"
import { describeWithOwnMariadb, testWithServer as test } from "./ownServer.ts"

/** Summer time ends in Berlin, and the local times from 02:00 to 03:00 occur a second time. */
const CLOCKS_SET_BACK = Date.UTC(2025, 9, 26, 1)
/** Summer time begins in Berlin, and there are no local times from 02:00 to 03:00. */
const CLOCKS_SET_FORWARD = Date.UTC(2026, 2, 29, 1)

const MINUTE = 60_000
const HOUR = 60 * MINUTE

const BERLIN = { timeZone: "Europe/Berlin" } as const

/** Opens one session, whose clock stands still and is set by hand. */
const openSession = ({ url }: OwnServer) =>
  Effect.map(MysqlClient.make({ url, maxConnections: 1 }), (client) => ({
    client,
    setClock: (millis: number) => client.unsafe(`SET timestamp = ${millis / 1000}`)
  }))

const makeDrivers = (client: SqlClient.SqlClient): Effect.Effect<SqlDrivers.Drivers, unknown, Scope.Scope> =>
  Effect.andThen(Migrations.run(), SqlDrivers.make({})).pipe(
    Effect.provideService(SqlClient.SqlClient, client)
  )

const envelope = { task: "t", queue: "q", priority: 0, body: "{}" } as const

describeWithOwnMariadb("mariadb: the clock of the store", () => {
  test("the clock counts milliseconds through both changes of summer time", BERLIN, (server) =>
    Effect.gen(function* () {
      const { client, setClock } = yield* openSession(server)
      for (const change of [CLOCKS_SET_BACK, CLOCKS_SET_FORWARD]) {
        for (let at = change - 2 * HOUR; at <= change + 2 * HOUR; at += 10 * MINUTE + 1) {
          yield* setClock(at)
          const [row] = yield* client.unsafe(`SELECT ${mysqlDialect.now} AS now`)
          assert.deepStrictEqual(row, { now: at })
        }
      }
    })
  )

  test("the clock does not depend on the time zone of the session", {}, (server) =>
    Effect.gen(function* () {
      const { client, setClock } = yield* openSession(server)
      yield* setClock(CLOCKS_SET_BACK + 123)
      for (const zone of ["+00:00", "+05:45", "-11:00", "SYSTEM"]) {
        yield* client.unsafe(`SET time_zone = '${zone}'`)
        const [row] = yield* client.unsafe(`SELECT ${mysqlDialect.now} AS now`)
        assert.deepStrictEqual(row, { now: CLOCKS_SET_BACK + 123 })
      }
    })
  )

  test("the clock finds rows by an index", {}, (server) =>
    Effect.gen(function* () {
      const { client } = yield* openSession(server)
      yield* client.unsafe("CREATE TABLE times (at BIGINT NOT NULL, KEY by_at (at))")
      yield* client.unsafe("INSERT INTO times SELECT seq * 1000000000 FROM seq_1_to_5000")
      const [plan] = yield* client.unsafe<{ key: string; type: string }>(
        `EXPLAIN SELECT at FROM times WHERE at <= ${mysqlDialect.now} AND at > ${mysqlDialect.now} - 5000000000`
      )
      assert.strictEqual(plan!.key, "by_at")
      assert.strictEqual(plan!.type, "range")
    })
  )

  test("a delay that spans the end of summer time is neither shorter nor longer", BERLIN, (server) =>
    Effect.gen(function* () {
      const { client, setClock } = yield* openSession(server)
      const { broker } = yield* makeDrivers(client)
      const published = CLOCKS_SET_BACK - 30 * MINUTE
      yield* setClock(published)
      yield* broker.publish([{ ...envelope, id: "a", delayMillis: 2 * HOUR }])
      for (let passed = 0; passed < 2 * HOUR; passed += 10 * MINUTE) {
        yield* setClock(published + passed)
        assert.deepStrictEqual(withoutAges(yield* broker.counts(["q"])), [
          { ready: 0, delayed: 1, claimed: 0 }
        ])
      }
      yield* setClock(published + 2 * HOUR)
      assert.deepStrictEqual(withoutAges(yield* broker.counts(["q"])), [{ ready: 1, delayed: 0, claimed: 0 }])
    })
  )

  test("a lease that is renewed at the end of summer time is held", BERLIN, (server) =>
    Effect.gen(function* () {
      const { client, setClock } = yield* openSession(server)
      const { broker } = yield* makeDrivers(client)
      const claim = { queues: ["q"], max: 1, leaseMillis: 30_000, worker: "w" } as const
      // when the first of the two local hours begins, and when the second one does
      for (const border of [CLOCKS_SET_BACK - HOUR, CLOCKS_SET_BACK]) {
        yield* setClock(border - MINUTE)
        yield* broker.publish([{ ...envelope, id: "a", delayMillis: 0 }])
        const [held] = yield* broker.claim(claim)
        for (let at = border - MINUTE; at <= border + MINUTE; at += 10_000) {
          yield* setClock(at)
          assert.deepStrictEqual(yield* broker.claim(claim), [])
          assert.deepStrictEqual(yield* broker.renew([held!.handle], 30_000), [true])
        }
        assert.deepStrictEqual(yield* broker.ack([held!.handle]), [true])
      }
    })
  )
})
