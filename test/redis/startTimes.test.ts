import { assert, it } from "@effect/vitest"
import { AsyncResult, Backend } from "chicory"
import { RedisStore } from "chicory/redis"
import { Context, Effect, Layer, Logger, Option } from "effect"
import { Redis } from "effect/persistence/Redis"
import { FIELDS } from "../../src/redis/RecordText.ts"
import { startRequest } from "../../src/testing/suites/backend/fixture.ts"
import { Count, countingHandler, startWorker, type Store } from "../support/storeFixture.ts"
import { describeWithRedis } from "./server.ts"
import { temporary } from "./temporary.ts"

const ENQUEUED_AT = FIELDS.indexOf("enqueuedAt")

/** Registers a test of a task that is enqueued an hour ahead of the server's clock, as it is after that was set back. */
const test = (
  title: string,
  start: (store: Store, result: AsyncResult.AsyncResult<number>) => Effect.Effect<unknown, unknown>
) =>
  it.live(title, () =>
    Effect.gen(function* () {
      const { prefix, redis } = yield* temporary
      const store = yield* Layer.build(
        Layer.provide(RedisStore.layer({ prefix }), Layer.succeedContext(redis))
      )
      const { send } = Context.get(redis, Redis)
      const result = yield* Effect.provideContext(Count.delay({ n: 1, millis: 0 }), store)
      const key = `{${prefix}:0}:task:${result.taskId}`
      const fields = (yield* send<string>("GET", key)).split(" ")
      fields[ENQUEUED_AT] = String(Number(fields[ENQUEUED_AT]) + 3_600_000)
      yield* send("SET", key, fields.join(" "))
      yield* start(store, result)
      const found = yield* Effect.provideContext(AsyncResult.poll(result), store)
      const { enqueuedAt, startedAt } = Option.getOrThrow(found)
      assert.isTrue(Option.isSome(startedAt))
      assert.deepStrictEqual(startedAt, enqueuedAt)
    }).pipe(Effect.provide(Logger.layer([])))
  )

await describeWithRedis("redis: start times", () => {
  test("a task that a worker claims does not start before its enqueue", (store, result) =>
    Effect.scoped(
      Effect.andThen(
        startWorker(store, Count, countingHandler().layer),
        Effect.provideContext(AsyncResult.get(result), store)
      )
    ))

  test("a task that is started by itself does not start before its enqueue", (store, { taskId }) =>
    Effect.gen(function* () {
      const backend = Context.get(store, Backend.Backend)
      const incarnation = (yield* backend.read.one(taskId))?.incarnation
      assert(incarnation !== undefined)
      yield* backend.start([startRequest(taskId, "t", { task: Count.name, incarnation })])
    }))
})
