/** What a server may do to those who depend on it: die, cut them off, freeze, refuse; and what others write to it. */
import { assert, describe } from "@effect/vitest"
import { AsyncResult, type Backend, Broker, DeadLetters } from "chicory"
import { Array as Arr, Effect, Exit, Fiber, Latch, Layer, Option, Schedule, type Scope } from "effect"
import { SqlClient } from "effect/sql"
import * as Migrations from "../../src/sql/schema/Migrations.ts"
import * as SqlDrivers from "../../src/sql/SqlDrivers.ts"
import { record, success } from "../../src/testing/suites/backend/fixture.ts"
import { makeNetwork } from "../support/network.ts"
import { Count, countingHandler, eventually, roundTrip, startWorker, timed } from "../support/storeFixture.ts"
import {
  clientOf,
  describeWithOwnPostgres,
  type OwnServer,
  openStore,
  testWithServer as test
} from "./ownServer.ts"

const numbers = (count: number) => Array.from({ length: count }, (_, n) => n)

const payloads = (count: number, millis: number) => numbers(count).map((n) => ({ n, millis }))

/** No sweep of those who wait comes to help. */
const unswept = { sweepInterval: "60 seconds" } as const

const report = (name: string, millis: number) =>
  Effect.sync(() => process.env["CHICORY_FIGURES"] && console.log(`${name}: ${Math.round(millis)} ms`))

/** One number that a statement answers. */
const numberOf = (server: OwnServer, expression: string, from: string) =>
  Effect.map(server.query(`SELECT ${expression}::int AS n FROM ${from}`), ([row]) => Number(row!["n"]))

/** How many runs vanished with their worker. */
const crashesOf = (server: OwnServer) => numberOf(server, "COALESCE(sum(crashes), 0)", "chicory_tasks")

/** The connections that listen. */
const LISTENS = "query ILIKE 'LISTEN%'"

const untilListening = (server: OwnServer, count: number) =>
  eventually(
    Effect.map(
      numberOf(server, "count(*)", `pg_stat_activity WHERE ${LISTENS}`),
      (listening) => listening >= count
    )
  )

/** Waits until no message is left. */
const drained = eventually(
  Effect.map(
    Broker.counts(["default"]),
    ([counts]) => counts!.ready + counts!.delayed + counts!.claimed === 0
  )
)

const isTyped = (error: {
  readonly _tag: string
}): error is { _tag: string; retryable: boolean; message: string } =>
  error._tag === "BackendError" || error._tag === "BrokerError"

/** The typed error of a call that may be made again. */
const retryableOf = <R>(call: Effect.Effect<unknown, { readonly _tag: string }, R>) =>
  Effect.map(Effect.flip(call), (error) => {
    assert(isTyped(error), error._tag)
    assert.isTrue(error.retryable, error.message)
    return error.message
  })

/** Again and again, until it is accepted. */
const insisting = <A, E, R>(call: Effect.Effect<A, E, R>) =>
  Effect.retry(call, { schedule: Schedule.spaced("30 millis"), times: 300 })

/** How long round trips between two processes take, when nothing disturbs them. */
const latencies = Effect.map(
  Effect.forEach(numbers(7), (n) => timed(roundTrip(n))),
  (trips) => trips.map(([millis]) => millis).sort((a, b) => a - b)
)

/** Neither a waiter waits for its sweep, nor a worker for its look at each second. */
const assertNotified = Effect.gen(function* () {
  const sorted = yield* latencies
  yield* report("slowest of 7 round trips", sorted[6]!)
  yield* report("median of 7 round trips", sorted[3]!)
  assert.isBelow(sorted[6]!, 1_500)
  assert.isBelow(sorted[3]!, 400)
})

describeWithOwnPostgres("a server that", () => {
  describe.concurrent("dies", () => {
    const dies = (how: string, stop: (server: OwnServer) => Effect.Effect<void>) =>
      test(`${how}, and comes back: nothing confirmed is lost, and nothing runs twice`, {}, (server) =>
        Effect.gen(function* () {
          const producer = yield* openStore(server)
          const runs = countingHandler()
          yield* startWorker(yield* openStore(server), Count, runs.layer, { concurrency: 8 })
          yield* Effect.gen(function* () {
            const handles = yield* Count.delayAll(payloads(120, 30))
            const later = yield* Count.delay({ n: 120, millis: 0 }, { delay: "1 second" })
            const running = yield* Count.delay({ n: 121, millis: 1_500 }, { priority: 200 })
            const waiting = yield* Effect.forkChild(AsyncResult.all(handles))
            const alone = yield* Effect.forkChild(AsyncResult.get(running))
            yield* runs.untilEnded(30)
            yield* stop(server)
            const failed = yield* Effect.exit(Count.delay({ n: 122, millis: 0 }, { id: "meanwhile" }))
            assert.isTrue(Exit.isFailure(failed))
            yield* server.start
            const after = yield* insisting(Count.delay({ n: 122, millis: 0 }, { id: "meanwhile" }))
            const [millis, values] = yield* timed(Fiber.join(waiting))
            yield* report(`${how}, 90 tasks left`, millis)
            assert.deepStrictEqual(values, numbers(120))
            assert.isBelow(millis, 12_000)
            assert.strictEqual(yield* Fiber.join(alone), 121)
            assert.strictEqual(yield* AsyncResult.get(later), 120)
            assert.strictEqual(yield* AsyncResult.get(after), 122)
            yield* drained
            assert.sameMembers(runs.begun, numbers(123))
            assert.strictEqual(yield* crashesOf(server), 0)
          }).pipe(Effect.provideContext(producer))
        })
      )
    dies("at once", (server) => server.kill)
    dies("in order", (server) => server.stop)

    test("before a worker starts, which waits for it", {}, (server) =>
      Effect.gen(function* () {
        const producer = yield* openStore(server)
        const store = yield* openStore(server)
        yield* Effect.gen(function* () {
          const handle = yield* Count.delay({ n: 1, millis: 0 })
          yield* server.kill
          yield* startWorker(store, Count, countingHandler().layer)
          yield* server.start
          assert.strictEqual(yield* AsyncResult.get(handle), 1)
        }).pipe(Effect.provideContext(producer))
      })
    )
  })

  describe.concurrent("cuts connections", () => {
    test("of everyone, again and again: all tasks run, once, and news arrive afterwards", {}, (server) =>
      Effect.gen(function* () {
        const producer = yield* openStore(server)
        const runs = countingHandler()
        yield* startWorker(yield* openStore(server), Count, runs.layer, { concurrency: 8 })
        yield* Effect.gen(function* () {
          let cuts = 0
          const cutting = yield* server.cut().pipe(
            Effect.tap((count) => Effect.sync(() => (cuts += count))),
            Effect.repeat(Schedule.spaced("60 millis")),
            Effect.forkChild
          )
          const enqueue = (n: number) => insisting(Count.delay({ n, millis: 20 }, { id: `task ${n}` }))
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

    test("of those who listen, in the midst of work: no waiter waits for a sweep", {}, (server) =>
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

    test("of one who waits, and lets it back later: what ended in between is read then", {}, (server) =>
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
          // what was cut off may still be told, until it has ended
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

  describe.concurrent("goes on after a while:", () => {
    const frozen = (how: string, options: { readonly notify?: boolean }) =>
      test(`it is frozen for longer than a call may take, ${how}`, {}, (server) =>
        Effect.gen(function* () {
          const limited = { callTimeout: "1 second", ...options } as const
          const producer = yield* openStore(server, limited)
          const runs = countingHandler()
          yield* startWorker(yield* openStore(server, limited), Count, runs.layer, { lease: "60 seconds" })
          yield* Effect.gen(function* () {
            const running = yield* Count.delay({ n: 1, millis: 1_000 })
            yield* runs.untilBegun(1)
            const handles = yield* Count.delayAll(payloads(5, 0), { delay: "500 millis" })
            const waiting = yield* Effect.forkChild(AsyncResult.all([running, ...handles]))
            yield* server.freeze
            const calls: ReadonlyArray<
              Effect.Effect<unknown, { readonly _tag: string }, Backend.Backend | Broker.Broker>
            > = [
              Count.delay({ n: 9, millis: 0 }),
              AsyncResult.state(running),
              AsyncResult.cancel(Count.result("nobody")),
              Broker.counts(["default"]),
              DeadLetters.count()
            ]
            for (const call of calls) {
              const [millis, message] = yield* timed(retryableOf(call))
              yield* report(`frozen: ${message}`, millis)
              assert.isBelow(millis, 2_500)
              assert.match(message, /did not answer within 1s|timed out/)
            }
            yield* server.thaw
            const [millis, values] = yield* timed(Fiber.join(waiting))
            yield* report(`frozen for 5 s, ${how}`, millis)
            assert.deepStrictEqual(values, [1, 0, 1, 2, 3, 4])
            assert.isBelow(millis, 8_000)
            assert.strictEqual(yield* roundTrip(3), 3)
            assert.strictEqual(yield* crashesOf(server), 0)
          }).pipe(Effect.provideContext(producer))
        })
      )
    const viaNetwork = { callTimeout: "1 second", client: { maxConnections: 4 } } as const

    test(
      "a worker's connections fall silent: it takes others, and tells waiters of what it does",
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
            assert.isBelow(again, 3_000)
            assert.strictEqual(yield* crashesOf(server), 0)
          }).pipe(Effect.ensuring(network.cut()), Effect.provideContext(producer))
        })
    )

    test("a waiter's connections fall silent: it reads by others", {}, (server) =>
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
          assert.strictEqual(yield* insisting(roundTrip(8)), 8)
        }).pipe(Effect.ensuring(network.cut()), Effect.provideContext(store))
      })
    )

    frozen("with notifications", {})
    frozen("without notifications", { notify: false })

    test("it only reads for a while: whoever enqueues is told, and the worker goes on", {}, (server) =>
      Effect.gen(function* () {
        const producer = yield* openStore(server)
        const runs = countingHandler()
        yield* startWorker(yield* openStore(server), Count, runs.layer, { concurrency: 4 })
        yield* Effect.gen(function* () {
          const handles = yield* Count.delayAll(payloads(40, 100))
          const waiting = yield* Effect.forkChild(AsyncResult.all(handles))
          yield* runs.untilEnded(8)
          yield* server.setReadOnly(true)
          // a setting is taken up between two statements
          const enqueue = Effect.asVoid(Count.delay({ n: 50, millis: 0 }))
          yield* eventually(Effect.map(Effect.exit(enqueue), Exit.isFailure))
          const message = yield* retryableOf(enqueue)
          assert.strictEqual(yield* AsyncResult.state(handles[0]!), "SUCCESS")
          yield* Effect.sleep("2 seconds")
          yield* server.setReadOnly(false)
          const [millis, values] = yield* timed(Fiber.join(waiting))
          yield* report("read-only for 2 s", millis)
          assert.deepStrictEqual(values, numbers(40))
          assert.isBelow(millis, 10_000)
          yield* insisting(enqueue)
          yield* drained
          assert.strictEqual(yield* crashesOf(server), 0)
          assert.strictEqual(runs.begun.filter((n) => n < 40).length, 40)
          assert.include(message, "read-only")
        }).pipe(Effect.provideContext(producer))
      })
    )

    test(
      "it has no connection left: whoever calls is told, and all goes on when there is one",
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
                const [millis, message] = yield* timed(retryableOf(Count.delay({ n: 30, millis: 0 })))
                yield* report(`no connection left: ${message}`, millis)
                assert.match(message, /too many clients|remaining connection slots/)
                for (const open of [openStore(login), openStore(login, { notify: false })]) {
                  assert.match(
                    yield* retryableOf(Effect.scoped(open)),
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

  describe.concurrent("lets transactions fail for the sake of others:", () => {
    test(
      "two processes settle, cancel and renew the same tasks in all orders: all is answered, and agrees",
      { settings: { deadlock_timeout: "20ms" } },
      (server) =>
        Effect.gen(function* () {
          const [a, b] = yield* Effect.all([openDrivers(server), openDrivers(server)])
          for (const round of numbers(25)) yield* quarrel(a, b, round)
          const deadlocks = yield* numberOf(server, "deadlocks", "pg_stat_database WHERE datname = 'test'")
          yield* report("deadlocks of 25 rounds (a count)", deadlocks)
        })
    )

    test("all transactions are serializable, and tasks run, once", {}, (server) =>
      Effect.gen(function* () {
        const client = { startupParameters: { default_transaction_isolation: "serializable" } }
        const one = yield* openStore(server, { client })
        const other = yield* openStore(server, { client })
        const runs = countingHandler()
        for (const store of [one, other]) yield* startWorker(store, Count, runs.layer, { concurrency: 8 })
        const enqueue = (n: number) => Count.delay({ n, millis: 10 }, { id: `task ${n}` })
        const both = (n: number) =>
          Effect.all(
            [one, other].map((store) => Effect.provideContext(enqueue(n), store)),
            { concurrency: "unbounded" }
          )
        const handles = yield* Effect.forEach(numbers(100), both, { concurrency: 16 })
        const values = yield* Effect.provideContext(AsyncResult.all(handles.map(([handle]) => handle!)), one)
        assert.deepStrictEqual(values, numbers(100))
        const idle = yield* Effect.provideContext(
          Count.delayAll(payloads(60, 600_000), { delay: "10 minutes" }),
          one
        )
        const cancels = yield* Effect.forEach(
          idle,
          (handle) =>
            Effect.all(
              [one, other].map((store) => Effect.provideContext(AsyncResult.cancel(handle), store)),
              { concurrency: "unbounded" }
            ),
          { concurrency: 16 }
        )
        for (const answers of cancels) assert.sameMembers(answers, ["Cancelled", "AlreadyDone"])
        assert.sameMembers(runs.begun, numbers(100))
        assert.strictEqual(yield* crashesOf(server), 0)
      })
    )
  })

  describe.concurrent("holds what no store wrote:", () => {
    test("messages become dead letters, and their tasks fail; nobody else is held up", {}, (server) =>
      Effect.gen(function* () {
        const store = yield* openStore(server)
        yield* Effect.gen(function* () {
          const edits = [
            "body = 'nonsense'",
            "body = ''",
            "body = 'null'",
            "body = '{}'",
            "body = '[]'",
            "body = 'base64:%%%'",
            "body = 'base64:/wD+'",
            "body = (SELECT body FROM chicory_messages WHERE id = 'good 0')",
            "task = 'nothing'",
            "task = ''"
          ]
          const { bad, good } = yield* enqueueAround(edits.length)
          for (const [i, edit] of edits.entries()) yield* editRow(server, "messages", `bad ${i}`, edit)
          const runs = countingHandler()
          yield* startWorker(yield* openStore(server), Count, runs.layer, { concurrency: 4 })
          const [millis, values] = yield* timed(AsyncResult.all(good))
          assert.deepStrictEqual(values, numbers(good.length))
          assert.isBelow(millis, 3_000)
          for (const handle of bad) {
            const error = yield* Effect.flip(AsyncResult.get(handle))
            assert(error._tag === "TaskFailed", String(error))
            assert.strictEqual(error.reason._tag, "PayloadInvalid")
          }
          const letters = yield* DeadLetters.list()
          assert.sameMembers(
            letters.map(({ taskId }) => Option.getOrNull(taskId)),
            bad.map(({ taskId }) => taskId)
          )
          assert.strictEqual(letters.find(({ id }) => id === "bad 0:0")!.raw, "nonsense")
          yield* drained
          assert.sameMembers(runs.begun, numbers(good.length))
        }).pipe(Effect.provideContext(store))
      })
    )

    test(
      "messages of tasks that there are not are parked, and those that are claimed for ever wait",
      {},
      (server) =>
        Effect.gen(function* () {
          const store = yield* openStore(server)
          yield* Effect.gen(function* () {
            const edits = ["id = 'nobody'", "id = ''", "state = 2, claim = 'x'"]
            const { good } = yield* enqueueAround(edits.length)
            for (const [i, edit] of edits.entries()) yield* editRow(server, "messages", `bad ${i}`, edit)
            yield* startWorker(yield* openStore(server), Count, countingHandler().layer, { concurrency: 4 })
            const values = yield* AsyncResult.all(good)
            assert.deepStrictEqual(values, numbers(good.length))
            yield* eventually(Effect.map(DeadLetters.count(), (count) => count === 2))
            assert.strictEqual(yield* roundTrip(9), 9)
          }).pipe(Effect.provideContext(store))
        })
    )

    test("records fail whoever reads them, and nobody else", {}, (server) =>
      Effect.gen(function* () {
        const store = yield* openStore(server)
        yield* Effect.gen(function* () {
          const edits = [
            "state = 'SUCCESS'",
            "state = 'SUCCESS', outcome = 'nonsense'",
            "state = 'FAILURE', outcome = '{}'",
            "state = 'FAILURE'"
          ]
          const { bad, good } = yield* enqueueAround(edits.length)
          for (const [i, edit] of edits.entries()) yield* editRow(server, "tasks", `bad ${i}`, edit)
          yield* startWorker(yield* openStore(server), Count, countingHandler().layer, { concurrency: 4 })
          const values = yield* AsyncResult.all(good)
          assert.deepStrictEqual(values, numbers(good.length))
          for (const handle of bad) {
            const error = yield* Effect.flip(AsyncResult.get(handle))
            assert(error._tag === "TaskFailed", String(error))
            assert.include(error.message, "the stored result does not decode")
          }
          yield* drained
        }).pipe(Effect.provideContext(store))
      })
    )

    test("words that there are not are refused", {}, (server) =>
      Effect.gen(function* () {
        const store = yield* openStore(server)
        yield* Effect.gen(function* () {
          yield* Count.delay({ n: 1, millis: 0 }, { id: "bad 0" })
          const edits = {
            tasks: ["state = 'SLEEPING'", "state = NULL", "ended = 'Bored'", "id = NULL"],
            messages: ["state = 7", "state = -1", "body = NULL", "id = NULL", "priority = NULL"]
          }
          for (const [table, changes] of Object.entries(edits)) {
            for (const change of changes) {
              const error = yield* Effect.flip(editRow(server, table, "bad 0", change))
              assert.strictEqual(error.reason._tag, "ConstraintError", change)
            }
          }
          yield* startWorker(yield* openStore(server), Count, countingHandler().layer)
          assert.strictEqual(yield* AsyncResult.get(Count.result("bad 0")), 1)
        }).pipe(Effect.provideContext(store))
      })
    )

    const numbersOutOfRange = {
      messages: [
        "generation = 9223372036854775807",
        "due_at = 9223372036854775807",
        "due_at = -9223372036854775808"
      ],
      tasks: [
        "attempt = 9223372036854775807",
        "fence = 9007199254740993",
        "crashes = 9223372036854775807",
        "generation = 9223372036854775807"
      ]
    }
    for (const [table, edits] of Object.entries(numbersOutOfRange)) {
      for (const edit of edits) {
        test(
          `a number that none of the ${table} has (${edit}) is refused, or holds up nobody`,
          {},
          (server) =>
            Effect.gen(function* () {
              const store = yield* openStore(server)
              yield* Effect.gen(function* () {
                const { good } = yield* enqueueAround(1)
                yield* Effect.ignore(editRow(server, table, "bad 0", edit))
                const options = { concurrency: 4, lease: "2 seconds" } as const
                yield* startWorker(yield* openStore(server), Count, countingHandler().layer, options)
                const values = yield* AsyncResult.all(good)
                assert.deepStrictEqual(values, numbers(good.length))
                assert.strictEqual(yield* roundTrip(9), 9)
              }).pipe(Effect.provideContext(store))
            })
        )
      }
    }

    test("a record that is deleted stops its handler, and its message runs again", {}, (server) =>
      Effect.gen(function* () {
        const store = yield* openStore(server)
        yield* Effect.gen(function* () {
          const runs = countingHandler()
          yield* startWorker(store, Count, runs.layer, { concurrency: 1, lease: "900 millis" })
          const handle = yield* Count.delay({ n: 1, millis: 600_000 })
          yield* runs.untilBegun(1)
          yield* server.query("DELETE FROM chicory_tasks")
          yield* runs.untilInterrupted
          yield* runs.untilBegun(2)
          assert.strictEqual(yield* AsyncResult.cancel(handle), "Requested")
          assert.strictEqual(yield* roundTrip(2), 2)
        }).pipe(Effect.provideContext(store))
      })
    )

    test("a message that is deleted does not keep its task from ending", {}, (server) =>
      Effect.gen(function* () {
        const store = yield* openStore(server)
        yield* Effect.gen(function* () {
          const runs = countingHandler()
          yield* startWorker(store, Count, runs.layer, { concurrency: 1, lease: "3 seconds" })
          // a renewal comes after a second
          const handle = yield* Count.delay({ n: 1, millis: 1_500 })
          yield* runs.untilBegun(1)
          yield* server.query("DELETE FROM chicory_messages")
          assert.strictEqual(yield* AsyncResult.get(handle), 1)
          assert.strictEqual(yield* roundTrip(2), 2)
          assert.deepStrictEqual(runs.begun, [1, 2])
          yield* drained
        }).pipe(Effect.provideContext(store))
      })
    )

    test("everything is deleted while tasks run: the worker goes on", {}, (server) =>
      Effect.gen(function* () {
        const producer = yield* openStore(server)
        yield* Effect.gen(function* () {
          const runs = countingHandler()
          const options = { concurrency: 4, lease: "900 millis" } as const
          yield* startWorker(yield* openStore(server), Count, runs.layer, options)
          yield* Count.delayAll(payloads(20, 200))
          yield* runs.untilEnded(4)
          const tables = ["tasks", "messages", "listeners", "workers", "dead_letters"]
          // One by one: a statement that locks several tables deadlocks with the worker's.
          for (const table of tables) yield* server.query(`TRUNCATE chicory_${table}`)
          assert.strictEqual(yield* roundTrip(100), 100)
          yield* drained
        }).pipe(Effect.provideContext(producer))
      })
    )

    test("notifications that no store sent are passed over", {}, (server) =>
      Effect.gen(function* () {
        const store = yield* openStore(server, unswept)
        yield* Effect.gen(function* () {
          yield* startWorker(yield* openStore(server), Count, countingHandler().layer)
          const waiting = yield* Effect.forkChild(AsyncResult.get(Count.result("mine")))
          yield* untilListening(server, 2)
          const [row] = yield* server.query(`SELECT query FROM pg_stat_activity WHERE ${LISTENS} LIMIT 1`)
          const channel = /chicory_\w+/.exec(String(row!["query"]))![0]
          const payloads = [
            "",
            "nonsense",
            "null",
            "[]",
            "{}",
            `{"source":1,"topic":"changes","ids":[]}`,
            `{"source":"x","topic":"changes","ids":["nobody","mine",""]}`,
            `{"source":"x","topic":"nothing","ids":[]}`,
            `{"source":"x","topic":"queue:default","ids":["default"]}`,
            `{"source":"x","topic":"echo","ids":[]}`,
            "x".repeat(7_999)
          ]
          for (const payload of payloads) yield* server.query(`SELECT pg_notify('${channel}', '${payload}')`)
          assert.isUndefined(waiting.pollUnsafe())
          const [millis, value] = yield* timed(
            Effect.andThen(Count.delay({ n: 3, millis: 0 }, { id: "mine" }), Fiber.join(waiting))
          )
          assert.strictEqual(value, 3)
          assert.isBelow(millis, 900)
        }).pipe(Effect.provideContext(store))
      })
    )
  })
})

/**
 * Takes every connection that `other` may have, until the scope closes. A superuser who asks has a connection too, and
 * so has who is about to be refused: one that they give free may go to `app`. The server is full only when `other` has
 * as many as are not reserved: nobody else is let in then, and nobody who was let in is on the way.
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
        // the reserved connections, too, are for a moment those of others who are about to be refused
      }).pipe(Effect.orElseSucceed(() => false))
    )
  })

/** The drivers as a process of its own has them. */
const openDrivers = (server: OwnServer): Effect.Effect<SqlDrivers.Drivers, unknown, Scope.Scope> =>
  Effect.flatMap(Layer.build(clientOf(server.url)), (context) =>
    Effect.provideContext(Effect.andThen(Migrations.run(), SqlDrivers.make({})), context)
  )

const TERMS = {
  leaseMillis: 60_000,
  maxCrashes: 3,
  retentionMillis: undefined,
  deadLetterRetentionMillis: undefined
}

/** Changes the same tasks from two processes at once, and checks that their answers agree. */
const quarrel = (a: SqlDrivers.Drivers, b: SqlDrivers.Drivers, round: number) =>
  Effect.gen(function* () {
    const [settleA, settleB] = [a.backend.fusion!.settle, b.backend.fusion!.settle]
    const ids = numbers(48).map((n) => `round ${round}, task ${n}`)
    const messages = ids.map((id) => ({
      record: record(id),
      message: { id, task: "mail", queue: "default", priority: 100, delayMillis: 0, body: "a message" }
    }))
    assert(Arr.isArrayNonEmpty(messages) && Arr.isArrayNonEmpty(ids))
    yield* a.backend.fusion!.enqueue(messages)
    const claimed = yield* a.backend.fusion!.claim!({
      queues: ["default"],
      max: 32,
      worker: "a",
      leaseMillis: 60_000,
      startDefaults: [{ task: "mail", ...TERMS }]
    })
    const items = claimed.map(({ delivery: { handle, id }, run }) => ({
      handle,
      settlement: { id: id!, token: run!.token, outcome: success() }
    }))
    assert(Arr.isArrayNonEmpty(items))
    assert.strictEqual(items.length, 32)
    const renewals = Arr.map(items, ({ settlement: { id, token } }) => ({ id, token, leaseMillis: 60_000 }))
    const [first, second, settled, settledAgain, settledAlone] = yield* Effect.all(
      [
        a.backend.cancel(ids),
        b.backend.cancel(Arr.reverse(ids)),
        settleA(items),
        settleB(Arr.reverse(items)),
        b.backend.settle(Arr.map(Arr.reverse(items), ({ settlement }) => settlement)),
        a.backend.renew(renewals),
        b.backend.renew(Arr.reverse(renewals)),
        b.broker.renew(
          Arr.map(Arr.reverse(items), ({ handle }) => handle),
          60_000
        ),
        a.backend.read(ids)
      ],
      { concurrency: "unbounded" }
    )
    const started = new Set(items.map(({ settlement }) => settlement.id))
    for (const [i, id] of ids.entries()) {
      const answers = [first[i]!, second[ids.length - 1 - i]!]
      if (started.has(id)) for (const answer of answers) assert.include(["Requested", "AlreadyDone"], answer)
      else assert.sameMembers(answers, ["Cancelled", "AlreadyDone"])
    }
    for (const answers of [settled, settledAgain, settledAlone]) {
      assert.deepStrictEqual(new Set(answers), new Set(["Stored"]))
    }
    const records = yield* b.backend.read(ids)
    for (const [i, found] of records.entries()) {
      assert.strictEqual(found!.state, started.has(ids[i]!) ? "SUCCESS" : "FAILURE")
    }
    yield* b.broker.purge("default", 1_000)
  })

/** Enqueues so many tasks that are to be damaged, `bad 0` and so on, between others that are not, `good 0` and so on. */
const enqueueAround = Effect.fnUntraced(function* (count: number) {
  const before = yield* goodTasks(0, 4)
  const bad = yield* Effect.forEach(numbers(count), (n) =>
    Count.delay({ n: 1_000 + n, millis: 0 }, { id: `bad ${n}` })
  )
  const after = yield* goodTasks(4, 4)
  return { bad, good: [...before, ...after] }
})

const goodTasks = (first: number, count: number) =>
  Effect.forEach(numbers(count), (n) => Count.delay({ n: first + n, millis: 0 }, { id: `good ${first + n}` }))

/** Changes a row by hand. */
const editRow = (server: OwnServer, table: string, id: string, change: string) =>
  server.query(`UPDATE chicory_${table} SET ${change} WHERE id = '${id}'`)
