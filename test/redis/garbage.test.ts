/** What others write under a store's keys: nothing of it may stop those who had no part in it. */
import { assert, describe } from "@effect/vitest"
import { AsyncResult, Broker, DeadLetters } from "chicory"
import { Effect, Exit, Fiber, type Scope } from "effect"
import { Count, counting, eventually, roundTrip, startWorker, type Store, timed } from "../support/stack.ts"
import { describeWithServers, type Server } from "./server.ts"
import { openStore, testWithServer, untilSubscribed } from "./stack.ts"

const base = "{chicory:0}"
const queue = `${base}:queue:default`
const taskKey = (id: string) => `${base}:task:${id}`

/** A test on a server of its own, with its store. */
const test = <E>(name: string, body: (server: Server, store: Store) => Effect.Effect<void, E, Scope.Scope>) =>
  testWithServer(name, {}, (server) =>
    Effect.flatMap(openStore(server, { sweepInterval: "60 seconds" }), (store) => body(server, store))
  )

/** Waits until no message is left. */
const drained = eventually(
  Effect.map(
    Broker.counts(["default"]),
    ([counts]) => counts!.ready + counts!.delayed + counts!.claimed === 0
  )
)

describeWithServers("garbage", () => {
  describe.concurrent("among messages", () => {
    test("a text that is no UTF-8 becomes a dead letter with exactly its bytes", (server, store) =>
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
        yield* startWorker(store, Count, counting().layer)
        yield* eventually(Effect.map(DeadLetters.count(), (count) => count === 1))
        const [letter] = yield* DeadLetters.list()
        assert.deepStrictEqual(letter!.raw, Uint8Array.of(255, 254, 0, 10, 195, 40, 195, 188))
        assert.strictEqual(letter!.queue, "default")
        assert.strictEqual(yield* roundTrip(1), 1)
        yield* drained
      }).pipe(Effect.provideContext(store)))

    test("a text whose head nobody encoded becomes a dead letter, and holds up no claim", (server, store) =>
      Effect.gen(function* () {
        const texts = [
          "%zz count 0 \n{}",
          "%ff count 0 \n{}",
          "a %zz 0 \n{}",
          "a count 0\n{}",
          " count 0 \n{}",
          "\n"
        ]
        yield* Count.delayAll(texts.map((_, n) => ({ n, millis: 0 })))
        const fields = (yield* server.command("HKEYS", `${queue}:texts`)) as ReadonlyArray<string>
        for (const [i, field] of fields.entries()) {
          yield* server.command("HSET", `${queue}:texts`, field, texts[i]!)
        }
        yield* startWorker(store, Count, counting().layer)
        assert.strictEqual(yield* roundTrip(1), 1)
        yield* eventually(Effect.map(DeadLetters.count(), (count) => count === texts.length))
        assert.sameMembers(
          (yield* DeadLetters.list()).map(({ raw }) => raw),
          texts
        )
        yield* drained
      }).pipe(Effect.provideContext(store)))

    test("members that are no messages become dead letters, from every set", (server, store) =>
      Effect.gen(function* () {
        const members = ["", "hello", "1:2", "x:1:1:0", "-1:1:1:0", "7:1:1:0:0", "9\n:1:1:0", "🌶️"]
        for (const set of ["ready", "delayed", "claimed"]) {
          for (const member of members) {
            yield* server.command("ZADD", `${queue}:${set}`, "0", `${member}${member === "" ? "" : set}`)
          }
        }
        for (const member of members) yield* server.command("RPUSH", `${queue}:fresh`, `${member}fresh`)
        yield* startWorker(store, Count, counting().layer)
        assert.strictEqual(yield* roundTrip(1), 1)
        // the empty one is the same in all sets
        yield* eventually(Effect.map(DeadLetters.count(), (count) => count >= 4 * members.length - 2))
        yield* drained
        const raw = (yield* DeadLetters.list()).map((letter) => letter.raw)
        assert.include(raw, "helloready")
        assert.include(raw, "🌶️claimed")
        assert.strictEqual(yield* server.command("HLEN", `${queue}:texts`), 0)
      }).pipe(Effect.provideContext(store)))

    test("a member whose numbers are out of range runs, or becomes a dead letter", (server, store) =>
      Effect.gen(function* () {
        const members = [
          "99999999999999999999:1:100:0",
          "5:99999999999999999999999999:100:0",
          "6:1:99999999:0",
          "7:1:100:99999999999999999999999"
        ]
        for (const member of members) yield* server.command("ZADD", `${queue}:ready`, "0", member)
        yield* startWorker(store, Count, counting().layer)
        assert.strictEqual(yield* roundTrip(1), 1)
        yield* drained
        assert.strictEqual(yield* DeadLetters.count(), members.length)
      }).pipe(Effect.provideContext(store)))

    test("a message whose text is gone becomes an empty dead letter", (server, store) =>
      Effect.gen(function* () {
        yield* Count.delay({ n: 1, millis: 0 })
        yield* server.command("DEL", `${queue}:texts`)
        yield* startWorker(store, Count, counting().layer)
        assert.strictEqual(yield* roundTrip(2), 2)
        yield* eventually(Effect.map(DeadLetters.count(), (count) => count === 1))
        assert.strictEqual((yield* DeadLetters.list())[0]!.raw, "")
        yield* drained
      }).pipe(Effect.provideContext(store)))

    test("a queue of another kind fails its worker's claims, and heals with it", (server, store) =>
      Effect.gen(function* () {
        yield* server.command("SET", `${queue}:fresh`, "mine")
        yield* startWorker(store, Count, counting().layer)
        const failed = yield* Effect.flip(Count.delay({ n: 1, millis: 0 }))
        assert(failed._tag === "BackendError" || failed._tag === "BrokerError")
        assert.isFalse(failed.retryable)
        assert.include(failed.message, "WRONGTYPE")
        yield* server.command("DEL", `${queue}:fresh`)
        assert.strictEqual(yield* roundTrip(2), 2)
      }).pipe(Effect.provideContext(store)))
  })

  describe.concurrent("in records", () => {
    const edits = {
      "a text that is no record": (server: Server, key: string) => server.command("SET", key, "nonsense"),
      "an empty text": (server: Server, key: string) => server.command("SET", key, ""),
      "a record with a field too few": (server: Server, key: string) =>
        Effect.flatMap(server.command("GET", key), (value) =>
          server.command("SET", key, String(value).replace(/ \S+\n/, "\n"))
        ),
      "a state that there is not": (server: Server, key: string) =>
        Effect.flatMap(server.command("GET", key), (value) =>
          server.command("SET", key, String(value).replace(/^\S+/, "SLEEPING"))
        ),
      "a hash": (server: Server, key: string) =>
        Effect.andThen(server.command("DEL", key), server.command("HSET", key, "state", "SUCCESS"))
    }
    for (const [what, edit] of Object.entries(edits)) {
      test(`${what}: the reads of that task alone fail, and tell the key`, (server, store) =>
        Effect.gen(function* () {
          const handles = yield* Count.delayAll(Array.from({ length: 9 }, (_, n) => ({ n, millis: 0 })))
          const bad = handles[4]!
          yield* edit(server, taskKey(bad.taskId))
          const exits = yield* Effect.forEach(
            handles,
            (handle) => Effect.exit(AsyncResult.get(handle, { timeout: "500 millis" })),
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

      test(`${what}: tasks that are claimed with it run`, (server, store) =>
        Effect.gen(function* () {
          const handles = yield* Count.delayAll(Array.from({ length: 9 }, (_, n) => ({ n, millis: 0 })))
          const bad = handles[4]!
          yield* edit(server, taskKey(bad.taskId))
          yield* startWorker(store, Count, counting().layer)
          const good = handles.filter((handle) => handle !== bad)
          const [millis, values] = yield* timed(AsyncResult.all(good, { timeout: "10 seconds" }))
          assert.deepStrictEqual(values, [0, 1, 2, 3, 5, 6, 7, 8])
          assert.isBelow(millis, 5_000)
        }).pipe(Effect.provideContext(store)))

      test(`${what}: tasks that are enqueued with its id run`, (server, store) =>
        Effect.gen(function* () {
          yield* Count.delay({ n: 4, millis: 0 }, { id: "bad" })
          yield* server.command("DEL", `${queue}:fresh`, `${queue}:texts`)
          yield* edit(server, taskKey("bad"))
          yield* startWorker(store, Count, counting().layer)
          const exits = yield* Effect.forEach(
            [0, 1, 2, 3, 4, 5, 6, 7, 8],
            (n) => Effect.exit(Count.delay({ n, millis: 0 }, { id: n === 4 ? "bad" : `good-${n}` })),
            { concurrency: "unbounded" }
          )
          for (const [n, exit] of exits.entries()) {
            // what is no record counts as not there; a state is looked at by those who read
            if (n === 4 && what === "a state that there is not") continue
            assert.strictEqual(yield* AsyncResult.get(yield* exit, { timeout: "5 seconds" }), n)
          }
        }).pipe(Effect.provideContext(store)))

      test(`${what}: the end of its run is dropped, and those of others are told at once`, (server, store) =>
        Effect.gen(function* () {
          const runs = counting()
          yield* startWorker(store, Count, runs.layer, { lease: "2 seconds" })
          const handles = yield* Count.delayAll(Array.from({ length: 9 }, (_, n) => ({ n, millis: 500 })))
          const bad = handles[4]!
          const good = handles.filter((handle) => handle !== bad)
          yield* runs.untilBegun(9)
          const waiting = yield* Effect.forkChild(AsyncResult.all(good, { timeout: "10 seconds" }))
          yield* edit(server, taskKey(bad.taskId))
          yield* runs.untilEnded(8)
          const [millis, values] = yield* timed(Fiber.join(waiting))
          assert.deepStrictEqual(values, [0, 1, 2, 3, 5, 6, 7, 8])
          assert.isBelow(millis, 3_000)
          assert.strictEqual(yield* roundTrip(10), 10)
        }).pipe(Effect.provideContext(store)))
    }
  })

  describe.concurrent("elsewhere:", () => {
    test("a record that is deleted stops its handler, and frees its slot", (server, store) =>
      Effect.gen(function* () {
        const runs = counting()
        yield* startWorker(store, Count, runs.layer, { concurrency: 1, lease: "900 millis" })
        const handle = yield* Count.delay({ n: 1, millis: 600_000 })
        yield* runs.untilBegun(1)
        yield* server.command("DEL", taskKey(handle.taskId))
        yield* runs.untilInterrupted
        // its message came back, and runs it again
        yield* runs.untilBegun(2)
        assert.strictEqual(yield* AsyncResult.cancel(handle), "Requested")
        assert.strictEqual(yield* roundTrip(2), 2)
      }).pipe(Effect.provideContext(store)))

    test("a message that is deleted does not keep its task from ending", (server, store) =>
      Effect.gen(function* () {
        const runs = counting()
        yield* startWorker(store, Count, runs.layer, { concurrency: 1, lease: "900 millis" })
        const handle = yield* Count.delay({ n: 1, millis: 1_000 })
        yield* runs.untilBegun(1)
        yield* server.command("DEL", `${queue}:claimed`, `${queue}:texts`)
        assert.strictEqual(yield* AsyncResult.get(handle, { timeout: "10 seconds" }), 1)
        assert.strictEqual(yield* roundTrip(2), 2)
        assert.deepStrictEqual(runs.begun, [1, 2])
        yield* drained
      }).pipe(Effect.provideContext(store)))

    test("everything is deleted while tasks run: the worker goes on", (server, store) =>
      Effect.gen(function* () {
        const runs = counting()
        yield* startWorker(store, Count, runs.layer, { concurrency: 4, lease: "900 millis" })
        yield* Count.delayAll(Array.from({ length: 20 }, (_, n) => ({ n, millis: 200 })))
        yield* runs.untilEnded(4)
        yield* server.command("FLUSHALL")
        assert.strictEqual(yield* roundTrip(100), 100)
        yield* drained
      }).pipe(Effect.provideContext(store)))

    test("what others publish on a process's channel is passed over", (server, store) =>
      Effect.gen(function* () {
        yield* startWorker(store, Count, counting().layer)
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
          `["changed","nobody","mine"]`,
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
