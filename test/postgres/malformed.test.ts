/** Rows and notifications that other programs write: none of them may stop tasks that have no part in it. */
import { assert, describe } from "@effect/vitest"
import { AsyncResult, Broker, DeadLetters } from "chicory"
import { Effect, Fiber, Option } from "effect"
import { Count, countingHandler, eventually, roundTrip, startWorker, timed } from "../support/storeFixture.ts"
import { LISTENS, drained, numbers, payloads, unswept, untilListening } from "./outageFixture.ts"
import { describeWithOwnPostgres, type OwnServer, openStore, testWithServer as test } from "./ownServer.ts"

describeWithOwnPostgres("malformed rows in PostgreSQL", () => {
  describe.concurrent("written by other programs", () => {
    test(
      "an undecodable message becomes a dead letter and fails its task, and other tasks run",
      {},
      (server) =>
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
              "body = (SELECT body FROM chicory_messages WHERE id = 'good 0')"
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
            assert.strictEqual(
              letters.find(({ taskId }) => Option.getOrNull(taskId) === "bad 0")!.raw,
              "nonsense"
            )
            yield* drained
            assert.sameMembers(runs.begun, numbers(good.length))
          }).pipe(Effect.provideContext(store))
        })
    )

    test(
      "a message whose id was changed becomes a dead letter, and those whose task was changed or that are claimed forever delay no other",
      {},
      (server) =>
        Effect.gen(function* () {
          const store = yield* openStore(server)
          yield* Effect.gen(function* () {
            const edits = [
              "id = 'nobody'",
              "id = ''",
              "task = 'nothing'",
              "task = ''",
              "state = 2, claim = 'x'"
            ]
            const { good } = yield* enqueueAround(edits.length)
            for (const [i, edit] of edits.entries()) yield* editRow(server, "messages", `bad ${i}`, edit)
            yield* startWorker(yield* openStore(server), Count, countingHandler().layer, { concurrency: 4 })
            const values = yield* AsyncResult.all(good)
            assert.deepStrictEqual(values, numbers(good.length))
            yield* eventually(Effect.map(DeadLetters.count(), (count) => count === 2))
            const [counts] = yield* Broker.counts(["default"])
            assert.deepStrictEqual([counts?.ready, counts?.setAside], [0, 2])
            assert.strictEqual(yield* roundTrip(9), 9)
          }).pipe(Effect.provideContext(store))
        })
    )

    test("an undecodable record fails its readers, and other tasks run", {}, (server) =>
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

    test("the constraints of the tables reject unknown states and missing values", {}, (server) =>
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
          `an out-of-range number in the ${table} (${edit}) is rejected or delays no other task`,
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

    test("deleting a record interrupts its handler, and its message is dropped", {}, (server) =>
      Effect.gen(function* () {
        const store = yield* openStore(server)
        yield* Effect.gen(function* () {
          const runs = countingHandler()
          yield* startWorker(store, Count, runs.layer, { concurrency: 1, lease: "900 millis" })
          const handle = yield* Count.delay({ n: 1, millis: 600_000 })
          yield* runs.untilBegun(1)
          yield* server.query("DELETE FROM chicory_tasks")
          yield* runs.untilInterrupted
          yield* drained
          assert.strictEqual(yield* AsyncResult.cancel(handle), "Unknown")
          assert.strictEqual(yield* roundTrip(2), 2)
        }).pipe(Effect.provideContext(store))
      })
    )

    test("a running task whose message is deleted still ends", {}, (server) =>
      Effect.gen(function* () {
        const store = yield* openStore(server)
        yield* Effect.gen(function* () {
          const runs = countingHandler()
          yield* startWorker(store, Count, runs.layer, { concurrency: 1, lease: "3 seconds" })
          // the lease is renewed after a second
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

    test("a worker continues after all rows are deleted while tasks run", {}, (server) =>
      Effect.gen(function* () {
        const producer = yield* openStore(server)
        yield* Effect.gen(function* () {
          const runs = countingHandler()
          const options = { concurrency: 4, lease: "900 millis" } as const
          yield* startWorker(yield* openStore(server), Count, runs.layer, options)
          yield* Count.delayAll(payloads(20, 200))
          yield* runs.untilEnded(4)
          const tables = ["tasks", "messages", "listeners", "workers", "dead_letters"]
          // one by one, since a statement that locks several tables deadlocks with the worker's statements
          for (const table of tables) yield* server.query(`TRUNCATE chicory_${table}`)
          assert.strictEqual(yield* roundTrip(100), 100)
          yield* drained
        }).pipe(Effect.provideContext(producer))
      })
    )

    test("notifications from other programs are ignored", {}, (server) =>
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

/** Enqueues `count` tasks to be damaged (`bad 0`, …) between eight others (`good 0`, …). */
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

/** Changes a row. */
const editRow = (server: OwnServer, table: string, id: string, change: string) =>
  server.query(`UPDATE chicory_${table} SET ${change} WHERE id = '${id}'`)
