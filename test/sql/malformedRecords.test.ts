/** Malformed rows of tasks: they hold up no other task, and no waiter waits for ever. */
import { assert, describe } from "@effect/vitest"
import { AsyncResult } from "chicory"
import { Cause, Effect, Exit, Option } from "effect"
import { nested } from "../fuzz/bodies.ts"
import { BOUND, drained, stillWorks, settled, type Test, testsAt } from "../fuzz/sqlStore.ts"
import { describeWithMariadb } from "../mariadb/server.ts"
import { describeWithPostgres } from "../postgres/server.ts"
import { isFullRun } from "../support/fullRun.ts"
import { Count } from "../support/storeFixture.ts"
import * as TemporaryLocations from "../support/temporaryLocations.ts"

const huge = 2n ** 60n

/** Columns with values that the library does not write. The short form of the suite runs the first six. */
const edits: ReadonlyArray<readonly [column: string, value: bigint | number | string | null]> = [
  ["published", 7],
  ["cancel_requested", 7],
  ["lease_until", huge],
  ["due_at", huge],
  ["expires_at", huge],
  ["attempt", -5],
  ["generation", huge],
  ["state", "SLEEPING"],
  ["ended", "Nothing"],
  ["payload_hash", null],
  ["at_most_once", 7],
  ["lease_until", -huge],
  ["lease_until", 1],
  ["lease_until", 8_000_000_000_000_000],
  ["attempt", huge],
  ["retries", -5],
  ["retries", huge],
  ["crashes", -5],
  ["fence", -5],
  ["fence", huge],
  ["generation", 5],
  ["generation", -5],
  ["retention", -5],
  ["retention", huge],
  ["remove_at", -huge],
  ["remove_at", 1],
  ["check_at", huge],
  ["check_at", -1],
  ["enqueued_at", 8_700_000_000_000_000],
  ["ended", "Forgotten"],
  ["token", ""],
  ["worker", "\u2028"],
  ["queue", "elsewhere"],
  ["progress", "}{"],
  ["body", "}{"]
]

/** Malformed exits. */
const exits = {
  "not JSON": "}{",
  nothing: "",
  "JSON of another shape": `[{"_tag":"Success"}]`,
  "a success of another type": `{"_tag":"Success","value":"one"}`,
  "an unknown reason": `{"_tag":"Failure","reason":{"_tag":"Bored"}}`,
  "a reason without its fields": `{"_tag":"Failure","reason":{"_tag":"WorkerLost"}}`,
  "an invalid date": `{"_tag":"Failure","reason":{"_tag":"Expired","expiredAt":"+275760-09-13T00:00:00.001Z"}}`,
  "an invalid duration": `{"_tag":"Failure","reason":{"_tag":"TimedOut","timeout":-1e999}}`,
  "a deeply nested one": nested,
  "a prototype": `{"__proto__":{"_tag":"Success","value":1}}`
}

/** Times outside the range of dates. */
const times = {
  "when it was enqueued": "enqueued_at = 8700000000000000",
  "when it started": "started_at = 8700000000000000",
  "when it finished": "finished_at = 8700000000000000",
  "when it expired":
    "state = 'FAILURE', ended = 'Expired', outcome = NULL, finished_at = 8700000000000000, expires_at = 8700000000000000"
}

const nine = Array.from({ length: 9 }, (_, n) => ({ n, millis: 0 }))

/** Returns whether an exit is a success or a typed failure, and no defect. */
const isTyped = (exit: Exit.Exit<unknown, unknown>): boolean =>
  Exit.isSuccess(exit) || !Cause.hasDies(exit.cause)

const suite = (test: Test): void => {
  for (const state of isFullRun ? ["PENDING", "STARTED", "RETRY"] : ["STARTED"]) {
    for (const [column, value] of isFullRun ? edits : edits.slice(0, 6)) {
      test(`holds up no other task if ${column} of a record in ${state} is ${value}`, (store) =>
        Effect.gen(function* () {
          const handles = yield* Count.delayAll(nine)
          const bad = handles[4]!
          const taken = yield* store.accepts(
            `UPDATE {tasks} SET ${column === "state" ? "" : `state = '${state}',`} ${column} = ? WHERE id = ?`,
            value,
            bad.taskId
          )
          const states = yield* Effect.forEach(handles, (handle) => Effect.exit(AsyncResult.state(handle)), {
            concurrency: "unbounded"
          })
          for (const [i, exit] of states.entries()) {
            if (i !== 4) {
              assert.deepStrictEqual(exit, Exit.succeed("PENDING"))
            } else if (Exit.isFailure(exit)) {
              const error = Option.getOrThrow(Exit.findErrorOption(exit))
              assert(error._tag === "BackendError")
              assert.isFalse(error.retryable, error.message)
              assert.include(error.message, bad.taskId)
            }
          }
          // all of them are in one claim
          yield* store.work()
          const good = handles.filter((handle) => handle !== bad)
          assert.deepStrictEqual(yield* AsyncResult.all(good, { timeout: BOUND }), [0, 1, 2, 3, 5, 6, 7, 8])
          const exit = yield* Effect.exit(AsyncResult.get(bad, { timeout: "200 millis" }))
          assert.isTrue(isTyped(exit), String(exit))
          if (!taken) assert.deepStrictEqual(yield* AsyncResult.get(bad, { timeout: BOUND }), 4)
          yield* stillWorks
          yield* settled
        }))
    }
  }

  test("fails a read of a malformed exit with ResultInvalid, and no other read", (store) =>
    Effect.gen(function* () {
      yield* store.work()
      const bad = Object.entries(exits)
      const handles = yield* Count.delayAll([...bad.keys(), bad.length].map((n) => ({ n, millis: 0 })))
      yield* AsyncResult.all(handles, { timeout: BOUND })
      for (const [n, [, exit]] of bad.entries()) {
        yield* store.sql("UPDATE {tasks} SET outcome = ? WHERE id = ?", exit, handles[n]!.taskId)
      }
      const all = yield* Effect.forEach(
        handles,
        (handle) => Effect.exit(AsyncResult.get(handle, { timeout: BOUND })),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(all.at(-1), Exit.succeed(bad.length))
      for (const [n, [what]] of bad.entries()) {
        const handle = handles[n]!
        const error = yield* Effect.flip(all[n]!)
        assert(
          error._tag === "TaskFailed" && error.reason._tag === "ResultInvalid",
          `${what}: ${String(error)}`
        )
        assert.strictEqual(error.reason.side, "reader")
        assert.include(error.message, handle.taskId)
        assert.isBelow(error.message.length, 20_000)
        const result = Option.getOrThrow(yield* AsyncResult.poll(handle))
        assert.strictEqual(result.state, "SUCCESS")
        // a handle without schemas returns any exit that decodes
        assert.isTrue(isTyped(yield* Effect.exit(AsyncResult.get(AsyncResult.make(handle.taskId)))), what)
      }
    }))

  test("reads a time outside the range of dates without a defect", (store) =>
    Effect.gen(function* () {
      yield* store.work()
      for (const [what, set] of Object.entries(times)) {
        const handle = yield* Count.delay({ n: 1, millis: 0 })
        yield* AsyncResult.get(handle, { timeout: BOUND })
        yield* store.accepts(`UPDATE {tasks} SET ${set} WHERE id = ?`, handle.taskId)
        for (const read of [
          Effect.asVoid(AsyncResult.get(handle, { timeout: BOUND })),
          Effect.asVoid(AsyncResult.poll(handle)),
          Effect.asVoid(AsyncResult.state(handle))
        ]) {
          const exit: Exit.Exit<void, unknown> = yield* Effect.exit(read)
          assert.isTrue(isTyped(exit), `${what}: ${String(exit)}`)
        }
      }
    }))

  test("reads an end without an exit as ResultInvalid, and a malformed progress as None", (store) =>
    Effect.gen(function* () {
      yield* store.work()
      const handle = yield* Count.delay({ n: 1, millis: 0 })
      yield* AsyncResult.get(handle, { timeout: BOUND })
      yield* store.sql("UPDATE {tasks} SET outcome = NULL, progress = '}{' WHERE id = ?", handle.taskId)
      const error = yield* Effect.flip(AsyncResult.get(handle))
      assert(error._tag === "TaskFailed" && error.reason._tag === "ResultInvalid")
      const result = Option.getOrThrow(yield* AsyncResult.poll(handle))
      assert.isTrue(Option.isNone(result.progress))
      yield* store.sql("UPDATE {tasks} SET ended = 'WorkerLost', worker = NULL WHERE id = ?", handle.taskId)
      const lost = yield* Effect.flip(AsyncResult.get(handle))
      assert(lost._tag === "TaskFailed" && lost.reason._tag === "WorkerLost")
      assert.strictEqual(lost.reason.worker, "unknown")
    }))

  test("drops a message of an older generation than the record", (store) =>
    Effect.gen(function* () {
      const handle = yield* Count.delay({ n: 1, millis: 0 })
      yield* store.sql("UPDATE {tasks} SET generation = 5 WHERE id = ?", handle.taskId)
      const runs = yield* store.work()
      yield* drained
      assert.deepStrictEqual(runs.begun, [])
      assert.strictEqual((yield* Effect.flip(AsyncResult.get(handle, { timeout: 0 })))._tag, "TimeoutError")
    }))

  test("drops the outcome of a run whose record was edited, and stores the others", (store) =>
    Effect.gen(function* () {
      const runs = yield* store.work({ lease: "2 seconds" })
      const handles = yield* Count.delayAll(nine.map(({ n }) => ({ n, millis: 600 })))
      yield* runs.untilBegun(9)
      yield* store.sql("UPDATE {tasks} SET token = 'another' WHERE id = ?", handles[4]!.taskId)
      yield* store.accepts("UPDATE {tasks} SET published = 7 WHERE id = ?", handles[5]!.taskId)
      const good = handles.filter((_, n) => n !== 4 && n !== 5)
      assert.deepStrictEqual(yield* AsyncResult.all(good, { timeout: BOUND }), [0, 1, 2, 3, 6, 7, 8])
      yield* stillWorks
    }))
}

describe.concurrent("sqlite: malformed records", () => suite(testsAt(TemporaryLocations.sqlite)))
await describeWithPostgres("postgres", () =>
  describe.concurrent("malformed records", () => suite(testsAt(TemporaryLocations.postgres)))
)
await describeWithMariadb("mariadb", () =>
  describe.concurrent("malformed records", () => suite(testsAt(TemporaryLocations.mariadb)))
)
