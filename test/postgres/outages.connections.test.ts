/** Guarantee 9 on PostgreSQL: a server that cuts, mutes or refuses connections. */
import { assert, describe } from "@effect/vitest"
import { AsyncResult } from "chicory"
import { Effect, Fiber, Latch, Layer, Schedule, type Scope } from "effect"
import { SqlClient } from "effect/sql"
import { makeNetwork } from "../support/network.ts"
import { Count, countingHandler, eventually, roundTrip, startWorker, timed } from "../support/storeFixture.ts"
import {
  LISTENS,
  crashesOf,
  drained,
  numberOf,
  numbers,
  payloads,
  report,
  retryUntilAccepted,
  retryableMessageOf,
  unswept,
  untilListening
} from "./outageFixture.ts"
import {
  clientOf,
  describeWithOwnPostgres,
  type OwnServer,
  openStore,
  testWithServer as test
} from "./ownServer.ts"

/** Measures round trips between two undisturbed processes, and returns the milliseconds in ascending order. */
const latencies = Effect.map(
  Effect.forEach(numbers(7), (n) => timed(roundTrip(n))),
  (trips) => trips.map(([millis]) => millis).sort((a, b) => a - b)
)

/** Checks that notifications arrive: round trips wait neither for a waiter's sweep nor for a worker's poll each second. */
const assertNotified = Effect.gen(function* () {
  const sorted = yield* latencies
  yield* report("slowest of 7 round trips", sorted[6]!)
  yield* report("median of 7 round trips", sorted[3]!)
  assert.isBelow(sorted[6]!, 1_500)
  assert.isBelow(sorted[3]!, 400)
})

describeWithOwnPostgres("guarantee 9: connections to PostgreSQL", () => {
  describe.concurrent("cut connections", () => {
    test(
      "tasks run once while all connections are cut repeatedly, and notifications arrive afterwards",
      {},
      (server) =>
        Effect.gen(function* () {
          const producer = yield* openStore(server)
          const runs = countingHandler()
          yield* startWorker(yield* openStore(server), Count, runs.layer, { concurrency: 8 })
          yield* Effect.gen(function* () {
            let cuts = 0
            let ended = 0
            // on a busy machine a connection takes longer than the pause between two cuts
            const untilProgress = Effect.suspend(() => runs.untilEnded(++ended))
            const cutting = yield* server.cut().pipe(
              Effect.tap((count) => Effect.sync(() => (cuts += count))),
              Effect.andThen(untilProgress),
              Effect.repeat(Schedule.spaced("60 millis")),
              Effect.forkChild
            )
            const enqueue = (n: number) =>
              retryUntilAccepted(Count.delay({ n, millis: 20 }, { id: `task ${n}` }))
            const handles = yield* Effect.forEach(numbers(200), enqueue, { concurrency: 10 })
            const waiting = yield* Effect.forkChild(AsyncResult.all(handles))
            yield* runs.untilEnded(150)
            yield* Fiber.interrupt(cutting)
            assert.isAbove(cuts, 10)
            const [millis, values] = yield* timed(Fiber.join(waiting))
            yield* report(`${cuts} connections cut, 50 tasks left`, millis)
            assert.deepStrictEqual(values, numbers(200))
            assert.isBelow(millis, 12_000)
            yield* drained
            assert.sameMembers(runs.begun, numbers(200))
            assert.strictEqual(yield* crashesOf(server), 0)
            yield* untilListening(server, 2)
            yield* assertNotified
          }).pipe(Effect.provideContext(producer))
        })
    )

    test(
      "waiters receive results without a sweep after listening connections are cut during work",
      {},
      (server) =>
        Effect.gen(function* () {
          const producer = yield* openStore(server, unswept)
          const runs = countingHandler()
          yield* startWorker(yield* openStore(server, unswept), Count, runs.layer, { concurrency: 8 })
          yield* Effect.gen(function* () {
            const handles = yield* Count.delayAll(payloads(200, 30))
            const waiting = yield* Effect.forkChild(AsyncResult.all(handles))
            for (const done of [40, 80, 120, 160, 195]) {
              yield* runs.untilEnded(done)
              yield* server.cut(LISTENS)
            }
            yield* runs.untilEnded(200)
            const [millis, values] = yield* timed(Fiber.join(waiting))
            yield* report("listeners cut five times, after the last run", millis)
            assert.deepStrictEqual(values, numbers(200))
            assert.isBelow(millis, 4_000)
            yield* untilListening(server, 2)
            yield* assertNotified
          }).pipe(Effect.provideContext(producer))
        })
    )

    test("a waiter reads a result that was stored while it could not reconnect", {}, (server) =>
      Effect.gen(function* () {
        const gone = yield* Latch.make(false)
        const runs = countingHandler(() => gone.await)
        yield* startWorker(yield* openStore(server), Count, runs.layer)
        yield* server.query("CREATE ROLE waiter LOGIN")
        yield* server.query("GRANT ALL ON ALL TABLES IN SCHEMA public TO waiter")
        const store = yield* openStore({ url: server.urlOf({ user: "waiter" }) }, unswept)
        yield* Effect.gen(function* () {
          const handle = yield* Count.delay({ n: 7, millis: 0 })
          const waiting = yield* Effect.forkChild(AsyncResult.get(handle))
          yield* runs.untilBegun(1)
          yield* untilListening(server, 2)
          yield* server.query("ALTER ROLE waiter CONNECTION LIMIT 0")
          assert.isAbove(yield* server.cut("usename = 'waiter'"), 0)
          // a terminated connection still receives notifications until it has ended
          yield* eventually(
            Effect.map(
              numberOf(server, "count(*)", "pg_stat_activity WHERE usename = 'waiter'"),
              (left) => left === 0
            )
          )
          yield* gone.open
          yield* eventually(
            Effect.map(
              numberOf(server, "count(*)", "chicory_tasks WHERE state = 'SUCCESS'"),
              (done) => done === 1
            )
          )
          assert.isUndefined(waiting.pollUnsafe())
          yield* server.query("ALTER ROLE waiter CONNECTION LIMIT -1")
          const [millis, value] = yield* timed(Fiber.join(waiting))
          yield* report("completion in a gap", millis)
          assert.strictEqual(value, 7)
          assert.isBelow(millis, 4_000)
        }).pipe(Effect.provideContext(store))
      })
    )
  })

  describe.concurrent("silent connections", () => {
    const viaNetwork = { callTimeout: "1 second", client: { maxConnections: 4 } } as const

    test(
      "a worker whose connections fall silent opens new ones, and notifies waiters of its results",
      {},
      (server) =>
        Effect.gen(function* () {
          const network = yield* makeNetwork(server.url)
          const producer = yield* openStore(server, unswept)
          const runs = countingHandler()
          yield* startWorker(yield* openStore(network, viaNetwork), Count, runs.layer, { concurrency: 8 })
          yield* Effect.gen(function* () {
            yield* AsyncResult.all(yield* Count.delayAll(payloads(100, 20)))
            yield* network.silence
            const handles = yield* Count.delayAll(payloads(20, 20))
            const [millis, values] = yield* timed(AsyncResult.all(handles))
            yield* report("a worker's connections fell silent", millis)
            assert.deepStrictEqual(values, numbers(20))
            assert.isBelow(millis, 14_000)
            const [again] = yield* timed(roundTrip(30))
            yield* report("then", again)
            // each of the four connections of the pool may be silent still, which a call finds out in a second
            assert.isBelow(again, 5_000)
            assert.strictEqual(yield* crashesOf(server), 0)
          }).pipe(Effect.ensuring(network.cut()), Effect.provideContext(producer))
        })
    )

    test("a waiter whose connections fall silent reads its result over new ones", {}, (server) =>
      Effect.gen(function* () {
        const network = yield* makeNetwork(server.url)
        const store = yield* openStore(network, viaNetwork)
        const silent = yield* Latch.make(false)
        const runs = countingHandler((n) => (n === 1_000 ? silent.await : Effect.void))
        yield* startWorker(yield* openStore(server), Count, runs.layer, { concurrency: 8 })
        yield* Effect.gen(function* () {
          yield* AsyncResult.all(yield* Count.delayAll(payloads(100, 20)))
          const handle = yield* Count.delay({ n: 1_000, millis: 0 })
          const waiting = yield* Effect.forkChild(AsyncResult.get(handle))
          yield* runs.untilBegun(101)
          yield* network.silence
          yield* silent.open
          const [millis, value] = yield* timed(Fiber.join(waiting))
          yield* report("a waiter's connections fell silent", millis)
          assert.strictEqual(value, 1_000)
          assert.isBelow(millis, 15_000)
          assert.strictEqual(yield* retryUntilAccepted(roundTrip(8)), 8)
        }).pipe(Effect.ensuring(network.cut()), Effect.provideContext(store))
      })
    )
  })

  describe.concurrent("exhausted connections", () => {
    test(
      "calls fail as retryable while the server has no free connection, and work continues after it",
      { settings: { max_connections: "14", superuser_reserved_connections: "4" } },
      (server) =>
        Effect.gen(function* () {
          yield* server.query("CREATE ROLE app LOGIN")
          yield* server.query("CREATE ROLE other LOGIN")
          yield* server.query("GRANT ALL ON SCHEMA public TO app")
          const login = { url: server.urlOf({ user: "app" }) }
          const client = { maxConnections: 3 }
          const producer = yield* openStore(login, { client })
          const runs = countingHandler()
          yield* startWorker(yield* openStore(login, { client }), Count, runs.layer, { concurrency: 4 })
          yield* Effect.gen(function* () {
            const handles = yield* Count.delayAll(payloads(20, 100))
            const waiting = yield* Effect.forkChild(AsyncResult.all(handles))
            yield* runs.untilEnded(4)
            yield* Effect.scoped(
              Effect.gen(function* () {
                yield* takeAll(server, 10)
                const [millis, message] = yield* timed(retryableMessageOf(Count.delay({ n: 30, millis: 0 })))
                yield* report(`no connection left: ${message}`, millis)
                assert.match(message, /too many clients|remaining connection slots/)
                for (const open of [openStore(login), openStore(login, { notify: false })]) {
                  assert.match(
                    yield* retryableMessageOf(Effect.scoped(open)),
                    /too many clients|remaining connection slots/
                  )
                }
              })
            )
            const [millis, values] = yield* timed(Fiber.join(waiting))
            yield* report("connections freed", millis)
            assert.deepStrictEqual(values, numbers(20))
            assert.isBelow(millis, 10_000)
            assert.strictEqual(yield* roundTrip(31), 31)
            assert.strictEqual(yield* crashesOf(server), 0)
          }).pipe(Effect.provideContext(producer))
        })
    )
  })
})

/**
 * Takes all `count` connections that the user `other` may have, until the scope closes. Queries of the superuser and
 * clients that are about to be refused use a connection too, and one that they free may go to the user `app`. The server
 * is full only when `other` holds every unreserved connection: no further client is accepted then or already connecting.
 */
const takeAll = (server: OwnServer, count: number): Effect.Effect<void, unknown, Scope.Scope> =>
  Effect.gen(function* () {
    const url = server.urlOf({ user: "other" })
    const sql = Effect.provideContext(
      SqlClient.SqlClient,
      yield* Layer.build(clientOf(url, { maxConnections: count + 1 }))
    )
    const takeOne = Effect.flatMap(sql, ({ reserve }) => reserve)
    const taken = numberOf(server, "count(*)", "pg_stat_activity WHERE usename = 'other'")
    yield* eventually(
      Effect.gen(function* () {
        yield* server.cut("usename = 'app'")
        yield* Effect.ignore(Effect.forever(takeOne))
        return (yield* taken) === count
        // clients that are about to be refused use the reserved connections, too, for a moment
      }).pipe(Effect.orElseSucceed(() => false))
    )
  })
