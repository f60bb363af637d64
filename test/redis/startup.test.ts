/** Building the layer on servers that cannot or should not be used. */
import * as NodeRedis from "@effect/platform-node/NodeRedis"
import { assert, describe, it } from "@effect/vitest"
import { RedisBroker, RedisStore } from "chicory/redis"
import { Cause, Effect, Exit, Layer, Logger, Schedule } from "effect"
import * as Redis from "effect/persistence/Redis"
import { Count } from "../support/storeFixture.ts"
import { describeWithServers, type Server } from "./server.ts"
import { openStore, testWithServer as test } from "./storeFixture.ts"

const clientOf = (url: string) => NodeRedis.layer({ url })

const messageOf = (error: unknown): string => {
  const { cause } = error as { readonly cause?: unknown }
  const own = error instanceof Error ? error.message : String(error)
  return cause instanceof Error
    ? `${own} ${cause.message} ${String((cause as { code?: unknown }).code)}`
    : own
}

/** A `Redis` service that answers every command with the given text. */
const stub = (info: string) =>
  Layer.effect(
    Redis.Redis,
    Redis.make({
      send: <A>() => Effect.succeed(info as A),
      subscribe: () => Effect.succeed(Effect.never),
      connect: Effect.fail(new Redis.RedisError({ cause: new Error("none") }))
    })
  )

/** Returns the lines that are logged while a store is opened. */
const warnings = (server: Pick<Server, "url">) =>
  Effect.gen(function* () {
    const logged: Array<string> = []
    const capture = Logger.make<unknown, void>(({ message }) => void logged.push(String(message)))
    yield* Effect.scoped(openStore(server)).pipe(Effect.provide(Logger.layer([capture])))
    return logged
  })

describeWithServers("opening a Redis store", () => {
  describe.concurrent("on a server", () => {
    test("that refuses the password fails with WRONGPASS", { password: "right" }, ({ port }) =>
      Effect.gen(function* () {
        const store = RedisStore.layer().pipe(Layer.provide(clientOf(`redis://:wrong@127.0.0.1:${port}`)))
        const error = yield* Effect.flip(Effect.scoped(Layer.build(store)))
        assert.include(messageOf(error), "WRONGPASS")
      })
    )

    test("that requires a password fails with NOAUTH", { password: "right" }, ({ port }) =>
      Effect.gen(function* () {
        const store = RedisStore.layer().pipe(Layer.provide(clientOf(`redis://127.0.0.1:${port}`)))
        const error = yield* Effect.flip(Effect.scoped(Layer.build(store)))
        assert.include(messageOf(error), "NOAUTH")
      })
    )

    test("that is down fails with ECONNREFUSED", {}, (server) =>
      Effect.gen(function* () {
        yield* server.kill
        const store = RedisStore.layer().pipe(Layer.provide(clientOf(server.url)))
        const error = yield* Effect.flip(Effect.scoped(Layer.build(store)))
        assert.include(messageOf(error), "ECONNREFUSED")
      })
    )

    test("that is a replica fails with the address of its primary", {}, (server) =>
      Effect.gen(function* () {
        yield* server.command("REPLICAOF", "127.0.0.1", "1")
        const store = yield* Effect.flip(Effect.scoped(openStore(server)))
        assert.strictEqual((store as { readonly _tag: string })._tag, "BackendError")
        assert.include(messageOf(store), "replica")
        assert.include(messageOf(store), "127.0.0.1:1")
        const broker = RedisBroker.layer().pipe(Layer.provide(clientOf(server.url)))
        const error = yield* Effect.flip(Effect.scoped(Layer.build(broker)))
        assert(error._tag === "BrokerError")
        assert.isFalse(error.retryable)
      })
    )

    test("that may evict keys logs a warning", { args: ["--maxmemory-policy", "allkeys-lru"] }, (server) =>
      Effect.gen(function* () {
        const logged = (yield* warnings(server)).filter((line) => line.includes("allkeys-lru"))
        assert.strictEqual(logged.length, 1)
        assert.include(logged[0]!, "accepted tasks")
      })
    )

    test("that evicts nothing logs no warning", {}, (server) =>
      Effect.gen(function* () {
        assert.deepStrictEqual(yield* warnings(server), [])
      })
    )

    test("that becomes a replica fails calls with a retryable error", {}, (server) =>
      Effect.gen(function* () {
        const store = yield* openStore(server)
        const enqueue = Effect.provideContext(Count.delay({ n: 1, millis: 0 }), store)
        yield* enqueue
        yield* server.command("REPLICAOF", "127.0.0.1", "1")
        const error = yield* Effect.flip(enqueue)
        assert(error._tag === "BackendError" || error._tag === "BrokerError", error._tag)
        assert.isTrue(error.retryable)
        assert.include(error.message, "READONLY")
        yield* server.command("REPLICAOF", "NO", "ONE")
        yield* Effect.retry(enqueue, { schedule: Schedule.spaced("50 millis"), times: 20 })
      })
    )
  })

  it.live("a server that is too old fails with the required version", () =>
    Effect.gen(function* () {
      const store = RedisStore.layer().pipe(Layer.provide(stub("redis_version:5.0.7\r\nrole:master\r\n")))
      const error = yield* Effect.flip(Effect.scoped(Layer.build(store)))
      assert.isFalse(error.retryable)
      assert.include(error.message, "Redis 5.0.7; 6.2 or newer is needed")
    })
  )

  it.live("options out of range are a defect that names the allowed values", () =>
    Effect.gen(function* () {
      const wrong: ReadonlyArray<readonly [RedisStore.Options, string]> = [
        [{ prefix: "a{b}" }, "without braces"],
        [{ shards: 0 }, "from 1 to 1024"],
        [{ callTimeout: 0 }, "callTimeout must be"]
      ]
      for (const [options, allowed] of wrong) {
        const store = RedisStore.layer(options).pipe(Layer.provide(stub("redis_version:7.0.0\r\n")))
        const exit = yield* Effect.exit(Effect.scoped(Layer.build(store)))
        assert(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
        assert.include(String(Cause.squash(exit.cause)), allowed)
      }
    })
  )
})
