import "effect/schema/SchemaJITCompiler/enable"
import * as NodeRedis from "@effect/platform-node/NodeRedis"
import { PgClient } from "@effect/sql-pg"
import { Context, Effect, Exit, Layer, ManagedRuntime, Redacted, References, Schema, Scope } from "effect"
import { AsyncResult, Backend, Broker, Task, Worker } from "../../src/index.ts"
import { RabbitBroker } from "../../src/rabbitmq/index.ts"
import { RedisBackend, RedisStore } from "../../src/redis/index.ts"
import { SqlStore } from "../../src/sql/index.ts"
import { SqliteStore } from "../../src/sqlite/index.ts"
import * as MysqlClient from "../../test/mariadb/MysqlClient.ts"
import { parseLocation as parseMariadb } from "../mariadb.ts"
import { parseLocation as parsePostgres } from "../postgres.ts"
import { parseLocation as parseRabbitmq } from "../rabbitmq.ts"
import { parseLocation } from "../redis.ts"
import type { Payload, RoundTrips, RunningWorker, Session, System, WorkOptions } from "../system.ts"

/** The task of all measurements. */
export const Work = Task.make("bench.work", {
  payload: {
    value: Schema.Number,
    account: Schema.String,
    note: Schema.String,
    tags: Schema.Array(Schema.String)
  },
  success: Schema.Struct({ value: Schema.Number })
})

/** The services of a store. */
export type Stores = Broker.Broker | Backend.Backend

const concurrently = (payloads: ReadonlyArray<Payload>, inFlight: number) =>
  Effect.forEach(payloads, (payload) => Work.delay(payload), { concurrency: inFlight })

const taskIds = (results: ReadonlyArray<{ readonly taskId: string }>) => results.map(({ taskId }) => taskId)

const roundTrips = Effect.fnUntraced(function* ({ payloads, callers, maxMillis }: RoundTrips) {
  const latencies: Array<number> = []
  const begun = performance.now()
  yield* Effect.forEach(
    payloads,
    Effect.fnUntraced(function* (payload) {
      const start = performance.now()
      if (start - begun > maxMillis) return
      const result = yield* Work.delay(payload)
      const { value } = yield* AsyncResult.get(result)
      if (value !== payload.value) {
        return yield* Effect.die(new Error(`the result of ${payload.value} came back as ${value}`))
      }
      latencies.push(performance.now() - start)
    }),
    { concurrency: callers, discard: true }
  )
  return latencies
})

/** Waits until `count` results are stored, and then until the messages are removed. */
const finished = Effect.fnUntraced(function* (worker: Worker.Worker["Service"], count: number) {
  while ((yield* worker.stats).succeeded < count) yield* Effect.sleep("1 millis")
  for (;;) {
    const [counts] = yield* Broker.counts([Work.queue])
    if (counts === undefined || counts.ready + counts.delayed + counts.claimed === 0) return
    yield* Effect.sleep("1 millis")
  }
})

const postgresLayer = (location: string) => {
  const { schema, url } = parsePostgres(location)
  const client = PgClient.layer({ url: Redacted.make(url), startupParameters: { search_path: schema } })
  return Layer.provide(SqlStore.layer(), client)
}

const mariadbLayer = (location: string) => {
  const { prefix, url } = parseMariadb(location)
  return Layer.provide(SqlStore.layer({ prefix }), MysqlClient.layer({ url }))
}

const redisLayer = (location: string) => {
  const { prefix, url } = parseLocation(location)
  return Layer.provide(RedisStore.layer({ prefix }), NodeRedis.layer({ url }))
}

const rabbitmqLayer = (location: string) => {
  const { prefix, redisUrl, url } = parseRabbitmq(location)
  const backend = Layer.provide(RedisBackend.layer({ prefix }), NodeRedis.layer({ url: redisUrl }))
  return Layer.merge(RabbitBroker.layer({ url, prefix }), backend)
}

const layers: Readonly<Record<string, (location: string) => Layer.Layer<Stores, unknown>>> = {
  memory: () => Layer.merge(Broker.layerMemory, Backend.layerMemory),
  sqlite: (filename) => SqliteStore.layer({ filename }),
  redis: redisLayer,
  postgres: postgresLayer,
  mariadb: mariadbLayer,
  rabbitmq: rabbitmqLayer
}

/** Opens a store, and makes the runtime for programs that use it. */
export const openRuntime = async (
  storeName: string,
  location: string
): Promise<ManagedRuntime.ManagedRuntime<Stores, unknown>> => {
  const layer = layers[storeName]
  if (layer === undefined) throw new Error(`no layer for ${storeName}`)
  const quiet = Layer.succeed(References.MinimumLogLevel, "Warn")
  const runtime = ManagedRuntime.make(Layer.provideMerge(layer(location), quiet))
  await runtime.context()
  return runtime
}

/** Starts a worker. Its scope stops it. */
export const startWorker = async (
  runtime: ManagedRuntime.ManagedRuntime<Stores, unknown>,
  { concurrency, sleepMillis }: WorkOptions
) => {
  const handler = Work.toLayer(({ value }) =>
    sleepMillis === 0 ? Effect.succeed({ value }) : Effect.as(Effect.sleep(sleepMillis), { value })
  )
  const layer = Worker.layer([Work], { concurrency }).pipe(Layer.provide(handler))
  const scope = Scope.makeUnsafe()
  const context = await runtime.runPromise(Layer.buildWithScope(layer, scope))
  return {
    worker: Context.get(context, Worker.Worker),
    stop: () => runtime.runPromise(Scope.close(scope, Exit.void))
  }
}

const open =
  (storeName: string) =>
  async (location: string): Promise<Session> => {
    const runtime = await openRuntime(storeName, location)

    const work = async (options: WorkOptions): Promise<RunningWorker> => {
      const { stop, worker } = await startWorker(runtime, options)
      return { finished: (count) => runtime.runPromise(finished(worker, count)), stop }
    }

    return {
      oneByOne: (payloads) =>
        runtime.runPromise(Effect.forEach(payloads, (payload) => Work.delay(payload), { discard: true })),
      concurrently: async (payloads, inFlight) =>
        taskIds(await runtime.runPromise(concurrently(payloads, inFlight))),
      bulk: async (chunks) =>
        (await runtime.runPromise(Effect.forEach(chunks, (payloads) => Work.delayAll(payloads)))).flatMap(
          taskIds
        ),
      work,
      roundTrips: (options) => runtime.runPromise(roundTrips(options)),
      check: async (ids) => {
        const results = ids.map((id) => Work.result(String(id)))
        const values = await runtime.runPromise(AsyncResult.all(results, { timeout: "10 seconds" }))
        return values.filter(({ value }) => typeof value === "number").length
      },
      close: () => runtime.dispose()
    }
  }

export const memory: System = {
  note: "Broker.layerMemory and Backend.layerMemory, producer and worker in one process, schemas compiled as on SQLite",
  open: open("memory")
}

export const sqlite: System = {
  note: "SqliteStore.layer({ filename }) with its defaults, schemas compiled by effect/schema/SchemaJITCompiler/enable",
  open: open("sqlite")
}

export const redis: System = {
  note:
    "RedisStore.layer({ prefix }) with its defaults over NodeRedis.layer({ url }), schemas compiled by" +
    " effect/schema/SchemaJITCompiler/enable",
  open: open("redis")
}

export const postgres: System = {
  note:
    "SqlStore.layer() with its defaults over PgClient.layer({ url }), schemas compiled by" +
    " effect/schema/SchemaJITCompiler/enable",
  open: open("postgres")
}

export const mariadb: System = {
  note: "SqlStore.layer({ prefix }) with its defaults over the SqlClient on mysql2 of the tests, schemas compiled as above",
  open: open("mariadb")
}

export const rabbitmq: System = {
  note:
    "RabbitBroker.layer({ url, prefix }) and RedisBackend.layer({ prefix }) with their defaults, the latter over" +
    " NodeRedis.layer({ url }), schemas compiled by effect/schema/SchemaJITCompiler/enable. W4-load counts the commands" +
    " of Redis alone.",
  open: open("rabbitmq")
}
