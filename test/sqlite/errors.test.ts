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

/** The size of the first page, which identifies a file as a database. */
const PAGE_BYTES = 4096

const openError = (filename: string) =>
  Effect.flip(Effect.scoped(Layer.build(SqliteStore.layer({ filename }))))

const expectNamesFile = (error: unknown, filename: string) => {
  assert.instanceOf(error, BackendError)
  assert.include(error.message, filename)
  return error
}

const record = (id: string) => ({
  id,
  task: "t",
  incarnation: "",
  queue: "default",
  key: undefined,
  payloadHash: "",
  delayMillis: 0,
  expiresMillis: undefined,
  retentionMillis: undefined,
  reservedMillis: undefined
})

describe("sqlite: errors", () => {
  it.live("opening a file that is not a database fails with an error that names it", () =>
    Effect.gen(function* () {
      const filename = yield* temporaryFile
      writeFileSync(filename, "this is no database\n".repeat(500))
      const error = expectNamesFile(yield* openError(filename), filename)
      assert.isFalse(error.retryable)
    })
  )

  it.live("opening a file in a missing directory fails with an error that names the file", () =>
    Effect.gen(function* () {
      const filename = join(dirname(yield* temporaryFile), "nowhere", "tasks.db")
      expectNamesFile(yield* openError(filename), filename)
    })
  )

  it.live("opening a directory fails with an error that names it", () =>
    Effect.gen(function* () {
      const filename = yield* temporaryFile
      mkdirSync(filename)
      expectNamesFile(yield* openError(filename), filename)
    })
  )

  // skipped for root, which can write to any file
  it.live.skipIf(process.getuid?.() === 0)("opening a read-only file fails with an error that names it", () =>
    Effect.gen(function* () {
      const filename = yield* temporaryFile
      new DatabaseSync(filename).close()
      chmodSync(filename, 0o444)
      expectNamesFile(yield* openError(filename), filename)
    })
  )

  it.live("opening tables of a newer version fails with an error that names the version", () =>
    Effect.gen(function* () {
      const filename = yield* temporaryFile
      yield* Effect.scoped(SqliteStore.makeDrivers({ filename }))
      const database = new DatabaseSync(filename)
      database.exec(
        "INSERT INTO chicory_schema (version, needs, name, applied_at) VALUES (99, 99, 'of tomorrow', 0)"
      )
      database.close()
      const error = expectNamesFile(yield* openError(filename), filename)
      assert.include(error.message, "version 99")
      assert.isFalse(error.retryable)
    })
  )

  it.live("an invalid prefix is a defect", () =>
    Effect.gen(function* () {
      for (const prefix of ["", "1st", `a"; DROP TABLE users; --`, "a b", "x".repeat(41)]) {
        const exit = yield* Effect.exit(
          Effect.scoped(SqliteStore.makeDrivers({ filename: ":memory:", prefix }))
        )
        assert(Exit.isFailure(exit) && Cause.hasDies(exit.cause), prefix)
      }
    })
  )

  it.live("stores with different prefixes share a file", () =>
    Effect.gen(function* () {
      const filename = yield* temporaryFile
      const one = yield* SqliteStore.makeDrivers({ filename, prefix: "one" })
      const two = yield* SqliteStore.makeDrivers({ filename, prefix: "two" })
      yield* one.backend.create([record("a")])
      assert.deepStrictEqual(yield* two.backend.read(["a"]), [undefined])
    })
  )

  it.live(
    "reading a corrupt row fails with an error that names the file and the table, and other rows can be read",
    () =>
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

  it.live("a corrupt file fails with a permanent error that names it", () =>
    Effect.gen(function* () {
      const filename = yield* temporaryFile
      yield* Effect.scoped(
        Effect.flatMap(SqliteStore.makeDrivers({ filename }), ({ backend }) => backend.create([record("a")]))
      )
      writeFileSync(filename, readFileSync(filename).fill(0xaa, PAGE_BYTES))
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

  it.live("a value that is larger than SQLite takes fails with a permanent error", () =>
    Effect.gen(function* () {
      const sql = yield* SqliteClient.make({ filename: ":memory:" })
      const error = yield* Effect.flip(sql`SELECT zeroblob(2147483647)`)
      assert.include(error.message, "too big")
      assert.isTrue(isPermanent(error))
    })
  )

  it.live("a transaction of another client delays writes of the store, and does not fail them", () =>
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

  it.live("a file that stays locked fails with a retryable error", () =>
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
