/** The PostgreSQL server that all tests share, and temporary schemas on it. */
import { PgClient } from "@effect/sql-pg"
import { Context, Effect, Layer, Redacted, type Scope } from "effect"
import { SqlClient } from "effect/sql"
import * as Migrations from "../../src/sql/schema/Migrations.ts"
import * as SqlDrivers from "../../src/sql/SqlDrivers.ts"
import { describeUnless } from "../support/describeUnless.ts"

/** The URL of the shared server: `CHICORY_TEST_POSTGRES_URL`, or the local server. */
export const sharedUrl: string =
  process.env["CHICORY_TEST_POSTGRES_URL"] ?? "postgres://postgres@127.0.0.1:5432/test"

/** The location of a test's tables. */
export interface SchemaLocation {
  readonly url: string
  /** The only schema of the search path. */
  readonly schema: string
}

/** Makes a client whose search path is the schema. */
export const clientLayer = (
  { schema, url }: SchemaLocation,
  config?: Partial<PgClient.PgPoolConfig>
): Layer.Layer<PgClient.PgClient | SqlClient.SqlClient, unknown> =>
  PgClient.layer({
    url: Redacted.make(url),
    maxConnections: 8,
    startupParameters: { search_path: schema },
    ...config
  })

/** Provides a client of the server with the default search path. */
const administer = <A, E>(url: string, effect: Effect.Effect<A, E, SqlClient.SqlClient>) =>
  Effect.provide(effect, PgClient.layer({ url: Redacted.make(url), maxConnections: 1 }))

/** Creates a unique schema, which is dropped with its contents when the scope closes. */
export const temporarySchema = (
  url: string = sharedUrl
): Effect.Effect<SchemaLocation, unknown, Scope.Scope> =>
  Effect.suspend(() => {
    const schema = `chicory_test_${crypto.randomUUID().replaceAll("-", "")}`
    const run = (statement: string) =>
      administer(
        url,
        Effect.flatMap(SqlClient.SqlClient, (sql) => sql.unsafe(statement))
      )
    return Effect.as(
      Effect.acquireRelease(run(`CREATE SCHEMA ${schema}`), () =>
        Effect.orDie(run(`DROP SCHEMA ${schema} CASCADE`))
      ),
      { url, schema }
    )
  })

/** Makes a client of a new schema. */
export const temporaryClient: Effect.Effect<SqlClient.SqlClient, unknown, Scope.Scope> = Effect.flatMap(
  temporarySchema(),
  (location) => Effect.map(Layer.build(clientLayer(location)), Context.get(SqlClient.SqlClient))
)

/** Makes the drivers of one store in a new schema. */
export const temporaryDrivers = (
  options: SqlDrivers.Options = {}
): Effect.Effect<SqlDrivers.Drivers, unknown, Scope.Scope> =>
  Effect.flatMap(temporaryClient, (client) =>
    Effect.andThen(Migrations.run(options), SqlDrivers.make(options)).pipe(
      Effect.provideService(SqlClient.SqlClient, client)
    )
  )

/** Whether the shared server answers. */
const isUp = administer(
  sharedUrl,
  Effect.flatMap(SqlClient.SqlClient, (sql) => sql.unsafe("SELECT 1"))
).pipe(Effect.timeout("2 seconds"), Effect.isSuccess)

/** Describes a suite on the shared server. Has to be awaited at the top of a module. */
export const describeWithPostgres = async (name: string, body: () => void): Promise<void> => {
  const up = await Effect.runPromise(isUp)
  const { host } = new URL(sharedUrl)
  const hint = "start one with `pg_ctlcluster 15 main start`, or name one with CHICORY_TEST_POSTGRES_URL"
  describeUnless(up ? undefined : `No PostgreSQL server answers at ${host}: ${hint}.`, name, body)
}
