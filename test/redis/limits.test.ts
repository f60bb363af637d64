/** Redis with a `proto-max-bulk-len` that is smaller than what the library takes by itself. */
import * as NodeRedis from "@effect/platform-node/NodeRedis"
import { assert, describe } from "@effect/vitest"
import { AsyncResult, DeadLetters, Task } from "chicory"
import { Effect, Layer, Schedule, Schema } from "effect"
import { isPermanent } from "../../src/redis/isPermanent.ts"
import { makeDrivers } from "../../src/redis/RedisStore.ts"
import { limitsSuite, sharedServer } from "../support/limitsSuite.ts"
import { startWorker } from "../support/storeFixture.ts"
import { describeWithServers, type Server, startServer } from "./server.ts"
import { openStore, testWithServer as test } from "./storeFixture.ts"

const MIB = 1024 * 1024
const small = { args: ["--proto-max-bulk-len", "1mb"] }

const open = ({ url }: Pick<Server, "url">, prefix = "t") =>
  Effect.flatMap(Layer.build(NodeRedis.layer({ url })), (client) =>
    Effect.provideContext(makeDrivers({ prefix }), client)
  )
const withBody = (body: string) =>
  [{ id: "a", task: "a", queue: "default", priority: 0, delayMillis: 0, body }] as const

/** Returns a text of that many characters. */
const Give = Task.make("give", { payload: Schema.Int, success: Schema.String })

describeWithServers("redis with a proto-max-bulk-len of 1 MiB", () => {
  const server = sharedServer(startServer(small))
  let stores = 0
  limitsSuite(Effect.flatMap(server, (server) => open(server, `t${++stores}`)))

  describe("the store", () => {
    test("takes values that fit an argument, with the rest of their message", small, (server) =>
      Effect.gen(function* () {
        const { backend, broker } = yield* open(server)
        assert.strictEqual(backend.capabilities.maxBytes, MIB - 64 * 1024)
        assert.strictEqual(broker.capabilities.maxBytes, backend.capabilities.maxBytes)
      })
    )

    test(
      "reports an argument over the limit as permanent, also where it lost its connection",
      small,
      (server) =>
        Effect.gen(function* () {
          const { broker } = yield* open(server)
          const publish = broker.publish(withBody("x".repeat(2 * MIB)))
          // the server answers, or closes the connection before it has read the argument
          for (let n = 0; n < 10; n++) assert.isTrue(isPermanent(yield* Effect.flip(publish)))
        })
    )

    test("reports a lost connection as retryable", small, (server) =>
      Effect.gen(function* () {
        const { broker } = yield* open(server)
        const publish = broker.publish(withBody("x".repeat(MIB / 2)))
        yield* publish
        yield* server.kill
        assert.isFalse(isPermanent(yield* Effect.flip(publish)))
        yield* server.start
      })
    )
  })

  test(
    "a user that may not read the limit ends a task whose result exceeds it after one run",
    small,
    (server) =>
      Effect.gen(function* () {
        yield* server.command("ACL", "SETUSER", "app", "reset", "on", ">pw", "~*", "&*", "+@all", "-config")
        const user = { url: `redis://app:pw@127.0.0.1:${server.port}` }
        assert.isUndefined((yield* open(user)).backend.capabilities.maxBytes)
        const store = yield* openStore(user)
        let runs = 0
        const handler = Give.toLayer((size) => Effect.sync(() => (runs++, "x".repeat(size))))
        yield* startWorker(store, Give, handler, { lease: "2 seconds" })
        yield* Effect.gen(function* () {
          const give = (size: number) =>
            Effect.retry(Give.delay(size), { schedule: Schedule.spaced("50 millis"), times: 20 })
          const failed = yield* Effect.flip(AsyncResult.get(yield* give(2 * MIB), { timeout: "40 seconds" }))
          assert(failed._tag === "TaskFailed" && failed.reason._tag === "ResultInvalid", failed.message)
          assert.include(failed.reason.issue, "invalid bulk length")
          assert.strictEqual(runs, 1)
          assert.strictEqual(yield* DeadLetters.count(Give), 1)
          assert.strictEqual(yield* AsyncResult.get(yield* give(1)), "x")
        }).pipe(Effect.provideContext(store))
      })
  )
})
