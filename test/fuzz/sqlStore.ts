/** A store in a database, into whose tables a test writes what it likes. */
import { it } from "@effect/vitest"
import { AsyncResult, type Backend, Broker, DeadLetters } from "chicory"
import { SqlStore } from "chicory/sql"
import { Context, Effect, Layer, Logger, type Scope } from "effect"
import { SqlClient } from "effect/sql"
import * as MysqlClient from "../mariadb/MysqlClient.ts"
import * as Postgres from "../postgres/server.ts"
import { Count, countingHandler, eventually, roundTrip, startWorker } from "../support/storeFixture.ts"
import { clientLayer, type SqlLocation } from "../support/storeLocations.ts"

/** How long a test waits for what has to come: on a busy machine that may take a while. */
export const BOUND = "25 seconds"

/** Rows, as somebody else's program sees them. */
type Rows = ReadonlyArray<Readonly<Record<string, unknown>>>

/** The store of a test. */
export interface SqlTestStore {
  readonly dialect: SqlLocation["dialect"]
  /** A worker for `Count`, until the test ends. */
  readonly work: (
    options?: Parameters<typeof startWorker>[3]
  ) => Effect.Effect<ReturnType<typeof countingHandler>, never, Scope.Scope>
  /** A statement of somebody else; `{tasks}` and the like stand for the names of the tables. */
  readonly sql: (text: string, ...params: ReadonlyArray<unknown>) => Effect.Effect<Rows, unknown>
  /** The same; whether the database took it. */
  readonly accepts: (text: string, ...params: ReadonlyArray<unknown>) => Effect.Effect<boolean>
  /** Puts messages into the queue, all at once. */
  readonly publish: (...messages: ReadonlyArray<RawMessage>) => Effect.Effect<void, unknown>
}

/** A message, as its row says. Its record may be missing. */
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
  return {
    dialect,
    work: (options) =>
      Effect.suspend(() => {
        const runs = countingHandler()
        return Effect.as(startWorker(context, Count, runs.layer, options), runs)
      }),
    sql,
    accepts: (text, ...params) => Effect.isSuccess(sql(text, ...params)),
    publish: (...messages) =>
      Effect.asVoid(
        sql(
          `INSERT INTO {messages} (queue, priority, state, due_at, id, task, generation, body) VALUES ${messages
            .map(() => `('default', 100, 0, ${Date.now()}, ?, 'count', ?, ?)`)
            .join(", ")}`,
          ...messages.flatMap(({ body, generation = 0, id }) => [id, generation, body])
        )
      )
  }
}

/** Few connections: many of these tests run at once. */
const fewConnections = (location: SqlLocation): Layer.Layer<SqlClient.SqlClient, unknown> => {
  const maxConnections = 2
  switch (location.dialect) {
    case "sqlite":
      return clientLayer(location)
    case "postgres":
      return Postgres.layerOf(location, { maxConnections })
    case "mysql":
      return MysqlClient.layer({ url: location.url, maxConnections })
  }
}

/** Adds a test in real time, on a store of its own. */
export type Test = <E>(
  name: string,
  body: (store: SqlTestStore) => Effect.Effect<void, E, Scope.Scope | Backend.Backend | Broker.Broker>
) => void

/** Tests in places of that kind. */
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
          // what is odd is warned of
        }).pipe(Effect.provide(Logger.layer([]))),
      60_000
    )

/** The messages of the queue. */
const counts = Effect.map(Broker.counts(["default"]), ([found]) => found!)

/** Waits until no message is left, but those that are put off. */
export const settled = eventually(Effect.map(counts, ({ claimed, ready }) => claimed + ready === 0)).pipe(
  Effect.timeout(BOUND)
)

/** Waits until no message is left at all. */
export const drained = eventually(
  Effect.map(counts, ({ claimed, delayed, ready }) => claimed + delayed + ready === 0)
).pipe(Effect.timeout(BOUND))

/** The worker still runs tasks. */
export const stillWorks = roundTrip(1)

/** Waits until there are so many letters, and gives them. */
export const letters = (count: number) =>
  Effect.andThen(
    eventually(Effect.map(DeadLetters.count(), (found) => found >= count)),
    DeadLetters.list()
  ).pipe(Effect.timeout(BOUND))

/** How a task ended, waited for no longer than a test may take. */
export const exitOf = (id: string) => Effect.exit(AsyncResult.get(Count.result(id), { timeout: BOUND }))

/** Why a task failed. */
export const reasonOf = (id: string) =>
  Effect.map(Effect.flip(AsyncResult.get(Count.result(id), { timeout: BOUND })), (error) =>
    error._tag === "TaskFailed" ? error.reason._tag : error._tag
  )
