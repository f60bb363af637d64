/** The messages of ended tasks that are not due yet: the end of the task removes them. */
import { assert, describe, it } from "@effect/vitest"
import { Array as Arr, Effect, type Scope } from "effect"
import { SqlClient } from "effect/sql"
import type { NewRecord } from "../../src/BackendDriver.ts"
import type { Envelope } from "../../src/BrokerDriver.ts"
import * as Migrations from "../../src/sql/schema/Migrations.ts"
import * as SqlDrivers from "../../src/sql/SqlDrivers.ts"
import * as SqliteClient from "../../src/sqlite/SqliteClient.ts"
import { record, startRequest } from "../../src/testing/suites/backend/fixture.ts"
import * as Mariadb from "../mariadb/server.ts"
import * as Postgres from "../postgres/server.ts"
import { temporaryFile } from "../sqlite/temporary.ts"
import { spyOn } from "./statementSpy.ts"

interface Location {
  readonly client: SqlClient.SqlClient
  readonly prefix: string
}

interface Store extends SqlDrivers.Drivers, Location {
  readonly spy: ReturnType<typeof spyOn<SqlClient.SqlClient>>
}

const recordOf = (id: string, more?: Partial<NewRecord>): NewRecord =>
  record(id, { task: "t", incarnation: "i1", retentionMillis: 60_000, ...more })

const messageOf = (id: string, delayMillis: number): Envelope => ({
  id,
  task: "t",
  incarnation: "i1",
  queue: "q",
  priority: 0,
  delayMillis,
  body: "{}"
})

const startOf = (id: string) => startRequest(id, `token of ${id}`, { task: "t", incarnation: "i1" })

const LATE = 60_000

/** Enqueues tasks whose messages are delayed. */
const enqueue = (
  { backend, broker }: Store,
  ids: Arr.NonEmptyReadonlyArray<string>,
  more?: Partial<NewRecord>
) =>
  Effect.andThen(
    backend.create(Arr.map(ids, (id) => recordOf(id, more))),
    broker.publish(Arr.map(ids, (id) => messageOf(id, LATE)))
  )

/** Returns the ids of the messages that are left, and removes them. */
const leftMessages = ({ broker }: Store) =>
  Effect.map(broker.purge("q", 100), (messages) => messages.map(({ id }) => id))

/** What a store does to a task when its time is over. */
const expiries: Readonly<Record<string, (store: Store) => Effect.Effect<unknown, unknown>>> = {
  "a read": ({ backend }) => backend.read(["a"]),
  "the sweep": ({ backend }) => backend.sweep(10),
  "a cancel": ({ backend }) => backend.cancel(["a"]),
  "a start": ({ backend }) => backend.start([startOf("a")]),
  "a withdrawal": ({ backend }) => backend.withdraw([{ id: "a", incarnation: "i1", generation: 0 }])
}

const DELAYED = 20_000

/** Fills the queue with messages, all of which are delayed, or ready. */
const fill = ({ broker }: Store, delayMillis: number) =>
  Effect.forEach(
    Arr.range(1, DELAYED / 1000),
    (part) =>
      broker.publish(
        Arr.map(Arr.range(1, 1000), (n) => messageOf(`${delayMillis} ${part} ${n}`, delayMillis))
      ),
    { discard: true }
  )

const suite = (location: Effect.Effect<Location, unknown, Scope.Scope>, locksRows: boolean): void => {
  const test = (name: string, body: (store: Store) => Effect.Effect<void, unknown, Scope.Scope>) =>
    it.live(
      name,
      () =>
        Effect.gen(function* () {
          const { client, prefix } = yield* location
          const spy = spyOn(client)
          const drivers = yield* Effect.andThen(
            Migrations.run({ prefix }),
            SqlDrivers.make({ prefix, notify: false })
          ).pipe(Effect.provideService(SqlClient.SqlClient, spy.client))
          yield* body({ ...drivers, client, prefix, spy })
        }),
      120_000
    )

  test("the message of a cancelled task is removed, and no other", (store) =>
    Effect.gen(function* () {
      yield* enqueue(store, ["a", "b", "c"])
      assert.deepStrictEqual(yield* store.backend.cancel(["a", "c", "nobody"]), [
        "Cancelled",
        "Cancelled",
        "Unknown"
      ])
      assert.deepStrictEqual(yield* leftMessages(store), ["b"])
    }))

  for (const [what, notice] of Object.entries(expiries)) {
    test(`the message of a task that ${what} finds expired is removed`, (store) =>
      Effect.gen(function* () {
        yield* enqueue(store, ["b"])
        yield* enqueue(store, ["a"], { expiresMillis: 1 })
        yield* Effect.sleep("10 millis")
        yield* notice(store)
        assert.strictEqual((yield* store.backend.read(["a"]))[0]?.ended, "Expired")
        assert.deepStrictEqual(yield* leftMessages(store), ["b"])
      }))
  }

  test("the message of a task that waits for a retry is removed by its cancel", (store) =>
    Effect.gen(function* () {
      const { backend, broker } = store
      yield* backend.create([recordOf("a")])
      yield* broker.publish([messageOf("a", 0)])
      const [claimed] = yield* broker.claim({ queues: ["q"], max: 1, leaseMillis: LATE, worker: "w" })
      yield* backend.start([startOf("a")])
      yield* backend.settle([
        { id: "a", token: startOf("a").token, outcome: { _tag: "Retry", afterMillis: LATE } }
      ])
      yield* broker.release([{ handle: claimed!.handle, afterMillis: LATE }])
      assert.deepStrictEqual(yield* backend.cancel(["a"]), ["Cancelled"])
      assert.deepStrictEqual(yield* leftMessages(store), [])
    }))

  test("a message that is ready stays, and is dropped when it is claimed", (store) =>
    Effect.gen(function* () {
      const { backend, broker } = store
      yield* backend.create([recordOf("a")])
      yield* broker.publish([messageOf("a", 0)])
      yield* backend.cancel(["a"])
      const claimed = yield* broker.claim({ queues: ["q"], max: 10, leaseMillis: LATE, worker: "w" })
      assert.deepStrictEqual(
        claimed.map(({ id, incarnation }) => [id, incarnation]),
        [["a", "i1"]]
      )
      assert.deepStrictEqual(yield* backend.start([startOf("a")]), [{ _tag: "Drop" }])
    }))

  if (locksRows) {
    test("a cancel does not wait for a message that another transaction has locked", (store) =>
      Effect.gen(function* () {
        const { client, prefix } = store
        yield* enqueue(store, ["a", "b"])
        yield* client.withTransaction(
          Effect.gen(function* () {
            yield* client.unsafe(`SELECT seq FROM ${prefix}_messages WHERE id = 'a' FOR UPDATE`)
            assert.deepStrictEqual(yield* store.backend.cancel(["a", "b"]), ["Cancelled", "Cancelled"])
          })
        )
        assert.deepStrictEqual(yield* leftMessages(store), ["a"])
        assert.deepStrictEqual(yield* store.backend.start([startOf("a")]), [{ _tag: "Drop" }])
      }))
  }

  test("the removal reads the messages of its tasks by an index, however many others there are", (store) =>
    Effect.gen(function* () {
      const { client, prefix, spy } = store
      yield* enqueue(store, ["a", "b"])
      spy.asked.clear()
      yield* store.backend.cancel(["a"])
      const asked = [...spy.asked.values()].filter(({ text }) => /^SELECT seq FROM .* state = 1/s.test(text))
      assert.strictEqual(asked.length, 1)
      const { params, text } = asked[0]!
      const explain = client.onDialectOrElse({ sqlite: () => "EXPLAIN QUERY PLAN", orElse: () => "EXPLAIN" })
      const plan = Effect.map(client.unsafe(`${explain} ${text}`, params), (rows) => JSON.stringify(rows))
      const index = `${client.onDialectOrElse({ mysql: () => "", orElse: () => `${prefix}_` })}messages_delayed`
      assert.include(yield* plan, index)
      yield* fill(store, LATE)
      yield* fill(store, 0)
      assert.include(yield* plan, index)
      yield* client.unsafe(
        client.onDialectOrElse({
          mysql: () => `ANALYZE TABLE ${prefix}_messages`,
          orElse: () => `ANALYZE ${prefix}_messages`
        })
      )
      const last = yield* plan
      assert.include(last, index)
      assert.notMatch(last, /Seq Scan|SCAN \w+_messages|"type":"(ALL|index)"/)
      assert.deepStrictEqual(yield* store.backend.cancel(["b"]), ["Cancelled"])
      const [counts] = yield* store.broker.counts(["q"])
      assert.strictEqual(counts?.delayed, DELAYED)
    }))
}

describe("sqlite: delayed messages", () =>
  suite(
    Effect.flatMap(temporaryFile, (filename) =>
      Effect.map(SqliteClient.make({ filename }), (client) => ({ client, prefix: "chicory" }))
    ),
    false
  ))
await Postgres.describeWithPostgres("postgres: delayed messages", () =>
  suite(
    Effect.map(Postgres.temporaryClient, (client) => ({ client, prefix: "chicory" })),
    true
  )
)
await Mariadb.describeWithMariadb("mariadb: delayed messages", () => suite(Mariadb.temporaryTables, true))
