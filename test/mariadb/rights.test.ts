/** Users of MariaDB that may not change the schema, or lack rights on the tables. */
import { assert } from "@effect/vitest"
import { SqlStore } from "chicory/sql"
import { Effect, Layer } from "effect"
import { SqlClient } from "effect/sql"
import { checkRights, MissingRights } from "../../src/sql/schema/checkRights.ts"
import { spyOn } from "../sql/statementSpy.ts"
import type { OwnServer } from "../support/ownServers.ts"
import * as MysqlClient from "./MysqlClient.ts"
import { describeWithOwnMariadb, openStore, testWithServer as test } from "./ownServer.ts"

const runAll = (url: string, ...statements: ReadonlyArray<string>) =>
  Effect.provide(
    Effect.flatMap(SqlClient.SqlClient, (sql) =>
      Effect.forEach(statements, (statement) => sql.unsafe(statement), { discard: true })
    ),
    MysqlClient.layer({ url, maxConnections: 1 })
  )

/** Makes a store in a database of its own, since any user may do anything in `test`, and a user with these rights. */
const makeStore = Effect.fnUntraced(function* ({ port, url }: OwnServer, ...grants: ReadonlyArray<string>) {
  yield* runAll(url, "CREATE DATABASE jobs", "CREATE USER app@'%'")
  const jobs = (user: string) => `mysql://${user}@127.0.0.1:${port}/jobs`
  yield* Effect.scoped(openStore({ url: jobs("root") }))
  yield* runAll(url, ...grants.map((rights) => `GRANT ${rights} TO app@'%'`))
  return Layer.build(Layer.provide(SqlStore.layerStorage(), MysqlClient.layer({ url: jobs("app") })))
})

describeWithOwnMariadb("mariadb: opening a store", () => {
  test("works for a user that may read and write the tables", {}, (server) =>
    Effect.gen(function* () {
      yield* yield* makeStore(server, "SELECT, INSERT, UPDATE, DELETE ON jobs.*")
    })
  )

  test("tries the rights of a user, those of its default role among them, in one statement", {}, (server) =>
    Effect.gen(function* () {
      yield* makeStore(server)
      yield* runAll(
        server.url,
        "CREATE ROLE worker_role",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON jobs.* TO worker_role",
        "GRANT worker_role TO app@'%'",
        "SET DEFAULT ROLE worker_role FOR app@'%'"
      )
      const client = yield* MysqlClient.make({ url: `mysql://app@127.0.0.1:${server.port}/jobs` })
      const spy = spyOn(client)
      yield* Effect.provideService(checkRights(), SqlClient.SqlClient, spy.client)
      assert.strictEqual(spy.asked.size, 1)
    })
  )

  test("fails for a user that lacks rights on the tables, and names them", {}, (server) =>
    Effect.gen(function* () {
      const open = yield* makeStore(
        server,
        "SELECT, UPDATE ON jobs.*",
        "INSERT, DELETE ON jobs.chicory_messages",
        "INSERT ON jobs.chicory_tasks"
      )
      const error = yield* Effect.flip(open)
      assert(error._tag === "BackendError" && error.cause instanceof MissingRights)
      assert.deepStrictEqual(error.cause.denied, [
        "DELETE on chicory_tasks",
        "INSERT on chicory_dead_letters",
        "DELETE on chicory_dead_letters",
        "INSERT on chicory_workers",
        "DELETE on chicory_workers",
        "INSERT on chicory_documents",
        "DELETE on chicory_documents",
        "INSERT on chicory_listeners",
        "DELETE on chicory_listeners",
        "INSERT on chicory_notifications",
        "DELETE on chicory_notifications"
      ])
      assert.deepStrictEqual(error.cause.grants, [
        "GRANT DELETE ON `chicory_tasks` TO 'app'@'%'",
        "GRANT INSERT, DELETE ON `chicory_dead_letters` TO 'app'@'%'",
        "GRANT INSERT, DELETE ON `chicory_workers` TO 'app'@'%'",
        "GRANT INSERT, DELETE ON `chicory_documents` TO 'app'@'%'",
        "GRANT INSERT, DELETE ON `chicory_listeners` TO 'app'@'%'",
        "GRANT INSERT, DELETE ON `chicory_notifications` TO 'app'@'%'"
      ])
      assert.isFalse(error.retryable)
      yield* Effect.forEach(error.cause.grants, (grant) =>
        runAll(`mysql://root@127.0.0.1:${server.port}/jobs`, grant)
      )
      yield* open
    })
  )
})
