/** The plans of MariaDB and SQLite; those of PostgreSQL are in test/postgres/plans.test.ts. */
import { assert, it } from "@effect/vitest"
import { Array as Arr, Effect, type Scope } from "effect"
import { SqlClient } from "effect/sql"
import * as Migrations from "../../src/sql/schema/Migrations.ts"
import * as SqlDrivers from "../../src/sql/SqlDrivers.ts"
import * as SqliteClient from "../../src/sqlite/SqliteClient.ts"
import * as Mariadb from "../mariadb/server.ts"
import { temporaryFile } from "../sqlite/temporary.ts"
import { everything } from "./allOperations.ts"
import { spyOn } from "./statementSpy.ts"

interface Location {
  readonly client: SqlClient.SqlClient
  readonly prefix: string
}

/** How a database explains a statement. */
interface Explaining {
  readonly explain: string
  /** Whether a row of the explanation reads a whole table of tasks or messages. */
  readonly readsAll: (row: Readonly<Record<string, unknown>>, prefix: string) => boolean
}

const WAITING = 5_000
/** The queues that operations are asked of, and another one. */
const QUEUES = ["q", "other", "late", "fused", "again", "backlog"]
/** Messages of one insert. */
const PART = 500

const explainable = /^\s*(SELECT|INSERT|UPDATE|DELETE|WITH)/

const fill = ({ client, prefix }: Location) =>
  Effect.forEach(
    QUEUES,
    (queue) =>
      Effect.forEach(
        Arr.range(1, WAITING / PART),
        (part) => {
          const ids = Arr.map(Arr.range(1, PART), (n) => `${queue} ${part} ${n}`)
          return Effect.andThen(
            client.unsafe(`INSERT INTO ${prefix}_tasks (id, task, payload_hash, published, state, enqueued_at)
              VALUES ${ids.map((id) => `('${id}', 't', '', 1, 'PENDING', 1)`).join(", ")}`),
            client.unsafe(`INSERT INTO ${prefix}_messages (queue, priority, state, due_at, id, task, generation, body)
              VALUES ${ids.map((id, n) => `('${queue}', ${n % 3}, 0, ${part * PART + n}, '${id}', 't', 0, '{}')`).join(", ")}`)
          )
        },
        { discard: true }
      ),
    { discard: true }
  )

const suite = (
  location: Effect.Effect<Location, unknown, Scope.Scope>,
  { explain, readsAll }: Explaining
): void => {
  it.live(
    "no statement reads all tasks or all messages, with a backlog in every queue that is asked",
    () =>
      Effect.gen(function* () {
        const place = yield* location
        const { client, prefix } = place
        const spy = spyOn(client)
        const drivers = yield* Effect.andThen(
          Migrations.run({ prefix }),
          SqlDrivers.make({ prefix, notify: false })
        ).pipe(Effect.provideService(SqlClient.SqlClient, spy.client))
        spy.asked.clear()
        yield* everything(drivers)
        const statements = [...spy.asked.values()].filter(({ text }) => explainable.test(text))
        assert.isAbove(statements.length, 30)
        yield* fill(place)
        yield* client.unsafe(
          explain === "EXPLAIN" ? `ANALYZE TABLE ${prefix}_tasks, ${prefix}_messages` : "ANALYZE"
        )
        for (const { params, text } of statements) {
          const plan = yield* client.unsafe<Readonly<Record<string, unknown>>>(`${explain} ${text}`, params)
          const whole = plan.filter((row) => readsAll(row, prefix))
          assert.deepStrictEqual(whole, [], text)
        }
      }),
    60_000
  )
}

await Mariadb.describeWithMariadb("mariadb: plans", () =>
  suite(Mariadb.temporaryTables, {
    explain: "EXPLAIN",
    readsAll: ({ table, type }, prefix) =>
      (type === "ALL" || type === "index") &&
      [`${prefix}_tasks`, `${prefix}_messages`, "t", "m"].includes(String(table))
  })
)

suite(
  Effect.gen(function* () {
    const filename = yield* temporaryFile
    return { client: yield* SqliteClient.make({ filename }), prefix: "chicory" }
  }),
  {
    explain: "EXPLAIN QUERY PLAN",
    readsAll: ({ detail }) => /^SCAN (t\b|m\b|chicory_(tasks|messages))/.test(String(detail))
  }
)
