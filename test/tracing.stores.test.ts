/** The spans of every store, by the layers that a program provides. */
import * as NodeRedis from "@effect/platform-node/NodeRedis"
import { assert, describe, it } from "@effect/vitest"
import { AsyncResult, type Backend, type Broker, DeadLetters, Task, Tracing, Worker } from "chicory"
import { RabbitBroker } from "chicory/rabbitmq"
import { RedisBackend, RedisStore } from "chicory/redis"
import { SqlStore } from "chicory/sql"
import { SqliteBackend, SqliteStore } from "chicory/sqlite"
import { Effect, Exit, Layer, Option, References, Schema, type Tracer } from "effect"
import { SqlClient } from "effect/sql"
import { makeRecordingTracer } from "../src/testing/suites/worker/recordingTracer.ts"
import { describeWithMariadb } from "./mariadb/server.ts"
import { describeWithPostgres } from "./postgres/server.ts"
import { describeWithRabbit } from "./rabbitmq/server.ts"
import { describeWithRedis } from "./redis/server.ts"
import { clientLayer, type SqlLocation, type StoreLocation } from "./support/storeLocations.ts"
import * as TemporaryLocations from "./support/temporaryLocations.ts"

const Echo = Task.make("echo", { payload: Schema.Int, success: Schema.Int })
const WorkerLive = Worker.layer([Echo], { drainTimeout: 0, heartbeat: "500 millis" }).pipe(
  Layer.provide(Echo.toLayer(Effect.succeed))
)

const silent = Effect.provideService(References.MinimumLogLevel, "None")

const redisLayer = (url: string) => NodeRedis.layer({ url })

const storeLayer = (location: StoreLocation): Layer.Layer<Backend.Backend | Broker.Broker, unknown> => {
  const { prefix, rabbitmq } = location
  if (rabbitmq !== undefined) {
    return Layer.merge(
      RabbitBroker.layer(rabbitmq),
      location.dialect === "redis"
        ? Layer.provide(RedisBackend.layer({ prefix }), redisLayer(location.url))
        : SqliteBackend.layer({ filename: "filename" in location ? location.filename : ":memory:", prefix })
    )
  }
  if (location.dialect === "redis")
    return Layer.provide(RedisStore.layer({ prefix }), redisLayer(location.url))
  return location.dialect === "sqlite"
    ? SqliteStore.layer(location)
    : Layer.provide(SqlStore.layer({ prefix }), clientLayer(location))
}

const parentOf = ({ parent }: Tracer.Span) => Option.getOrUndefined(parent)?.spanId
const isFailed = ({ status }: Tracer.Span) => status._tag === "Ended" && Exit.isFailure(status.exit)

/** The tests of a store. */
const spans = (name: string, temporary: TemporaryLocations.TemporaryLocation): void => {
  describe.concurrent(name, () => {
    it.live(
      "opens, idles, runs a task and closes without spans but those of the enqueue and the run",
      () =>
        Effect.gen(function* () {
          const location = yield* temporary
          const { names, trace } = makeRecordingTracer()
          yield* Effect.gen(function* () {
            // longer than every interval of a worker
            yield* Effect.sleep("6 seconds")
            assert.deepStrictEqual(names(), [])
            assert.strictEqual(yield* AsyncResult.get(yield* Echo.delay(7)), 7)
          }).pipe(Effect.provide(Layer.provideMerge(WorkerLive, storeLayer(location))), silent, trace)
          assert.deepStrictEqual(names(), ["send default", "process default"])
        }).pipe(Effect.scoped),
      { timeout: 30_000 }
    )
  })
}

/** A new database, which is opened for the first time. */
const opening = (name: string, temporary: TemporaryLocations.TemporaryLocation<SqlLocation>): void => {
  it.live(`a new store in ${name} opens without a failed statement`, () =>
    Effect.gen(function* () {
      const location = yield* temporary
      const { spans, trace } = makeRecordingTracer()
      yield* Layer.build(storeLayer(location)).pipe(Effect.provideService(Tracing.internal, true), trace)
      assert.isNotEmpty(spans)
      assert.deepStrictEqual(spans.filter(isFailed), [])
    }).pipe(Effect.scoped)
  )
}

/** The tests of a store in a database. */
const statements = (name: string, temporary: TemporaryLocations.TemporaryLocation<SqlLocation>): void => {
  describe(name, () => {
    it.live("the statements of an enqueue in a transaction are children of the caller's span", () =>
      Effect.gen(function* () {
        const location = yield* temporary
        const { named, names, spans, trace } = makeRecordingTracer()
        const layer = Layer.provideMerge(SqlStore.layer({ prefix: location.prefix }), clientLayer(location))
        yield* Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          yield* Echo.delay(6)
          assert.deepStrictEqual(names(), ["send default"])
          yield* Effect.withSpan(sql.withTransaction(Echo.delay(7)), "request")
          const [request] = named("request")
          assert(request !== undefined)
          const send = named("send default")[1]!
          const ids = spans.map(({ spanId }) => spanId)
          const enqueue = spans.slice(ids.indexOf(send.spanId) + 1)
          for (const span of spans.slice(1)) assert.strictEqual(span.traceId, request.traceId)
          // one statement, or a savepoint with several in it
          assert.isNotEmpty(enqueue)
          for (const span of enqueue) assert.include(ids.slice(ids.indexOf(send.spanId)), parentOf(span))
          const { length } = spans
          yield* Effect.withSpan(DeadLetters.count(Echo), "count")
          const [count] = named("count")
          assert(count !== undefined)
          assert.deepStrictEqual(spans.slice(length + 1).map(parentOf), [count.spanId])
        }).pipe(Effect.provide(layer), trace)
      }).pipe(Effect.scoped)
    )

    it.live("the statements of a handler's transaction are children of its run's span, and no others", () =>
      Effect.gen(function* () {
        const location = yield* temporary
        const { named, spans, trace } = makeRecordingTracer()
        const worker = Worker.layer([Echo], { drainTimeout: 0 }).pipe(
          Layer.provide(
            Echo.toLayer((n) =>
              SqlStore.transact(
                Effect.gen(function* () {
                  const sql = yield* SqlClient.SqlClient
                  yield* sql`SELECT ${n}`
                  return n
                })
              ).pipe(Effect.orDie)
            )
          )
        )
        const layer = worker.pipe(
          Layer.provideMerge(SqlStore.layer({ prefix: location.prefix })),
          Layer.provideMerge(clientLayer(location))
        )
        yield* Effect.flatMap(Echo.delay(7), AsyncResult.get).pipe(Effect.provide(layer), silent, trace)
        const [run] = named("process default")
        assert(run !== undefined)
        const [send, ...others] = spans.filter((span) => span !== run)
        assert.strictEqual(send?.name, "send default")
        // the transaction, the handler's statement, and those that end the task
        assert.isAbove(others.length, 2)
        const inRun = new Set([run.spanId])
        for (const span of others) {
          assert.include([...inRun], parentOf(span))
          inRun.add(span.spanId)
        }
      }).pipe(Effect.scoped)
    )

    it.live("every statement is a span where that is asked for", () =>
      Effect.gen(function* () {
        const location = yield* temporary
        const { spans, trace } = makeRecordingTracer()
        yield* Effect.gen(function* () {
          const { length } = spans
          assert.isAbove(length, 3)
          assert.strictEqual(yield* AsyncResult.get(yield* Echo.delay(7)), 7)
          assert.isAbove(spans.length, length + 3)
        }).pipe(
          Effect.provide(Layer.provideMerge(WorkerLive, storeLayer(location))),
          Effect.provideService(Tracing.internal, true),
          silent,
          trace
        )
      }).pipe(Effect.scoped)
    )
  })
}

describe("spans", () => {
  spans("sqlite", TemporaryLocations.sqlite)
  statements("sqlite", TemporaryLocations.sqlite)
  opening("sqlite", TemporaryLocations.sqlite)
})
await describeWithPostgres("spans", () => {
  spans("postgres", TemporaryLocations.postgres)
  statements("postgres", TemporaryLocations.postgres)
  opening("postgres", TemporaryLocations.postgres)
})
await describeWithMariadb("spans", () => {
  spans("mariadb", TemporaryLocations.mariadb)
  statements("mariadb", TemporaryLocations.mariadb)
})
await describeWithRedis("spans", () => spans("redis", TemporaryLocations.redis))
await describeWithRabbit("spans", () => {
  spans("rabbitmq and sqlite", TemporaryLocations.rabbitmq(TemporaryLocations.sqlite))
})
