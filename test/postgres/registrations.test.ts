/** The table of who listens to what, from which the rows of processes that are gone have to be removed. */
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { SqlClient } from "effect/sql"
import * as Migrations from "../../src/sql/schema/Migrations.ts"
import * as SqlDrivers from "../../src/sql/SqlDrivers.ts"
import { describeWithPostgres, temporaryClient } from "./server.ts"

await describeWithPostgres("registrations on Postgres", () => {
  it.live("a sweep removes 1,000 of those that are over, and leaves the others", () =>
    Effect.gen(function* () {
      const client = yield* temporaryClient
      const { backend } = yield* Effect.andThen(Migrations.run({}), SqlDrivers.make({})).pipe(
        Effect.provideService(SqlClient.SqlClient, client)
      )
      const rest = Effect.map(
        client<{ readonly over: number; readonly valid: number }>`SELECT
          count(*) FILTER (WHERE until = 1)::int AS over, count(*) FILTER (WHERE until > 1)::int AS valid
          FROM chicory_listeners WHERE id LIKE 'gone%'`,
        ([counts]) => counts
      )
      yield* client`INSERT INTO chicory_listeners (id, topic, until)
        SELECT 'gone ' || n, 'x', CASE WHEN n > 1500 THEN 9000000000000 ELSE 1 END FROM generate_series(1, 1600) n`
      yield* backend.sweep(10)
      assert.deepStrictEqual(yield* rest, { over: 500, valid: 100 })
      yield* backend.sweep(10)
      assert.deepStrictEqual(yield* rest, { over: 0, valid: 100 })
    })
  )
})
