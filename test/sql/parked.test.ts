/** Messages that are parked without a backend: they are out of reach of every claim, and go after two weeks. */
import { assert, describe, it } from "@effect/vitest"
import { Array as Arr, Duration, Effect, type Scope } from "effect"
import { SqlClient } from "effect/sql"
import type { BrokerDriver } from "../../src/BrokerDriver.ts"
import * as Migrations from "../../src/sql/schema/Migrations.ts"
import * as SqlDrivers from "../../src/sql/SqlDrivers.ts"
import * as SqliteClient from "../../src/sqlite/SqliteClient.ts"
import * as Mariadb from "../mariadb/server.ts"
import * as Postgres from "../postgres/server.ts"
import { temporaryFile } from "../sqlite/temporary.ts"
import { withoutAges } from "../support/withoutAges.ts"

/** A client, and the prefix of new tables. */
interface Tables {
  readonly client: SqlClient.SqlClient
  readonly prefix: string
}

const NONE = { ready: 0, delayed: 0, claimed: 0 }

const park = (broker: BrokerDriver, ids: Arr.NonEmptyReadonlyArray<string>) =>
  Effect.gen(function* () {
    yield* broker.publish(
      Arr.map(ids, (id) => ({ id, task: "t", queue: "q", priority: 0, delayMillis: 0, body: "{}" }))
    )
    const claimed = yield* broker.claim({ queues: ["q"], max: 100, leaseMillis: 60_000, worker: "w" })
    assert(Arr.isReadonlyArrayNonEmpty(claimed))
    yield* broker.reject(Arr.map(claimed, ({ handle }) => ({ handle, reason: "Failed" })))
  })

const suite = (make: Effect.Effect<Tables, unknown, Scope.Scope>): void => {
  const test = (
    title: string,
    body: (broker: BrokerDriver, tables: Tables) => Effect.Effect<void, unknown, Scope.Scope>
  ) =>
    it.live(title, () =>
      Effect.gen(function* () {
        const tables = yield* make
        const { client, prefix } = tables
        const { broker } = yield* Effect.andThen(
          Migrations.run({ prefix }),
          SqlDrivers.make({ prefix })
        ).pipe(Effect.provideService(SqlClient.SqlClient, client))
        yield* body(broker, tables)
      })
    )

  const rowsOf = ({ client, prefix }: Tables) =>
    client.unsafe<{ readonly id: string; readonly wake_at: number | bigint | string }>(
      `SELECT id, wake_at FROM ${prefix}_messages ORDER BY id`
    )

  test("a parked message stays for as long as a dead letter", (broker, tables) =>
    Effect.gen(function* () {
      const before = Date.now()
      yield* park(broker, ["a"])
      const [row] = yield* rowsOf(tables)
      const millis = Number(row!.wake_at) - before
      assert.isAtLeast(millis, Duration.toMillis(Duration.days(14)) - 1000)
      assert.isBelow(millis, Duration.toMillis(Duration.days(14)) + 60_000)
    }))

  test("a claim removes parked messages that outlived their retention, and claims none of them", (broker, tables) =>
    Effect.gen(function* () {
      yield* park(broker, ["kept", "old"])
      yield* tables.client.unsafe(`UPDATE ${tables.prefix}_messages SET wake_at = 1 WHERE id = 'old'`)
      assert.deepStrictEqual(withoutAges(yield* broker.counts(["q"])), [{ ...NONE, parked: 1 }])
      assert.deepStrictEqual(
        yield* broker.claim({ queues: ["q"], max: 100, leaseMillis: 60_000, worker: "w" }),
        []
      )
      assert.deepStrictEqual(
        (yield* rowsOf(tables)).map(({ id }) => id),
        ["kept"]
      )
      assert.deepStrictEqual(withoutAges(yield* broker.counts(["q"])), [{ ...NONE, parked: 1 }])
      assert.deepStrictEqual(yield* broker.purge("q", 100), [{ id: "kept", incarnation: "", generation: 0 }])
      assert.deepStrictEqual(withoutAges(yield* broker.counts(["q"])), [NONE])
    }))
}

describe("sqlite: parked messages", () =>
  suite(
    Effect.gen(function* () {
      const client = yield* SqliteClient.make({ filename: yield* temporaryFile })
      return { client, prefix: "chicory" }
    })
  ))
await Postgres.describeWithPostgres("postgres: parked messages", () =>
  suite(Effect.map(Postgres.temporaryClient, (client) => ({ client, prefix: "chicory" })))
)
await Mariadb.describeWithMariadb("mariadb: parked messages", () => suite(Mariadb.temporaryTables))
