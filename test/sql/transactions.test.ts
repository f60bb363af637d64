import { describe } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { SqlClient } from "effect/sql"
import * as SqliteClient from "../../src/sqlite/SqliteClient.ts"
import * as MysqlClient from "../mariadb/MysqlClient.ts"
import * as Mariadb from "../mariadb/server.ts"
import * as Postgres from "../postgres/server.ts"
import { temporaryFile } from "../sqlite/temporary.ts"
import { suite } from "./transactionSuite.ts"

describe("sqlite: transactions", () =>
  suite(
    Effect.gen(function* () {
      const filename = yield* temporaryFile
      const client = yield* SqliteClient.make({ filename })
      const other = yield* SqliteClient.make({ filename })
      return { client, other, prefix: "chicory" }
    })
  ))

await Postgres.describeWithPostgres("postgres: transactions", () =>
  suite(
    Effect.gen(function* () {
      const location = yield* Postgres.temporarySchema()
      const build = Effect.map(
        Layer.build(Layer.fresh(Postgres.clientLayer(location))),
        Context.get(SqlClient.SqlClient)
      )
      return { client: yield* build, other: yield* build, prefix: "chicory" }
    })
  )
)

await Mariadb.describeWithMariadb("mariadb: transactions", () =>
  suite(
    Effect.gen(function* () {
      const { client, prefix } = yield* Mariadb.temporaryTables
      const other = yield* MysqlClient.make({ url: Mariadb.sharedUrl, maxConnections: 6 })
      return { client, other, prefix }
    })
  )
)
