import { chmodSync, mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Layer } from "effect"
import { isPermanent } from "../../src/sql/isPermanent.ts"
import * as SqliteClient from "../../src/sqlite/SqliteClient.ts"
import * as SqliteStore from "../../src/sqlite/SqliteStore.ts"
import { BackendError } from "../../src/StoreError.ts"
import { temporaryFile } from "./temporary.ts"

/** The first page of a file says that it is a database. */
const PAGE = 4096

const opening = (filename: string) => Effect.flip(Effect.scoped(Layer.build(SqliteStore.layer({ filename }))))

const expectNamed = (error: unknown, filename: string) => {
  assert.instanceOf(error, BackendError)
  assert.include(error.message, filename)
  return error
}

const record = (id: string) => ({
  id,
  task: "t",
  key: undefined,
  payloadHash: "",
  expiresMillis: undefined,
  retentionMillis: undefined,
  published: true
})

describe("sqlite: what the world does", () => {
  it.live("a file that is no database is an error that names it", () =>
    Effect.gen(function* () {
      const filename = yield* temporaryFile
      writeFileSync(filename, "this is no database\n".repeat(500))
      const error = expectNamed(yield* opening(filename), filename)
      assert.isFalse(error.retryable)
    })
  )

  it.live("a directory that is missing is an error that names the file", () =>
    Effect.gen(function* () {
      const filename = join(dirname(yield* temporaryFile), "nowhere", "tasks.db")
      expectNamed(yield* opening(filename), filename)
    })
  )

  it.live("a directory in place of a file is an error that names it", () =>
    Effect.gen(function* () {
      const filename = yield* temporaryFile
      mkdirSync(filename)
      expectNamed(yield* opening(filename), filename)
    })
  )

  // root can write to any file
  it.live.skipIf(process.getuid?.() === 0)("a file that cannot be written is an error that names it", () =>
    Effect.gen(function* () {
      const filename = yield* temporaryFile
      new DatabaseSync(filename).close()
      chmodSync(filename, 0o444)
      expectNamed(yield* opening(filename), filename)
    })
  )

  it.live("tables of a newer version are an error that says so", () =>
    Effect.gen(function* () {
      const filename = yield* temporaryFile
      yield* Effect.scoped(SqliteStore.makeDrivers({ filename }))
      const database = new DatabaseSync(filename)
      database.exec("INSERT INTO chicory_schema (version, name, applied_at) VALUES (99, 'of tomorrow', 0)")
      database.close()
      const error = expectNamed(yield* opening(filename), filename)
      assert.include(error.message, "version 99")
      assert.isFalse(error.retryable)
    })
  )

  it.live("a prefix that is no name is refused", () =>
    Effect.gen(function* () {
      for (const prefix of ["", "1st", `a"; DROP TABLE users; --`, "a b", "x".repeat(41)]) {
        const exit = yield* Effect.exit(
          Effect.scoped(SqliteStore.makeDrivers({ filename: ":memory:", prefix }))
        )
        assert(Exit.isFailure(exit) && Cause.hasDies(exit.cause), prefix)
      }
    })
  )

  it.live("stores with prefixes of their own share a file", () =>
    Effect.gen(function* () {
      const filename = yield* temporaryFile
      const one = yield* SqliteStore.makeDrivers({ filename, prefix: "one" })
      const two = yield* SqliteStore.makeDrivers({ filename, prefix: "two" })
      yield* one.backend.create([record("a")])
      assert.deepStrictEqual(yield* two.backend.read(["a"]), [undefined])
    })
  )

  it.live("a corrupt row is an error that names the file and the table, of that row alone", () =>
    Effect.gen(function* () {
      const filename = yield* temporaryFile
      const { backend } = yield* SqliteStore.makeDrivers({ filename })
      yield* backend.create([record("good"), record("bad")])
      const database = new DatabaseSync(filename)
      database.exec(
        "PRAGMA ignore_check_constraints = ON; UPDATE chicory_tasks SET state = 'LOST' WHERE id = 'bad'"
      )
      database.close()
      const error = yield* Effect.flip(backend.read(["good", "bad"]))
      assert.include(error.message, filename)
      assert.include(error.message, "chicory_tasks")
      assert.isTrue(isPermanent(error))
      assert.strictEqual((yield* backend.read(["good"]))[0]?.id, "good")
    })
  )

  it.live("a corrupt file is an error that names it, and is not tried again", () =>
    Effect.gen(function* () {
      const filename = yield* temporaryFile
      yield* Effect.scoped(
        Effect.flatMap(SqliteStore.makeDrivers({ filename }), ({ backend }) => backend.create([record("a")]))
      )
      writeFileSync(filename, readFileSync(filename).fill(0xaa, PAGE))
      const exit = yield* Effect.exit(
        Effect.scoped(
          Effect.flatMap(SqliteStore.makeDrivers({ filename }), ({ backend }) => backend.read(["a"]))
        )
      )
      assert(Exit.isFailure(exit))
      const error = Cause.squash(exit.cause) as Error
      assert.include(error.message, filename)
      assert.isTrue(isPermanent(error))
    })
  )

  it.live("a transaction of the user's own client holds the store up, and does not stop it", () =>
    Effect.gen(function* () {
      const filename = yield* temporaryFile
      const { backend } = yield* SqliteStore.makeDrivers({ filename })
      const sql = yield* SqliteClient.make({ filename })
      yield* sql`CREATE TABLE orders (id INTEGER PRIMARY KEY)`
      let inside = true
      const [, waited] = yield* Effect.all(
        [
          sql.withTransaction(
            Effect.gen(function* () {
              yield* sql`INSERT INTO orders (id) VALUES (1)`
              yield* Effect.sleep(300)
              inside = false
            })
          ),
          Effect.gen(function* () {
            yield* Effect.sleep(50)
            assert.deepStrictEqual(yield* backend.read(["a"]), [undefined])
            assert.isTrue(inside, "reads do not wait")
            yield* backend.create([record("a")])
            return inside
          })
        ],
        { concurrency: "unbounded" }
      )
      assert.isFalse(waited)
      assert.strictEqual((yield* backend.read(["a"]))[0]?.state, "PENDING")
    })
  )

  it.live("a file that stays locked is an error that may be tried again", () =>
    Effect.gen(function* () {
      const filename = yield* temporaryFile
      const { backend } = yield* SqliteStore.makeDrivers({ filename, busyTimeout: "50 millis" })
      const database = new DatabaseSync(filename)
      database.exec("BEGIN IMMEDIATE")
      const error = yield* Effect.flip(backend.create([record("a")]))
      assert.include(error.message, filename)
      assert.isFalse(isPermanent(error))
      database.exec("COMMIT")
      database.close()
      assert.deepStrictEqual(yield* backend.create([record("a")]), [{ _tag: "Created" }])
    })
  )
})
