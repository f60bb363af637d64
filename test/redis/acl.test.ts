import { globSync, readFileSync } from "node:fs"
import { join } from "node:path"
/** Redis users with few permissions. */
import { assert, describe, it } from "@effect/vitest"
import { AsyncResult, Backend, Broker, DeadLetters, RetryPolicy, Task, TaskContext, Worker } from "chicory"
import { RedisBroker, RedisCluster, RedisStore } from "chicory/redis"
import { type Context, Effect, Layer, Logger, Schema, Stream } from "effect"
import * as Redis from "effect/persistence/Redis"
import { eventually } from "../support/storeFixture.ts"
import { describeWithServers, type Server, startCluster } from "./server.ts"
import { clientOf, testWithServer as test } from "./storeFixture.ts"

const root = join(import.meta.dirname, "../..")

/** The commands in a paragraph of the page on Redis. */
const commandsAfter = (start: string): ReadonlyArray<string> => {
  const page = readFileSync(join(root, "docs/redis.md"), "utf8")
  const paragraph = page.slice(page.indexOf(start)).split(/\n- |\n\n/)[0]!
  return Array.from(paragraph.matchAll(/`([A-Z]+)`/g), ([, command]) => command!)
}
const ofConnection = commandsAfter("Commands of the connection:")
const inScripts = commandsAfter("Commands in scripts:")

const KEYS = ["~{shop:*", "&shop:process:*"]
const SAFE = [...KEYS, "+@all", "-@dangerous", "-@admin"]
const LISTED = [...KEYS, "-@all", ...[...ofConnection, ...inScripts].map((command) => `+${command}`)]

/** Makes a user with these rules, and a client of it. */
const connect = (server: Server, rules: ReadonlyArray<string>) =>
  Effect.andThen(
    server.command("ACL", "SETUSER", "app", "reset", "on", ">pw", ...rules),
    clientOf(`redis://app:pw@127.0.0.1:${server.port}`)
  )

const open = (client: Context.Context<Redis.Redis>) =>
  Layer.build(Layer.provide(RedisStore.layer({ prefix: "shop" }), Layer.succeedContext(client)))

const Work = Task.make("work", {
  payload: Schema.Literals(["ends", "retries", "fails", "waits"]),
  success: Schema.Int,
  error: Schema.String,
  progress: Schema.Int,
  retry: RetryPolicy.fixed({ maxRetries: 1, delay: "10 millis" })
})

const WorkLive = Work.toLayer((what) =>
  Effect.gen(function* () {
    const { retries } = yield* TaskContext.TaskContext
    yield* Work.progress(1)
    if (what === "fails" || (what === "retries" && retries === 0)) return yield* Effect.fail(what)
    return what === "waits" ? yield* Effect.never : 1
  })
)
const WorkerLive = Layer.provide(Worker.layer([Work], { drainTimeout: 0, lease: "1 second" }), WorkLive)

/** Runs a task, which takes a hint of its end, and the subscription of the process with it. */
const runOne = Effect.gen(function* () {
  const result = yield* Work.delay("ends")
  assert.strictEqual(yield* AsyncResult.get(result, { timeout: "10 seconds" }), 1)
})

/** Uses all that a store can do. */
const useAll = Effect.gen(function* () {
  yield* runOne
  const keyed = yield* Work.delay("retries", {
    id: "keyed",
    delay: "10 millis",
    priority: 7,
    expires: "1 minute"
  })
  assert.strictEqual((yield* Work.delay("retries", { id: "keyed" })).taskId, keyed.taskId)
  assert.strictEqual(yield* AsyncResult.get(keyed, { timeout: "10 seconds" }), 1)
  yield* AsyncResult.forget(keyed)

  const failing = yield* Work.delayAll(["fails", "fails"])
  yield* Effect.forEach(failing, (result) => AsyncResult.exit(result, { timeout: "10 seconds" }))
  const [first, second] = yield* Stream.runCollect(DeadLetters.stream(Work, { limit: 1 }))
  yield* DeadLetters.replay(first!.id)
  yield* DeadLetters.remove(second!.id)
  yield* eventually(Effect.map(DeadLetters.count(Work), (count) => count === 1))
  assert.strictEqual(yield* DeadLetters.purge(), 1)

  const waiting = yield* Work.delay("waits")
  yield* eventually(Effect.map(AsyncResult.state(waiting), (state) => state === "STARTED"))
  // longer than a lease, so that it is renewed and the store is swept
  yield* Effect.sleep("6 seconds")
  assert.strictEqual(yield* AsyncResult.cancel(waiting), "Requested")
  yield* AsyncResult.exit(waiting, { timeout: "10 seconds" })

  yield* Work.delay("ends", { delay: "1 hour" })
  const [counts] = yield* Broker.counts(["default"])
  assert.strictEqual(counts?.delayed, 1)
  assert.strictEqual(yield* Broker.purge("default"), 1)
  assert.lengthOf(yield* Worker.active, 1)
})

/** What was denied to scripts. */
const deniedInScripts = (server: Server) =>
  Effect.map(server.command("ACL", "LOG"), (entries) =>
    (entries as ReadonlyArray<ReadonlyArray<unknown>>).filter((entry) => entry.includes("lua"))
  )

describeWithServers("Redis users with few permissions", () => {
  test("the page on Redis lists the commands of the scripts", {}, (server) =>
    Effect.gen(function* () {
      const texts = globSync("src/redis/scripts/**/*.ts", { cwd: root }).map((file) =>
        readFileSync(join(root, file), "utf8")
      )
      const words = new Set(
        texts.flatMap((text) => Array.from(text.matchAll(/'([A-Z]{3,})'/g), ([, word]) => word!))
      )
      const found = yield* Effect.filter(words, (word) =>
        Effect.map(
          server.command("COMMAND", "INFO", word),
          (reply) => (reply as ReadonlyArray<unknown>)[0] !== null
        )
      )
      assert.deepStrictEqual(inScripts, found.toSorted())
    })
  )

  test("a user without dangerous commands works", {}, (server) =>
    Effect.gen(function* () {
      const store = yield* open(yield* connect(server, SAFE))
      yield* runOne.pipe(Effect.provide(WorkerLive), Effect.provideContext(store))
    })
  )

  test("a user without channels works, although nothing is hinted", {}, (server) =>
    Effect.gen(function* () {
      const store = yield* open(yield* connect(server, ["~{shop:*", "+@all"]))
      yield* runOne.pipe(Effect.provide(WorkerLive), Effect.provideContext(store))
    })
  )

  test("a user with the listed commands alone works", {}, (server) =>
    Effect.gen(function* () {
      const client = yield* connect(server, LISTED)
      const store = yield* open(client)
      yield* useAll.pipe(Effect.provide(WorkerLive), Effect.provideContext(store))
      const withoutBackend = Layer.merge(RedisBroker.layer({ prefix: "shop" }), Backend.layerNotConfigured)
      yield* Effect.gen(function* () {
        yield* Work.send("fails")
        const parked = Effect.map(
          server.command("XLEN", "{shop:0}:queue:default:parked"),
          (length) => length === 1
        )
        yield* eventually(parked)
      }).pipe(
        Effect.provide(WorkerLive),
        Effect.provide(Layer.provide(withoutBackend, Layer.succeedContext(client)))
      )
      assert.deepStrictEqual(yield* deniedInScripts(server), [])
    })
  )

  test("a call that is denied fails for good, and names what the user needs", {}, (server) =>
    Effect.gen(function* () {
      for (const rules of [
        ["~shop:*", "&shop:*", "+@all"],
        ["~{shop:*", "&shop:*", "+@all", "-zadd"]
      ]) {
        const store = yield* open(yield* connect(server, SAFE))
        yield* server.command("ACL", "SETUSER", "app", "resetkeys", ...rules)
        const run = Effect.andThen(Work.delay("ends", { delay: "1 minute" }), Work.delay("ends"))
        const error = yield* run.pipe(
          Effect.provide(WorkerLive),
          Effect.provideContext(store),
          Effect.repeat({ times: 50 }),
          Effect.flip
        )
        assert(error._tag === "BackendError", error._tag)
        assert.isFalse(error.retryable)
        assert.include(error.message, "needs the keys ~{shop:*, the channels &shop:process:*")
      }
    })
  )

  test(
    "a store is not opened for a user who may not use its keys, or a command of its scripts",
    {},
    (server) =>
      Effect.gen(function* () {
        for (const [rules, commands] of [
          [["~shop:*", "&shop:*", "+@all"], /NOPERM .* one of the keys/],
          [["~{shop:*", "&shop:*", "+@all", "-zadd", "-hset"], /may not use HSET, ZADD on the keys/]
        ] as const) {
          const error = yield* Effect.flip(open(yield* connect(server, rules)))
          assert(error._tag === "BackendError", error._tag)
          assert.isFalse(error.retryable)
          assert.match(error.message, commands)
          assert.include(error.message, "needs the keys ~{shop:*, the channels &shop:process:*")
        }
        assert.deepStrictEqual(yield* server.command("KEYS", "*"), [])
      })
  )

  test("a store for a user who may use every command leaves no key behind when it is opened", {}, (server) =>
    Effect.gen(function* () {
      yield* open(yield* connect(server, LISTED))
      assert.deepStrictEqual(yield* server.command("KEYS", "*"), [])
      assert.deepStrictEqual(yield* deniedInScripts(server), [])
    })
  )

  it.live(
    "a user without dangerous commands works on a cluster",
    () =>
      Effect.gen(function* () {
        const { nodes, rootNodes } = yield* startCluster(3)
        const user = { username: "app", password: "pw" }
        for (const node of nodes) yield* node.command("ACL", "SETUSER", "app", "reset", "on", ">pw", ...SAFE)
        const client = RedisCluster.layer({ rootNodes, defaults: user })
        const store = Layer.provide(RedisStore.layer({ prefix: "shop", shards: 5 }), client)
        yield* runOne.pipe(Effect.provide(Layer.provideMerge(WorkerLive, store)))
      }).pipe(Effect.provide(Logger.layer([]))),
    60_000
  )
})

/** A `Redis` service that refuses INFO, and answers HELLO. */
const withoutInfo = (hello: Effect.Effect<unknown, Redis.RedisError>) =>
  Layer.effect(
    Redis.Redis,
    Redis.make({
      send: <A>(command: string) =>
        command === "HELLO"
          ? (hello as Effect.Effect<A, Redis.RedisError>)
          : command === "EVALSHA"
            ? Effect.succeed([] as A)
            : refuse(command),
      subscribe: () => Effect.succeed(Effect.never),
      connect: refuse("a connection")
    })
  )
const refuse = (command: string): Effect.Effect<never, Redis.RedisError> =>
  Effect.fail(
    new Redis.RedisError({
      cause: new Error(`NOPERM this user has no permissions to run the '${command}' command`)
    })
  )

/** Opens a store, and returns its error, if it has one, and what it logged. */
const opened = Effect.fnUntraced(function* (hello: Effect.Effect<unknown, Redis.RedisError>) {
  const logged: Array<string> = []
  const capture = Logger.make<unknown, void>(
    ({ logLevel, message }) => void logged.push(`${logLevel} ${String(message)}`)
  )
  const error = yield* Layer.build(Layer.provide(RedisStore.layer(), withoutInfo(hello))).pipe(
    Effect.scoped,
    Effect.as(undefined),
    Effect.catch((error) => Effect.succeed(error.message)),
    Effect.provide(Logger.layer([capture]))
  )
  return { error, logged }
})

describe("a server that refuses INFO", () => {
  const hello = (version: string, role: string) => ({
    server: "redis",
    version,
    proto: 3,
    mode: "standalone",
    role
  })

  it.live("is known by HELLO, in each form in which clients return it", () =>
    Effect.gen(function* () {
      const fields = hello("5.9.9", "master")
      for (const reply of [fields, new Map(Object.entries(fields)), Object.entries(fields).flat()]) {
        const { error } = yield* opened(Effect.succeed(reply))
        assert.include(error, "the server is Redis 5.9.9; 6.2 or newer is needed")
      }
    })
  )

  it.live("is not used if it is a replica", () =>
    Effect.gen(function* () {
      const { error } = yield* opened(Effect.succeed(hello("7.0.0", "replica")))
      assert.include(error, "the server is a read-only replica; connect to its primary")
    })
  )

  it.live("is used, with a note that its eviction policy is not checked", () =>
    Effect.gen(function* () {
      for (const reply of [hello("7.0.0", "master"), "an unknown form", null, ["version"]]) {
        const { error, logged } = yield* opened(Effect.succeed(reply))
        assert.isUndefined(error)
        assert.lengthOf(logged, 1)
        assert.match(logged[0]!, /^Info .*maxmemory-policy is not checked/)
      }
    })
  )

  it.live("is used with a warning if it refuses HELLO too", () =>
    Effect.gen(function* () {
      const { error, logged } = yield* opened(refuse("hello"))
      assert.isUndefined(error)
      assert.lengthOf(logged, 1)
      assert.match(logged[0]!, /^Warn .*not checked.*6\.2 or newer/)
    })
  )

  it.live("is not used if it fails in another way", () =>
    Effect.gen(function* () {
      const lost = Effect.fail(new Redis.RedisError({ cause: new Error("the connection is lost") }))
      assert.include((yield* opened(lost)).error, "the connection is lost")
    })
  )
})
