/** Malformed rows of dead letters and workers, and malformed notifications: they affect nothing else. */
import { createHash } from "node:crypto"
import { assert, describe } from "@effect/vitest"
import { AsyncResult, DeadLetters, Worker } from "chicory"
import { Cause, Effect, Exit, Fiber } from "effect"
import { messageOf, messageWith, nested } from "../fuzz/bodies.ts"
import { BOUND, drained, exitOf, stillWorks, untilDeadLetters, type Test, testsAt } from "../fuzz/sqlStore.ts"
import { describeWithMariadb } from "../mariadb/server.ts"
import { describeWithPostgres } from "../postgres/server.ts"
import { isFullRun } from "../support/fullRun.ts"
import { Count, eventually } from "../support/storeFixture.ts"
import * as TemporaryLocations from "../support/temporaryLocations.ts"

const huge = 2n ** 60n

/** A message with a payload that does not decode, and any text as the value of one field. */
const refused = (id: string, field = "payload", value = "7") =>
  messageWith(id, field, value).replace(`"payload":{"n":1,"millis":0}`, `"payload":7`)

/** Edits of the dead letter of the task `bad`. The short form of the suite runs the first six. */
const edits: ReadonlyArray<readonly [what: string, column: string, value: bigint | number | string | null]> =
  [
    ["a time outside the range of dates", "at", 8_700_000_000_000_000],
    ["a generation that cannot grow", "generation", Number.MAX_SAFE_INTEGER],
    ["bytes of another task", "body", refused("another")],
    ["a deeply nested payload", "body", refused("bad", "payload", nested)],
    ["a priority out of range", "body", refused("bad", "priority", "1000000000")],
    ["an invalid queue name", "body", messageOf("bad", { payload: 7, queue: `\0${"q".repeat(10_000)}` })],
    ["an exit that is not JSON", "outcome", "}{"],
    ["an exit that is a success", "outcome", `{"_tag":"Success","value":1}`],
    ["an empty body", "body", ""],
    ["a negative expiry", "body", refused("bad", "expires", "-1e308")],
    ["a time beyond safe integers", "at", huge],
    ["a negative time", "at", -huge],
    ["a negative generation", "generation", -7],
    ["a huge generation", "generation", huge],
    ["a negative count", "attempts", -1],
    ["a huge count", "attempts", huge],
    ["a huge fence", "fence", huge],
    ["a huge retention", "task_retention", huge],
    ["an exit of another shape", "outcome", "[]"],
    ["a deeply nested exit", "outcome", nested],
    ["a deeply nested defect", "outcome", `{"_tag":"Failure","reason":{"_tag":"Died","defect":${nested}}}`],
    ["no exit", "outcome", null],
    ["an unknown reason", "reason", "Bored"],
    ["no task", "task", null],
    ["no task id", "task_id", null],
    ["the id of another task", "task_id", "another"],
    ["a number as the body", "body", 7],
    ["a truncated body", "body", messageOf("bad").slice(0, 50)],
    ["an invalid base64 body", "body", "base64:$$$"],
    [
      "a generation in the message that cannot grow",
      "body",
      refused("bad", "generation", String(Number.MAX_SAFE_INTEGER))
    ]
  ]

const suite = (test: Test): void => {
  for (const [what, column, value] of isFullRun ? edits : edits.slice(0, 6)) {
    test(`lists the others beside a dead letter with ${what}, whose replay runs the task or changes nothing`, (store) =>
      Effect.gen(function* () {
        yield* store.work()
        yield* store.publish(...["good 0", "bad", "good 1"].map((id) => ({ id, body: refused(id) })))
        yield* untilDeadLetters(3)
        yield* store.accepts(`UPDATE {dead_letters} SET ${column} = ? WHERE task_id = 'bad'`, value)

        for (const list of [DeadLetters.list(), DeadLetters.list(Count)]) {
          const ids = (yield* list).map(({ id }) => id)
          assert.includeMembers(ids, ["good 0:0", "good 1:0"])
        }
        const replayed = yield* Effect.exit(DeadLetters.replay("bad:0"))
        assert.isFalse(Exit.isFailure(replayed) && Cause.hasDies(replayed.cause), String(replayed))
        // either the task ran and ended again, or it was not reopened and the letter is still there
        if (Exit.isFailure(replayed)) assert.strictEqual(yield* DeadLetters.count(), 3)
        const exit = yield* exitOf("bad")
        assert(Exit.isFailure(exit))
        assert.strictEqual((yield* Effect.flip(exit))._tag, "TaskFailed")
        yield* stillWorks
        yield* drained
        assert.strictEqual(yield* DeadLetters.remove("good 0:0"), true)
        yield* DeadLetters.purge()
        assert.strictEqual(yield* DeadLetters.count(), 0)
      }))
  }

  test("runs the task of a dead letter that is deleted during its replay, or finds no letter", (store) =>
    Effect.gen(function* () {
      yield* store.work()
      const ids = Array.from({ length: 8 }, (_, n) => `bad ${n}`)
      yield* store.publish(...ids.map((id) => ({ id, body: refused(id) })))
      yield* untilDeadLetters(8)
      const replays = yield* Effect.forkChild(
        Effect.forEach(ids, (id) => DeadLetters.replay(`${id}:0`), { concurrency: 4 })
      )
      yield* store.sql("DELETE FROM {dead_letters} WHERE generation = 0")
      const replayed = yield* Fiber.join(replays)
      for (const [n, id] of ids.entries()) {
        const error = yield* Effect.flip(AsyncResult.get(Count.result(id), { timeout: BOUND }))
        assert.strictEqual(error._tag, "TaskFailed", `${id}, replayed: ${replayed[n]}`)
      }
      yield* stillWorks
      yield* drained
    }))

  test("skips malformed rows of workers and lists the others", (store) =>
    Effect.gen(function* () {
      yield* store.work({ heartbeat: "100 millis" })
      const ours = Effect.map(Worker.active, (workers) =>
        workers.filter(({ tasks }) => tasks.includes("count"))
      )
      yield* eventually(Effect.map(ours, ({ length }) => length === 1))
      const one = { hostname: "h", pid: 1, queues: ["q"], tasks: [], concurrency: 1, running: 0 }
      const infos = [
        "}{",
        "",
        "null",
        "[]",
        nested,
        JSON.stringify({ ...one, id: 7 }),
        JSON.stringify({ ...one, id: "w", queues: "q" }),
        JSON.stringify({ ...one, id: "w", pid: "1" })
      ]
      for (const [n, info] of infos.entries()) {
        yield* store.sql(
          "INSERT INTO {workers} (id, info, started_at, seen_at, until) VALUES (?, ?, 1, 1, ?)",
          `garbage ${n}`,
          info,
          4_000_000_000_000
        )
      }
      yield* store.accepts(
        "INSERT INTO {workers} (id, info, started_at, seen_at, until) VALUES ('w', ?, ?, 1, ?)",
        JSON.stringify({ ...one, id: "w" }),
        huge,
        huge
      )
      assert.lengthOf(yield* ours, 1)
      yield* stillWorks
    }))
}

/** A waiter is woken by the end of its task after malformed notifications. */
const wakes = (test: Test, sendMalformed: Parameters<Test>[1]) =>
  test("skips malformed notifications", (store) =>
    Effect.gen(function* () {
      const waiting = yield* Effect.forkChild(AsyncResult.get(Count.result("mine"), { timeout: BOUND }))
      yield* Count.delay({ n: 3, millis: 0 }, { id: "mine" })
      yield* sendMalformed(store)
      assert.isUndefined(waiting.pollUnsafe())
      yield* store.work()
      assert.strictEqual(yield* Fiber.join(waiting), 3)
      yield* stillWorks
    }))

const malformedHints = [
  "",
  "}{",
  "null",
  "[]",
  `{"source":"s","topic":"t"}`,
  `{"source":"s","topic":"ends","ids":"mine"}`,
  `{"source":"s","topic":"ends","ids":[7]}`,
  `{"source":"s","topic":"ends","ids":["nobody"]}`,
  `{"source":"s","topic":"__proto__","ids":["mine"]}`,
  `{"source":"s","topic":"requests","ids":["mine","nobody"]}`,
  `{"source":"s","topic":"echo","ids":[]}`
]

describe.concurrent("sqlite: malformed dead letters", () => {
  const test = testsAt(TemporaryLocations.sqlite)
  suite(test)
  wakes(test, (store) =>
    Effect.forEach(
      malformedHints,
      (ids) => store.sql("INSERT INTO {changes} (source, ids, at) VALUES ('s', ?, 0)", ids),
      {
        discard: true
      }
    )
  )
})
await describeWithPostgres("postgres", () =>
  describe.concurrent("malformed dead letters", () => {
    const test = testsAt(TemporaryLocations.postgres)
    suite(test)
    wakes(test, (store) =>
      Effect.gen(function* () {
        const [place] = yield* store.sql("SELECT current_schema() AS name")
        const digest = createHash("sha256")
          .update(`${String(place!["name"])}.chicory_`)
          .digest("hex")
        const channel = `chicory_${digest.slice(0, 32)}`
        // until the process listens on the channel
        yield* eventually(
          Effect.map(
            store.sql("SELECT 1 FROM pg_stat_activity WHERE query LIKE 'LISTEN%' || ? || '%'", channel),
            (rows) => rows.length > 0
          )
        ).pipe(Effect.timeout(BOUND))
        for (const text of malformedHints) yield* store.sql("SELECT pg_notify(?, ?)", channel, text)
      })
    )
  })
)
await describeWithMariadb("mariadb", () =>
  describe.concurrent("malformed dead letters", () => suite(testsAt(TemporaryLocations.mariadb)))
)
