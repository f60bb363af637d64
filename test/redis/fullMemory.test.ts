/** A server whose memory is full: the tasks that it has end, and no new ones come. */
import { assert } from "@effect/vitest"
import { AsyncResult, Broker, Task } from "chicory"
import { RedisStore } from "chicory/redis"
import { Array as Arr, Effect, Exit, Logger, Schema } from "effect"
import { MAX_OVERRUN } from "../../src/redis/scripts/lib/fullMemory.ts"
import { parked, record, startRequest, success } from "../../src/testing/suites/backend/fixture.ts"
import { eventually, startWorker } from "../support/storeFixture.ts"
import { describeWithServers, type Server } from "./server.ts"
import { clientOf, openStore, testWithServer as test } from "./storeFixture.ts"

const MIB = 1024 * 1024

/** Returns a text of that many characters. */
const Give = Task.make("give", {
  payload: { length: Schema.Int, padding: Schema.String },
  success: Schema.String,
  progress: Schema.Int
})

const giveCounting = (onRun: () => void) =>
  Give.toLayer(({ length }) => Effect.sync(() => (onRun(), "x".repeat(length))))

const delay = (length: number, padding = "") => Give.delay({ length, padding })

/** Enqueues tasks until the server refuses one; returns those that it accepted, and the error. */
const fill = Effect.gen(function* () {
  const accepted: Array<AsyncResult.AsyncResult<string>> = []
  for (;;) {
    const exits = yield* Effect.forEach(Arr.range(1, 50), () => Effect.exit(delay(10, "x".repeat(4_000))), {
      concurrency: "unbounded"
    })
    accepted.push(...exits.filter(Exit.isSuccess).map(({ value }) => value))
    const failed = exits.find(Exit.isFailure)
    if (failed !== undefined) return { accepted, failed }
  }
})

const setMaxMemory = (server: Server, bytes: number) =>
  server.command("CONFIG", "SET", "maxmemory", `${bytes}`)
const usedMemory = (server: Server) =>
  Effect.map(server.command("INFO", "memory"), (info) => Number(/used_memory:(\d+)/.exec(String(info))![1]))

/** Where the shard of a store with the prefix `t` counts what it has added. */
const OVERRUN = "{t:0}:overrun"
const overrunOf = (server: Server) => Effect.map(server.command("GET", OVERRUN), Number)

const openDrivers = ({ url }: Server) =>
  Effect.flatMap(clientOf(url), (client) =>
    Effect.provideContext(RedisStore.makeDrivers({ prefix: "t" }), client)
  )

const logsOf = () => {
  const logged: Array<string> = []
  const logger = Logger.make(({ message }) => void logged.push(String(message)))
  return { logged, layer: Logger.layer([logger]) }
}

describeWithServers("a Redis server whose memory is full", () => {
  test("accepts no task, and stores nothing of it", { args: ["--maxmemory", "8mb"] }, (server) =>
    Effect.gen(function* () {
      const store = yield* openStore(server)
      yield* Effect.gen(function* () {
        const { accepted, failed } = yield* fill
        const [reason] = failed.cause.reasons
        assert(reason?._tag === "Fail" && "retryable" in reason.error && reason.error.retryable)
        assert.include(reason.error.message, "OOM")
        const [counts] = yield* Broker.counts(["default"])
        assert.strictEqual(counts!.ready, accepted.length)
      }).pipe(Effect.provideContext(store))
    })
  )

  test(
    "has its tasks run, each once, and their outcomes stored",
    { args: ["--maxmemory", "8mb"] },
    (server) =>
      Effect.gen(function* () {
        const store = yield* openStore(server)
        yield* Effect.gen(function* () {
          const { accepted } = yield* fill
          let runs = 0
          yield* startWorker(
            store,
            Give,
            giveCounting(() => runs++)
          )
          const results = yield* AsyncResult.all(accepted, { timeout: "40 seconds" })
          assert.strictEqual(results.length, accepted.length)
          assert.strictEqual(runs, accepted.length)
          assert.isAbove(runs, 100)
          yield* eventually(
            Effect.map(Broker.counts(["default"]), ([counts]) => counts!.ready + counts!.claimed === 0)
          )
          yield* delay(1)
        }).pipe(Effect.provideContext(store))
      })
  )

  test("holds runs whose progress is not written, and says so once", {}, (server) =>
    Effect.gen(function* () {
      const store = yield* openStore(server, { lease: "1 second" })
      const { layer, logged } = logsOf()
      yield* Effect.gen(function* () {
        const result = yield* delay(5)
        yield* setMaxMemory(server, MIB)
        let runs = 0
        const handler = Give.toLayer(({ length }) =>
          Effect.gen(function* () {
            runs++
            yield* Effect.repeat(Give.progress(50), { times: 4 })
            return "x".repeat(length)
          })
        )
        yield* startWorker(store, Give, handler)
        assert.strictEqual(yield* AsyncResult.get(result, { timeout: "20 seconds" }), "xxxxx")
        assert.strictEqual(runs, 1)
        assert.isTrue(
          logged.filter((line) => line.startsWith("The progress of the run is not written")).length === 1
        )
      }).pipe(Effect.provideContext(store), Effect.provide(layer))
    })
  )

  test(
    "claims nothing more when outcomes have passed its maxmemory by the limit, until memory is free",
    {},
    (server) =>
      Effect.gen(function* () {
        const store = yield* openStore(server)
        const { layer, logged } = logsOf()
        const refusals = () => logged.filter((line) => line.includes("memory is full"))
        const concurrency = 4
        yield* Effect.gen(function* () {
          const tasks = yield* Effect.forEach(Arr.range(1, 60), () => delay(MIB), { concurrency: 8 })
          const before = yield* usedMemory(server)
          yield* setMaxMemory(server, before)
          let runs = 0
          yield* startWorker(
            store,
            Give,
            giveCounting(() => runs++),
            {
              concurrency
            }
          )
          yield* eventually(Effect.sync(() => refusals().length > 0))
          // what runs stores its outcome
          yield* eventually(Effect.map(Broker.counts(["default"]), ([counts]) => counts!.claimed === 0))
          // the size classes of the allocator are at most a quarter apart
          const most = 1.25 * (MAX_OVERRUN + concurrency * MIB) + 2 * MIB
          // the server frees the buffers of large calls a little later
          yield* eventually(Effect.map(usedMemory(server), (used) => used - before <= most))
          assert.isBelow(runs, tasks.length)
          yield* setMaxMemory(server, 0)
          assert.lengthOf(yield* AsyncResult.all(tasks, { timeout: "40 seconds" }), tasks.length)
          assert.strictEqual(runs, tasks.length)
          assert.lengthOf(refusals(), 1)
        }).pipe(Effect.provideContext(store), Effect.provide(layer))
      })
  )

  test("starts no run of another broker's messages then", {}, (server) =>
    Effect.gen(function* () {
      const { backend } = yield* openDrivers(server)
      const ids = Arr.map(Arr.range(1, 60), (n) => `task-${n}`)
      yield* backend.create(Arr.map(ids, (id) => record(id)))
      yield* setMaxMemory(server, yield* usedMemory(server))
      const run = (id: string, token: string) => backend.start([startRequest(id, token)])
      let stored = 0
      for (const id of ids) {
        const [started] = yield* run(id, "t")
        if (started!._tag !== "Run") break
        yield* backend.settle([{ id, token: "t", outcome: success("x".repeat(MIB), 60_000) }])
        stored++
      }
      assert.isAtLeast(stored * MIB, MAX_OVERRUN)
      assert.isAtMost(stored * MIB, MAX_OVERRUN + 2 * MIB)
      assert.strictEqual((yield* run("task-60", "t2"))[0]!._tag, "Busy")
      yield* setMaxMemory(server, 0)
      assert.strictEqual((yield* run("task-60", "t2"))[0]!._tag, "Run")
    })
  )

  test("counts an outcome that is stored again once, and a parked message as its dead letter", {}, (server) =>
    Effect.gen(function* () {
      const { backend, broker } = yield* openDrivers(server)
      yield* backend.create([record("a")])
      yield* backend.start([startRequest("a", "t")])
      const body = "x".repeat(MIB)
      yield* broker.publish([{ id: "b", task: "b", queue: "q", priority: 100, delayMillis: 0, body }])
      const [delivery] = yield* broker.claim({ queues: ["q"], max: 1, leaseMillis: 60_000, worker: "w" })
      yield* setMaxMemory(server, 1)
      for (let n = 0; n < 5; n++) {
        yield* backend.settle([{ id: "a", token: "t", outcome: success(body, 60_000) }])
      }
      assert.approximately(yield* overrunOf(server), MIB, 1_000)
      yield* backend.parkMessage([parked("b", { body })])
      yield* broker.ack([delivery!.handle])
      assert.approximately(yield* overrunOf(server), MIB, 2_000)
    })
  )

  test("answers a claim that is repeated, although it answers no other", {}, (server) =>
    Effect.gen(function* () {
      const { broker } = yield* openDrivers(server)
      const ids = ["a", "b"] as const
      yield* broker.publish(
        Arr.map(ids, (id) => ({ id, task: "t", queue: "q", priority: 100, delayMillis: 0, body: "{}" }))
      )
      const claim = (claimId: string, isRetry: boolean) =>
        broker.claim({ queues: ["q"], max: 1, leaseMillis: 60_000, worker: "w", claimId, isRetry })
      const first = yield* claim("c1", false)
      yield* server.command("SET", OVERRUN, `${MAX_OVERRUN + 1}`)
      yield* setMaxMemory(server, 1)
      assert.deepStrictEqual(yield* claim("c2", false), [])
      assert.deepStrictEqual(
        (yield* claim("c1", true)).map(({ id }) => id),
        first.map(({ id }) => id)
      )
    })
  )

  test("keeps the marks of processes that are subscribed", {}, (server) =>
    Effect.gen(function* () {
      const store = yield* openStore(server)
      yield* setMaxMemory(server, 1)
      yield* Effect.gen(function* () {
        yield* Effect.forkScoped(Effect.ignore(AsyncResult.get(Give.result("unknown"))))
        yield* eventually(
          Effect.map(
            server.command("KEYS", "*:alive:*"),
            (keys) => (keys as ReadonlyArray<unknown>).length === 1
          )
        )
      }).pipe(Effect.provideContext(store))
    })
  )
})
