/** What others edit in dead letters, in the list of workers and in what processes tell each other. */
import { createHash } from "node:crypto"
import { assert, describe } from "@effect/vitest"
import { AsyncResult, DeadLetters, Worker } from "chicory"
import { Cause, Effect, Exit, Fiber } from "effect"
import { messageOf, messageWith, nested } from "../fuzz/bodies.ts"
import { BOUND, drained, exitOf, stillWorks, letters, type Test, testsAt } from "../fuzz/sqlStore.ts"
import { describeWithMariadb } from "../mariadb/server.ts"
import { describeWithPostgres } from "../postgres/server.ts"
import { isFullRun } from "../support/fullRun.ts"
import { Count, eventually } from "../support/storeFixture.ts"
import * as TemporaryPlaces from "../support/temporaryLocations.ts"

const huge = 2n ** 60n

/** A message whose payload no worker takes, and in which the value of one field may be any text. */
const refused = (id: string, field = "payload", value = "7") =>
  messageWith(id, field, value).replace(`"payload":{"n":1,"millis":0}`, `"payload":7`)

/** Edits of the letter of the task `bad`; the first ones are the short form. */
const edits: ReadonlyArray<readonly [what: string, column: string, value: bigint | number | string | null]> =
  [
    ["a time that is no date", "at", 8_700_000_000_000_000],
    ["a generation that cannot grow", "generation", Number.MAX_SAFE_INTEGER],
    ["bytes of another task", "body", refused("another")],
    ["a payload that is nested deep", "body", refused("bad", "payload", nested)],
    ["a priority that is none", "body", refused("bad", "priority", "1000000000")],
    ["a queue that no store has", "body", messageOf("bad", { payload: 7, queue: `\0${"q".repeat(10_000)}` })],
    ["an exit that is no JSON", "outcome", "}{"],
    ["an exit that is a success", "outcome", `{"_tag":"Success","value":1}`],
    ["bytes that are none", "body", ""],
    ["an expiry that is none", "body", refused("bad", "expires", "-1e308")],
    ["a time that is no number", "at", huge],
    ["a time before all times", "at", -huge],
    ["a negative generation", "generation", -7],
    ["a huge generation", "generation", huge],
    ["a negative count", "attempts", -1],
    ["a huge count", "attempts", huge],
    ["a huge fence", "fence", huge],
    ["a huge retention", "task_retention", huge],
    ["an exit of another shape", "outcome", "[]"],
    ["an exit that is nested deep", "outcome", nested],
    [
      "a defect that is nested deep",
      "outcome",
      `{"_tag":"Failure","reason":{"_tag":"Died","defect":${nested}}}`
    ],
    ["no exit", "outcome", null],
    ["a reason that there is not", "reason", "Bored"],
    ["no task", "task", null],
    ["no task's id", "task_id", null],
    ["another task's id", "task_id", "another"],
    ["a number for bytes", "body", 7],
    ["bytes that are half", "body", messageOf("bad").slice(0, 50)],
    ["what says that it is base64", "body", "base64:$$$"],
    ["a generation of the message", "body", refused("bad", "generation", String(Number.MAX_SAFE_INTEGER))]
  ]

const suite = (test: Test): void => {
  for (const [what, column, value] of isFullRun ? edits : edits.slice(0, 6)) {
    test(`a dead letter with ${what}: the others are listed, and a replay runs the task or leaves all as it is`, (store) =>
      Effect.gen(function* () {
        yield* store.work()
        yield* store.publish(...["good 0", "bad", "good 1"].map((id) => ({ id, body: refused(id) })))
        yield* letters(3)
        yield* store.accepts(`UPDATE {dead_letters} SET ${column} = ? WHERE task_id = 'bad'`, value)

        for (const list of [DeadLetters.list(), DeadLetters.list(Count)]) {
          const ids = (yield* list).map(({ id }) => id)
          assert.includeMembers(ids, ["good 0:0", "good 1:0"])
        }
        const replayed = yield* Effect.exit(DeadLetters.replay("bad:0"))
        assert.isFalse(Exit.isFailure(replayed) && Cause.hasDies(replayed.cause), String(replayed))
        // it runs again, and ends again; or it has not been opened, and the letter is there
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

  test("a dead letter that is deleted while it is replayed runs its task, or was not there", (store) =>
    Effect.gen(function* () {
      yield* store.work()
      const ids = Array.from({ length: 8 }, (_, n) => `bad ${n}`)
      yield* store.publish(...ids.map((id) => ({ id, body: refused(id) })))
      yield* letters(8)
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

  test("what says nothing readable is no worker, and hides none", (store) =>
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

/** A waiter is told of an end, whatever else was told. */
const wakes = (test: Test, tell: Parameters<Test>[1]) =>
  test("what others tell the processes is passed over", (store) =>
    Effect.gen(function* () {
      const waiting = yield* Effect.forkChild(AsyncResult.get(Count.result("mine"), { timeout: BOUND }))
      yield* Count.delay({ n: 3, millis: 0 }, { id: "mine" })
      yield* tell(store)
      assert.isUndefined(waiting.pollUnsafe())
      yield* store.work()
      assert.strictEqual(yield* Fiber.join(waiting), 3)
      yield* stillWorks
    }))

const told = [
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

describe.concurrent("garbage in dead letters on SQLite", () => {
  const test = testsAt(TemporaryPlaces.sqlite)
  suite(test)
  wakes(test, (store) =>
    Effect.forEach(
      told,
      (ids) => store.sql("INSERT INTO {changes} (source, ids, at) VALUES ('s', ?, 0)", ids),
      {
        discard: true
      }
    )
  )
})
await describeWithPostgres("on PostgreSQL", () =>
  describe.concurrent("garbage in dead letters", () => {
    const test = testsAt(TemporaryPlaces.postgres)
    suite(test)
    wakes(test, (store) =>
      Effect.gen(function* () {
        const [place] = yield* store.sql("SELECT current_schema() AS name")
        const digest = createHash("sha256")
          .update(`${String(place!["name"])}.chicory_`)
          .digest("hex")
        const channel = `chicory_${digest.slice(0, 32)}`
        // the process listens there
        yield* eventually(
          Effect.map(
            store.sql("SELECT 1 FROM pg_stat_activity WHERE query LIKE 'LISTEN%' || ? || '%'", channel),
            (rows) => rows.length > 0
          )
        ).pipe(Effect.timeout(BOUND))
        for (const text of told) yield* store.sql("SELECT pg_notify(?, ?)", channel, text)
      })
    )
  })
)
await describeWithMariadb("on MariaDB", () =>
  describe.concurrent("garbage in dead letters", () => suite(testsAt(TemporaryPlaces.mariadb)))
)
