import { describe } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { SqlClient } from "effect/sql"
import * as SqliteClient from "../../src/sqlite/SqliteClient.ts"
import * as MysqlClient from "../mariadb/MysqlClient.ts"
import * as Mariadb from "../mariadb/server.ts"
import * as Postgres from "../postgres/server.ts"
import { temporaryFile } from "../sqlite/temporary.ts"
import { suite as callSuite } from "./transactionCallSuite.ts"
import { suite } from "./transactionSuite.ts"

const both = (make: Parameters<typeof suite>[0]): void => {
  suite(make)
  callSuite(make)
}

describe("sqlite: transactions", () =>
  both(
    Effect.gen(function* () {
      const filename = yield* temporaryFile
      const client = yield* SqliteClient.make({ filename })
      const other = yield* SqliteClient.make({ filename })
      return { client, connections: 1, other, prefix: "chicory" }
    })
  ))

await Postgres.describeWithPostgres("postgres: transactions", () =>
  both(
    Effect.gen(function* () {
      const location = yield* Postgres.temporarySchema()
      const connections = 4
      const build = Effect.map(
        Layer.build(Layer.fresh(Postgres.clientLayer(location, { maxConnections: connections }))),
        Context.get(SqlClient.SqlClient)
      )
      return { client: yield* build, connections, other: yield* build, prefix: "chicory" }
    })
  )
)

await Mariadb.describeWithMariadb("mariadb: transactions", () =>
  both(
    Effect.gen(function* () {
      const { client, prefix } = yield* Mariadb.temporaryTables
      const other = yield* MysqlClient.make({ url: Mariadb.sharedUrl, maxConnections: 6 })
      return { client, connections: 6, other, prefix }
    })
  )
)
