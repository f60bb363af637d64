/** What the history of a task costs in SQL: nothing for a task that succeeds at once, and one statement for a poll of another. */
import { assert, describe, it } from "@effect/vitest"
import { AsyncResult, RetryPolicy, Task, Worker } from "chicory"
import { SqlStore } from "chicory/sql"
import { Effect, Layer, Option, Schema, type Scope } from "effect"
import { SqlClient } from "effect/sql"
import * as SqliteClient from "../../src/sqlite/SqliteClient.ts"
import * as Mariadb from "../mariadb/server.ts"
import * as Postgres from "../postgres/server.ts"
import { temporaryFile } from "../sqlite/temporary.ts"
import { spyOn } from "./statementSpy.ts"

interface Tables {
  readonly client: SqlClient.SqlClient
  readonly prefix: string
}

const Flaky = Task.make("flaky", {
  payload: { failures: Schema.Int },
  success: Schema.Int,
  error: Schema.String,
  retry: RetryPolicy.fixed({ maxRetries: 3, delay: "10 millis" })
})

const runs = new Map<string, number>()
const FlakyLive = Flaky.toLayer(({ failures }) => {
  const run = (runs.get(`${failures}`) ?? 0) + 1
  runs.set(`${failures}`, run)
  return run <= failures ? Effect.fail(`no ${run}`) : Effect.succeed(run)
})

const suite = (make: Effect.Effect<Tables, unknown, Scope.Scope>): void => {
  it.live("a statement names the history after a retry alone, and one reads it, for a poll", () =>
    Effect.gen(function* () {
      runs.clear()
      const { client, prefix } = yield* make
      const { answered, client: spied } = spyOn(client)
      const store = Layer.provide(SqlStore.layer({ prefix }), Layer.succeed(SqlClient.SqlClient, spied))
      const worker = Worker.layer([Flaky], { drainTimeout: 0 }).pipe(Layer.provide(FlakyLive))
      const context = yield* Layer.build(Layer.provideMerge(worker, store))
      const naming = (part: string) => answered.filter(({ text }) => text.includes(part)).length

      yield* Effect.gen(function* () {
        answered.length = 0
        const atOnce = yield* Flaky.delay({ failures: 0 })
        assert.strictEqual(yield* AsyncResult.get(atOnce), 1)
        const polled = Option.getOrThrow(yield* AsyncResult.poll(atOnce))
        assert.deepStrictEqual([polled.state, polled.history], ["SUCCESS", []])
        assert.strictEqual(naming("history"), 0)

        const retried = yield* Flaky.delay({ failures: 2 })
        assert.strictEqual(yield* AsyncResult.get(retried), 3)
        yield* AsyncResult.state(retried)
        assert.strictEqual(naming("SELECT id, history"), 0)
        // the two retries
        assert.strictEqual(naming("history"), 2)
        const { history } = Option.getOrThrow(yield* AsyncResult.poll(retried))
        assert.deepStrictEqual(
          history.map(({ message }) => message),
          ["no 1", "no 2"]
        )
        assert.strictEqual(naming("SELECT id, history"), 1)
        assert.strictEqual(naming("history"), 3)
      }).pipe(Effect.provideContext(context))
    })
  )
}

await Postgres.describeWithPostgres("postgres: the history", () => {
  suite(Effect.map(Postgres.temporaryClient, (client) => ({ client, prefix: "chicory" })))
})

await Mariadb.describeWithMariadb("mariadb: the history", () => {
  suite(Mariadb.temporaryTables)
})

describe("sqlite: the history", () => {
  suite(
    Effect.gen(function* () {
      return { client: yield* SqliteClient.make({ filename: yield* temporaryFile }), prefix: "chicory" }
    })
  )
})
