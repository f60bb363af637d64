import "effect/schema/SchemaJITCompiler/enable"
import * as NodeRedis from "@effect/platform-node/NodeRedis"
import * as PgClient from "@effect/sql-pg/PgClient"
import { Effect, Fiber, Layer, ManagedRuntime, Redacted, Schema } from "effect"
import { PersistedQueue } from "effect/persistence"
import { makeCounter } from "../calls.ts"
import * as Postgres from "../postgres.ts"
import * as Redis from "../redis.ts"
import type { Payload, RunningWorker, Session, System, WorkOptions } from "../system.ts"

const schema = Schema.Struct({
  value: Schema.Number,
  account: Schema.String,
  note: Schema.String,
  tags: Schema.Array(Schema.String)
})

const pollInterval = "10 millis"

const makeSession = async <E>(
  store: Layer.Layer<PersistedQueue.PersistedQueueStore, E>
): Promise<Session> => {
  const runtime = ManagedRuntime.make(Layer.provide(PersistedQueue.layer, store))
  const queue = await runtime.runPromise(PersistedQueue.make({ name: "work", schema }))
  const processed = new Set<string>()

  const work = async ({ concurrency, sleepMillis }: WorkOptions): Promise<RunningWorker> => {
    const counter = makeCounter()
    const handle = (_: Payload, { id }: { readonly id: string }) =>
      sleepMillis === 0 ? Effect.succeed(id) : Effect.as(Effect.sleep(sleepMillis), id)
    const taker = queue.take(handle).pipe(
      Effect.tap((id) =>
        Effect.sync(() => {
          processed.add(id)
          counter.add(1)
        })
      ),
      Effect.forever
    )
    const fiber = runtime.runFork(
      Effect.all(
        Array.from({ length: concurrency }, () => taker),
        { concurrency: "unbounded", discard: true }
      )
    )
    return {
      finished: counter.reached,
      stop: () => runtime.runPromise(Fiber.interrupt(fiber))
    }
  }

  return {
    oneByOne: (payloads) =>
      runtime.runPromise(Effect.forEach(payloads, (payload) => queue.offer(payload), { discard: true })),
    concurrently: (payloads, inFlight) =>
      runtime.runPromise(
        Effect.forEach(payloads, (payload) => queue.offer(payload), { concurrency: inFlight })
      ),
    work,
    check: async (ids) => ids.filter((id) => processed.has(String(id))).length,
    close: () => runtime.dispose()
  }
}

const sameForBoth =
  "PersistedQueue of effect 4.1.0, schemas compiled by effect/schema/SchemaJITCompiler/enable; 100 fibers take," +
  " pollInterval 10 ms (by default it is 1 s, which W2 would have to wait for). It has no call for many, and stores no" +
  " results: W2 takes messages and"

export const redis: System = {
  note: `${sameForBoth} removes them. layerStoreRedis over NodeRedis.layer({ url }).`,
  open: (location) => {
    const { url, prefix } = Redis.parseLocation(location)
    const store = PersistedQueue.layerStoreRedis({ prefix: `${prefix}:`, pollInterval })
    return makeSession(Layer.provide(store, NodeRedis.layer({ url })))
  }
}

export const postgres: System = {
  note: `${sameForBoth} marks them as completed. layerStoreSql over PgClient.layer({ url }), a pool of 10 as by default.`,
  open: (location) => {
    const { url, schema } = Postgres.parseLocation(location)
    const client = PgClient.layer({ url: Redacted.make(url), startupParameters: { search_path: schema } })
    return makeSession(Layer.provide(PersistedQueue.layerStoreSql({ pollInterval }), client))
  }
}
