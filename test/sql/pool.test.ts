/** A worker whose handlers hold all connections of the client's pool: its own calls wait for none of them. */
import { PgClient } from "@effect/sql-pg"
import { assert, it } from "@effect/vitest"
import { AsyncResult, type Backend, type Broker, Task, type TaskContext, type Worker } from "chicory"
import { SqlStore } from "chicory/sql"
import { Context, Effect, Latch, Layer, Redacted, Schema, type Scope } from "effect"
import { Reactivity } from "effect/reactivity"
import { SqlClient } from "effect/sql"
import * as MysqlClient from "../mariadb/MysqlClient.ts"
import * as Mariadb from "../mariadb/server.ts"
import * as Postgres from "../postgres/server.ts"
import { eventually, startWorker } from "../support/storeFixture.ts"

interface Location {
  readonly prefix: string
  /** The client of the store and of its handlers. */
  readonly client: SqlClient.SqlClient
  /** A client of the same database. */
  readonly other: SqlClient.SqlClient
}

interface Database {
  /** Makes a location whose client has a pool of that many connections. */
  readonly make: (connections: number) => Effect.Effect<Location, unknown, Scope.Scope>
  /** Returns the number of a connection. */
  readonly select: string
  readonly kill: (connection: number) => string
}

type Services = Backend.Backend | Broker.Broker | SqlClient.SqlClient

interface Pooled extends Location {
  readonly store: Context.Context<Services>
}

const CONNECTIONS = 4
const HOLDERS = 8
const LEASE_MILLIS = 1500

/** The worker has a slot more than there are handlers that hold connections. */
const options: Worker.Options = { concurrency: HOLDERS + 1, lease: LEASE_MILLIS }

const Work = Task.make("work", {
  payload: { n: Schema.Int },
  success: Schema.Int,
  progress: Schema.Int
})
const numbers = Array.from({ length: HOLDERS }, (_, n) => n)

type HandlerServices = SqlClient.SqlClient | TaskContext.TaskContext

/** Runs a handler's effect while it holds a connection. */
type Holding = <A, E>(
  effect: Effect.Effect<A, E, HandlerServices>
) => Effect.Effect<A, unknown, HandlerServices>

const inTransaction: Holding = (effect) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) => sql.withTransaction(effect))

/** As a stream of rows does. */
const withConnection: Holding = (effect) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) => Effect.scoped(Effect.andThen(sql.reserve, effect)))

/** Makes handlers that hold connections until `release`. Tasks from `HOLDERS` on end at once. */
const makeHolders = (
  { client, store }: Pooled,
  holding: Holding,
  whileHeld: (n: number) => Effect.Effect<unknown, unknown, HandlerServices> = () => Effect.void
) => {
  const release = Latch.makeUnsafe(false)
  const counts = { begun: 0, interrupted: 0 }
  const hold = (n: number) => {
    counts.begun++
    return holding(Effect.as(Effect.andThen(whileHeld(n), release.await), n))
  }
  const layer = Work.toLayer(({ n }) =>
    Effect.suspend(() => (n < HOLDERS ? hold(n) : Effect.succeed(n))).pipe(
      Effect.orDie,
      Effect.onInterrupt(() => Effect.sync(() => counts.interrupted++)),
      Effect.provideService(SqlClient.SqlClient, Context.get(store, SqlClient.SqlClient))
    )
  )
  /** Waits until all have begun, and the client answers no more. */
  const untilExhausted = eventually(
    Effect.gen(function* () {
      if (counts.begun < HOLDERS) return false
      const answer = yield* Effect.timeoutOption(client.unsafe("SELECT 1"), "100 millis")
      return answer._tag === "None"
    })
  )
  return { layer, release, counts, untilExhausted }
}

/** Waits until the store has renewed every run for two leases. */
const untilRenewedForLong = ({ other, prefix }: Location) =>
  Effect.gen(function* () {
    const leases = Effect.map(
      other.unsafe<{ readonly lease_until: number | string }>(
        `SELECT lease_until FROM ${prefix}_tasks WHERE state = 'STARTED'`
      ),
      (rows) => Math.min(...rows.map((row) => Number(row.lease_until)))
    )
    const first = yield* leases
    yield* eventually(Effect.map(leases, (now) => now > first + 2 * LEASE_MILLIS))
  })

const attemptsOf = ({ other, prefix }: Location) =>
  Effect.map(
    other.unsafe<{ readonly attempt: number | bigint }>(`SELECT DISTINCT attempt FROM ${prefix}_tasks`),
    (rows) => rows.map(({ attempt }) => Number(attempt))
  )

const idOf = (n: number) => `task-${n}`

const buildStore = ({ prefix }: Location, client: SqlClient.SqlClient) =>
  Layer.build(
    SqlStore.layer({ prefix, callTimeout: "3 seconds" }).pipe(
      Layer.provideMerge(Layer.succeed(SqlClient.SqlClient, client))
    )
  )

const suite = ({ kill, make, select }: Database): void => {
  const test = (
    name: string,
    body: (pooled: Pooled) => Effect.Effect<void, unknown, Scope.Scope | Services>
  ) =>
    it.live(name, () =>
      Effect.gen(function* () {
        const location = yield* make(CONNECTIONS)
        const store = yield* buildStore(location, location.client)
        // tasks are sent and awaited as by another process
        const producer = yield* buildStore(location, location.other)
        yield* Effect.provideContext(body({ ...location, store }), producer)
      })
    )

  /** Lets handlers hold all connections for two leases, and expects all to end at their first attempt. */
  const expectNoneLost = Effect.fnUntraced(function* (
    pooled: Pooled,
    { counts, release, untilExhausted }: ReturnType<typeof makeHolders>
  ) {
    const handles = yield* Work.delayAll(numbers.map((n) => ({ n })))
    yield* untilExhausted
    yield* untilRenewedForLong(pooled)
    yield* release.open
    assert.deepStrictEqual(yield* AsyncResult.all(handles), numbers)
    assert.deepStrictEqual(yield* attemptsOf(pooled), [1])
    assert.deepStrictEqual(counts, { begun: HOLDERS, interrupted: 0 })
  })

  test("handlers that hold all connections in SqlStore.transact keep their leases and end", (pooled) =>
    Effect.gen(function* () {
      const holders = makeHolders(pooled, SqlStore.transact)
      yield* startWorker(pooled.store, Work, holders.layer, options)
      yield* expectNoneLost(pooled, holders)
    }))

  test("handlers that hold all connections in transactions of their own keep their leases and end", (pooled) =>
    Effect.gen(function* () {
      const holders = makeHolders(pooled, inTransaction)
      yield* startWorker(pooled.store, Work, holders.layer, options)
      yield* expectNoneLost(pooled, holders)
    }))

  test("a task that needs no connection is claimed and ends while handlers hold all", (pooled) =>
    Effect.gen(function* () {
      const { layer, release, untilExhausted } = makeHolders(pooled, inTransaction)
      yield* startWorker(pooled.store, Work, layer, options)
      yield* Work.delayAll(numbers.map((n) => ({ n })))
      yield* untilExhausted
      assert.strictEqual(yield* AsyncResult.get(yield* Work.delay({ n: HOLDERS })), HOLDERS)
      yield* release.open
    }))

  test("progress and reads of handlers come through while they hold all connections", (pooled) =>
    Effect.gen(function* () {
      const exhausted = Latch.makeUnsafe(false)
      const states: Array<string> = []
      const holders = makeHolders(pooled, withConnection, (n) =>
        n > 0
          ? Effect.void
          : Effect.gen(function* () {
              yield* exhausted.await
              yield* Work.progress(50)
              states.push(yield* AsyncResult.state(Work.result(idOf(1))))
            }).pipe(Effect.provideContext(pooled.store))
      )
      yield* startWorker(pooled.store, Work, holders.layer, options)
      const handles = yield* Effect.forEach(numbers, (n) => Work.delay({ n }, { id: idOf(n) }))
      yield* holders.untilExhausted
      yield* exhausted.open
      const progressOf = pooled.other.unsafe(
        `SELECT progress FROM ${pooled.prefix}_tasks WHERE id = '${idOf(0)}' AND progress = '50'`
      )
      yield* eventually(Effect.map(progressOf, (rows) => rows.length === 1 && states.length === 1))
      assert.deepStrictEqual(states, ["STARTED"])
      yield* holders.release.open
      assert.deepStrictEqual(yield* AsyncResult.all(handles), numbers)
    }))

  test("handlers that hold all connections keep their leases after all connections broke", (pooled) =>
    Effect.gen(function* () {
      const { client, other } = pooled
      const connection = Effect.flatMap(client.reserve, (reserved) =>
        reserved.executeUnprepared(select, [], undefined)
      )
      const holders = makeHolders(pooled, SqlStore.transact)
      // the store has a connection, and the pool opens the others
      const rows = yield* Effect.scoped(
        Effect.all(
          Array.from({ length: CONNECTIONS }, () => connection),
          { concurrency: "unbounded" }
        )
      )
      yield* startWorker(pooled.store, Work, holders.layer, options)
      yield* AsyncResult.get(yield* Work.delay({ n: HOLDERS }))
      for (const [row] of rows) yield* other.unsafe(kill(Number((row as { readonly id: unknown }).id)))
      yield* expectNoneLost(pooled, holders)
    }))
}

await Postgres.describeWithPostgres("postgres: a pool without free connections", () => {
  suite({
    make: (connections) =>
      Effect.gen(function* () {
        const location = yield* Postgres.temporarySchema()
        const clientOf = (maxConnections: number) =>
          Effect.map(
            Layer.build(Layer.fresh(Postgres.clientLayer(location, { maxConnections }))),
            Context.get(SqlClient.SqlClient)
          )
        return { client: yield* clientOf(connections), other: yield* clientOf(4), prefix: "chicory" }
      }),
    select: "SELECT pg_backend_pid() AS id",
    kill: (id) => `SELECT pg_terminate_backend(${id})`
  })

  it.live("a client with a single connection keeps it for its program", () =>
    Effect.gen(function* () {
      const { schema, url } = yield* Postgres.temporarySchema()
      const client = yield* PgClient.makeClient({
        url: Redacted.make(url),
        startupParameters: { search_path: schema }
      }).pipe(Effect.provide(Reactivity.layer))
      const store = yield* Layer.build(
        SqlStore.layer({ notify: false }).pipe(Layer.provideMerge(Layer.succeed(SqlClient.SqlClient, client)))
      )
      const handler = Work.toLayer(({ n }) => Effect.orDie(Effect.as(client.unsafe("SELECT 1"), n)))
      yield* startWorker(store, Work, handler, options)
      const value = Effect.flatMap(Work.delay({ n: 1 }), AsyncResult.get)
      assert.strictEqual(yield* Effect.provideContext(value, store), 1)
    })
  )
})

await Mariadb.describeWithMariadb("mariadb: a pool without free connections", () =>
  suite({
    make: (connections) =>
      Effect.gen(function* () {
        const { client: other, prefix } = yield* Mariadb.temporaryTables
        const client = yield* MysqlClient.make({ url: Mariadb.sharedUrl, maxConnections: connections })
        return { client, other, prefix }
      }),
    select: "SELECT CONNECTION_ID() AS id",
    kill: (id) => `KILL ${id}`
  })
)
