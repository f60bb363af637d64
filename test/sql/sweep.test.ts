import { assert, describe, it } from "@effect/vitest"
import { Array as Arr, Effect, type Scope } from "effect"
import { SqlClient } from "effect/sql"
import type { NewRecord, Start } from "../../src/BackendDriver.ts"
import * as Migrations from "../../src/sql/schema/Migrations.ts"
import * as SqlDrivers from "../../src/sql/SqlDrivers.ts"
import * as SqliteClient from "../../src/sqlite/SqliteClient.ts"
import { record, startRequest } from "../../src/testing/suites/backend/fixture.ts"
import * as Mariadb from "../mariadb/server.ts"
import * as Postgres from "../postgres/server.ts"
import { temporaryFile } from "../sqlite/temporary.ts"

/** A client, and the prefix of new tables. */
interface Tables {
  readonly client: SqlClient.SqlClient
  readonly prefix: string
}

const recordOf = (id: string, more: Partial<NewRecord>): NewRecord =>
  record(id, { task: "t", retentionMillis: 1, ...more })

const startOf = (id: string, leaseMillis = 60_000): Start =>
  startRequest(id, "token", { task: "t", leaseMillis, retentionMillis: 1 })

/** Returns the ids of the tasks that the sweep is to check. */
const toCheck = ({ client, prefix }: Tables) =>
  Effect.map(
    client.unsafe<{ readonly id: string }>(
      `SELECT id FROM ${prefix}_tasks WHERE check_at IS NOT NULL ORDER BY id`
    ),
    (rows) => rows.map(({ id }) => id)
  )

const driversOf = ({ client, prefix }: Tables): Effect.Effect<SqlDrivers.Drivers, unknown, Scope.Scope> =>
  Effect.andThen(Migrations.run({ prefix }), SqlDrivers.make({ prefix })).pipe(
    Effect.provideService(SqlClient.SqlClient, client)
  )

const suite = (make: Effect.Effect<Tables, unknown, Scope.Scope>): void => {
  it.live("finds overdue rows behind many tasks that wait for longer than their retention", () =>
    Effect.gen(function* () {
      const { backend } = yield* driversOf(yield* make)
      yield* backend.create(Arr.map(Arr.range(1, 30), (n) => recordOf(`waits ${n}`, {})))
      yield* Effect.sleep("10 millis")
      yield* backend.create([
        recordOf("over", { reservedMillis: 1 }),
        recordOf("late", { expiresMillis: 1, retentionMillis: 60_000 })
      ])
      yield* Effect.sleep("10 millis")
      assert.strictEqual((yield* backend.sweep(10)).handled, 2)
      const [over, late, waiting] = yield* backend.read(["over", "late", "waits 1"])
      assert.isUndefined(over)
      assert.strictEqual(late?.ended, "Expired")
      assert.strictEqual(waiting?.state, "PENDING")
      assert.strictEqual((yield* backend.sweep(10)).handled, 0)
    })
  )

  it.live("checks a task once while it waits or runs, however short its retention is", () =>
    Effect.gen(function* () {
      const tables = yield* make
      const { backend } = yield* driversOf(tables)
      yield* backend.create([
        recordOf("expires", { expiresMillis: 60_000 }),
        recordOf("kept", { retentionMillis: undefined }),
        recordOf("reserved", { retentionMillis: 60_000, reservedMillis: 60_000 }),
        recordOf("runs", {}),
        recordOf("waits", {})
      ])
      yield* backend.start([startOf("runs")])
      assert.deepStrictEqual(yield* toCheck(tables), ["expires", "reserved", "runs", "waits"])
      yield* Effect.sleep("10 millis")
      assert.strictEqual((yield* backend.sweep(10)).handled, 0)
      assert.deepStrictEqual(yield* toCheck(tables), ["expires", "reserved"])
    })
  )

  it.live(
    "ends a running task that it has checked before, once a cancel or a withdrawal is over its lease",
    () =>
      Effect.gen(function* () {
        const tables = yield* make
        const { backend } = yield* driversOf(tables)
        const ids = Arr.make("asked", "renewed", "withdrawn")
        yield* backend.create(Arr.map(ids, (id) => recordOf(id, {})))
        yield* backend.start(Arr.map(ids, (id) => ({ ...startOf(id, 1), retentionMillis: 60_000 })))
        yield* Effect.sleep("10 millis")
        assert.strictEqual((yield* backend.sweep(10)).handled, 0)
        assert.deepStrictEqual(yield* toCheck(tables), [])
        assert.deepStrictEqual(yield* backend.cancel(["asked", "renewed"]), ["Requested", "Requested"])
        yield* backend.withdraw([{ id: "withdrawn", incarnation: "", generation: 0 }])
        assert.deepStrictEqual(yield* toCheck(tables), ids)
        yield* backend.renew([{ id: "renewed", token: "token", leaseMillis: 60_000 }])
        assert.strictEqual((yield* backend.sweep(10)).handled, 2)
        assert.include(yield* toCheck(tables), "renewed")
        const records = yield* backend.read(ids)
        assert.deepStrictEqual(
          records.map((record) => record?.ended),
          ["Cancelled", null, "Cancelled"]
        )
      })
  )

  it.live("removes the record of a task that it checked while it waited, after the end of the task", () =>
    Effect.gen(function* () {
      const { backend } = yield* driversOf(yield* make)
      yield* backend.create([recordOf("cancelled", {}), recordOf("settled", {})])
      yield* Effect.sleep("10 millis")
      assert.strictEqual((yield* backend.sweep(10)).handled, 0)
      yield* backend.cancel(["cancelled"])
      yield* backend.start([startOf("settled")])
      yield* backend.settle([
        { id: "settled", token: "token", outcome: { _tag: "Success", exit: "1", retentionMillis: 1 } }
      ])
      yield* Effect.sleep("10 millis")
      assert.strictEqual((yield* backend.sweep(10)).handled, 2)
    })
  )
}

describe("sqlite: sweep", () =>
  suite(
    Effect.gen(function* () {
      const client = yield* SqliteClient.make({ filename: yield* temporaryFile })
      return { client, prefix: "chicory" }
    })
  ))
await Postgres.describeWithPostgres("postgres: sweep", () =>
  suite(Effect.map(Postgres.temporaryClient, (client) => ({ client, prefix: "chicory" })))
)
await Mariadb.describeWithMariadb("mariadb: sweep", () => suite(Mariadb.temporaryTables))
