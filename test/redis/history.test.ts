/** What the history of a task costs on Redis: no command for a task that succeeds at once, and no key that stays behind. */
import { assert } from "@effect/vitest"
import { Effect, type Scope } from "effect"
import type { Redis } from "effect/persistence/Redis"
import type { Outcome } from "../../src/BackendDriver.ts"
import * as RedisStore from "../../src/redis/RedisStore.ts"
import { failureWithDeadLetter, record, RELEASE, success } from "../../src/testing/suites/backend/fixture.ts"
import { describeWithServers, type Server } from "./server.ts"
import { clientOf, testWithServer } from "./storeFixture.ts"

const HOUR = 3_600_000

const defaults = {
  task: "mail",
  leaseMillis: HOUR,
  maxCrashes: 3,
  retentionMillis: HOUR,
  deadLetterRetentionMillis: HOUR
}

const openDrivers = (server: Server): Effect.Effect<RedisStore.Drivers, unknown, Scope.Scope> =>
  Effect.flatMap(clientOf(server.url), (client) =>
    Effect.provideContext(RedisStore.makeDrivers({ prefix: "t" }) as Drivers, client)
  )

type Drivers = Effect.Effect<RedisStore.Drivers, unknown, Scope.Scope | Redis>

/** What a task that succeeds at once takes, from its enqueue to a poll. */
const [ENQUEUE, CLAIM, SETTLE, READ] = [
  { evalsha: 1, time: 1, exists: 1, hget: 1, incrby: 1, msetnx: 1, hset: 1, rpush: 1, zpopmax: 1 },
  {
    evalsha: 1,
    time: 1,
    exists: 1,
    hmget: 1,
    lpop: 1,
    mget: 1,
    mset: 1,
    set: 1,
    setrange: 1,
    zadd: 1,
    zrangebyscore: 2
  },
  { evalsha: 1, time: 1, get: 1, hdel: 1, set: 1, setrange: 1, zrem: 1 },
  { evalsha: 1, time: 1, mget: 1, setrange: 1 }
]

type Counts = Readonly<Record<string, number>>

/** Returns how often each command was carried out, those of scripts included. */
const commands = (server: Server): Effect.Effect<Counts, unknown> =>
  Effect.map(server.command("INFO", "commandstats"), (info): Counts =>
    Object.fromEntries(
      Array.from(String(info).matchAll(/cmdstat_([a-z|]+):calls=(\d+)/g), ([, name, calls]) => [
        name!,
        Number(calls)
      ]).filter(([name]) => !["config|resetstat", "info", "ping", "publish"].includes(String(name)))
    )
  )

/** Counts the commands of an effect. */
const counting = <A>(server: Server, effect: Effect.Effect<A, unknown>) =>
  Effect.gen(function* () {
    yield* server.command("CONFIG", "RESETSTAT")
    yield* effect
    return yield* commands(server)
  })

const enqueue = ({ backend }: RedisStore.Drivers, id: string) =>
  backend.fusion!.enqueue([
    {
      record: record(id, { retentionMillis: HOUR }),
      message: { id, task: "mail", queue: "default", priority: 100, delayMillis: 0, body: "{}" }
    }
  ])

/** Claims the next message, which starts its task. */
const claim = ({ backend }: RedisStore.Drivers) =>
  Effect.map(
    backend.fusion!.claim!({
      queues: ["default"],
      max: 1,
      leaseMillis: HOUR,
      worker: "w",
      startDefaults: [defaults]
    }),
    ([claimed]) => {
      assert(claimed !== undefined)
      assert(claimed.run?.started._tag === "Run")
      return { id: claimed.delivery.id!, handle: claimed.delivery.handle, token: claimed.run.token }
    }
  )

type Run = Effect.Success<ReturnType<typeof claim>>

const settle = ({ backend }: RedisStore.Drivers, { handle, id, token }: Run, outcome: Outcome) =>
  Effect.map(backend.fusion!.settle([{ handle, settlement: { id, token, outcome } }]), ([settled]) =>
    assert.strictEqual(settled, "Stored")
  )

const retry = (failure?: string): Outcome => ({ _tag: "Retry", afterMillis: 0, failure })

const historyKeys = (server: Server) => server.command("KEYS", "*:history:*")

/** Opens drivers on whose server every script is known. */
const openWarm = Effect.fnUntraced(function* (server: Server) {
  const drivers = yield* openDrivers(server)
  for (const outcome of [retry("first\n"), RELEASE, success()]) {
    if (outcome._tag === "Retry") yield* enqueue(drivers, "warm")
    yield* settle(drivers, yield* claim(drivers), outcome)
  }
  yield* drivers.backend.read(["warm"])
  yield* drivers.backend.readHistory!(["warm"])
  yield* drivers.backend.forget(["warm"])
  return drivers
})

describeWithServers("redis: the history", () => {
  testWithServer("a task that succeeds at once takes no command and no key for it", {}, (server) =>
    Effect.gen(function* () {
      const drivers = yield* openWarm(server)
      assert.deepStrictEqual(yield* counting(server, enqueue(drivers, "a")), ENQUEUE)
      let run: Run | undefined
      const claiming = Effect.map(claim(drivers), (claimed) => (run = claimed))
      assert.deepStrictEqual(yield* counting(server, claiming), CLAIM)
      const settling = Effect.suspend(() => settle(drivers, run!, success(undefined, HOUR)))
      assert.deepStrictEqual(yield* counting(server, settling), SETTLE)
      assert.deepStrictEqual(yield* counting(server, drivers.backend.read(["a"])), READ)
      assert.deepStrictEqual(yield* historyKeys(server), [])
    })
  )

  testWithServer(
    "a retry writes it with one command, and reads it with one from the second on",
    {},
    (server) =>
      Effect.gen(function* () {
        const drivers = yield* openWarm(server)
        yield* enqueue(drivers, "a")
        const retryNext = (failure?: string) =>
          Effect.flatMap(claim(drivers), (run) => counting(server, settle(drivers, run, retry(failure))))
        const added = (counts: Counts, before: Counts) =>
          Object.fromEntries(
            Object.entries(counts)
              .map(([name, calls]) => [name, calls - (before[name] ?? 0)] as const)
              .filter(([, calls]) => calls !== 0)
          )
        // of a worker that keeps no failures
        const without = yield* retryNext()
        assert.deepStrictEqual(added(yield* retryNext("first\n"), without), { get: 1, set: 1 })
        assert.deepStrictEqual(added(yield* retryNext("second\n"), without), { get: 1, set: 1 })
        assert.deepStrictEqual(yield* drivers.backend.readHistory!(["a"]), ["first\nsecond\n"])
        yield* enqueue(drivers, "b")
        const run = yield* claim(drivers)
        const [a, b] = run.id === "a" ? [run, yield* claim(drivers)] : [yield* claim(drivers), run]
        assert.deepStrictEqual(
          added(yield* counting(server, settle(drivers, b, retry("first\n"))), without),
          {
            set: 1
          }
        )
        yield* settle(drivers, a, success(undefined, HOUR))
        assert.isAbove(Number(yield* server.command("PTTL", "{t:0}:history:a")), HOUR / 2)
        assert.deepStrictEqual(yield* counting(server, drivers.backend.readHistory!(["a"])), {
          evalsha: 1,
          time: 1,
          mget: 1
        })
      })
  )

  testWithServer("no key of it stays behind", {}, (server) =>
    Effect.gen(function* () {
      const drivers = yield* openWarm(server)
      const { backend } = drivers
      const end = Effect.fnUntraced(function* (id: string, outcome: Outcome) {
        yield* enqueue(drivers, id)
        yield* settle(drivers, yield* claim(drivers), retry("first\n"))
        yield* settle(drivers, yield* claim(drivers), outcome)
      })
      yield* end("removed", success(undefined, 0))
      yield* end("forgotten", success(undefined, HOUR))
      yield* backend.forget(["forgotten"])
      yield* end("replayed", failureWithDeadLetter("Failed", HOUR, HOUR))
      assert.deepStrictEqual(yield* historyKeys(server), ["{t:0}:history:replayed"])
      yield* backend.reopen(["replayed:0"], HOUR)
      assert.deepStrictEqual(yield* historyKeys(server), [])
      yield* enqueue(drivers, "cancelled")
      yield* settle(drivers, yield* claim(drivers), retry("first\n"))
      yield* backend.cancel(["cancelled"])
      assert.isAbove(Number(yield* server.command("PTTL", "{t:0}:history:cancelled")), HOUR / 2)
    })
  )

  testWithServer("a key of another kind is no history, and is replaced by the next failure", {}, (server) =>
    Effect.gen(function* () {
      const drivers = yield* openWarm(server)
      yield* enqueue(drivers, "a")
      yield* settle(drivers, yield* claim(drivers), retry("first\n"))
      yield* server.command("DEL", "{t:0}:history:a")
      yield* server.command("RPUSH", "{t:0}:history:a", "mine")
      assert.deepStrictEqual(yield* drivers.backend.readHistory!(["a"]), [undefined])
      yield* settle(drivers, yield* claim(drivers), retry("second\n"))
      assert.deepStrictEqual(yield* drivers.backend.readHistory!(["a"]), ["second\n"])
    })
  )
})
