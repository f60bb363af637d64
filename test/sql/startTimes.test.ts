import { assert, describe, it } from "@effect/vitest"
import { AsyncResult, Backend } from "chicory"
import { Effect, Layer, Logger, Option, type Scope } from "effect"
import { SqlClient } from "effect/sql"
import { startRequest } from "../../src/testing/suites/backend/fixture.ts"
import { describeWithMariadb } from "../mariadb/server.ts"
import { describeWithPostgres } from "../postgres/server.ts"
import { Count, countingHandler, startWorker } from "../support/storeFixture.ts"
import { type SqlLocation, sqlLayer } from "../support/storeLocations.ts"
import * as TemporaryLocations from "../support/temporaryLocations.ts"

/** Enqueues a task an hour ahead of the clock of the database, as it is after that clock was set back. */
const enqueueAhead = ({ prefix }: SqlLocation) =>
  Effect.gen(function* () {
    const result = yield* Count.delay({ n: 1, millis: 0 })
    const sql = (yield* SqlClient.SqlClient).withoutTransforms()
    yield* sql`UPDATE ${sql(`${prefix}_tasks`)} SET enqueued_at = enqueued_at + 3600000`
    return result
  })

const times = (result: AsyncResult.AsyncResult<unknown, unknown>) =>
  Effect.map(AsyncResult.poll(result), (found) => {
    const { enqueuedAt, startedAt } = Option.getOrThrow(found)
    return [Option.getOrThrow(enqueuedAt), Option.getOrThrow(startedAt)]
  })

const suite = (location: Effect.Effect<SqlLocation, unknown, Scope.Scope>): void => {
  it.live("a task that a worker claims does not start before its enqueue", () =>
    Effect.gen(function* () {
      const at = yield* location
      const store = yield* Layer.build(sqlLayer(at))
      yield* Effect.gen(function* () {
        const result = yield* enqueueAhead(at)
        yield* startWorker(store, Count, countingHandler().layer)
        yield* AsyncResult.get(result)
        const [enqueuedAt, startedAt] = yield* times(result)
        assert.deepStrictEqual(startedAt, enqueuedAt)
      }).pipe(Effect.provideContext(store))
    }).pipe(Effect.provide(Logger.layer([])))
  )

  it.live("a task that is started by itself does not start before its enqueue", () =>
    Effect.gen(function* () {
      const at = yield* location
      yield* Effect.gen(function* () {
        const result = yield* enqueueAhead(at)
        const backend = yield* Backend.Backend
        const incarnation = (yield* backend.read.one(result.taskId))?.incarnation
        assert(incarnation !== undefined)
        yield* backend.start([startRequest(result.taskId, "t", { task: Count.name, incarnation })])
        const [enqueuedAt, startedAt] = yield* times(result)
        assert.deepStrictEqual(startedAt, enqueuedAt)
      }).pipe(Effect.provide(sqlLayer(at)))
    })
  )
}

describe("sqlite: start times", () => suite(TemporaryLocations.sqlite))
await describeWithPostgres("postgres: start times", () => suite(TemporaryLocations.postgres))
await describeWithMariadb("mariadb: start times", () => suite(TemporaryLocations.mariadb))
