/** Guarantee 9 on PostgreSQL: a server that stops, freezes, becomes read-only, or aborts transactions. */
import { assert, describe } from "@effect/vitest"
import { AsyncResult, type Backend, Broker, DeadLetters } from "chicory"
import { Array as Arr, Effect, Exit, Fiber, Layer, type Scope } from "effect"
import * as Migrations from "../../src/sql/schema/Migrations.ts"
import * as SqlDrivers from "../../src/sql/SqlDrivers.ts"
import { record, success } from "../../src/testing/suites/backend/fixture.ts"
import { Count, countingHandler, eventually, roundTrip, startWorker, timed } from "../support/storeFixture.ts"
import {
  crashesOf,
  drained,
  numberOf,
  numbers,
  payloads,
  report,
  retryUntilAccepted,
  retryableMessageOf
} from "./outageFixture.ts"
import {
  clientOf,
  describeWithOwnPostgres,
  type OwnServer,
  openStore,
  testWithServer as test
} from "./ownServer.ts"

describeWithOwnPostgres("guarantee 9: outages of PostgreSQL", () => {
  describe.concurrent("restarts", () => {
    const testRestart = (how: string, stop: (server: OwnServer) => Effect.Effect<void>) =>
      test(
        `a server that is ${how} and started again loses no confirmed task, and no task runs twice`,
        {},
        (server) =>
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
              const after = yield* retryUntilAccepted(Count.delay({ n: 122, millis: 0 }, { id: "meanwhile" }))
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
    testRestart("killed", (server) => server.kill)
    testRestart("stopped", (server) => server.stop)

    test("a worker that starts while the server is down runs tasks once the server is up", {}, (server) =>
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

  describe.concurrent("temporary faults", () => {
    const testFrozen = (how: string, options: { readonly notify?: boolean }) =>
      test(
        `calls fail as retryable while the server is frozen, and work continues after it, ${how}`,
        {},
        (server) =>
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
                const [millis, message] = yield* timed(retryableMessageOf(call))
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

    testFrozen("with notifications", {})
    testFrozen("without notifications", { notify: false })

    test(
      "an enqueue fails as retryable while the server is read-only, and the worker continues after it",
      {},
      (server) =>
        Effect.gen(function* () {
          const producer = yield* openStore(server)
          const runs = countingHandler()
          yield* startWorker(yield* openStore(server), Count, runs.layer, { concurrency: 4 })
          yield* Effect.gen(function* () {
            const handles = yield* Count.delayAll(payloads(40, 100))
            const waiting = yield* Effect.forkChild(AsyncResult.all(handles))
            yield* runs.untilEnded(8)
            yield* server.setReadOnly(true)
            // a connection applies a changed setting between two statements
            const enqueue = Effect.asVoid(Count.delay({ n: 50, millis: 0 }))
            yield* eventually(Effect.map(Effect.exit(enqueue), Exit.isFailure))
            const message = yield* retryableMessageOf(enqueue)
            assert.strictEqual(yield* AsyncResult.state(handles[0]!), "SUCCESS")
            yield* Effect.sleep("2 seconds")
            yield* server.setReadOnly(false)
            const [millis, values] = yield* timed(Fiber.join(waiting))
            yield* report("read-only for 2 s", millis)
            assert.deepStrictEqual(values, numbers(40))
            assert.isBelow(millis, 10_000)
            yield* retryUntilAccepted(enqueue)
            yield* drained
            assert.strictEqual(yield* crashesOf(server), 0)
            assert.strictEqual(runs.begun.filter((n) => n < 40).length, 40)
            assert.include(message, "read-only")
          }).pipe(Effect.provideContext(producer))
        })
    )
  })

  describe.concurrent("aborted transactions", () => {
    test(
      "two processes that settle, cancel and renew the same tasks in any order get consistent answers",
      { settings: { deadlock_timeout: "20ms" } },
      (server) =>
        Effect.gen(function* () {
          const [a, b] = yield* Effect.all([openDrivers(server), openDrivers(server)])
          for (const round of numbers(25)) yield* changeConcurrently(a, b, round)
          const deadlocks = yield* numberOf(server, "deadlocks", "pg_stat_database WHERE datname = 'test'")
          yield* report("deadlocks of 25 rounds (a count)", deadlocks)
        })
    )

    test("tasks run once if all transactions are serializable", {}, (server) =>
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
})

/** Opens drivers with their own connections, as another process would. */
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

/** Changes the same tasks through both drivers at once, and checks that the answers agree. */
const changeConcurrently = (a: SqlDrivers.Drivers, b: SqlDrivers.Drivers, round: number) =>
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
