/** The PostgreSQL server that is there for all tests, and places of their own on it. */
import { PgClient } from "@effect/sql-pg"
import { Context, Effect, Layer, Redacted, type Scope } from "effect"
import { SqlClient } from "effect/sql"
import * as Migrations from "../../src/sql/schema/Migrations.ts"
import * as SqlDrivers from "../../src/sql/SqlDrivers.ts"
import { describeUnless } from "../support/describeUnless.ts"

/** `CHICORY_TEST_POSTGRES_URL`, or the local one. */
export const sharedUrl: string =
  process.env["CHICORY_TEST_POSTGRES_URL"] ?? "postgres://postgres@127.0.0.1:5432/test"

/** How a test reaches a place of its own. */
export interface Place {
  readonly url: string
  /** The schema that all names are looked up in. */
  readonly schema: string
}

/** A client whose names are those of the place. */
export const layerOf = (
  { schema, url }: Place,
  config?: Partial<PgClient.PgPoolConfig>
): Layer.Layer<PgClient.PgClient | SqlClient.SqlClient, unknown> =>
  PgClient.layer({
    url: Redacted.make(url),
    maxConnections: 8,
    startupParameters: { search_path: schema },
    ...config
  })

/** Runs with a client of the server, apart from all places. */
const administer = <A, E>(url: string, effect: Effect.Effect<A, E, SqlClient.SqlClient>) =>
  Effect.provide(effect, PgClient.layer({ url: Redacted.make(url), maxConnections: 1 }))

/** A schema that nobody else has; it is dropped, with all that is in it, when the scope closes. */
export const temporaryPlace = (url: string = sharedUrl): Effect.Effect<Place, unknown, Scope.Scope> =>
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

/** A client of a place of its own. */
export const temporaryClient: Effect.Effect<SqlClient.SqlClient, unknown, Scope.Scope> = Effect.flatMap(
  temporaryPlace(),
  (place) => Effect.map(Layer.build(layerOf(place)), Context.get(SqlClient.SqlClient))
)

/** The drivers of one store in a place of its own. */
export const temporaryDrivers = (
  options: SqlDrivers.Options = {}
): Effect.Effect<SqlDrivers.Drivers, unknown, Scope.Scope> =>
  Effect.flatMap(temporaryClient, (client) =>
    Effect.andThen(Migrations.run(options), SqlDrivers.make(options)).pipe(
      Effect.provideService(SqlClient.SqlClient, client)
    )
  )

const isUp = administer(
  sharedUrl,
  Effect.flatMap(SqlClient.SqlClient, (sql) => sql.unsafe("SELECT 1"))
).pipe(Effect.timeout("2 seconds"), Effect.isSuccess)

/** A suite on the server that is there for all. To be awaited at the top of a module. */
export const describeWithPostgres = async (name: string, body: () => void): Promise<void> => {
  const up = await Effect.runPromise(isUp)
  const { host } = new URL(sharedUrl)
  const hint = "start one with `pg_ctlcluster 15 main start`, or name one with CHICORY_TEST_POSTGRES_URL"
  describeUnless(up ? undefined : `No PostgreSQL server answers at ${host}: ${hint}.`, name, body)
}
