import { assert, it } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { SqlClient } from "effect/sql"
import * as Migrations from "../../src/sql/schema/Migrations.ts"
import * as SqlDrivers from "../../src/sql/SqlDrivers.ts"
import { everything } from "../sql/allOperations.ts"
import { spyOn } from "../sql/statementSpy.ts"
import { describeWithPostgres, clientLayer, temporarySchema } from "./server.ts"

const FINISHED = 100_000
const WAITING = 20_000
/** The queues that operations are asked of, and another one. */
const QUEUES = ["q", "other", "late", "fused", "again", "backlog"]

const fill = [
  `INSERT INTO chicory_tasks (id, task, payload_hash, published, state, enqueued_at, finished_at, retention, remove_at, outcome)
  SELECT 'finished ' || n, 't', '', 1, 'SUCCESS', 1, 1, 1e12, 1e13, '1' FROM generate_series(1, ${FINISHED}) AS n`,
  `INSERT INTO chicory_tasks (id, task, payload_hash, published, state, enqueued_at)
  SELECT 'waiting ' || n, 't', '', 1, 'PENDING', 1 FROM generate_series(1, ${WAITING}) AS n`,
  ...QUEUES.map(
    (queue) => `INSERT INTO chicory_messages (queue, priority, state, due_at, id, task, generation, body)
  SELECT '${queue}', n % 3, 0, n, 'waiting ' || n, 't', 0, '{}' FROM generate_series(1, ${WAITING}) AS n`
  )
]

const explainable = /^\s*(SELECT|INSERT|UPDATE|DELETE|WITH)/

await describeWithPostgres("postgres: plans", () => {
  it.live(
    "reads all tasks, all messages or a whole queue in no statement, whatever the statistics are",
    () =>
      Effect.gen(function* () {
        const client = Context.get(
          yield* Layer.build(clientLayer(yield* temporarySchema())),
          SqlClient.SqlClient
        )
        const spy = spyOn(client)
        const drivers = yield* Effect.andThen(Migrations.run(), SqlDrivers.make({ notify: false })).pipe(
          Effect.provideService(SqlClient.SqlClient, spy.client)
        )
        spy.asked.clear()
        yield* everything(drivers)
        const statements = [...spy.asked.values()].filter(({ text }) => explainable.test(text))
        assert.isAbove(statements.length, 30)

        const check = (when: string) =>
          Effect.forEach(statements, ({ params, text }) =>
            Effect.map(
              client.unsafe<{ readonly "QUERY PLAN": string }>(`EXPLAIN ${text}`, params),
              (rows) => {
                const plan = rows.map((row) => row["QUERY PLAN"]).join("\n")
                assert.notMatch(plan, /Seq Scan on chicory_(tasks|messages)/, `${when}\n${text}\n${plan}`)
              }
            )
          )
        yield* check("while the tables are empty")
        for (const statement of fill) yield* client.unsafe(statement)
        yield* check("before ANALYZE")
        yield* client.unsafe("ANALYZE chicory_tasks")
        yield* client.unsafe("ANALYZE chicory_messages")
        yield* check("after ANALYZE")
      }),
    60_000
  )

  it.live(
    "touches only the pages of the claimed messages, however long the queue is",
    () =>
      Effect.gen(function* () {
        const client = Context.get(
          yield* Layer.build(clientLayer(yield* temporarySchema())),
          SqlClient.SqlClient
        )
        yield* Effect.provideService(Migrations.run(), SqlClient.SqlClient, client)
        const pages = Effect.gen(function* () {
          const rows = yield* client.unsafe<{ readonly "QUERY PLAN": string }>(
            `EXPLAIN (ANALYZE, BUFFERS) SELECT * FROM chicory_claim_1(true, '{backlog}', 10, 1, 1000000, 1000000, 1000, ':c', 'w', '{t}',
              '{1000}', '{1000}', '{1000}')`
          )
          const [, hit = "0"] = /hit=(\d+)/.exec(rows.map((row) => row["QUERY PLAN"]).join("\n")) ?? []
          return Number(hit)
        })
        // planned while the tables are empty, and used when they are full
        yield* pages
        for (const statement of fill) yield* client.unsafe(statement)
        yield* pages
        const touched = yield* pages
        assert.isAbove(touched, 10)
        assert.isBelow(touched, 800)
      }),
    60_000
  )
})
