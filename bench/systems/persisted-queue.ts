import "effect/schema/SchemaJITCompiler/enable"
import * as NodeRedis from "@effect/platform-node/NodeRedis"
import { Effect, Fiber, Layer, ManagedRuntime, Schema } from "effect"
import { PersistedQueue } from "effect/persistence"
import { makeCounter } from "../calls.ts"
import { parseLocation } from "../redis.ts"
import type { Payload, RunningWorker, Session, System, WorkOptions } from "../system.ts"

const schema = Schema.Struct({
  value: Schema.Number,
  account: Schema.String,
  note: Schema.String,
  tags: Schema.Array(Schema.String)
})

const open = async (location: string): Promise<Session> => {
  const { url, prefix } = parseLocation(location)
  const runtime = ManagedRuntime.make(
    PersistedQueue.layer.pipe(
      Layer.provide(PersistedQueue.layerStoreRedis({ prefix: `${prefix}:`, pollInterval: "10 millis" })),
      Layer.provide(NodeRedis.layer({ url }))
    )
  )
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

export const persistedQueue: System = {
  note:
    "PersistedQueue of effect 4.1.0, layerStoreRedis over NodeRedis.layer({ url }), schemas compiled by" +
    " effect/schema/SchemaJITCompiler/enable; 100 fibers take, pollInterval 10 ms (by default it is 1 s, which W2 would have to wait for). It has no call for many, and stores no results: W2" +
    " takes messages and removes them.",
  open
}
