import { assert, it } from "@effect/vitest"
import { Array as Arr, Context, Deferred, Effect, Fiber, Layer } from "effect"
import { SqlClient } from "effect/sql"
import * as Migrations from "../../src/sql/schema/Migrations.ts"
import * as SqlDrivers from "../../src/sql/SqlDrivers.ts"
import { describeWithPostgres, clientLayer, temporarySchema } from "./server.ts"

/** Makes a store with records whose retention is over, and its client. */
const makeStale = Effect.fnUntraced(function* (count: number) {
  const location = yield* temporarySchema()
  const client = Context.get(yield* Layer.build(clientLayer(location)), SqlClient.SqlClient)
  const { backend } = yield* Effect.andThen(Migrations.run(), SqlDrivers.make({})).pipe(
    Effect.provideService(SqlClient.SqlClient, client)
  )
  yield* backend.create(
    Arr.map(Arr.range(1, count), (n) => ({
      id: `task ${n}`,
      task: "t",
      incarnation: "",
      queue: "default",
      key: undefined,
      payloadHash: "",
      delayMillis: 0,
      expiresMillis: undefined,
      retentionMillis: 60_000,
      reservedMillis: 1
    }))
  )
  yield* Effect.sleep("20 millis")
  const left = Effect.map(
    client.unsafe<{ readonly count: bigint }>("SELECT count(*) AS count FROM chicory_tasks"),
    ([row]) => Number(row?.count)
  )
  return { backend, client, left }
})

await describeWithPostgres("postgres: sweep", () => {
  it.live("sweeps in one process at a time", () =>
    Effect.gen(function* () {
      const { backend, client, left } = yield* makeStale(10)
      const held = yield* Deferred.make<void>()
      const release = yield* Deferred.make<void>()
      const other = yield* Effect.forkChild(
        client.withTransaction(
          Effect.gen(function* () {
            yield* client.unsafe(
              "SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || '.chicory_retention', 0))"
            )
            yield* Deferred.succeed(held, undefined)
            yield* Deferred.await(release)
          })
        )
      )
      yield* Deferred.await(held)
      assert.strictEqual((yield* backend.sweep(100)).handled, 0)
      assert.strictEqual(yield* left, 10)
      yield* Deferred.succeed(release, undefined)
      yield* Fiber.join(other)
      assert.strictEqual((yield* backend.sweep(100)).handled, 10)
      assert.strictEqual(yield* left, 0)
    })
  )

  it.live("skips a row that another transaction has locked, without waiting", () =>
    Effect.gen(function* () {
      const { backend, client, left } = yield* makeStale(10)
      yield* client.withTransaction(
        Effect.gen(function* () {
          yield* client.unsafe("SELECT 1 FROM chicory_tasks WHERE id = 'task 3' FOR UPDATE")
          assert.strictEqual((yield* backend.sweep(100)).handled, 9)
        })
      )
      assert.strictEqual(yield* left, 1)
      assert.strictEqual((yield* backend.sweep(100)).handled, 1)
    })
  )
})
