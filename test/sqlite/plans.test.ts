import { DatabaseSync } from "node:sqlite"
import { afterAll, assert, describe, it, vi } from "@effect/vitest"
import { Array as Arr, Effect } from "effect"
import type { Start } from "../../src/BackendDriver.ts"
import type * as SqlDrivers from "../../src/sql/SqlDrivers.ts"
import * as SqliteStore from "../../src/sqlite/SqliteStore.ts"
import { temporaryFile } from "./temporary.ts"

const texts = new Set<string>()
// oxlint-disable-next-line typescript/unbound-method
const prepare = DatabaseSync.prototype.prepare
vi.spyOn(DatabaseSync.prototype, "prepare").mockImplementation(function (this: DatabaseSync, text, options) {
  texts.add(text)
  return prepare.call(this, text, options)
})
afterAll(() => void vi.restoreAllMocks())

const ids = Arr.map(Arr.range(1, 20), (n) => `task-${n}`)
const never = undefined

const ask = (id: string): Start => ({
  id,
  task: "t",
  generation: 0,
  token: `token of ${id}`,
  worker: "w",
  queue: "q",
  body: "{}",
  leaseMillis: 60_000,
  delivery: "at-most-once",
  maxCrashes: 3,
  expiresMillis: never,
  retentionMillis: 60_000,
  letterRetentionMillis: never
})

/** Everything that a store is asked while tasks run, and now and then. */
const everything = ({ backend, broker }: SqlDrivers.Drivers) =>
  Effect.gen(function* () {
    yield* backend.create(
      Arr.map(ids, (id) => ({
        id,
        task: "t",
        key: id,
        payloadHash: "h",
        expiresMillis: 60_000,
        retentionMillis: 60_000,
        published: false
      }))
    )
    yield* backend.create([
      {
        id: "x",
        task: "t",
        key: ids[0],
        payloadHash: "h",
        expiresMillis: never,
        retentionMillis: never,
        published: true
      }
    ])
    yield* backend.markPublished(ids)
    yield* broker.publish(
      Arr.map(ids, (id, index) => ({
        id,
        task: "t",
        queue: "q",
        priority: index % 3,
        delayMillis: index === 19 ? 1 : 0,
        body: "{}"
      }))
    )
    yield* Effect.sleep(5)
    const claimed = yield* broker.claim({ queues: ["q"], max: 20, leaseMillis: 60_000, worker: "w" })
    assert(Arr.isReadonlyArrayNonEmpty(claimed))
    assert.strictEqual(claimed.length, 20)
    const handles = Arr.map(claimed, ({ handle }) => handle)
    yield* broker.claim({ queues: ["q", "other"], max: 20, leaseMillis: 60_000, worker: "w" })
    yield* broker.renew(handles, 60_000)
    yield* backend.start(Arr.map(ids, ask))
    yield* backend.renew(
      Arr.map(ids, (id) => ({ id, token: `token of ${id}`, leaseMillis: 60_000, progress: "1" }))
    )
    yield* backend.settle(
      Arr.map(ids, (id, index) => ({
        id,
        token: `token of ${id}`,
        outcome:
          index === 0
            ? {
                _tag: "Failure",
                exit: "1",
                retentionMillis: 60_000,
                deadLetter: { reason: "Failed", queue: "q", body: "{}", retentionMillis: never }
              }
            : index === 1
              ? { _tag: "Retry", afterMillis: 0 }
              : { _tag: "Success", exit: "1", retentionMillis: 60_000 }
      }))
    )
    yield* broker.release([{ handle: handles[0], afterMillis: 0 }])
    yield* broker.ack(handles)
    yield* backend.watch(ids)
    yield* backend.cancel(["task-2"])
    yield* backend.deadLetters({ limit: 10 })
    yield* backend.deadLetters({ limit: 10, task: "t", after: "task-1:0" })
    yield* backend.reopen(["task-1:0"])
    yield* backend.removeDeadLetters(["task-1:0"])
    yield* backend.forget(["task-3"])
    yield* backend.sweep(100)
  })

describe("sqlite: plans", () => {
  it.live("no statement scans the tasks or the messages, and none sorts them", () =>
    Effect.gen(function* () {
      const filename = yield* temporaryFile
      yield* Effect.flatMap(SqliteStore.makeDrivers({ filename }), everything)
      const database = new DatabaseSync(filename)
      yield* Effect.addFinalizer(() => Effect.sync(() => database.close()))
      const asked = [...texts].filter(
        (text) => /^(SELECT|INSERT|UPDATE|DELETE)/.test(text) && !/COUNT|_schema/.test(text)
      )
      assert.isAbove(asked.length, 30)
      for (const text of asked) {
        const plan = prepare
          .call(database, `EXPLAIN QUERY PLAN ${text}`)
          .all()
          .map((row) => String(row["detail"]))
        for (const step of plan) {
          assert.notMatch(
            step,
            /^SCAN (chicory_(tasks|messages|dead_letters)|t|m)\b(?!.*INDEX)/,
            `${text}\n${plan.join("\n")}`
          )
          assert.notMatch(
            step,
            /^SCAN .*USING (COVERING )?INDEX chicory_(tasks|messages)/,
            `${text}\n${plan.join("\n")}`
          )
        }
        if (text.includes("ORDER BY priority") && !text.includes("UNION")) {
          assert.isFalse(
            plan.some((step) => step.includes("TEMP B-TREE")),
            plan.join("\n")
          )
        }
      }
    })
  )
})
