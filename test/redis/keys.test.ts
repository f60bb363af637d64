/** Idempotency keys on Redis: who holds them after steps that are cut off, repeated or overtaken, and after repairs by hand. */
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Fiber, Latch, type Scope } from "effect"
import { Redis, RedisError } from "effect/persistence/Redis"
import type { Created, NewRecord } from "../../src/BackendDriver.ts"
import * as RedisStore from "../../src/redis/RedisStore.ts"
import {
  failureWithDeadLetter,
  makeFixture,
  record,
  success
} from "../../src/testing/suites/backend/fixture.ts"
import { eventually } from "../support/storeFixture.ts"
import { describeWithRedis } from "./server.ts"
import { keysOf, temporary } from "./temporary.ts"

/** Changes a call of a script. */
type Fault = <A>(call: Effect.Effect<A, RedisError>) => Effect.Effect<A, RedisError>

const failed = Effect.fail(new RedisError({ cause: new Error("the connection broke") }))
const answerIsLost: Fault = (call) => Effect.andThen(call, failed)
const isNotSent: Fault = () => failed

/** Opens a store as a process of its own, whose scripts can have faults. */
const openProcess = Effect.fnUntraced(function* (prefix: string, redis: Redis["Service"], shards: number) {
  let scripts = 0
  let fault: readonly [script: number, Fault] | undefined
  const send: Redis["Service"]["send"] = <A>(command: string, ...args: ReadonlyArray<string>) => {
    const call = redis.send<A>(command, ...args)
    // a script that the server does not know is sent twice
    if (command === "EVALSHA") scripts++
    return fault?.[0] === scripts && command.startsWith("EVAL") ? fault[1](call) : call
  }
  const { backend } = yield* Effect.provideService(
    RedisStore.makeDrivers({ prefix, shards }),
    Redis,
    Redis.of({ ...redis, send })
  )
  const t = makeFixture(backend, {
    units: (count) => count,
    slowdown: 1,
    long: 60_000,
    pass: Effect.sleep,
    eventually: (_, check) => eventually(check)
  })
  const create = (id: string, more?: Partial<NewRecord>): Effect.Effect<Created, unknown> =>
    t.create(id, { key: "k", payloadHash: "h", ...more })
  return {
    ...t,
    create,
    /** Runs an effect in which one script, counted from 1, has a fault. */
    withFault: <A, E>(script: number, change: Fault, effect: Effect.Effect<A, E>): Effect.Effect<A, E> =>
      Effect.suspend(() => {
        scripts = 0
        fault = [script, change]
        return Effect.ensuring(
          effect,
          Effect.sync(() => (fault = undefined))
        )
      }),
    /** Ends a task, and waits until its retention is over. */
    endAndOutlive: (id: string, incarnation = "") =>
      Effect.andThen(
        t.startAndSettle(id, "t", success("1", 1), { incarnation }),
        eventually(Effect.map(t.readOptional(id), (found) => found === undefined))
      ),
    /** Expects that a request under the key finds that task. */
    expectHolder: (id: string, more?: Partial<NewRecord>) =>
      Effect.map(create("finder", more), (found) => {
        assert.strictEqual(found._tag === "Existing" ? found.id : found._tag, id)
      })
  }
})

type Process = Effect.Success<ReturnType<typeof openProcess>>

/** A store with that many shards. */
const makeStore = Effect.fnUntraced(function* (shards: number) {
  const { prefix, redis: client } = yield* temporary
  const redis = Context.get(client, Redis)
  const keys = Effect.provideContext(keysOf(prefix), client)
  return {
    open: openProcess(prefix, redis, shards),
    /** The names of the keys that belong to idempotency keys. */
    entries: Effect.map(keys, (all) =>
      all
        .map((key) => key.slice(key.indexOf("}:") + 2))
        .filter((name) => name.startsWith("key:") || name === "foreign")
    ),
    /** Makes the keys due that a sweep is going to free. */
    makeKeysDue: Effect.gen(function* () {
      const index = (yield* keys).find((key) => key.endsWith("}:foreign"))!
      const members = yield* redis.send<ReadonlyArray<string>>("ZRANGE", index, "0", "-1")
      yield* redis.send("ZADD", index, ...members.flatMap((member) => ["1", member]))
    }),
    /** Removes the entry of the key `k` or the record of a task. */
    removeByHand: (part: "key:" | `task:${string}`) =>
      Effect.flatMap(keys, (all) => redis.send("DEL", ...all.filter((key) => key.includes(`}:${part}`))))
  }
})

type TestStore = Effect.Success<ReturnType<typeof makeStore>>

const test = (
  shards: number,
  name: string,
  body: (process: Process, store: TestStore) => Effect.fn.Return<void, unknown, Scope.Scope>
): void =>
  it.live(name, () =>
    Effect.gen(function* () {
      const store = yield* makeStore(shards)
      return yield* body(yield* store.open, store)
    })
  )

/** What has a key at the beginning of a test, and how many scripts a request under it runs. */
const beginnings = [
  ["a free key", 2, () => Effect.void],
  [
    "the key of a task that is gone",
    4,
    (process: Process) => Effect.andThen(process.create("gone"), process.endAndOutlive("gone"))
  ]
] as const

/** Makes a fault that holds a call back until it may go on. */
const makeHold = Effect.gen(function* () {
  const held = yield* Latch.make()
  const released = yield* Latch.make()
  const hold: Fault = (call) => held.open.pipe(Effect.andThen(released.await), Effect.andThen(call))
  return { hold, isHeld: held.await, goOn: released.open }
})

await describeWithRedis("idempotency keys on Redis", () => {
  describe.concurrent("with several shards", () => {
    for (const [other, which] of [
      ["a", "the same id"],
      ["b", "another id"]
    ] as const) {
      test(
        4,
        `an overtaken producer finds the task of the other one, under ${which}`,
        function* (slow, store) {
          const fast = yield* store.open
          const { hold, isHeld, goOn } = yield* makeHold
          // its key is claimed, and its record not created yet
          const creating = yield* Effect.forkChild(
            slow.withFault(2, hold, slow.create("a", { incarnation: "1" }))
          )
          yield* isHeld
          assert.strictEqual((yield* fast.create(other, { incarnation: "2" }))._tag, "Created")
          yield* goOn
          const found = yield* Fiber.join(creating)
          assert(found._tag === "Existing")
          assert.deepStrictEqual([found.id, found.incarnation, found.same], [other, "2", true])
          yield* slow.expectHolder(other)
        }
      )
    }

    for (const [what, scripts, begin] of beginnings) {
      for (let script = 1; script <= scripts; script++) {
        test(
          4,
          `a request for ${what} is repeated after script ${script} of ${scripts}`,
          function* (process) {
            yield* begin(process)
            const create = process.create("a", { incarnation: "1" })
            yield* Effect.flip(process.withFault(script, answerIsLost, create))
            const again = yield* create
            assert.strictEqual(again._tag, script === scripts ? "Existing" : "Created")
            assert.strictEqual((yield* process.read("a")).incarnation, "1")
            yield* process.expectHolder("a")
          }
        )
      }
    }

    test(4, "a key is not held for an id that has another key", function* (process, store) {
      yield* process.create("a")
      const found = yield* process.create("a", { key: "other" })
      assert(found._tag === "Existing")
      assert.deepStrictEqual(yield* store.entries, ["key:4:mailk"])
    })

    for (const [step, script] of [
      ["frees a key", 2],
      ["drops it from the index", 3]
    ] as const) {
      test(
        4,
        `a sweep that breaks off before it ${step} is made up for by the next one`,
        function* (process, store) {
          yield* process.create("a")
          yield* process.endAndOutlive("a")
          const sweep = process.driver.sweep(100)
          // the shard of the task is swept after up to three others
          for (const earlier of [0, 1, 2, 3]) {
            yield* Effect.exit(process.withFault(earlier + script, isNotSent, sweep))
          }
          yield* sweep
          assert.deepStrictEqual(yield* store.entries, [])
        }
      )
    }

    test(
      4,
      "a sweep frees the key of a forgotten task where the forget broke off",
      function* (process, store) {
        yield* process.create("a")
        yield* Effect.flip(process.withFault(2, isNotSent, process.driver.forget(["a"])))
        yield* process.driver.sweep(100)
        assert.deepStrictEqual(yield* store.entries, [])
      }
    )

    test(
      4,
      "an enqueue that sends its message late leaves the reservation of a later replay",
      function* (slow, store) {
        const fast = yield* store.open
        const { hold, isHeld, goOn } = yield* makeHold
        const item = {
          record: record("a", { key: "k", payloadHash: "h" }),
          message: { id: "a", task: "mail", queue: "q", priority: 100, delayMillis: 0, body: "{}" }
        }
        // the key is claimed, the record is created, and the message is sent
        const late = yield* Effect.forkChild(slow.withFault(3, hold, slow.driver.fusion!.enqueue([item])))
        yield* isHeld
        yield* fast.startAndSettle("a", "t", failureWithDeadLetter("Failed", 60_000))
        yield* fast.reopen((yield* fast.onlyDeadLetter).id)
        yield* goOn
        yield* Fiber.join(late)
        const found = yield* fast.create("a")
        assert(found._tag === "Existing")
        assert.deepStrictEqual([found.generation, found.published], [1, false])
      }
    )

    test(
      4,
      "a sweep that comes too early leaves the key of a record that is still there",
      function* (process, store) {
        yield* process.create("a")
        yield* process.startAndSettle("a", "t", success("1", 60_000))
        yield* store.makeKeysDue
        yield* process.driver.sweep(100)
        yield* process.expectHolder("a")
      }
    )
  })

  for (const shards of [1, 4]) {
    describe.concurrent(`with ${shards} shards, after repairs by hand`, () => {
      test(
        shards,
        "the key of a removed record leads to no later task of its id",
        function* (process, store) {
          yield* process.create("a")
          yield* store.removeByHand("task:a")
          yield* process.create("a", { key: "other" })
          assert.strictEqual((yield* process.create("b"))._tag, "Created")
          yield* process.expectHolder("a", { key: "other" })
          yield* process.expectHolder("b")
        }
      )

      test(shards, "the end of a task leaves a key that another task has taken", function* (process, store) {
        yield* process.create("a")
        yield* store.removeByHand("key:")
        assert.strictEqual((yield* process.create("b"))._tag, "Created")
        yield* process.endAndOutlive("a")
        yield* process.driver.sweep(100)
        yield* process.expectHolder("b")
      })

      test(
        shards,
        "a task whose key was removed holds it again when it is asked for by its id",
        function* (process, store) {
          yield* process.create("a")
          yield* store.removeByHand("key:")
          assert.strictEqual((yield* process.create("a"))._tag, "Existing")
          yield* process.expectHolder("a")
        }
      )
    })
  }
})
