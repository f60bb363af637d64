import { existsSync, readFileSync } from "node:fs"
import { assert, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { SqlClient } from "effect/sql"
import * as MysqlClient from "./MysqlClient.ts"
import {
  describeWithOwnMariadb,
  type OwnServerOptions,
  startServer,
  testWithServer as test
} from "./ownServer.ts"

type Row = Readonly<Record<string, unknown>>

/** Runs a statement on a new connection. */
const query = (url: string, statement: string) =>
  Effect.provide(
    Effect.flatMap(SqlClient.SqlClient, (sql) => sql.unsafe<Row>(statement)),
    MysqlClient.layer({ url, maxConnections: 1 })
  )

const exists = (pid: number) =>
  Effect.isSuccess(Effect.try({ try: () => process.kill(pid, 0), catch: () => "gone" }))

/** Tests that a server keeps its data. */
const testRestart = (how: string, end: "kill" | "stop", options: OwnServerOptions = {}) =>
  test(`a server that is ${how} and started again has its data`, options, (server) =>
    Effect.gen(function* () {
      yield* query(server.url, "CREATE TABLE words (word TEXT)")
      yield* query(server.url, "INSERT INTO words VALUES ('välue')")
      yield* server[end]
      assert.include(String(yield* Effect.flip(query(server.url, "SELECT 1"))), "ECONNREFUSED")
      yield* server.start
      assert.deepStrictEqual(yield* query(server.url, "SELECT word FROM words"), [{ word: "välue" }])
    })
  )

describeWithOwnMariadb("dedicated MariaDB servers", () => {
  testRestart("killed", "kill")
  testRestart("stopped", "stop", { settings: { "innodb-flush-log-at-trx-commit": "0" } })

  test("a frozen server answers once it is thawed", {}, (server) =>
    Effect.gen(function* () {
      yield* server.freeze
      const answer = yield* Effect.forkChild(query(server.url, "SELECT 1 AS one"))
      yield* Effect.sleep("200 millis")
      assert.isUndefined(answer.pollUnsafe())
      yield* server.thaw
      assert.deepStrictEqual(yield* Fiber.join(answer), [{ one: 1 }])
    })
  )

  it.live("settings that the server rejects fail its start with the server's message", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(startServer({ settings: { "no-such-option": "1" } }))
      assert.include(error.message, "no-such-option")
    })
  )

  it.live("closing the scope removes process and directory, even of a frozen server", () =>
    Effect.gen(function* () {
      const [pid, directory] = yield* Effect.scoped(
        Effect.gen(function* () {
          const server = yield* startServer()
          const [row] = yield* query(server.url, "SELECT @@pid_file AS file, @@datadir AS directory")
          const pid = Number(readFileSync(String(row!["file"]), "utf8"))
          yield* server.freeze
          return [pid, String(row!["directory"])] as const
        })
      )
      assert.isAbove(pid, 1)
      assert.isFalse(yield* exists(pid))
      assert.isFalse(existsSync(directory))
    })
  )
})
