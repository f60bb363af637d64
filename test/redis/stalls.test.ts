/** Servers that stand still, answer slowly over their network, or become replicas. */
import { assert } from "@effect/vitest"
import { AsyncResult, Broker, Task } from "chicory"
import { RedisStore } from "chicory/redis"
import { Array as Arr, Effect, Fiber, Schema } from "effect"
import { makeNetwork } from "../support/network.ts"
import { eventually, roundTrip, startWorker, countingHandler, Count } from "../support/storeFixture.ts"
import { describeWithServers, type Server, startServer } from "./server.ts"
import { clientOf, openStore, testWithServer as test, untilSubscribed } from "./storeFixture.ts"

/** Returns the number of scripts that the server has run, and the microseconds that they took. */
const scriptStats = (server: Server) =>
  Effect.map(server.command("INFO", "commandstats"), (info) => {
    const [, calls, usec] = /cmdstat_evalsha:calls=(\d+),usec=(\d+)/.exec(String(info)) ?? []
    return { calls: Number(calls ?? 0), usec: Number(usec ?? 0) }
  })

const openDrivers = ({ url }: Server) =>
  Effect.flatMap(clientOf(url), (client) =>
    Effect.provideContext(RedisStore.makeDrivers({ prefix: "t" }), client)
  )

const Large = Task.make("large", { payload: { n: Schema.Int, text: Schema.String }, success: Schema.Int })

describeWithServers("a Redis server", () => {
  test("is sent no more calls while it does not answer than were on their way", {}, (server) =>
    Effect.gen(function* () {
      const callers = 10
      const store = yield* openStore(server, { callTimeout: "100 millis" })
      yield* Effect.gen(function* () {
        yield* Broker.counts(["default"])
        const { calls: before } = yield* scriptStats(server)
        yield* server.freeze
        let failures = 0
        const callUntilAnswered = Broker.counts(["default"]).pipe(
          Effect.tapError(() => Effect.sync(() => failures++)),
          Effect.eventually
        )
        const calling = yield* Effect.forkChild(
          Effect.forEach(Arr.range(1, callers), () => callUntilAnswered, { concurrency: "unbounded" })
        )
        yield* eventually(Effect.sync(() => failures >= 10 * callers))
        yield* server.thaw
        yield* Fiber.join(calling)
        const { calls: after } = yield* scriptStats(server)
        // those on their way when it stood still, and those that were answered
        assert.isAtMost(after - before, 2 * callers + 1)
      }).pipe(Effect.provideContext(store))
    })
  )

  test("finds the messages of a claim that is repeated without looking at those of others", {}, (server) =>
    Effect.gen(function* () {
      const { broker } = yield* openDrivers(server)
      const claim = (claimId: string, max: number, isRetry: boolean) =>
        broker.claim({ queues: ["q"], max, leaseMillis: 600_000, worker: claimId, claimId, isRetry })
      const claimMany = Effect.fnUntraced(function* (name: string, count: number, batch: number) {
        for (let i = 0; i < count; i += batch) {
          yield* broker.publish(
            Arr.makeBy(batch, (n) => ({
              id: `${name}-${i + n}`,
              task: "t",
              queue: "q",
              priority: 100,
              delayMillis: 0,
              body: "{}"
            }))
          )
          yield* claim(`${name}-${i}`, batch, false)
        }
      })
      /** Microseconds that the server spends on a repeated claim. */
      const repeat = Effect.gen(function* () {
        const { usec: before } = yield* scriptStats(server)
        for (let i = 0; i < 50; i++) assert.lengthOf(yield* claim("few-0", 10, true), 10)
        return (yield* scriptStats(server)).usec - before
      })
      yield* claimMany("few", 10, 10)
      yield* repeat
      const alone = yield* repeat
      yield* claimMany("many", 50_000, 1_000)
      // to look through all of them takes some hundred times as long
      assert.isAtMost(yield* repeat, 10 * alone)
    })
  )

  test("has its large messages claimed over a slow network", {}, (server) =>
    Effect.gen(function* () {
      const network = yield* makeNetwork(server.url)
      const producer = yield* openStore(server)
      const worker = yield* openStore(network, { callTimeout: "1 second" })
      // ten megabytes a second: a claim of all would take three seconds
      yield* network.drip(100_000)
      yield* Effect.gen(function* () {
        const tasks = yield* Effect.forEach(Arr.range(1, 8), (n) =>
          Large.delay({ n, text: "x".repeat(3_500_000) })
        )
        const handler = Large.toLayer(({ n }) => Effect.succeed(n))
        yield* startWorker(worker, Large, handler, { lease: "30 seconds", concurrency: 16 })
        assert.deepStrictEqual(yield* AsyncResult.all(tasks, { timeout: "30 seconds" }), Arr.range(1, 8))
      }).pipe(Effect.provideContext(producer))
    })
  )

  test("that has become a replica is left for the new primary behind its address", {}, (server) =>
    Effect.gen(function* () {
      const next = yield* startServer()
      const network = yield* makeNetwork(server.url)
      const store = yield* openStore(network)
      const runs = countingHandler()
      yield* startWorker(store, Count, runs.layer)
      yield* Effect.gen(function* () {
        assert.strictEqual(yield* roundTrip(1), 1)
        yield* network.redirect(next.url)
        yield* server.command("REPLICAOF", "127.0.0.1", `${next.port}`)
        yield* eventually(Effect.isSuccess(roundTrip(2)))
        yield* untilSubscribed(next)
      }).pipe(Effect.provideContext(store))
    })
  )
})
