import { assert, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Latch, Schedule, type Scope } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import * as MysqlClient from "./MysqlClient.ts"
import { describeWithMariadb, sharedUrl } from "./server.ts"

const connect = MysqlClient.make({ url: sharedUrl })

/** Creates a table, which is dropped with the scope. */
const table = (
  sql: SqlClient.SqlClient,
  columns: string
): Effect.Effect<string, SqlError.SqlError, Scope.Scope> => {
  const name = `test_${crypto.randomUUID().replaceAll("-", "")}`
  return Effect.acquireRelease(
    Effect.as(sql.unsafe(`CREATE TABLE ${name} (${columns}) ENGINE = InnoDB`), name),
    () => Effect.orDie(sql.unsafe(`DROP TABLE ${name}`))
  )
}

const text = "VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL"

const sessionOf = (sql: SqlClient.SqlClient) =>
  Effect.map(sql<{ id: number }>`SELECT CONNECTION_ID() AS id`, (rows) => rows[0]!.id)

const isConnected = (sql: SqlClient.SqlClient, session: number) =>
  Effect.map(
    sql`SELECT id FROM information_schema.processlist WHERE id = ${session}`,
    (rows) => rows.length > 0
  )

const reasonOf = <A, R>(effect: Effect.Effect<A, SqlError.SqlError, R>) =>
  Effect.map(Effect.flip(effect), ({ reason }) => reason)

const tagOf = <A, R>(effect: Effect.Effect<A, SqlError.SqlError, R>) =>
  Effect.map(reasonOf(effect), ({ _tag }) => _tag)

await describeWithMariadb("MysqlClient", () => {
  it.effect("binds JavaScript values, and reads them back", () =>
    Effect.gen(function* () {
      const sql = yield* connect
      const bytes = Uint8Array.from([0, 128, 255])
      const statement = sql<{ bytes: Uint8Array }>`SELECT ${"tëxt 😀"} AS text, ${1791111111111} AS number,
        ${-1.5} AS fraction, ${true} AS flag, ${bytes} AS bytes, ${undefined} AS empty`
      for (const [row] of [yield* statement, yield* statement.unprepared]) {
        assert.deepStrictEqual(
          { ...row!, bytes: Uint8Array.from(row!.bytes) },
          { text: "tëxt 😀", number: 1791111111111, fraction: -1.5, flag: 1, bytes, empty: null }
        )
      }
    })
  )

  it.effect("reads the values of all column types in use", () =>
    Effect.gen(function* () {
      const sql = yield* connect
      const t = yield* table(sql, "n BIGINT, d DECIMAL(20), s LONGTEXT, b LONGBLOB, j JSON")
      yield* sql.unsafe(`INSERT INTO ${t} VALUES (?, ?, ?, ?, ?)`, [
        Number.MAX_SAFE_INTEGER,
        7,
        "",
        new Uint8Array(3),
        `{"a":1}`
      ])
      const statement = sql.unsafe(
        `SELECT *, SUM(n) AS sum, COUNT(*) AS count, n > 0 AS flag, n * 2 AS large FROM ${t}`
      )
      for (const [row] of [yield* statement, yield* statement.unprepared]) {
        assert.deepStrictEqual(row, {
          n: Number.MAX_SAFE_INTEGER,
          d: 7,
          s: "",
          b: Buffer.alloc(3),
          j: `{"a":1}`,
          sum: Number.MAX_SAFE_INTEGER,
          count: 1,
          flag: 1,
          large: "18014398509481982"
        })
      }
      assert.deepStrictEqual(yield* sql.unsafe(`SELECT d, n > 0 FROM ${t}`).values, [[7, 1]])
      assert.deepStrictEqual(yield* sql.unsafe(`SELECT d FROM ${t}`).valuesUnprepared, [[7]])
    })
  )

  it.effect("returns the rows of a statement, and none for a statement without rows", () =>
    Effect.gen(function* () {
      const sql = yield* connect
      const t = yield* table(sql, "seq BIGINT AUTO_INCREMENT PRIMARY KEY, n BIGINT")
      const inserted = yield* sql.unsafe(`INSERT INTO ${t} (n) VALUES (?), (?) RETURNING seq, n`, [5, 6])
      assert.deepStrictEqual(inserted, [
        { seq: 1, n: 5 },
        { seq: 2, n: 6 }
      ])
      assert.deepStrictEqual(yield* sql.unsafe(`UPDATE ${t} SET n = n + 1`), [])
      assert.deepStrictEqual(yield* sql`INSERT INTO ${sql(t)} ${sql.insert({ n: 8 }).returning("n")}`, [
        { n: 8 }
      ])
      assert.deepStrictEqual(yield* sql.unsafe(`DELETE FROM ${t} WHERE n < ? RETURNING n`, [8]), [
        { n: 6 },
        { n: 7 }
      ])
    })
  )

  it.effect("binds numbers and texts so that limits and indexes work", () =>
    Effect.gen(function* () {
      const sql = yield* connect
      const t = yield* table(sql, `id ${text} PRIMARY KEY, n BIGINT NOT NULL, KEY by_n (n)`)
      yield* sql.unsafe(`INSERT INTO ${t} SELECT CONCAT('id', seq), seq FROM seq_1_to_5000`)
      const keyOf = (where: string, param: unknown) =>
        Effect.map(
          sql.unsafe<{ key: string | null }>(`EXPLAIN SELECT * FROM ${t} WHERE ${where}`, [param]),
          (rows) => rows[0]!.key
        )
      assert.strictEqual(yield* keyOf("n <= ?", 5), "by_n")
      assert.strictEqual(yield* keyOf("n = ?", 5), "by_n")
      assert.strictEqual(yield* keyOf("id = ?", "id5"), "PRIMARY")
      const first = sql.unsafe(`SELECT n FROM ${t} WHERE n > ? ORDER BY n LIMIT ?`, [10, 2])
      assert.deepStrictEqual(yield* first.values, [[11], [12]])
      const found = sql.unsafe(`SELECT id FROM ${t} WHERE id IN (?, ?, ?)`, ["id1", "id2 ", "ID3"])
      assert.deepStrictEqual(yield* found.values, [["id1"]])
    })
  )

  it.effect("opens sessions at READ COMMITTED, with utf8mb4", () =>
    Effect.gen(function* () {
      const sql = yield* connect
      const [one, other] = yield* Effect.all([sql.reserve, sql.reserve])
      const settings = "SELECT CONNECTION_ID(), @@tx_isolation, @@character_set_client"
      const [[session, ...ofOne] = []] = yield* one.executeValues(settings, [])
      const [[otherSession, ...ofOther] = []] = yield* other.executeValues(settings, [])
      assert.notStrictEqual(session, otherSession)
      assert.deepStrictEqual(ofOne, ["READ-COMMITTED", "utf8mb4"])
      assert.deepStrictEqual(ofOther, ofOne)
    })
  )

  it.effect("rolls back a transaction, and a savepoint within a transaction", () =>
    Effect.gen(function* () {
      const sql = yield* connect
      const t = yield* table(sql, "id BIGINT")
      const insert = (id: number) => sql.unsafe(`INSERT INTO ${t} (id) VALUES (?)`, [id])
      yield* sql.withTransaction(
        Effect.gen(function* () {
          yield* insert(1)
          yield* Effect.exit(sql.withTransaction(Effect.andThen(insert(2), Effect.fail("no"))))
          yield* sql.withTransaction(insert(3))
        })
      )
      const exit = yield* Effect.exit(sql.withTransaction(Effect.andThen(insert(4), Effect.fail("no"))))
      assert(Exit.isFailure(exit))
      assert.deepStrictEqual(yield* sql.unsafe(`SELECT id FROM ${t} ORDER BY id`).values, [[1], [3]])
    })
  )

  it.effect("isolates two transactions, and runs `afterCommit` effects after the commit", () =>
    Effect.gen(function* () {
      const sql = yield* connect
      const t = yield* table(sql, "id BIGINT")
      const count = Effect.map(sql.unsafe(`SELECT COUNT(*) FROM ${t}`).values, ([row]) => row![0])
      const seen: Array<unknown> = []
      const note = Effect.map(Effect.orDie(count), (rows) => void seen.push(rows))
      const inserted = yield* Latch.make()
      const looked = yield* Latch.make()
      const writer = sql.withTransaction(
        Effect.gen(function* () {
          yield* sql.afterCommit(note)
          yield* sql.unsafe(`INSERT INTO ${t} (id) VALUES (1)`)
          yield* inserted.open
          yield* looked.await
          return yield* sessionOf(sql)
        })
      )
      const reader = sql.withTransaction(
        Effect.gen(function* () {
          yield* inserted.await
          yield* note
          yield* looked.open
          return yield* sessionOf(sql)
        })
      )
      const [one, other] = yield* Effect.all([writer, reader], { concurrency: "unbounded" })
      assert.notStrictEqual(one, other)
      yield* Effect.exit(sql.withTransaction(Effect.andThen(sql.afterCommit(note), Effect.fail("no"))))
      assert.deepStrictEqual(seen, [0, 1])
    })
  )

  it.effect("classifies the errors of statements", () =>
    Effect.gen(function* () {
      const sql = yield* connect
      const t = yield* table(sql, `id ${text} PRIMARY KEY, n BIGINT NOT NULL, UNIQUE KEY by_n (n)`)
      const insert = (id: string, n: number | null) =>
        sql.unsafe(`INSERT INTO ${t} (id, n) VALUES (?, ?)`, [id, n])
      yield* insert("a", 1)
      const constraintOf = (reason: SqlError.SqlErrorReason) =>
        reason._tag === "UniqueViolation" ? reason.constraint : reason
      assert.strictEqual(constraintOf(yield* reasonOf(insert("a", 2))), "PRIMARY")
      assert.strictEqual(constraintOf(yield* reasonOf(insert("b", 1))), "by_n")
      assert.strictEqual(yield* tagOf(insert("b", null)), "ConstraintError")
      assert.strictEqual(yield* tagOf(sql.unsafe("SELEC 1")), "SqlSyntaxError")
      assert.strictEqual(yield* tagOf(sql.unsafe(`SELECT 1 FROM ${t}_missing`)), "SqlSyntaxError")

      const lock = sql.unsafe(`SELECT n FROM ${t} FOR UPDATE NOWAIT`)
      // in another session
      const other = yield* connect
      const locked = sql.withTransaction(
        Effect.andThen(lock, tagOf(other.unsafe(`SELECT n FROM ${t} FOR UPDATE NOWAIT`)))
      )
      assert.strictEqual(yield* locked, "LockTimeoutError")
    })
  )

  it.effect("classifies the errors of connecting", () =>
    Effect.gen(function* () {
      const connecting = (change: (url: URL) => void) => {
        const url = new URL(sharedUrl)
        change(url)
        return tagOf(MysqlClient.make({ url: url.href }))
      }
      assert.strictEqual(
        yield* connecting((url) => {
          url.username = "nobody"
          url.password = "wrong"
        }),
        "AuthenticationError"
      )
      assert.strictEqual(yield* connecting((url) => void (url.port = "1")), "ConnectionError")
    })
  )

  it.effect("fails a transaction that a deadlock ended, even inside a savepoint", () =>
    Effect.gen(function* () {
      const sql = yield* connect
      const t = yield* table(sql, "id BIGINT PRIMARY KEY, n BIGINT NOT NULL")
      yield* sql.unsafe(`INSERT INTO ${t} VALUES (1, 0), (2, 0)`)
      const add = (id: number) => sql.unsafe(`UPDATE ${t} SET n = n + 1 WHERE id = ?`, [id])
      const latches = [yield* Latch.make(), yield* Latch.make()] as const
      const both = (own: 0 | 1) =>
        sql.withTransaction(
          Effect.gen(function* () {
            yield* add(own + 1)
            yield* latches[own].open
            yield* latches[own === 0 ? 1 : 0].await
            yield* sql.withTransaction(add(own === 0 ? 2 : 1))
          })
        )
      const exits = yield* Effect.all([Effect.result(both(0)), Effect.result(both(1))], {
        concurrency: "unbounded"
      })
      const failures = exits.flatMap((exit) => (exit._tag === "Failure" ? [exit.failure.reason._tag] : []))
      assert.deepStrictEqual(failures, ["DeadlockError"])
      assert.deepStrictEqual(yield* sql.unsafe(`SELECT n FROM ${t}`).values, [[1], [1]])
    })
  )

  it.effect("fails a transaction whose session is lost, and runs the next statement in another session", () =>
    Effect.gen(function* () {
      const sql = yield* MysqlClient.make({ url: sharedUrl, maxConnections: 1 })
      const other = yield* connect
      const losing = sql.withTransaction(
        Effect.gen(function* () {
          yield* other.unsafe(`KILL CONNECTION ${yield* sessionOf(sql)}`)
          yield* sql`SELECT 1`
        })
      )
      assert.strictEqual(yield* tagOf(losing), "ConnectionError")
      assert.deepStrictEqual(yield* sql`SELECT 1`.values, [[1]])
    })
  )

  it.live("replaces a session that was lost while idle", () =>
    Effect.gen(function* () {
      const sql = yield* MysqlClient.make({ url: sharedUrl, maxConnections: 1 })
      const other = yield* connect
      yield* other.unsafe(`KILL CONNECTION ${yield* sessionOf(sql)}`)
      yield* Effect.sleep("100 millis")
      assert.deepStrictEqual(yield* sql`SELECT 1`.values, [[1]])
    })
  )

  it.live("kills the statement of a fiber that is interrupted, and rolls back", () =>
    Effect.gen(function* () {
      const sql = yield* MysqlClient.make({ url: sharedUrl, maxConnections: 1 })
      const other = yield* connect
      const t = yield* table(other, "id BIGINT PRIMARY KEY")
      yield* other.unsafe(`INSERT INTO ${t} VALUES (1)`)
      const locked = yield* Latch.make()
      const session = yield* sessionOf(sql)
      const waiting = yield* Effect.forkChild(
        sql.withTransaction(
          Effect.gen(function* () {
            yield* sql.unsafe(`INSERT INTO ${t} VALUES (2)`)
            yield* locked.open
            yield* sql.unsafe(`SELECT SLEEP(20)`)
          })
        )
      )
      yield* locked.await
      yield* Effect.sleep("100 millis")
      const started = performance.now()
      yield* Fiber.interrupt(waiting)
      assert.isBelow(performance.now() - started, 5000)
      assert.strictEqual(yield* sessionOf(sql), session)
      assert.deepStrictEqual(yield* sql.unsafe(`SELECT id FROM ${t}`).values, [[1]])
    })
  )

  it.live("closes its sessions when its layer is released", () =>
    Effect.gen(function* () {
      const session = yield* Effect.provide(
        Effect.flatMap(SqlClient.SqlClient, sessionOf),
        MysqlClient.layer({ url: sharedUrl })
      )
      const sql = yield* connect
      yield* Effect.repeat(isConnected(sql, session), {
        schedule: Schedule.spaced("10 millis"),
        until: (connected) => !connected
      })
    })
  )
})
