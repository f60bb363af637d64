/** A producer whose store is unavailable fails in time and holds no memory. */
import { NodeServices } from "@effect/platform-node"
import { assert, it } from "@effect/vitest"
import { Effect, type Scope } from "effect"
import { describeWithOwnPostgres, startServer as startPostgres } from "../postgres/ownServer.ts"
import { describeWithOwnRabbit, startServer as startRabbit } from "../rabbitmq/ownServer.ts"
import { describeWithServers as describeWithOwnRedis, startServer as startRedis } from "../redis/server.ts"
import { temporaryFile } from "../sqlite/temporary.ts"
import { isFullRun } from "../support/fullRun.ts"
import type { OwnServer } from "../support/ownServers.ts"
import type * as StoreLocations from "../support/storeLocations.ts"
import { print, start } from "./loadProcess.ts"

/** MiB by which the live heap may differ between two measurements. */
const NOISE = 24

/** A server that can be frozen, and the store on it. */
type Owned = Effect.Effect<
  { readonly server: OwnServer; readonly location: StoreLocations.StoreLocation },
  unknown,
  Scope.Scope
>

const onRedis: Owned = Effect.map(startRedis(), (server) => ({
  server,
  location: { dialect: "redis", url: server.url, prefix: "chicory" }
}))
const onPostgres: Owned = Effect.map(startPostgres(), (server) => ({
  server,
  location: { dialect: "postgres", url: server.url, schema: "public", prefix: "chicory" }
}))
const onRabbit: Owned = Effect.gen(function* () {
  const server = yield* startRabbit()
  const filename = yield* temporaryFile
  return {
    server,
    location: {
      dialect: "sqlite",
      filename,
      prefix: "chicory",
      rabbitmq: { url: server.url, prefix: "chicory" }
    }
  }
})

/** Registers the test; `callTimeout` is the store's default in milliseconds. */
const storeAway = (owned: Owned, callTimeout: number): void =>
  it.live(
    "callers of an unavailable store fail within the call timeout, hold no memory and recover",
    () =>
      Effect.gen(function* () {
        const concurrency = isFullRun ? 10_000 : 4_000
        const rounds = isFullRun ? 6 : 1
        const { location, server } = yield* owned
        yield* Effect.gen(function* () {
          const producer = yield* start("storeDown.ts", location, 192, { concurrency, rounds })
          const there = yield* producer.reached("there")
          assert.strictEqual(there.figures["sent"], concurrency)
          yield* server.freeze
          yield* producer.signal("SIGUSR2")
          for (let round = 1; round <= rounds; round++) {
            const failed = yield* producer.reached(`away ${round}`)
            yield* print(`${server.url} away, round ${round}`, failed)
            const { alive, descriptors, longest, most, sent, typed } = failed.figures
            assert.deepStrictEqual({ sent, typed }, { sent: 0, typed: concurrency })
            // one call in flight, one after it, and a busy machine
            assert.isAtMost(longest!, 2 * callTimeout + 5_000)
            assert.isAtMost(most!, there.figures["alive"]! + 4 * NOISE)
            assert.isAtMost(alive!, there.figures["alive"]! + NOISE)
            assert.isAtMost(descriptors!, there.figures["descriptors"]! + 16)
          }
          yield* server.thaw
          yield* producer.signal("SIGUSR2")
          const back = yield* producer.reached("back")
          yield* print(`${server.url} back`, back)
          assert.strictEqual(back.figures["sent"], concurrency)
          assert.isAtMost(back.figures["alive"]!, there.figures["alive"]! + NOISE)
          assert.isTrue(yield* producer.ended)
        }).pipe(Effect.ensuring(Effect.ignore(server.thaw)))
      }).pipe(Effect.provide(NodeServices.layer)),
    isFullRun ? 300_000 : 120_000
  )

describeWithOwnRedis("Redis", () => storeAway(onRedis, 5_000))
describeWithOwnPostgres("PostgreSQL", () => storeAway(onPostgres, 10_000))
describeWithOwnRabbit("RabbitMQ with SQLite", () => storeAway(onRabbit, 5_000))
