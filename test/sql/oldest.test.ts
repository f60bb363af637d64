/** How the oldest message of a queue is found: by entries of indexes, however long the queue is. */
import { assert, it } from "@effect/vitest"
import { Context, Effect, Layer, type Scope } from "effect"
import { SqlClient } from "effect/sql"
import * as Migrations from "../../src/sql/schema/Migrations.ts"
import * as SqlDrivers from "../../src/sql/SqlDrivers.ts"
import * as SqliteClient from "../../src/sqlite/SqliteClient.ts"
import * as Mariadb from "../mariadb/server.ts"
import * as Postgres from "../postgres/server.ts"
import { temporaryFile } from "../sqlite/temporary.ts"
import { spyOn } from "./statementSpy.ts"

interface Location {
  readonly client: SqlClient.SqlClient
  readonly prefix: string
}

/** How a database explains a statement that it runs. */
interface Explaining {
  readonly explain: string
  readonly analyze: string
  /** Whether a row of the explanation reads more than one entry of an index. */
  readonly readsMany: (row: Readonly<Record<string, unknown>>) => boolean
}

const READY = 6_000
/** Messages of one insert. */
const PART = 500

/** Inserts messages that are ready, of three priorities, and delayed ones that are due. The oldest is of the lowest priority. */
const fill = ({ client, prefix }: Location) =>
  Effect.forEach(
    Array.from({ length: READY / PART }, (_, part) => part * PART),
    (from) => {
      const rows = Array.from({ length: PART }, (_, i) => [
        `('q', ${i % 3}, 0, ${1000 + from + i}, NULL, 'a', 't', 0, '{}')`,
        `('q', ${i % 3}, 1, ${from + i}, ${from + i}, 'b', 't', 0, '{}')`
      ])
      return client.unsafe(`INSERT INTO ${prefix}_messages
        (queue, priority, state, due_at, wake_at, id, task, generation, body) VALUES ${rows.flat().join(", ")}`)
    },
    { discard: true }
  )

const suite = (
  location: Effect.Effect<Location, unknown, Scope.Scope>,
  { analyze, explain, readsMany }: Explaining
): void => {
  const opened = Effect.gen(function* () {
    const place = yield* location
    const spy = spyOn(place.client)
    const { broker } = yield* Effect.andThen(
      Migrations.run({ prefix: place.prefix }),
      SqlDrivers.make({ prefix: place.prefix, notify: false })
    ).pipe(Effect.provideService(SqlClient.SqlClient, spy.client))
    spy.answered.length = 0
    spy.asked.clear()
    return { ...place, broker, spy }
  })

  it.live(
    "reads one entry of an index for each priority, and one of the messages that became due",
    () =>
      Effect.gen(function* () {
        const { broker, client, spy, ...place } = yield* opened
        yield* fill({ client, prefix: place.prefix })
        yield* client.unsafe(analyze.replace(":table", `${place.prefix}_messages`))
        const before = Date.now()
        const [counts] = yield* broker.counts(["q"])
        assert.strictEqual(counts?.ready, 2 * READY)
        assert.isAtLeast(counts?.oldestMillis ?? 0, before - 60_000)
        // the counts, one of the due ones, and one for each of the three priorities
        assert.lengthOf(spy.answered, 5)
        const statements = [...spy.asked.values()].filter(({ text }) => text.includes("first0"))
        assert.lengthOf(statements, 2)
        for (const { params, text } of statements) {
          const plan = yield* client.unsafe<Readonly<Record<string, unknown>>>(`${explain} ${text}`, params)
          assert.deepStrictEqual(plan.filter(readsMany), [], text)
        }
      }),
    60_000
  )

  it.live("makes one statement for queues without a ready message", () =>
    Effect.gen(function* () {
      const { broker, spy } = yield* opened
      yield* broker.counts(["q", "other"])
      assert.lengthOf(spy.answered, 1)
    })
  )

  it.live("finds the oldest of more queues than one statement holds", () =>
    Effect.gen(function* () {
      const { broker } = yield* opened
      const queues = Array.from({ length: 40 }, (_, n) => `queue ${n}`) as [string, ...Array<string>]
      yield* broker.publish([
        { id: "a", task: "t", queue: "queue 39", priority: 0, delayMillis: 0, body: "{}" },
        { id: "b", task: "t", queue: "queue 0", priority: 255, delayMillis: 0, body: "{}" }
      ])
      yield* Effect.sleep("50 millis")
      const counts = yield* broker.counts(queues)
      assert.deepStrictEqual(
        counts.map(({ oldestMillis = -1 }) => oldestMillis >= 45),
        queues.map((_, n) => n === 0 || n === 39)
      )
    })
  )
}

await Postgres.describeWithPostgres("postgres: the oldest message", () =>
  suite(
    Effect.gen(function* () {
      const services = yield* Layer.build(Postgres.clientLayer(yield* Postgres.temporarySchema()))
      return { client: Context.get(services, SqlClient.SqlClient), prefix: "chicory" }
    }),
    {
      explain: "EXPLAIN (ANALYZE)",
      analyze: "ANALYZE :table",
      readsMany: (row) =>
        Number(/actual time=\S+ rows=([\d.]+)/.exec(String(row["QUERY PLAN"]))?.[1] ?? 0) > 1
    }
  )
)

await Mariadb.describeWithMariadb("mariadb: the oldest message", () =>
  suite(Mariadb.temporaryTables, {
    explain: "ANALYZE",
    analyze: "ANALYZE TABLE :table",
    readsMany: ({ r_rows }) => Number(r_rows) > 1
  })
)

suite(
  Effect.gen(function* () {
    const filename = yield* temporaryFile
    return { client: yield* SqliteClient.make({ filename }), prefix: "chicory" }
  }),
  {
    explain: "EXPLAIN QUERY PLAN",
    analyze: "ANALYZE",
    readsMany: ({ detail }) =>
      !/^SEARCH chicory_messages USING (COVERING )?INDEX chicory_messages_(ready|wake) /.test(String(detail))
  }
)
