/** Malformed rows of messages: they hold up no other message, and their bytes are kept. */
import { assert, describe } from "@effect/vitest"
import { AsyncResult, DeadLetters } from "chicory"
import { Effect, Exit, Option } from "effect"
import { maxBytes } from "../../src/internal/defaults.ts"
import { maxMessageBytes } from "../../src/internal/driver/maxMessageBytes.ts"
import { messageOf, messageWith, undecodableBodies } from "../fuzz/bodies.ts"
import {
  BOUND,
  type SqlTestStore,
  drained,
  exitOf,
  stillWorks,
  untilDeadLetters,
  type RawMessage,
  reasonOf,
  settled,
  type Test,
  testsAt
} from "../fuzz/sqlStore.ts"
import { describeWithMariadb } from "../mariadb/server.ts"
import { describeWithPostgres } from "../postgres/server.ts"
import { isFullRun } from "../support/fullRun.ts"
import { Count } from "../support/storeFixture.ts"
import * as TemporaryLocations from "../support/temporaryLocations.ts"

/** Values of types that most fields do not have. */
const types: ReadonlyArray<unknown> = [null, true, {}, [], [1], { length: 1 }]
const fields = ["id", "generation", "task", "queue", "retries", "priority", "expires"]

/** Numbers out of range. */
const numbers = ["-1", "1.5", "1e999", "-1e999", "-1e308", "9007199254740993", "-9007199254740991"]

/** Columns with values that the library does not write. The short form of the suite runs the first four. */
const rows: ReadonlyArray<readonly [column: string, value: bigint | number]> = [
  ["generation", 2n ** 60n],
  ["due_at", 2n ** 60n],
  ["seq", 2n ** 60n],
  ["body", 7],
  ["priority", 32767],
  ["generation", -1],
  ["due_at", -1],
  ["priority", -32768],
  ["seq", 0],
  ["body", 7.5]
]

const good = (count: number): ReadonlyArray<RawMessage> =>
  Array.from({ length: count }, (_, n) => ({ id: `good ${n}`, body: messageOf(`good ${n}`) }))

/** Waits until as many well-formed messages have run. */
const allRun = (count: number) =>
  AsyncResult.all(
    good(count).map(({ id }) => Count.result(id)),
    { timeout: BOUND }
  )

const suite = (test: Test): void => {
  test("parks an undecodable message with exactly its bytes, and ends its task", (store) =>
    Effect.gen(function* () {
      yield* store.work()
      const bodies = undecodableBodies.map((body, n) => body(`bad ${n}`))
      yield* store.publish(...good(2), ...bodies.map((body, n) => ({ id: `bad ${n}`, body })))
      const found = yield* untilDeadLetters(bodies.length)
      assert.sameMembers(
        found.map(({ raw }) => raw),
        bodies
      )
      for (const { queue, reason, taskId } of found) {
        assert.strictEqual(queue, "default")
        assert.strictEqual(reason._tag, "PayloadInvalid")
        const body = found.find((letter) => letter.taskId === taskId)!.raw
        assert.strictEqual(bodies[Number(Option.getOrThrow(taskId).slice(4))], body)
        assert.strictEqual(yield* reasonOf(Option.getOrThrow(taskId)), "PayloadInvalid")
      }
      yield* allRun(2)
      yield* stillWorks
      yield* drained
    }))

  test("ends the task of a message with a field of another type, and no other task", (store) =>
    Effect.gen(function* () {
      yield* store.work()
      const bodies = fields.flatMap((field) =>
        types.map((value) => (id: string) => messageOf(id, { [field]: value }))
      )
      yield* store.publish(
        ...good(2),
        ...bodies.map((body, n) => ({ id: `bad ${n}`, body: body(`bad ${n}`) }))
      )
      yield* untilDeadLetters(bodies.length)
      yield* allRun(2)
      yield* stillWorks
      yield* drained
      assert.strictEqual(yield* DeadLetters.count(), bodies.length)
    }))

  test("ends every task whose message has a number out of range, and holds up no other", (store) =>
    Effect.gen(function* () {
      const bodies = ["generation", "retries", "priority", "expires"].flatMap((field) =>
        numbers.map((number) => (id: string) => messageWith(id, field, number))
      )
      const bad = bodies.map((body, n) => ({ id: `bad ${n}`, body: body(`bad ${n}`) }))
      yield* store.publish(...good(4), ...bad)
      // many of them are in one claim
      yield* store.work()
      yield* allRun(4)
      for (const { body, id } of bad) {
        const exit = yield* exitOf(id)
        const ended = Option.match(Exit.findErrorOption(exit), {
          onNone: () => Exit.isSuccess(exit),
          onSome: (error) => error._tag === "TaskFailed"
        })
        assert.isTrue(ended, body)
      }
      yield* stillWorks
      yield* drained
    }))

  for (const [column, value] of isFullRun ? rows : rows.slice(0, 4)) {
    test(`refuses a row whose ${column} is ${value}, or runs the messages around it`, (store) =>
      Effect.gen(function* () {
        yield* store.publish(...good(2))
        // MariaDB continues its sequence from there, even if it refuses the row
        if (column === "seq" && store.dialect === "mysql") return
        const overriding = store.dialect === "postgres" ? "OVERRIDING SYSTEM VALUE" : ""
        const columns = {
          seq: 1_000_000,
          queue: "default",
          priority: 100,
          state: 0,
          due_at: 0,
          id: "bad",
          task: "count",
          generation: 0,
          body: messageOf("bad"),
          [column]: value
        }
        yield* store.create("bad")
        const taken = yield* store.accepts(
          `INSERT INTO {messages} (${Object.keys(columns).join(", ")}) ${overriding}
            VALUES (${Object.keys(columns)
              .map(() => "?")
              .join(", ")})`,
          ...Object.values(columns)
        )
        yield* store.work()
        yield* allRun(2)
        yield* stillWorks
        yield* settled
        if (taken)
          assert.strictEqual(
            (yield* exitOf("bad"))._tag,
            column === "body" || column === "generation" ? "Failure" : "Success"
          )
      }))
  }

  test("runs a message that is larger than the payload limit, and as large as a message may be", (store) =>
    Effect.gen(function* () {
      yield* store.work()
      const payload = { n: 1, millis: 0, more: "x".repeat(maxBytes) }
      yield* store.publish({ id: "huge", body: messageOf("huge", { payload }) }, ...good(2))
      yield* allRun(2)
      assert.deepStrictEqual(yield* exitOf("huge"), Exit.succeed(1))
      yield* drained
    }))

  test("ends the task of an oversized message with a dead letter that says its size", (store) =>
    Effect.gen(function* () {
      yield* store.work()
      const body = messageOf("huge", { payload: { n: 1, millis: 0, more: "x".repeat(maxMessageBytes) } })
      yield* store.publish({ id: "huge", body }, ...good(2))
      yield* allRun(2)
      const [letter] = yield* untilDeadLetters(1)
      assert.strictEqual(letter!.raw, "")
      assert(letter!.reason._tag === "PayloadInvalid")
      assert.include(letter!.reason.issue, `the message has ${body.length} bytes`)
      assert.strictEqual(yield* reasonOf("huge"), "PayloadInvalid")
      yield* drained
    }))

  test("keeps a message of a newer version as a dead letter whose replay fails with NotReplayable", (store) =>
    Effect.gen(function* () {
      yield* store.work()
      yield* store.publish({ id: "new", body: messageOf("new", { v: 2 }) })
      const [letter] = yield* untilDeadLetters(1)
      const refused = yield* Effect.flip(DeadLetters.replay(letter!.id))
      assert(refused._tag === "NotReplayable")
      assert.include(refused.message, letter!.id)
      assert.include(refused.message, `["v"]`)
      assert.strictEqual(yield* DeadLetters.count(), 1)
      assert.strictEqual(yield* reasonOf("new"), "PayloadInvalid")
    }))

  test("ends a task whose message was deleted while it ran", (store) =>
    Effect.gen(function* () {
      const runs = yield* store.work({ concurrency: 1, lease: "3 seconds" })
      // a renewal comes after a second
      const handle = yield* Count.delay({ n: 7, millis: 1_500 })
      yield* runs.untilBegun(1)
      yield* store.sql("DELETE FROM {messages}")
      assert.strictEqual(yield* AsyncResult.get(handle, { timeout: BOUND }), 7)
      yield* stillWorks
      assert.deepStrictEqual(runs.begun, [7, 1])
      yield* drained
    }))

  test("interrupts the handler of a deleted record, and drops its message", (store) =>
    Effect.gen(function* () {
      const runs = yield* store.work({ concurrency: 1, lease: "900 millis" })
      const handle = yield* Count.delay({ n: 1, millis: 600_000 })
      yield* runs.untilBegun(1)
      yield* store.sql("DELETE FROM {tasks}")
      yield* runs.untilInterrupted
      yield* drained
      assert.strictEqual(yield* AsyncResult.cancel(handle), "Unknown")
      yield* stillWorks
    }))

  test("continues to run tasks after all rows were deleted", (store) =>
    Effect.gen(function* () {
      const runs = yield* store.work({ concurrency: 4, lease: "900 millis" })
      yield* Count.delayAll(Array.from({ length: 20 }, (_, n) => ({ n, millis: 200 })))
      yield* runs.untilEnded(4)
      for (const table of ["messages", "tasks", "dead_letters", "workers"])
        yield* store.sql(`DELETE FROM {${table}}`)
      yield* stillWorks
      yield* drained
    }))
}

const bytesOnSqlite = (test: Test): void => {
  test("parks bytes that are not text with exactly these bytes", (store: SqlTestStore) =>
    Effect.gen(function* () {
      yield* store.work()
      const bodies = [[255, 254, 0, 10, 195, 40], [0x80], [], [0], [0xed, 0xa0, 0x80]].map((bytes) =>
        Uint8Array.from(bytes)
      )
      yield* store.publish(...good(2), ...bodies.map((body, n) => ({ id: `bad ${n}`, body })))
      const found = yield* untilDeadLetters(bodies.length)
      assert.sameMembers(
        found.map(({ raw }) => Buffer.from(raw as Uint8Array).toString("hex")),
        bodies.map((body) => Buffer.from(body).toString("hex"))
      )
      yield* allRun(2)
      yield* drained
    }))
}

describe.concurrent("sqlite: malformed messages", () => {
  const test = testsAt(TemporaryLocations.sqlite)
  suite(test)
  bytesOnSqlite(test)
})
await describeWithPostgres("postgres", () =>
  describe.concurrent("malformed messages", () => suite(testsAt(TemporaryLocations.postgres)))
)
await describeWithMariadb("mariadb", () =>
  describe.concurrent("malformed messages", () => suite(testsAt(TemporaryLocations.mariadb)))
)
