/** The MariaDB server that all tests share, and temporary tables on it. */
import { Effect, type Scope } from "effect"
import { SqlClient } from "effect/sql"
import * as Migrations from "../../src/sql/schema/Migrations.ts"
import * as SqlDrivers from "../../src/sql/SqlDrivers.ts"
import { describeUnless } from "../support/describeUnless.ts"
import * as MysqlClient from "./MysqlClient.ts"

/** The URL of the shared server: `CHICORY_TEST_MARIADB_URL`, or the local server. */
export const sharedUrl: string = process.env["CHICORY_TEST_MARIADB_URL"] ?? "mysql://root@127.0.0.1:3306/test"

/** Describes a suite on the shared server. Has to be awaited at the top of a module. */
export const describeWithMariadb = async (name: string, body: () => void): Promise<void> => {
  const connecting = Effect.scoped(MysqlClient.make({ url: sharedUrl, maxConnections: 1 }))
  const up = await Effect.runPromise(Effect.isSuccess(connecting))
  const hint = "start one with a database `test`, or name one with CHICORY_TEST_MARIADB_URL"
  describeUnless(
    up ? undefined : `No MariaDB server answers at ${new URL(sharedUrl).host}: ${hint}.`,
    name,
    body
  )
}

/** Makes a unique prefix and a client. The tables of the prefix are dropped when the scope closes. */
export const temporaryTables: Effect.Effect<
  { readonly prefix: string; readonly client: SqlClient.SqlClient },
  unknown,
  Scope.Scope
> = Effect.gen(function* () {
  const prefix = `t_${crypto.randomUUID().replaceAll("-", "")}`
  const client = yield* MysqlClient.make({ url: sharedUrl, maxConnections: 6 })
  yield* Effect.addFinalizer(() =>
    Effect.orDie(
      Effect.forEach(
        ["tasks", "messages", "dead_letters", "workers", "documents", "listeners", "notifications", "schema"],
        (name) => client.unsafe(`DROP TABLE IF EXISTS ${prefix}_${name}`)
      )
    )
  )
  return { prefix, client }
})

/** Makes the drivers of one store with new tables. */
export const temporaryDrivers = (
  options: SqlDrivers.Options = {}
): Effect.Effect<SqlDrivers.Drivers, unknown, Scope.Scope> =>
  Effect.flatMap(temporaryTables, ({ client, prefix }) => {
    const settings = { ...options, prefix }
    return Effect.andThen(Migrations.run(settings), SqlDrivers.make(settings)).pipe(
      Effect.provideService(SqlClient.SqlClient, client)
    )
  })
