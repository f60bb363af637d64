/** The table of notifications: how the waiters and idle workers of other processes are woken, and what that costs. */
import { assert, it } from "@effect/vitest"
import { AsyncResult, Backend, Broker, Task } from "chicory"
import { Context, Effect, Exit, Fiber, Latch, Schema, type Scope, Stream } from "effect"
import { SqlClient } from "effect/sql"
import * as Migrations from "../../src/sql/schema/Migrations.ts"
import * as SqlDrivers from "../../src/sql/SqlDrivers.ts"
import { spyOn } from "../sql/statementSpy.ts"
import { eventually, type Store, startWorker, within30Seconds } from "../support/storeFixture.ts"
import * as MysqlClient from "./MysqlClient.ts"
import { describeWithMariadb, sharedUrl, temporaryTables } from "./server.ts"

const Work = Task.make("work", { payload: { n: Schema.Int }, success: Schema.Int })
const QUEUE = "default"

/** After that time all processes know of a registration, and nothing is polled on its account. */
const UNTIL_SEEN = "4 seconds"
/** Longer than a test: what ends before was woken. */
const NEVER = "90 seconds"

interface Process {
  readonly drivers: SqlDrivers.Drivers
  readonly store: Store
  readonly spy: ReturnType<typeof spyOn>
  /** How many statements were sent whose text contains that. */
  readonly count: (part: string) => number
}

/** Opens the store as another process would. What it polls at an interval of its own is polled at that interval. */
const openProcess = Effect.fnUntraced(function* (
  prefix: string,
  pollInterval: string = NEVER,
  options?: SqlDrivers.Options
): Effect.fn.Return<Process, unknown, Scope.Scope> {
  const spy = spyOn(yield* MysqlClient.make({ url: sharedUrl, maxConnections: 6 }))
  const interval = pollInterval as "90 seconds"
  const drivers = yield* Effect.provideService(
    SqlDrivers.make({ prefix, pollInterval: interval, ...options }),
    SqlClient.SqlClient,
    spy.client
  )
  const backend = yield* Backend.make(drivers.backend, { sweepInterval: interval })
  const store = Context.make(Backend.Backend, backend).pipe(
    Context.add(Broker.Broker, yield* Broker.make(drivers.broker))
  )
  const count = (part: string) => spy.answered.filter(({ text }) => text.includes(part)).length
  return { drivers, store, spy, count }
})

const location = Effect.tap(temporaryTables, ({ client, prefix }) =>
  Effect.provideService(Migrations.run({ prefix }), SqlClient.SqlClient, client)
)

/** Parts of the statements that write notifications, and that remove those that were received. */
const written = (prefix: string) => `INSERT INTO \`${prefix}_notifications\``
const received = (prefix: string) => `\`${prefix}_notifications\` AS t`

const countRows = (client: SqlClient.SqlClient, table: string, where = "1 = 1") =>
  Effect.map(
    client.unsafe<{ readonly n: number }>(`SELECT COUNT(*) AS n FROM ${table} WHERE ${where}`),
    ([row]) => Number(row!.n)
  )

const test = (title: string, body: () => Effect.Effect<void, unknown, Scope.Scope>): void =>
  it.live(title, body, 60_000)

/** A handler that holds its runs until the gate is open. */
const makeGate = () => {
  const gate = Latch.makeUnsafe(false)
  let begun = 0
  const layer = Work.toLayer(({ n }) =>
    Effect.suspend(() => {
      begun++
      return Effect.as(gate.await, n)
    })
  )
  return { gate, layer, untilBegun: (count: number) => eventually(Effect.sync(() => begun >= count)) }
}

await describeWithMariadb("mariadb: notifications", () => {
  test("wake a waiter when its task ends in another process", () =>
    Effect.gen(function* () {
      const { prefix } = yield* location
      const caller = yield* openProcess(prefix)
      const worker = yield* openProcess(prefix)
      const { gate, layer, untilBegun } = makeGate()
      yield* startWorker(worker.store, Work, layer)
      yield* Effect.gen(function* () {
        const handle = yield* Work.delay({ n: 7 })
        const waiting = yield* Effect.forkChild(AsyncResult.get(handle))
        yield* untilBegun(1)
        yield* Effect.sleep(UNTIL_SEEN)
        const reads = () => caller.count(`FROM \`${prefix}_tasks\``)
        const readsBefore = reads()
        yield* Effect.sleep("1 seconds")
        assert.strictEqual(reads(), readsBefore)
        gate.openUnsafe()
        assert.strictEqual(yield* within30Seconds(() => "the waiter", Fiber.join(waiting)), 7)
      }).pipe(Effect.provideContext(caller.store))
      const isReceived = Effect.sync(() => caller.count(received(prefix)) > 0)
      yield* within30Seconds(() => "the removal of the row", eventually(isReceived))
    }))

  test("wake a waiter that no writer knows of yet", () =>
    Effect.gen(function* () {
      const { prefix } = yield* location
      const caller = yield* openProcess(prefix)
      const worker = yield* openProcess(prefix)
      yield* startWorker(
        worker.store,
        Work,
        Work.toLayer(({ n }) => Effect.as(Effect.sleep(300), n))
      )
      // the worker has read that nobody waits
      yield* Effect.provideContext(Work.delay({ n: 1 }), worker.store)
      yield* eventually(Effect.sync(() => worker.count("SELECT DISTINCT topic") > 0))
      const got = yield* within30Seconds(
        () => "the waiter",
        Effect.flatMap(Work.delay({ n: 2 }), AsyncResult.get).pipe(Effect.provideContext(caller.store))
      )
      assert.strictEqual(got, 2)
    }))

  test("wake an idle worker when another process enqueues", () =>
    Effect.gen(function* () {
      const { prefix } = yield* location
      const worker = yield* openProcess(prefix)
      const producer = yield* openProcess(prefix)
      let signals = 0
      yield* Effect.forkScoped(
        Stream.runForEach(worker.drivers.broker.ready([QUEUE], 1), () => Effect.sync(() => signals++))
      )
      yield* eventually(Effect.sync(() => signals > 0))
      const claimed = yield* worker.drivers.broker.claim({
        queues: [QUEUE],
        max: 1,
        leaseMillis: 30_000,
        worker: "w",
        claimId: "c"
      })
      assert.deepStrictEqual(claimed, [])
      yield* Effect.sleep(UNTIL_SEEN)
      const before = signals
      yield* Effect.provideContext(Work.delay({ n: 1 }), producer.store)
      yield* within30Seconds(() => "the signal", eventually(Effect.sync(() => signals > before)))
    }))

  test("are made good by polls where they are lost", () =>
    Effect.gen(function* () {
      const { client, prefix } = yield* location
      const caller = yield* openProcess(prefix, "2 seconds")
      const worker = yield* openProcess(prefix, "2 seconds")
      const lost = new Set<Process>()
      for (const process of [caller, worker]) {
        process.spy.hook.before = (text) => {
          if (!text.includes(written(prefix))) return Effect.void
          lost.add(process)
          return Effect.fail(new Error("lost"))
        }
      }
      const { gate, layer, untilBegun } = makeGate()
      yield* startWorker(worker.store, Work, layer)
      yield* Effect.sleep(UNTIL_SEEN)
      yield* Effect.gen(function* () {
        const handle = yield* Work.delay({ n: 7 })
        const waiting = yield* Effect.forkChild(AsyncResult.get(handle))
        yield* within30Seconds(() => "the worker", untilBegun(1))
        yield* Effect.sleep(UNTIL_SEEN)
        gate.openUnsafe()
        assert.strictEqual(yield* within30Seconds(() => "the waiter", Fiber.join(waiting)), 7)
      }).pipe(Effect.provideContext(caller.store))
      assert.deepStrictEqual(lost, new Set([caller, worker]))
      assert.strictEqual(yield* countRows(client, `${prefix}_notifications`), 0)
    }))

  test("are not written in a drain for which nobody waits", () =>
    Effect.gen(function* () {
      const { client, prefix } = yield* location
      const producer = yield* openProcess(prefix)
      const worker = yield* openProcess(prefix)
      const payloads = Array.from({ length: 2000 }, (_, n) => ({ n }))
      yield* Effect.provideContext(Work.delayAll(payloads), producer.store)
      let ended = 0
      let listenersInDrain: number | undefined
      const begunAt = performance.now()
      yield* startWorker(
        worker.store,
        Work,
        Work.toLayer(({ n }) =>
          Effect.gen(function* () {
            yield* Effect.sleep(20)
            if (++ended === payloads.length / 2) {
              listenersInDrain = yield* Effect.orDie(countRows(client, `${prefix}_listeners`))
            }
            return n
          })
        ),
        { concurrency: 20 }
      )
      yield* within30Seconds(() => "the drain", eventually(Effect.sync(() => ended === payloads.length)))
      const seconds = (performance.now() - begunAt) / 1000
      // the worker hears of cancels
      assert.strictEqual(listenersInDrain, 1)
      assert.strictEqual(yield* countRows(client, `${prefix}_notifications`), 0)
      for (const { count } of [producer, worker]) assert.strictEqual(count(written(prefix)), 0)
      // and as many at the start and at the end
      assert.isAtMost(worker.count("SELECT DISTINCT topic"), 2 + seconds / 2.5)
    }))

  test("are not written for a busy worker, which hears of a cancel all the same", () =>
    Effect.gen(function* () {
      const { client, prefix } = yield* location
      const producer = yield* openProcess(prefix)
      const worker = yield* openProcess(prefix)
      const { gate, layer, untilBegun } = makeGate()
      yield* startWorker(worker.store, Work, layer, { concurrency: 1, lease: "10 minutes" })
      const registered = Effect.map(
        countRows(client, `${prefix}_listeners`, `topic = 'queue:${QUEUE}'`),
        (rows) => rows > 0
      )
      yield* within30Seconds(() => "the idle worker", eventually(registered))
      yield* Effect.gen(function* () {
        const running = yield* Work.delay({ n: 1 })
        yield* within30Seconds(() => "the run", untilBegun(1))
        yield* within30Seconds(() => "the busy worker", eventually(Effect.map(registered, (is) => !is)))
        const before = producer.count(written(prefix))
        const next = yield* Work.delay({ n: 2 })
        yield* Effect.sleep(UNTIL_SEEN)
        // the topic is known to have had a registration, which the first statement does not find
        assert.isAtMost(producer.count(written(prefix)), before + 1)
        assert.strictEqual(yield* countRows(client, `${prefix}_notifications`), 0)
        yield* AsyncResult.cancel(running)
        const exit = yield* within30Seconds(() => "the cancelled run", AsyncResult.exit(running))
        assert.isTrue(Exit.isFailure(exit))
        gate.openUnsafe()
        assert.strictEqual(yield* within30Seconds(() => "the next run", AsyncResult.get(next)), 2)
      }).pipe(Effect.provideContext(producer.store))
    }))

  test("are neither written nor read when the last waiter has left", () =>
    Effect.gen(function* () {
      const { client, prefix } = yield* location
      const caller = yield* openProcess(prefix)
      const worker = yield* openProcess(prefix)
      yield* startWorker(
        worker.store,
        Work,
        Work.toLayer(({ n }) => Effect.succeed(n))
      )
      yield* Effect.provideContext(Effect.flatMap(Work.delay({ n: 1 }), AsyncResult.get), caller.store)
      yield* within30Seconds(
        () => "the removal",
        eventually(
          Effect.map(countRows(client, `${prefix}_listeners`, "topic = 'ends'"), (rows) => rows === 0)
        )
      )
      const reads = () => caller.count("SELECT at, nr, payload")
      const before = reads()
      yield* Effect.sleep("3 seconds")
      assert.isAtMost(reads() - before, 1)
    }))

  test("of processes that are gone are removed", () =>
    Effect.gen(function* () {
      const { client, prefix } = yield* location
      const [listeners, notifications] = [`${prefix}_listeners`, `${prefix}_notifications`]
      yield* client.unsafe(`INSERT INTO ${listeners} (id, topic, until)
        VALUES ('gone', 'ends', 1), ('gone', 'queue:a', 1), ('there', 'ends', 9000000000000)`)
      yield* client.unsafe(`INSERT INTO ${notifications} (id, at, nr, payload)
        VALUES ('gone', 1, 1, '{}'), ('gone', 2, 1, '{}'), ('there', 8000000000000, 1, '{}')`)
      const { drivers } = yield* openProcess(prefix)
      yield* drivers.backend.sweep(10)
      for (const table of [listeners, notifications]) {
        assert.strictEqual(yield* countRows(client, table, "id = 'gone'"), 0)
        assert.strictEqual(yield* countRows(client, table, "id = 'there'"), 1)
      }
    }))

  test("of a process that closes are removed", () =>
    Effect.gen(function* () {
      const { client, prefix } = yield* location
      yield* Effect.scoped(
        Effect.gen(function* () {
          const { drivers, store } = yield* openProcess(prefix)
          yield* Effect.forkScoped(Stream.runDrain(drivers.backend.hints!))
          yield* drivers.backend.subscribe(["a"])
          yield* Effect.provideContext(Work.delay({ n: 1 }), store)
          yield* eventually(
            Effect.map(countRows(client, `${prefix}_listeners`), (registered) => registered > 1)
          )
          yield* client.unsafe(`INSERT INTO ${prefix}_notifications (id, at, nr, payload)
            SELECT DISTINCT id, 1, 1, '{}' FROM ${prefix}_listeners`)
        })
      )
      for (const table of ["listeners", "notifications"]) {
        assert.strictEqual(yield* countRows(client, `${prefix}_${table}`), 0)
      }
    }))

  test("are skipped and removed if they are not readable", () =>
    Effect.gen(function* () {
      const { client, prefix } = yield* location
      const { drivers } = yield* openProcess(prefix)
      const hints: Array<unknown> = []
      yield* Effect.forkScoped(
        Stream.runForEach(drivers.backend.hints!, (hint) => Effect.sync(() => hints.push(hint)))
      )
      yield* drivers.backend.subscribe(["a"])
      yield* Effect.sleep(UNTIL_SEEN)
      hints.length = 0
      const insert = (nr: number, payload: string) =>
        client.unsafe(
          `INSERT INTO ${prefix}_notifications (id, at, nr, payload)
          SELECT DISTINCT id, UNIX_TIMESTAMP() * 1000, ?, ? FROM ${prefix}_listeners`,
          [nr, payload]
        )
      yield* insert(1, "no JSON")
      yield* insert(2, JSON.stringify({ source: "x", topic: "ends", ids: ["a", "b"] }))
      yield* within30Seconds(
        () => "the rows",
        eventually(Effect.map(countRows(client, `${prefix}_notifications`), (rows) => rows === 0))
      )
      assert.deepStrictEqual(hints, [["a"]])
    }))

  test("are hints that are not reliable, and none with `notify: false`", () =>
    Effect.gen(function* () {
      const { prefix } = yield* location
      const { backend, broker } = (yield* openProcess(prefix)).drivers
      assert.isTrue(backend.capabilities.hints)
      assert.isUndefined(backend.capabilities.reliableHints)
      assert.isUndefined(broker.capabilities.reliableHints)
      const polling = yield* openProcess(prefix, NEVER, { notify: false })
      assert.isFalse(polling.drivers.backend.capabilities.hints)
      assert.isUndefined(polling.drivers.backend.hints)
    }))
})
