import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit } from "effect"
import { SqlClient } from "effect/sql"
import * as SqliteClient from "../../src/sqlite/SqliteClient.ts"

const inMemory = SqliteClient.make({ filename: ":memory:" })

describe("SqliteClient", () => {
  it.effect("binds values of JavaScript types, and reads them back", () =>
    Effect.gen(function* () {
      const sql = yield* inMemory
      const bytes = Uint8Array.from([0, 1, 255])
      const [row] = yield* sql`SELECT ${"text"} AS text, ${1.5} AS number, ${true} AS flag, ${bytes} AS bytes,
        ${undefined} AS empty, ${new Date(0)} AS date`
      assert.deepStrictEqual(row, {
        text: "text",
        number: 1.5,
        flag: 1,
        bytes,
        empty: null,
        date: "1970-01-01T00:00:00.000Z"
      })
    })
  )

  it.effect("reads the current columns of a table after a change of the schema", () =>
    Effect.gen(function* () {
      const sql = yield* inMemory
      yield* sql`CREATE TABLE t (a INTEGER)`
      yield* sql`INSERT INTO t VALUES (1)`
      assert.deepStrictEqual(yield* sql`SELECT * FROM t`, [{ a: 1 }])
      yield* sql`ALTER TABLE t RENAME COLUMN a TO b`
      assert.deepStrictEqual(yield* sql`SELECT * FROM t`, [{ b: 1 }])
    })
  )

  it.effect("classifies errors", () =>
    Effect.gen(function* () {
      const sql = yield* inMemory
      yield* sql`CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL)`
      yield* sql`INSERT INTO t (name) VALUES ('a')`
      const unique = yield* Effect.flip(sql`INSERT INTO t (name) VALUES ('a')`)
      assert.strictEqual(unique.reason._tag, "UniqueViolation")
      const missing = yield* Effect.flip(sql`INSERT INTO t (name) VALUES (NULL)`)
      assert.strictEqual(missing.reason._tag, "ConstraintError")
    })
  )

  it.effect("rolls back a transaction, and a savepoint within one", () =>
    Effect.gen(function* () {
      const sql = yield* inMemory
      yield* sql`CREATE TABLE t (id INTEGER)`
      const insert = (id: number) => sql`INSERT INTO t (id) VALUES (${id})`
      yield* sql.withTransaction(
        Effect.gen(function* () {
          yield* insert(1)
          yield* Effect.exit(sql.withTransaction(Effect.andThen(insert(2), Effect.fail("no"))))
          yield* insert(3)
        })
      )
      const exit = yield* Effect.exit(sql.withTransaction(Effect.andThen(insert(4), Effect.fail("no"))))
      assert(Exit.isFailure(exit))
      assert.deepStrictEqual(yield* sql`SELECT id FROM t ORDER BY id`.values, [[1], [3]])
    })
  )

  it.effect("layer provides the client", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      assert.deepStrictEqual(yield* sql`SELECT 1`.values, [[1]])
    }).pipe(Effect.provide(SqliteClient.layer({ filename: ":memory:" })))
  )
})
