/** SQL stores into whose tables a test writes directly. */
import { it } from "@effect/vitest"
import { AsyncResult, type Backend, Broker, DeadLetters } from "chicory"
import { SqlStore } from "chicory/sql"
import { Context, Effect, Layer, Logger, type Scope } from "effect"
import { SqlClient } from "effect/sql"
import * as MysqlClient from "../mariadb/MysqlClient.ts"
import * as Postgres from "../postgres/server.ts"
import { Count, countingHandler, eventually, roundTrip, startWorker } from "../support/storeFixture.ts"
import { clientLayer, type SqlLocation } from "../support/storeLocations.ts"

/** Bounds every wait; on a busy machine work may take a while. */
export const BOUND = "25 seconds"

/** Rows as read by a plain client. */
type Rows = ReadonlyArray<Readonly<Record<string, unknown>>>

/** A store and direct access to its tables. */
export interface SqlTestStore {
  readonly dialect: SqlLocation["dialect"]
  /** Starts a worker for `Count`, which stops with the test. */
  readonly work: (
    options?: Parameters<typeof startWorker>[3]
  ) => Effect.Effect<ReturnType<typeof countingHandler>, never, Scope.Scope>
  /** Runs a statement; `{tasks}` and the like stand for the names of the tables. */
  readonly sql: (text: string, ...params: ReadonlyArray<unknown>) => Effect.Effect<Rows, unknown>
  /** Runs a statement and returns whether the database accepted it. */
  readonly accepts: (text: string, ...params: ReadonlyArray<unknown>) => Effect.Effect<boolean>
  /** Inserts records of tasks that wait. */
  readonly create: (...ids: ReadonlyArray<string>) => Effect.Effect<void, unknown>
  /** Inserts records, and then their messages into the queue in one statement. */
  readonly publish: (...messages: ReadonlyArray<RawMessage>) => Effect.Effect<void, unknown>
}

/** A message by the columns of its row. */
export interface RawMessage {
  readonly id: string
  readonly body: string | Uint8Array
  readonly generation?: number | bigint
}

const storeOf = (
  context: Context.Context<Backend.Backend | Broker.Broker | SqlClient.SqlClient>,
  { dialect, prefix }: SqlLocation
): SqlTestStore => {
  const client = Context.get(context, SqlClient.SqlClient).withoutTransforms()
  const prepared = (text: string) => {
    let n = 0
    const named = text.replaceAll(/\{(\w+)\}/g, (_, table: string) => `${prefix}_${table}`)
    return dialect === "postgres" ? named.replaceAll("?", () => `$${++n}`) : named
  }
  const sql: SqlTestStore["sql"] = (text, ...params) => client.unsafe(prepared(text), params)
  const create: SqlTestStore["create"] = (...ids) =>
    Effect.asVoid(
      sql(
        `INSERT INTO {tasks} (id, task, payload_hash, published, state, enqueued_at) VALUES ${ids
          .map(() => `(?, 'count', '', 1, 'PENDING', ${Date.now()})`)
          .join(", ")}`,
        ...ids
      )
    )
  return {
    dialect,
    work: (options) =>
      Effect.suspend(() => {
        const runs = countingHandler()
        return Effect.as(startWorker(context, Count, runs.layer, options), runs)
      }),
    sql,
    accepts: (text, ...params) => Effect.isSuccess(sql(text, ...params)),
    create,
    publish: (...messages) =>
      Effect.andThen(
        create(...messages.map(({ id }) => id)),
        sql(
          `INSERT INTO {messages} (queue, priority, state, due_at, id, task, generation, body) VALUES ${messages
            .map(() => `('default', 100, 0, ${Date.now()}, ?, 'count', ?, ?)`)
            .join(", ")}`,
          ...messages.flatMap(({ body, generation = 0, id }) => [id, generation, body])
        )
      ).pipe(Effect.asVoid)
  }
}

/** A client with few connections, as many of these tests run at once. */
const fewConnections = (location: SqlLocation): Layer.Layer<SqlClient.SqlClient, unknown> => {
  const maxConnections = 3
  switch (location.dialect) {
    case "sqlite":
      return clientLayer(location)
    case "postgres":
      return Postgres.clientLayer(location, { maxConnections })
    case "mysql":
      return MysqlClient.layer({ url: location.url, maxConnections })
  }
}

/** Registers a test in real time on its own store. */
export type Test = <E>(
  name: string,
  body: (store: SqlTestStore) => Effect.Effect<void, E, Scope.Scope | Backend.Backend | Broker.Broker>
) => void

/** Makes the registration of tests at locations of one kind. */
export const testsAt =
  (temporaryLocation: Effect.Effect<SqlLocation, unknown, Scope.Scope>): Test =>
  (name, body) =>
    it.live(
      name,
      () =>
        Effect.gen(function* () {
          const location = yield* temporaryLocation
          const context = yield* Layer.build(
            SqlStore.layer({ prefix: location.prefix }).pipe(Layer.provideMerge(fewConnections(location)))
          )
          yield* Effect.provideContext(body(storeOf(context, location)), context)
          // malformed rows are logged as warnings
        }).pipe(Effect.provide(Logger.layer([]))),
      60_000
    )

/** The counts of the queue. */
const counts = Effect.map(Broker.counts(["default"]), ([found]) => found!)

/** Waits until no message is ready or claimed. */
export const settled = eventually(Effect.map(counts, ({ claimed, ready }) => claimed + ready === 0)).pipe(
  Effect.timeout(BOUND)
)

/** Waits until the queue is empty. */
export const drained = eventually(
  Effect.map(counts, ({ claimed, delayed, ready }) => claimed + delayed + ready === 0)
).pipe(Effect.timeout(BOUND))

/** Checks that the worker still runs tasks. */
export const stillWorks = roundTrip(1)

/** Waits for at least `count` dead letters, and returns them. */
export const untilDeadLetters = (count: number) =>
  Effect.andThen(
    eventually(Effect.map(DeadLetters.count(), (found) => found >= count)),
    DeadLetters.list()
  ).pipe(Effect.timeout(BOUND))

/** Waits for the exit of a task within the bound. */
export const exitOf = (id: string) => Effect.exit(AsyncResult.get(Count.result(id), { timeout: BOUND }))

/** Waits for the reason of a failed task within the bound. */
export const reasonOf = (id: string) =>
  Effect.map(Effect.flip(AsyncResult.get(Count.result(id), { timeout: BOUND })), (error) =>
    error._tag === "TaskFailed" ? error.reason._tag : error._tag
  )
