/** Calls to a shard whose hash slot moves to another node of a cluster. */
import { assert, it } from "@effect/vitest"
import { AsyncResult, type Backend, Broker } from "chicory"
import { Effect, Fiber, Layer, Logger, Option } from "effect"
import * as RedisCluster from "../../src/redis/RedisCluster.ts"
import * as RedisStore from "../../src/redis/RedisStore.ts"
import { Count, eventually } from "../support/storeFixture.ts"
import { moveSlot } from "./moveSlot.ts"
import { type Cluster, describeWithServers, startCluster } from "./server.ts"

const TIMEOUT = 60_000

const openStore = ({ rootNodes }: Cluster, options?: RedisStore.Options) =>
  Layer.build(Layer.provide(RedisStore.layer(options), RedisCluster.layer({ rootNodes })))

/** How many keys the nodes have in all. */
const keyCount = ({ nodes }: Cluster) =>
  Effect.map(
    Effect.forEach(nodes, (node) => node.command("DBSIZE")),
    (counts) => counts.reduce<number>((sum, count) => sum + Number(count), 0)
  )

/** How many calls the nodes have refused since one of their keys had not come yet. */
const refusals = ({ nodes }: Cluster) =>
  Effect.map(
    Effect.forEach(nodes, (node) => node.command("INFO", "errorstats")),
    (all) =>
      all.reduce<number>(
        (sum, info) => sum + Number(/errorstat_TRYAGAIN:count=(\d+)/.exec(String(info))?.[1] ?? 0),
        0
      )
  )

const moveWith = (cluster: Cluster, halfway: Effect.Effect<void, unknown>) =>
  moveSlot(cluster, "{chicory:0}", { keysAtOnce: 1, halfway: Effect.orDie(halfway) })

describeWithServers("a hash slot that moves", () => {
  it.live(
    "calls wait, and no script runs on either node, until all keys have moved",
    () =>
      Effect.gen(function* () {
        const cluster = yield* startCluster()
        const store = yield* openStore(cluster, { callTimeout: "30 seconds" })
        yield* Effect.gen(function* () {
          const before = yield* Effect.forEach([1, 2, 3, 4, 5], (n) => Count.delay({ n, millis: 0 }))
          const polls = before.map((handle) => AsyncResult.poll(handle))
          const calls = [...polls, Count.delay({ n: 6, millis: 0 }), Broker.counts(["default"])].map(
            (call: Effect.Effect<unknown, unknown, Backend.Backend | Broker.Broker>) =>
              Effect.provideContext(call, store)
          )
          const waiting: Array<Fiber.Fiber<unknown, unknown>> = []
          const halfway = Effect.gen(function* () {
            const keys = yield* keyCount(cluster)
            for (const call of calls) waiting.push(yield* Effect.forkDetach(call))
            const refused = yield* refusals(cluster)
            yield* eventually(Effect.map(refusals(cluster), (now) => now > refused + 10))
            assert.strictEqual(yield* keyCount(cluster), keys)
            assert.isTrue(waiting.every((fiber) => fiber.pollUnsafe() === undefined))
          })
          const target = yield* moveWith(cluster, halfway)
          const found = yield* Fiber.joinAll(waiting)
          assert.strictEqual(found.filter(Option.isOption).filter(Option.isSome).length, before.length)
          const [counts] = yield* Broker.counts(["default"])
          assert.strictEqual(counts?.ready, 6)
          assert.strictEqual(yield* target.command("DBSIZE"), yield* keyCount(cluster))
        }).pipe(Effect.provideContext(store))
      }).pipe(Effect.scoped, Effect.provide(Logger.layer([]))),
    TIMEOUT
  )

  it.live(
    "a call that waits for longer than its timeout fails with a retryable error, and the wait is logged once",
    () => {
      const logged: Array<string> = []
      const logger = Logger.make(({ message }) => void logged.push(String(message)))
      return Effect.gen(function* () {
        const cluster = yield* startCluster()
        const store = yield* openStore(cluster, { callTimeout: "300 millis" })
        const delay = (n: number) => Effect.provideContext(Count.delay({ n, millis: 0 }), store)
        yield* Effect.forEach([1, 2, 3], delay)
        const halfway = Effect.gen(function* () {
          for (const n of [4, 5]) {
            const error = yield* Effect.flip(delay(n))
            assert.isTrue("retryable" in error && error.retryable, String(error))
          }
        })
        yield* moveWith(cluster, halfway)
        yield* delay(6)
        assert.deepStrictEqual(
          logged.filter((line) => line.includes("moves to another node")),
          ["The hash slot of {chicory:0} moves to another node of the Redis cluster; calls wait for it"]
        )
      }).pipe(Effect.scoped, Effect.provide(Logger.layer([logger])))
    },
    TIMEOUT
  )
})
