/** Values that other programs write under a store's keys: none of them may stop tasks that have no part in it. */
import { assert, describe } from "@effect/vitest"
import { AsyncResult, Broker, DeadLetters, Task, Worker } from "chicory"
import { Cause, DateTime, Effect, Exit, Fiber, Option, Schema, type Scope } from "effect"
import { FIELDS } from "../../src/redis/RecordText.ts"
import { messageOf, messageWith, undecodableBodies } from "../fuzz/bodies.ts"
import { isFullRun } from "../support/fullRun.ts"
import {
  Count,
  countingHandler,
  eventually,
  roundTrip,
  startWorker,
  type Store,
  timed
} from "../support/storeFixture.ts"
import { describeWithServers, type Server } from "./server.ts"
import { openStore, testWithServer, untilSubscribed } from "./storeFixture.ts"

const base = "{chicory:0}"
const queue = `${base}:queue:default`
const taskKey = (id: string) => `${base}:task:${id}`

/** Adds a test with a store on its own server. */
const test = <E>(name: string, body: (server: Server, store: Store) => Effect.Effect<void, E, Scope.Scope>) =>
  testWithServer(name, {}, (server) =>
    Effect.flatMap(openStore(server, { sweepInterval: "60 seconds" }), (store) => body(server, store))
  )

/** Adds texts to the ready messages, in order. */
const post = (server: Server, ...texts: ReadonlyArray<string>) => {
  const members = texts.map((_, n) => `${900_000 + n}`.padStart(15, "0"))
  return Effect.andThen(
    server.command("HSET", `${queue}:texts`, ...texts.flatMap((text, n) => [members[n]!, text])),
    server.command(
      "ZADD",
      `${queue}:ready`,
      ...members.flatMap((member) => ["0", `${member}:${Date.now()}:100`])
    )
  )
}

/** The record of a waiting task. */
const waitingRecord = ((fields: Partial<Record<(typeof FIELDS)[number], string>>) =>
  `${FIELDS.map((field) => fields[field] ?? "-").join(" ")}\n`)({
  state: "PENDING",
  generation: "0",
  attempt: "0",
  retries: "0",
  crashes: "0",
  fence: "0",
  task: "count",
  enqueuedAt: "1000"
})

/** Creates records of waiting tasks. */
const createRecords = (server: Server, ...ids: ReadonlyArray<string>) =>
  server.command("MSET", ...ids.flatMap((id) => [taskKey(id), waitingRecord]))

/** Waits until the tasks of valid messages have run. */
const goodRun = (ids: ReadonlyArray<string>) => AsyncResult.all(ids.map((id) => Count.result(id)))

/** Returns the exit of a task, waiting no longer than a test may take. */
const exitOf = (id: string) => Effect.exit(AsyncResult.get(Count.result(id), { timeout: "10 seconds" }))

/** A number that overflows every type. */
const nines = "9".repeat(400)

/** Waits until the queue is empty. */
const drained = eventually(
  Effect.map(
    Broker.counts(["default"]),
    ([counts]) => counts!.ready + counts!.delayed + counts!.claimed === 0
  )
)

describeWithServers("malformed values in Redis", () => {
  describe.concurrent("messages", () => {
    test("bytes that are not UTF-8 become a dead letter with exactly these bytes", (server, store) =>
      Effect.gen(function* () {
        yield* Count.delay({ n: 1, millis: 0 })
        const [field] = (yield* server.command("HKEYS", `${queue}:texts`)) as ReadonlyArray<string>
        yield* server.command(
          "EVAL",
          `redis.call('HSET', KEYS[1], ARGV[1], '\\255\\254\\000\\010\\195(' .. ARGV[2])`,
          "1",
          `${queue}:texts`,
          field!,
          "ü"
        )
        yield* startWorker(store, Count, countingHandler().layer)
        yield* eventually(Effect.map(DeadLetters.count(), (count) => count === 1))
        const [letter] = yield* DeadLetters.list()
        assert.deepStrictEqual(letter!.raw, Uint8Array.of(255, 254, 0, 10, 195, 40, 195, 188))
        assert.strictEqual(letter!.queue, "default")
        assert.strictEqual(yield* roundTrip(1), 1)
        yield* drained
      }).pipe(Effect.provideContext(store)))

    test("members of any score and form leave the counts of the queue, and end them", (server, store) =>
      Effect.gen(function* () {
        const highest = `000000000900001:${Date.now()}:255`
        for (const score of ["-inf", "0", "1e15", "9e15", "+inf"]) {
          yield* server.command("ZADD", `${queue}:ready`, score, `${score} of no form`)
          yield* server.command("ZADD", `${queue}:ready`, score, `${highest}:${score}`)
        }
        const [counts] = yield* Broker.counts(["default"])
        assert.strictEqual(counts?.ready, 10)
        assert.isAtLeast(counts?.oldestMillis ?? -1, 0)
        assert.isBelow(counts?.oldestMillis ?? Infinity, 60_000)
      }).pipe(Effect.provideContext(store)))

    test("a text with an invalid head becomes a dead letter, and other claims continue", (server, store) =>
      Effect.gen(function* () {
        const texts = [
          "%zz count 0 -\n{}",
          "%ff count 0 -\n{}",
          "a %zz 0 -\n{}",
          "a count 0\n{}",
          "a count 0 \n{}",
          "a count 0 %\n{}",
          " count 0 -\n{}",
          "\n"
        ]
        yield* Count.delayAll(texts.map((_, n) => ({ n, millis: 0 })))
        const fields = (yield* server.command("HKEYS", `${queue}:texts`)) as ReadonlyArray<string>
        for (const [i, field] of fields.entries()) {
          yield* server.command("HSET", `${queue}:texts`, field, texts[i]!)
        }
        yield* startWorker(store, Count, countingHandler().layer)
        assert.strictEqual(yield* roundTrip(1), 1)
        yield* eventually(Effect.map(DeadLetters.count(), (count) => count === texts.length))
        assert.sameMembers(
          (yield* DeadLetters.list()).map(({ raw }) => raw),
          texts
        )
        yield* drained
      }).pipe(Effect.provideContext(store)))

    test("members that are not messages become dead letters, from every set", (server, store) =>
      Effect.gen(function* () {
        const members = ["", "hello", "1:2", "x:1:1:0", "-1:1:1:0", "7:1:1:0:0", "9\n:1:1:0", "🌶️"]
        for (const set of ["ready", "delayed", "claimed"]) {
          for (const member of members) {
            yield* server.command("ZADD", `${queue}:${set}`, "0", `${member}${member === "" ? "" : set}`)
          }
        }
        for (const member of members) yield* server.command("RPUSH", `${queue}:fresh`, `${member}fresh`)
        yield* startWorker(store, Count, countingHandler().layer)
        assert.strictEqual(yield* roundTrip(1), 1)
        // the empty member is the same in all sets
        yield* eventually(Effect.map(DeadLetters.count(), (count) => count >= 4 * members.length - 2))
        yield* drained
        const raw = (yield* DeadLetters.list()).map((letter) => letter.raw)
        assert.include(raw, "helloready")
        assert.include(raw, "🌶️claimed")
        assert.strictEqual(yield* server.command("HLEN", `${queue}:texts`), 0)
      }).pipe(Effect.provideContext(store)))

    test("a member whose numbers are out of range becomes a dead letter", (server, store) =>
      Effect.gen(function* () {
        const members = [
          "99999999999999999999:1:100:0",
          "5:99999999999999999999999999:100:0",
          "6:1:99999999:0",
          "7:1:100:99999999999999999999999"
        ]
        for (const member of members) yield* server.command("ZADD", `${queue}:ready`, "0", member)
        yield* startWorker(store, Count, countingHandler().layer)
        assert.strictEqual(yield* roundTrip(1), 1)
        yield* drained
        assert.strictEqual(yield* DeadLetters.count(), members.length)
      }).pipe(Effect.provideContext(store)))

    test("a message whose text was deleted becomes an empty dead letter", (server, store) =>
      Effect.gen(function* () {
        yield* Count.delay({ n: 1, millis: 0 })
        yield* server.command("DEL", `${queue}:texts`)
        yield* startWorker(store, Count, countingHandler().layer)
        assert.strictEqual(yield* roundTrip(2), 2)
        yield* eventually(Effect.map(DeadLetters.count(), (count) => count === 1))
        assert.strictEqual((yield* DeadLetters.list())[0]!.raw, "")
        yield* drained
      }).pipe(Effect.provideContext(store)))

    test("an undecodable body ends its task, and is kept in the dead letter", (server, store) =>
      Effect.gen(function* () {
        yield* startWorker(store, Count, countingHandler().layer)
        const bodies = undecodableBodies.map((body, n) => body(`bad-${n}`))
        yield* createRecords(server, "good-0", "good-1", ...bodies.map((_, n) => `bad-${n}`))
        yield* post(
          server,
          `good-0 count 0 -\n${messageOf("good-0")}`,
          ...bodies.map((body, n) => `bad-${n} count 0 -\n${body}`),
          `good-1 count 0 -\n${messageOf("good-1")}`
        )
        yield* eventually(Effect.map(DeadLetters.count(), (count) => count >= bodies.length))
        yield* goodRun(["good-0", "good-1"])
        const letters = yield* DeadLetters.list()
        assert.sameMembers(
          letters.map(({ raw }) => raw),
          bodies
        )
        for (const n of bodies.keys()) {
          const error = yield* Effect.flip(yield* exitOf(`bad-${n}`))
          assert(error._tag === "TaskFailed" && error.reason._tag === "PayloadInvalid", String(error))
        }
        assert.strictEqual(yield* roundTrip(1), 1)
        yield* drained
      }).pipe(Effect.provideContext(store)))

    const heads: ReadonlyArray<readonly [what: string, head: string, body: string]> = [
      ["a generation that overflows", `bad count ${nines} -`, messageOf("bad")],
      ["an incarnation that is too long", `bad count 0 ${nines}`, messageOf("bad")],
      ["a generation other than that of its message", "bad count 7 -", messageOf("bad")],
      ["an incarnation other than that of its message", "bad count 0 7c", messageOf("bad")],
      [
        "an incarnation other than that of its record",
        "bad count 0 7c",
        messageOf("bad", { incarnation: "7c" })
      ],
      ["a generation that is not a safe integer", `bad count ${"9".repeat(30)} -`, messageOf("bad")],
      [
        "an encoded id, and an expiry that overflows in the message",
        "b%61d count 0 -",
        messageWith("bad", "expires", "1e308")
      ]
    ]
    for (const [what, head, body] of isFullRun ? heads : heads.slice(0, 3)) {
      test(`a head with ${what}: its task runs at most once, and the others run`, (server, store) =>
        Effect.gen(function* () {
          const good = ["good-0", "good-1", "good-2", "good-3"]
          const texts = good.map((id) => `${id} count 0 -\n${messageOf(id)}`)
          yield* createRecords(server, "bad", ...good)
          yield* post(server, ...texts.slice(0, 2), `${head}\n${body}`, ...texts.slice(2))
          const runs = countingHandler()
          yield* startWorker(store, Count, runs.layer, { lease: "20 seconds" })
          yield* goodRun(good)
          yield* drained
          // it became a dead letter that can be listed, or ran, or was dropped as a message of another incarnation
          const letters = yield* DeadLetters.list()
          assert.isAtMost(letters.length, 1)
          const isDropped = what.endsWith("of its record")
          if (letters.length === 0 && !isDropped) assert.isTrue(Exit.isSuccess(yield* exitOf("bad")), what)
          assert.isAtMost(runs.begun.length, good.length + (isDropped ? 0 : 1))
          assert.strictEqual(yield* DeadLetters.purge(), letters.length)
          assert.strictEqual(yield* roundTrip(1), 1)
        }).pipe(Effect.provideContext(store)))
    }

    test("a queue under a key of another type fails claims until the key is deleted", (server, store) =>
      Effect.gen(function* () {
        yield* server.command("SET", `${queue}:fresh`, "mine")
        yield* startWorker(store, Count, countingHandler().layer)
        const failed = yield* Effect.flip(Count.delay({ n: 1, millis: 0 }))
        assert(failed._tag === "BackendError" || failed._tag === "BrokerError")
        assert.isFalse(failed.retryable)
        assert.include(failed.message, "WRONGTYPE")
        yield* server.command("DEL", `${queue}:fresh`)
        assert.strictEqual(yield* roundTrip(2), 2)
      }).pipe(Effect.provideContext(store)))
  })

  describe.concurrent("records", () => {
    const edits = {
      "a text that is not a record": (server: Server, key: string) => server.command("SET", key, "nonsense"),
      "an empty text": (server: Server, key: string) => server.command("SET", key, ""),
      "a record without its last field": (server: Server, key: string) =>
        Effect.flatMap(server.command("GET", key), (value) =>
          server.command("SET", key, String(value).replace(/ \S+\n/, "\n"))
        ),
      "an unknown state": (server: Server, key: string) =>
        Effect.flatMap(server.command("GET", key), (value) =>
          server.command("SET", key, String(value).replace(/^\S+/, "SLEEPING"))
        ),
      "a hash": (server: Server, key: string) =>
        Effect.andThen(server.command("DEL", key), server.command("HSET", key, "state", "SUCCESS"))
    }
    for (const [what, edit] of Object.entries(edits)) {
      test(`${what}: only the reads of that task fail, with an error that names the key`, (server, store) =>
        Effect.gen(function* () {
          const handles = yield* Count.delayAll(Array.from({ length: 9 }, (_, n) => ({ n, millis: 0 })))
          const bad = handles[4]!
          yield* edit(server, taskKey(bad.taskId))
          const exits = yield* Effect.forEach(
            handles,
            (handle) =>
              Effect.exit(AsyncResult.get(handle, { timeout: handle === bad ? "15 seconds" : "500 millis" })),
            { concurrency: "unbounded" }
          )
          const states = yield* Effect.forEach(handles, (handle) => Effect.exit(AsyncResult.state(handle)), {
            concurrency: "unbounded"
          })
          for (const [i, exit] of exits.entries()) {
            const error = yield* Effect.flip(exit)
            if (i !== 4) {
              assert.strictEqual(error._tag, "TimeoutError")
              assert.deepStrictEqual(states[i], Exit.succeed("PENDING"))
              continue
            }
            assert(error._tag === "BackendError", String(error))
            assert.isFalse(error.retryable)
            assert.include(error.message, taskKey(bad.taskId))
            assert.isTrue(Exit.isFailure(states[i]!))
          }
        }).pipe(Effect.provideContext(store)))

      test(`${what}: other tasks of the same claim run`, (server, store) =>
        Effect.gen(function* () {
          const handles = yield* Count.delayAll(Array.from({ length: 9 }, (_, n) => ({ n, millis: 0 })))
          const bad = handles[4]!
          yield* edit(server, taskKey(bad.taskId))
          yield* startWorker(store, Count, countingHandler().layer)
          const good = handles.filter((handle) => handle !== bad)
          const [millis, values] = yield* timed(AsyncResult.all(good))
          assert.deepStrictEqual(values, [0, 1, 2, 3, 5, 6, 7, 8])
          assert.isBelow(millis, 5_000)
        }).pipe(Effect.provideContext(store)))

      test(`${what}: a task enqueued under its id runs`, (server, store) =>
        Effect.gen(function* () {
          yield* Count.delay({ n: 4, millis: 0 }, { id: "bad" })
          yield* server.command("DEL", `${queue}:fresh`, `${queue}:texts`)
          yield* edit(server, taskKey("bad"))
          yield* startWorker(store, Count, countingHandler().layer)
          const exits = yield* Effect.forEach(
            [0, 1, 2, 3, 4, 5, 6, 7, 8],
            (n) => Effect.exit(Count.delay({ n, millis: 0 }, { id: n === 4 ? "bad" : `good-${n}` })),
            { concurrency: "unbounded" }
          )
          for (const [n, exit] of exits.entries()) {
            // a value that is not a record counts as absent; only reads check the state
            if (n === 4 && what === "an unknown state") continue
            assert.strictEqual(yield* AsyncResult.get(yield* exit), n)
          }
        }).pipe(Effect.provideContext(store)))

      test(`${what}: the outcome of its run is dropped, and waiters for other tasks are notified at once`, (server, store) =>
        Effect.gen(function* () {
          const runs = countingHandler()
          yield* startWorker(store, Count, runs.layer, { lease: "2 seconds" })
          const handles = yield* Count.delayAll(Array.from({ length: 9 }, (_, n) => ({ n, millis: 500 })))
          const bad = handles[4]!
          const good = handles.filter((handle) => handle !== bad)
          yield* runs.untilBegun(9)
          const waiting = yield* Effect.forkChild(AsyncResult.all(good))
          yield* edit(server, taskKey(bad.taskId))
          yield* runs.untilEnded(8)
          const [millis, values] = yield* timed(Fiber.join(waiting))
          assert.deepStrictEqual(values, [0, 1, 2, 3, 5, 6, 7, 8])
          assert.isBelow(millis, 3_000)
          assert.strictEqual(yield* roundTrip(10), 10)
        }).pipe(Effect.provideContext(store)))
    }
  })

  describe.concurrent("fields of records", () => {
    const edits: ReadonlyArray<
      readonly [what: string, fields: Partial<Record<(typeof FIELDS)[number], string>>]
    > = [
      ["a lease that never ends", { state: "STARTED", token: "another", time: nines }],
      ["a retry that is never due", { state: "RETRY", dueAt: nines }],
      ["an attempt that overflows", { attempt: nines }],
      ["an expiry that overflows", { expiresAt: nines, plain: "+" }],
      ["a name with an invalid escape", { task: "%zz" }],
      ["a time beyond the range of dates", { enqueuedAt: "8700000000000000" }],
      ["a retention that overflows", { retention: nines }],
      ["a negative retention", { retention: "-5" }],
      ["a lease far in the past", { state: "STARTED", token: "another", time: "1" }],
      ["a lease far in the future", { state: "STARTED", token: "another", time: "8".repeat(15) }],
      ["a generation later than that of its message", { generation: "5" }],
      ["a generation that overflows", { generation: nines }],
      ["a fence that overflows", { fence: nines }],
      ["a time that is not a number", { enqueuedAt: "soon" }],
      ["unknown subscribers", { subscribers: "zz,,a,e" }],
      ["a progress that is missing", { progress: "1", plain: "+" }],
      ["a key that is missing", { key: "nothing", plain: "+" }],
      ["a reservation that never ends", { reservedUntil: nines, plain: "+" }],
      ["an incarnation other than that of its message", { incarnation: "7c" }],
      ["an unknown request to stop", { stop: "soon", plain: "+" }],
      ["an unknown delayed message", { delayedMessage: "nowhere", plain: "+" }],
      ["an unknown process", { process: "x".repeat(1_000) }]
    ]
    for (const [what, fields] of isFullRun ? edits : edits.slice(0, 4)) {
      test(`${what}: other tasks run, and no message is lost`, (server, store) =>
        Effect.gen(function* () {
          const handles = yield* Count.delayAll(Array.from({ length: 5 }, (_, n) => ({ n, millis: 0 })))
          const bad = handles[2]!
          const key = taskKey(bad.taskId)
          const value = String(yield* server.command("GET", key))
          const edited = value
            .slice(0, value.indexOf("\n"))
            .split(" ")
            .map((field, at) => fields[FIELDS[at]!] ?? field)
          yield* server.command("SET", key, `${edited.join(" ")}\n`)
          const runs = countingHandler()
          yield* startWorker(store, Count, runs.layer, { lease: "20 seconds" })
          const good = handles.filter((handle) => handle !== bad)
          assert.deepStrictEqual(yield* AsyncResult.all(good), [0, 1, 3, 4])
          for (const read of [
            Effect.asVoid(AsyncResult.get(bad, { timeout: "500 millis" })),
            Effect.asVoid(AsyncResult.poll(bad))
          ]) {
            const exit = yield* Effect.exit(read)
            if (Exit.isSuccess(exit)) continue
            assert.isFalse(Cause.hasDies(exit.cause), String(exit))
            const error = Option.getOrThrow(Exit.findErrorOption(exit))
            if (error._tag === "BackendError") assert.include(error.message, key)
          }
          assert.strictEqual(yield* roundTrip(7), 7)
          // the task ran, or its message was dropped as that of another task, or the message still waits
          const [counts] = yield* Broker.counts(["default"])
          const isOther = "generation" in fields || "incarnation" in fields || "task" in fields
          const over = runs.ended.includes(2) || isOther
          assert.strictEqual(counts!.delayed + counts!.claimed + counts!.ready, over ? 0 : 1)
          assert.isAtMost(runs.begun.filter((n) => n === 2).length, 1)
        }).pipe(Effect.provideContext(store)))
    }
  })

  describe.concurrent("dead letters", () => {
    const edits: ReadonlyArray<
      readonly [what: string, edit: (server: Server, key: string) => Effect.Effect<unknown, unknown>]
    > = [
      ["a time that is not a number", (server, key) => server.command("HSET", key, "at", "soon")],
      [
        "a time beyond the range of dates",
        (server, key) => server.command("HSET", key, "at", "8700000000000000")
      ],
      ["a generation that overflows", (server, key) => server.command("HSET", key, "generation", nines)],
      ["no generation", (server, key) => server.command("HDEL", key, "generation")],
      ["no body", (server, key) => server.command("HDEL", key, "body")],
      ["a name with an invalid escape", (server, key) => server.command("HSET", key, "task", "%zz")],
      [
        "another type of key",
        (server, key) => Effect.andThen(server.command("DEL", key), server.command("SET", key, "x"))
      ],
      ["an exit that is not JSON", (server, key) => server.command("HSET", key, "exit", "}{")],
      ["an invalid body", (server, key) => server.command("HSET", key, "body", "b$$$")],
      ["the id of another task", (server, key) => server.command("HSET", key, "taskId", "another")],
      ["a fence that is not a number", (server, key) => server.command("HSET", key, "fence", "high")],
      ["a retention that is not a number", (server, key) => server.command("HSET", key, "retention", "long")],
      ["an unknown index member", (server, key) => server.command("HSET", key, "member", "nowhere")],
      ["no fields at all", (server, key) => server.command("DEL", key)]
    ]
    for (const [what, edit] of isFullRun ? edits : edits.slice(0, 4)) {
      test(`a dead letter with ${what}: the others are listed, and its replay returns`, (server, store) =>
        Effect.gen(function* () {
          yield* startWorker(store, Count, countingHandler().layer)
          const ids = ["good-0", "bad", "good-1"]
          yield* createRecords(server, ...ids)
          yield* post(server, ...ids.map((id) => `${id} count 0 -\n${messageOf(id, { payload: 7 })}`))
          yield* eventually(Effect.map(DeadLetters.count(), (count) => count === 3))
          yield* edit(server, `${base}:letter:bad:0`)
          for (const list of [DeadLetters.list(), DeadLetters.list(Count)]) {
            assert.includeMembers(
              (yield* list).map(({ id }) => id),
              ["good-0:0", "good-1:0"]
            )
          }
          const replayed = yield* Effect.exit(DeadLetters.replay("bad:0"))
          assert.isFalse(Exit.isFailure(replayed) && Cause.hasDies(replayed.cause), String(replayed))
          const failed = yield* Effect.flip(yield* exitOf("bad"))
          assert.strictEqual(failed._tag, "TaskFailed")
          assert.strictEqual(yield* roundTrip(1), 1)
          yield* drained
        }).pipe(Effect.provideContext(store)))
    }
  })

  describe.concurrent("other keys", () => {
    test("deleting a record stops its handler, and frees the slot", (server, store) =>
      Effect.gen(function* () {
        const runs = countingHandler()
        yield* startWorker(store, Count, runs.layer, { concurrency: 1, lease: "900 millis" })
        const handle = yield* Count.delay({ n: 1, millis: 600_000 })
        yield* runs.untilBegun(1)
        yield* server.command("DEL", taskKey(handle.taskId))
        yield* runs.untilInterrupted
        assert.strictEqual(yield* roundTrip(2), 2)
        // its message was redelivered, and dropped
        yield* drained
        assert.deepStrictEqual(runs.begun, [1, 2])
      }).pipe(Effect.provideContext(store)))

    test("a task whose message is deleted still ends", (server, store) =>
      Effect.gen(function* () {
        const runs = countingHandler()
        yield* startWorker(store, Count, runs.layer, { concurrency: 1, lease: "3 seconds" })
        // a renewal comes after a second
        const handle = yield* Count.delay({ n: 1, millis: 1_500 })
        yield* runs.untilBegun(1)
        yield* server.command("DEL", `${queue}:claimed`, `${queue}:texts`)
        assert.strictEqual(yield* AsyncResult.get(handle), 1)
        assert.strictEqual(yield* roundTrip(2), 2)
        assert.deepStrictEqual(runs.begun, [1, 2])
        yield* drained
      }).pipe(Effect.provideContext(store)))

    test("a worker continues after all keys are deleted while tasks run", (server, store) =>
      Effect.gen(function* () {
        const runs = countingHandler()
        yield* startWorker(store, Count, runs.layer, { concurrency: 4, lease: "900 millis" })
        yield* Count.delayAll(Array.from({ length: 20 }, (_, n) => ({ n, millis: 200 })))
        yield* runs.untilEnded(4)
        yield* server.command("FLUSHALL")
        assert.strictEqual(yield* roundTrip(100), 100)
        yield* drained
      }).pipe(Effect.provideContext(store)))

    test("an idempotency key whose task was deleted is free", (server, store) =>
      Effect.gen(function* () {
        const Keyed = Task.make("count", {
          payload: { n: Schema.Number, millis: Schema.Number },
          success: Schema.Number,
          idempotencyKey: () => "k"
        })
        yield* startWorker(store, Count, countingHandler().layer)
        const first = yield* Keyed.delay({ n: 1, millis: 0 })
        yield* AsyncResult.get(first)
        yield* server.command("DEL", taskKey(first.taskId))
        const second = yield* Keyed.delay({ n: 2, millis: 0 })
        assert.notStrictEqual(second.taskId, first.taskId)
        assert.strictEqual(yield* AsyncResult.get(second), 2)
        // and so is one that holds an invalid id
        for (const key of (yield* server.command("KEYS", `${base}:key:*`)) as ReadonlyArray<string>) {
          yield* server.command("SET", key, "\n")
        }
        const third = yield* Keyed.delay({ n: 3, millis: 0 })
        assert.strictEqual(yield* AsyncResult.get(third), 3)
      }).pipe(Effect.provideContext(store)))

    test("unreadable entries in the registry hide no worker", (server, store) =>
      Effect.gen(function* () {
        yield* startWorker(store, Count, countingHandler().layer)
        yield* eventually(Effect.map(Worker.active, ({ length }) => length === 1))
        const info = JSON.stringify({
          id: "w",
          hostname: "h",
          pid: 1,
          queues: [],
          tasks: [],
          concurrency: 1,
          running: 0
        })
        const entries = [
          "",
          "x",
          `x y ${4e12} ${info}`,
          `1 2 ${4e12} {`,
          `1 2 ${4e12} `,
          `${nines} ${nines} ${4e12} ${info}`,
          `1 2 ${nines} {}`
        ]
        for (const [n, entry] of entries.entries()) {
          yield* server.command("HSET", `${base}:workers`, `malformed ${n}`, entry)
        }
        const workers = yield* Worker.active
        assert.lengthOf(
          workers.filter(({ tasks }) => tasks.includes("count")),
          1
        )
        for (const { seenAt, startedAt } of workers) {
          assert.isTrue(DateTime.isDateTime(seenAt) && DateTime.isDateTime(startedAt))
        }
      }).pipe(Effect.provideContext(store)))

    test("unknown members of the indexes do not stop the sweep", (server, store) =>
      Effect.gen(function* () {
        yield* startWorker(store, Count, countingHandler().layer)
        for (const index of ["foreign", "deadlines", "letters-until", "letters"]) {
          for (const member of ["", "}{", "[]", "{}", "a b\nc", "[7]", "0000000000000001none"]) {
            yield* server.command("ZADD", `${base}:${index}`, "1", member)
          }
        }
        // no read ends this task, only a sweep
        const handle = yield* Count.delay({ n: 1, millis: 0 }, { delay: "1 hour", expires: "1 millis" })
        yield* eventually(
          Effect.map(server.command("GET", taskKey(handle.taskId)), (value) =>
            String(value).startsWith("FAILURE ")
          )
        )
        assert.strictEqual(yield* roundTrip(2), 2)
        assert.deepStrictEqual(yield* DeadLetters.list(), [])
      }).pipe(Effect.provideContext(store)))

    test("other messages on a process's channel are ignored", (server, store) =>
      Effect.gen(function* () {
        yield* startWorker(store, Count, countingHandler().layer)
        const waiting = yield* Effect.forkChild(AsyncResult.get(Count.result("mine")))
        yield* untilSubscribed(server)
        const [channel] = (yield* server.command(
          "PUBSUB",
          "CHANNELS",
          "*:process:*"
        )) as ReadonlyArray<string>
        const texts = [
          "",
          "nonsense",
          "{",
          "null",
          "[]",
          `["changed"]`,
          `["changed","mine",7]`,
          `["changed","nobody",""]`,
          `["changed","mine","nonsense"]`,
          `["changed","mine"]`,
          `["ready",7]`,
          `["ready","nowhere"]`,
          `["due","default"]`,
          `["due","default",-1e300]`,
          `["due","default",1e300]`,
          `["due","default",null]`,
          `["ping","x"]`,
          `["ping","x",false]`,
          `["${"x".repeat(100_000)}"]`
        ]
        for (const text of texts) {
          assert.strictEqual(yield* server.command("PUBLISH", channel!, text), 1)
        }
        assert.isUndefined(waiting.pollUnsafe())
        const [millis, value] = yield* timed(
          Effect.andThen(Count.delay({ n: 3, millis: 0 }, { id: "mine" }), Fiber.join(waiting))
        )
        assert.strictEqual(value, 3)
        assert.isBelow(millis, 900)
      }).pipe(Effect.provideContext(store)))
  })
})
