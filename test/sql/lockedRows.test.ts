/** Renewals beside a transaction that has locked rows: they wait for none. */
import { assert, it } from "@effect/vitest"
import { Effect, Fiber, Latch, type Scope } from "effect"
import { SqlClient } from "effect/sql"
import type { Renew } from "../../src/BackendDriver.ts"
import * as Migrations from "../../src/sql/schema/Migrations.ts"
import * as SqlDrivers from "../../src/sql/SqlDrivers.ts"
import { record, startRequest } from "../../src/testing/suites/backend/fixture.ts"
import * as Mariadb from "../mariadb/server.ts"
import * as Postgres from "../postgres/server.ts"

interface Location {
  readonly client: SqlClient.SqlClient
  readonly prefix: string
}

const startOf = (id: string) => startRequest(id, `token of ${id}`)

const renewalOf = (id: string, more?: Partial<Renew>): Renew => ({
  id,
  token: `token of ${id}`,
  leaseMillis: 60_000,
  ...more
})

/** Runs an effect while a transaction on another connection holds the locks of a statement. */
const whileLocked = <A, E>(client: SqlClient.SqlClient, lock: string, effect: Effect.Effect<A, E>) =>
  Effect.gen(function* () {
    const locked = yield* Latch.make()
    const done = yield* Latch.make()
    const transaction = yield* client
      .unsafe(lock)
      .pipe(Effect.andThen(locked.open), Effect.andThen(done.await), client.withTransaction, Effect.forkChild)
    yield* locked.await
    const answer = yield* effect
    yield* done.open
    yield* Fiber.join(transaction)
    return answer
  })

const suite = (location: Effect.Effect<Location, unknown, Scope.Scope>): void => {
  const test = (
    name: string,
    body: (store: SqlDrivers.Drivers & Location) => Effect.Effect<void, unknown, Scope.Scope>
  ) =>
    it.live(name, () =>
      Effect.gen(function* () {
        const { client, prefix } = yield* location
        const drivers = yield* Effect.andThen(Migrations.run({ prefix }), SqlDrivers.make({ prefix })).pipe(
          Effect.provideService(SqlClient.SqlClient, client)
        )
        yield* body({ ...drivers, client, prefix })
      })
    )

  test("a renewal answers for every run although the row of one is locked", ({ backend, client, prefix }) =>
    Effect.gen(function* () {
      yield* backend.create([record("a"), record("b"), record("c"), record("d")])
      yield* backend.start([startOf("a"), startOf("b"), startOf("c"), startOf("d")])
      const renewals = [
        renewalOf("a", { progress: "1" }),
        renewalOf("b"),
        renewalOf("c"),
        renewalOf("d", { token: "of another run" })
      ] as const
      const lock = `SELECT id FROM ${prefix}_tasks WHERE id = 'a' FOR UPDATE`
      assert.deepStrictEqual(yield* whileLocked(client, lock, backend.renew(renewals)), [
        "Unknown",
        "Held",
        "Held",
        "Lost"
      ])
      const [before] = yield* backend.read(["a"])
      assert.isNull(before?.progress)
      assert.deepStrictEqual(yield* backend.renew(renewals), ["Held", "Held", "Held", "Lost"])
      const [after] = yield* backend.read(["a"])
      assert.strictEqual(after?.progress, "1")
    }))

  test("a renewal of claims answers although the row of one is locked", ({ broker, client, prefix }) =>
    Effect.gen(function* () {
      const message = { task: "t", queue: "q", priority: 0, delayMillis: 0, body: "{}" }
      yield* broker.publish([
        { ...message, id: "a" },
        { ...message, id: "b" },
        { ...message, id: "c" }
      ])
      const claimed = yield* broker.claim({ queues: ["q"], max: 3, leaseMillis: 60_000, worker: "w" })
      const [one, two, three] = claimed.map(({ handle }) => handle) as [string, string, string]
      const lock = `SELECT id FROM ${prefix}_messages WHERE id = 'a' FOR UPDATE`
      const handles = [one, two, three, `${one} of another claim`] as const
      assert.deepStrictEqual(yield* whileLocked(client, lock, broker.renew(handles, 60_000)), [
        undefined,
        true,
        true,
        false
      ])
      assert.deepStrictEqual(yield* broker.renew(handles, 60_000), [true, true, true, false])
    }))
}

await Postgres.describeWithPostgres("postgres: locked rows", () =>
  suite(Effect.map(Postgres.temporaryClient, (client) => ({ client, prefix: "chicory" })))
)
await Mariadb.describeWithMariadb("mariadb: locked rows", () => suite(Mariadb.temporaryTables))
