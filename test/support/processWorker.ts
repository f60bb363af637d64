/** A worker process: `processWorker.ts <location> <options of Worker.layer as JSON>`. Runs until a signal. */
import { NodeRuntime } from "@effect/platform-node"
import { type Backend, type Broker, TaskContext, Worker } from "chicory"
import { SqlStore } from "chicory/sql"
import { Effect, identity, Layer, Logger, Option, References } from "effect"
import { SqlClient } from "effect/sql"
import { Count, Keyed, Order, OutOfStock, type StopAt, emit, Write } from "./processTasks.ts"
import * as StoreLocations from "./storeLocations.ts"

const location = StoreLocations.decode(process.argv[2])
const options = JSON.parse(process.argv[3] ?? "{}") as Worker.Options

/** The store, with the client of a database for handlers that write to it. */
const store: Layer.Layer<Backend.Backend | Broker.Broker, unknown> = StoreLocations.isSql(location)
  ? StoreLocations.sqlLayer(location)
  : StoreLocations.layer(location)

const tellInterrupt = (n: number) =>
  Effect.onInterrupt(() => Effect.sync(() => emit({ _tag: "Interrupted", n })))

const write = Effect.fnUntraced(function* ({ millis, n, stopAt }: typeof Write.payloadSchema.Type) {
  const { attempt } = yield* TaskContext.TaskContext
  const sql = yield* SqlClient.SqlClient
  const stop = (at: StopAt) =>
    at === stopAt && attempt === 1
      ? Effect.andThen(
          Effect.sync(() => emit({ _tag: "Stopped", n, at })),
          Effect.sleep(millis)
        )
      : Effect.void
  emit({ _tag: "Began", n })
  const insert = sql`INSERT INTO ${sql(`${location.prefix}_written`)} (n, pid) VALUES (${n}, ${process.pid})`
  // pauses between the outcome and the commit
  const pausing: SqlClient.SqlClient = Object.assign(Object.create(sql) as SqlClient.SqlClient, {
    withTransaction: <A, E, R>(effect: Effect.Effect<A, E, R>) =>
      sql.withTransaction(Effect.tap(effect, stop("Completed")))
  })
  const value = yield* SqlStore.transact(
    insert.pipe(Effect.andThen(stop("Written")), Effect.as({ n, pid: process.pid }))
  ).pipe(Effect.provideService(SqlClient.SqlClient, pausing))
  yield* stop("Committed")
  return value
})

/** Provides the client of the database. */
const withClient = <A, E>(effect: Effect.Effect<A, E, SqlClient.SqlClient | TaskContext.TaskContext>) =>
  Effect.flatMap(Effect.serviceOption(SqlClient.SqlClient), (sql) =>
    Effect.provideService(effect, SqlClient.SqlClient, Option.getOrThrow(sql))
  )

const handlers = Layer.mergeAll(
  Count.toLayer(({ millis, n }) =>
    Effect.sync(() => emit({ _tag: "Began", n })).pipe(
      Effect.andThen(Effect.sleep(millis)),
      Effect.as({ n, pid: process.pid }),
      tellInterrupt(n)
    )
  ),
  Order.toLayer((item) => Effect.fail(new OutOfStock({ item, since: new Date(0) }))),
  Keyed.toLayer((n) => {
    emit({ _tag: "Began", n })
    return Effect.succeed(n)
  }),
  Write.toLayer((payload) =>
    Effect.orDie(withClient(write(payload))).pipe(
      payload.stubborn ? Effect.uninterruptible : identity,
      tellInterrupt(payload.n)
    )
  )
)

Layer.effectDiscard(
  Effect.acquireRelease(
    Effect.sync(() => emit({ _tag: "Ready" })),
    () => Effect.sync(() => emit({ _tag: "Stopping" }))
  )
).pipe(
  Layer.provideMerge(Worker.layer([Count, Order, Keyed, Write], options)),
  Layer.provide(handlers),
  Layer.provide(store),
  Layer.provide(
    // stdout is for events; lost leases are expected
    Layer.merge(
      Logger.layer([Logger.withConsoleError(Logger.formatLogFmt)]),
      Layer.succeed(References.MinimumLogLevel, "Error")
    )
  ),
  Layer.launch,
  NodeRuntime.runMain
)
