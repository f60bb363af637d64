/** Tests of `SqlStore.transact` in processes that are killed or frozen: a handler's write is there exactly once. */
import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { AsyncResult, type Backend, type Broker, type Worker } from "chicory"
import { Effect, Layer, Random, type Scope } from "effect"
import { SqlClient } from "effect/sql"
import { isFullRun } from "./fullRun.ts"
import { drained, poll, startWorker, type WorkerProcess } from "./processes.ts"
import { Count, type StopAt, Write } from "./processTasks.ts"
import * as StoreLocations from "./storeLocations.ts"

type Temporary = Effect.Effect<StoreLocations.SqlLocation, unknown, Scope.Scope>

type Services =
  | Scope.Scope
  | NodeServices.NodeServices
  | Backend.Backend
  | Broker.Broker
  | SqlClient.SqlClient

type Handle = Effect.Success<ReturnType<typeof Write.delay>>

/** The table that handlers write to. */
interface WrittenTable {
  /** The processes that wrote for a task. */
  readonly writers: (n: number) => Effect.Effect<ReadonlyArray<number>, unknown>
  /** Counts the rows of the store's tables that no transaction has locked. */
  readonly free: Effect.Effect<number, unknown>
}

const makeTable = Effect.fnUntraced(function* ({
  prefix
}: StoreLocations.SqlLocation): Effect.fn.Return<WrittenTable, unknown, SqlClient.SqlClient | Scope.Scope> {
  const sql = yield* SqlClient.SqlClient
  const table = sql(`${prefix}_written`)
  yield* Effect.acquireRelease(
    // a row for every write: only the transactions keep a task from having two
    sql`CREATE TABLE ${table} (n INTEGER NOT NULL, pid INTEGER NOT NULL)`,
    () => Effect.orDie(sql`DROP TABLE ${table}`)
  )
  return {
    writers: (n) =>
      Effect.map(sql<{ readonly pid: number }>`SELECT pid FROM ${table} WHERE n = ${n}`, (rows) =>
        rows.map(({ pid }) => pid)
      ),
    free: Effect.map(
      Effect.forEach(["tasks", "messages"], (name) =>
        sql.withTransaction(sql`SELECT 1 FROM ${sql(`${prefix}_${name}`)} FOR UPDATE SKIP LOCKED`)
      ),
      (found) => found.flat().length
    )
  }
})

const makeTest =
  (temporaryLocation: Temporary) =>
  (
    name: string,
    body: (
      location: StoreLocations.SqlLocation,
      written: WrittenTable
    ) => Effect.Effect<void, unknown, Services>
  ): void =>
    it.live(
      name,
      () =>
        Effect.gen(function* () {
          const location = yield* temporaryLocation
          yield* Effect.provide(
            Effect.scoped(Effect.flatMap(makeTable(location), (written) => body(location, written))),
            Layer.mergeAll(NodeServices.layer, StoreLocations.sqlLayer(location))
          )
        }),
      // that of the other tests with processes
      60_000
    )

const untilStopped = (worker: WorkerProcess, count: number): Effect.Effect<void> =>
  worker.until((events) => events.filter(({ _tag }) => _tag === "Stopped").length >= count)

/** Checks that a task succeeded and that its one row is that of the run with its result. */
const expectOnce = Effect.fnUntraced(function* (written: WrittenTable, n: number, handle: Handle) {
  const value = yield* AsyncResult.get(handle)
  assert.deepStrictEqual(yield* written.writers(n), [value.pid], `the writers of task ${n}`)
  assert.strictEqual(value.n, n)
  const seen = yield* poll(handle)
  assert.strictEqual(seen.state, "SUCCESS")
  return { writer: value.pid, attempts: seen.attempts }
})

const lease = "1 second"

/** Registers tests with workers that are killed. */
export const killed = (temporaryLocation: Temporary): void => {
  const test = makeTest(temporaryLocation)

  /** Kills a worker whose handlers have all reached a point, and starts another one. */
  const killedAt = Effect.fnUntraced(function* (
    location: StoreLocations.SqlLocation,
    stopAt: StopAt,
    count: number
  ) {
    const options: Worker.Options = { lease, concurrency: count }
    const first = yield* startWorker(location, options)
    const payloads = Array.from({ length: count }, (_, n) => ({
      n,
      stopAt,
      millis: 600_000,
      stubborn: false
    }))
    const handles = yield* Write.delayAll(payloads)
    yield* untilStopped(first, count)
    yield* first.kill
    const second = yield* startWorker(location, options)
    return { first, second, handles }
  })

  describe("guarantee 1: a worker killed during its transaction", () => {
    // a transaction on SQLite locks the whole file
    const countIn = ({ dialect }: StoreLocations.SqlLocation) => (dialect === "sqlite" ? 1 : 4)

    for (const [stopAt, where] of [
      ["Written", "between its write and the outcome"],
      ["Completed", "between the outcome and the commit"]
    ] as const) {
      test(`${where} leaves no write, and the task runs once more`, (location, written) =>
        Effect.gen(function* () {
          const { handles, second } = yield* killedAt(location, stopAt, countIn(location))
          for (const [n, handle] of handles.entries()) {
            const once = yield* expectOnce(written, n, handle)
            assert.deepStrictEqual(once, { writer: second.pid, attempts: 2 })
          }
          yield* drained
        }))
    }

    test("right after the commit leaves a finished task", (location, written) =>
      Effect.gen(function* () {
        const { first, handles, second } = yield* killedAt(location, "Committed", 4)
        for (const [n, handle] of handles.entries()) {
          const once = yield* expectOnce(written, n, handle)
          assert.deepStrictEqual(once, { writer: first.pid, attempts: 1 })
        }
        // no message comes back
        yield* drained
        assert.isFalse(second.events.some(({ _tag }) => _tag === "Began"))
      }))

    test("at random moments leaves one row for each task", (location, written) =>
      Effect.gen(function* () {
        const options: Worker.Options = { lease, concurrency: 4 }
        const handles: Array<Handle> = []
        let worker = yield* startWorker(location, options)
        let hitsRun = false
        // a random moment may be between two runs
        for (let round = 0; round < (isFullRun ? 5 : 2) || !hitsRun; round++) {
          const next = yield* startWorker(location, options)
          const payloads = yield* Effect.forEach(Array.from({ length: 40 }), (_, index) =>
            Effect.map(Random.nextIntBetween(0, 80), (millis) => ({
              n: handles.length + index,
              // the first run of a handler pauses in its transaction or after it
              stopAt: index % 2 === 0 ? ("Written" as const) : ("Committed" as const),
              millis,
              stubborn: false
            }))
          )
          handles.push(...(yield* Write.delayAll(payloads)))
          yield* worker.untilBegan(2)
          yield* Effect.flatMap(Random.nextIntBetween(0, 50), Effect.sleep)
          yield* worker.kill
          worker = next
          const runs = yield* Effect.forEach(handles.entries(), ([n, handle]) =>
            expectOnce(written, n, handle)
          )
          hitsRun = runs.some(({ attempts }) => attempts > 1)
        }
        yield* drained
      }))
  })
}

/**
 * Freezes a worker between its own statements: a worker frozen during a renewal would keep the rows of its tasks
 * locked.
 */
const freeze = (worker: WorkerProcess, written: WrittenTable, rows: number) =>
  Effect.repeat(
    worker
      .signal("SIGCONT")
      .pipe(
        Effect.andThen(Effect.sleep("20 millis")),
        Effect.andThen(worker.signal("SIGSTOP")),
        Effect.andThen(written.free)
      ),
    { until: (free) => free === rows }
  )

/** Registers tests with frozen workers, on databases where writers do not exclude each other. */
export const frozen = (temporaryLocation: Temporary): void => {
  const test = makeTest(temporaryLocation)

  describe("guarantee 3: a worker frozen in its transaction", () => {
    for (const [stubborn, how] of [
      [false, "is interrupted"],
      [true, "completes"]
    ] as const) {
      test(`until another has run its task ${how} when it wakes and commits nothing`, (location, written) =>
        Effect.gen(function* () {
          const first = yield* startWorker(location, { lease })
          const millis = stubborn ? 2500 : 600_000
          const handle = yield* Write.delay({ n: 1, stopAt: "Written", millis, stubborn })
          yield* untilStopped(first, 1)
          // the rows of the record and the message
          yield* freeze(first, written, 2)
          const second = yield* startWorker(location, { lease })
          const once = { writer: second.pid, attempts: 2 }
          assert.deepStrictEqual(yield* expectOnce(written, 1, handle), once)
          yield* first.signal("SIGCONT")
          yield* first.until((events) => events.some(({ _tag }) => _tag === "Interrupted"))
          assert.deepStrictEqual(yield* expectOnce(written, 1, handle), once)
          // it continues with other tasks
          yield* second.signal("SIGTERM")
          assert.isTrue(yield* second.ended)
          const other = yield* Count.delay({ n: 2, millis: 0 })
          assert.deepStrictEqual(yield* AsyncResult.get(other), {
            n: 2,
            pid: first.pid
          })
          yield* first.signal("SIGTERM")
          assert.isTrue(yield* first.ended)
          assert.deepStrictEqual(yield* expectOnce(written, 1, handle), once)
          yield* drained
        }))
    }
  })
}

/** Registers tests with frozen workers that hold locks on the store's rows. */
export const lockedOut = (temporaryLocation: Temporary): void => {
  const test = makeTest(temporaryLocation)

  describe("guarantee 3: a worker frozen between the outcome and the commit", () => {
    test("blocks no other worker and is replaced when it is killed", (location, written) =>
      Effect.gen(function* () {
        const first = yield* startWorker(location, { lease })
        const handle = yield* Write.delay({ n: 1, stopAt: "Completed", millis: 600_000, stubborn: false })
        yield* untilStopped(first, 1)
        yield* first.signal("SIGSTOP")
        const second = yield* startWorker(location, { lease })
        const others = yield* Count.delayAll(
          // until the frozen worker's lease has run out, and beyond
          Array.from({ length: 60 }, (_, n) => ({ n, millis: n < 10 ? 2000 : 100 }))
        )
        yield* AsyncResult.all(others)
        const seen = yield* Effect.timeout(poll(handle), "2 seconds")
        assert.deepStrictEqual([seen.state, seen.attempts], ["STARTED", 1])
        assert.deepStrictEqual(yield* written.writers(1), [])
        yield* first.kill
        assert.deepStrictEqual(yield* expectOnce(written, 1, handle), { writer: second.pid, attempts: 2 })
        yield* drained
      }))
  })
}
