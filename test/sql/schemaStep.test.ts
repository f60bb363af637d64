/** The rehearsal of the next step of the schema: it is applied while workers of this release and of the next one run. */
import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { AsyncResult, DeadLetters } from "chicory"
import { SqlStore } from "chicory/sql"
import { Effect, Fiber, Layer, Queue, type Scope } from "effect"
import { SqlClient } from "effect/sql"
import { schema } from "../../src/sql/schema/schema.ts"
import { describeWithMariadb } from "../mariadb/server.ts"
import { describeWithPostgres } from "../postgres/server.ts"
import { drained, poll, program, start, startWorker } from "../support/processes.ts"
import { Count, ProcessEvent } from "../support/processTasks.ts"
import * as StoreLocations from "../support/storeLocations.ts"
import * as TemporaryLocations from "../support/temporaryLocations.ts"

type Location = StoreLocations.SqlLocation

const options = { concurrency: 2, lease: "3 seconds" } as const

/** Starts a worker of the next release, and waits until it has migrated and is ready. */
const startLaterWorker = Effect.fnUntraced(function* (location: Location) {
  const args = [StoreLocations.encode(location), JSON.stringify(options)]
  const worker = yield* start(program("laterWorker.ts", args), ProcessEvent)
  yield* worker.until((events) => events.some(({ _tag }) => _tag === "Ready"))
  return worker
})

const versions = Effect.fnUntraced(function* ({ prefix }: Location) {
  const sql = yield* SqlClient.SqlClient
  const rows = yield* sql<{ readonly version: number }>`
    SELECT version FROM ${sql(`${prefix}_schema`)} ORDER BY version`
  return rows.map(({ version }) => Number(version))
})

const suite = (temporaryLocation: Effect.Effect<Location, unknown, Scope.Scope>): void => {
  it.live(
    "workers of both releases run tasks while a step of the schema is applied, and the older one can start again",
    () =>
      Effect.gen(function* () {
        const location = yield* temporaryLocation
        yield* Effect.gen(function* () {
          const known = schema[location.dialect].map(({ id }) => id)
          const later = known.length + 1
          const handles = yield* Queue.unbounded<Effect.Success<ReturnType<typeof Count.delay>>>()
          let sent = 0
          const enqueueForever = Effect.suspend(() => Count.delay({ n: sent++, millis: 5 })).pipe(
            Effect.tap((handle) => Queue.offer(handles, handle)),
            Effect.andThen(Effect.sleep("2 millis")),
            Effect.forever
          )
          const older = yield* startWorker(location, options)
          const producing = yield* Effect.forkChild(enqueueForever)
          yield* older.untilBegan(10)
          assert.deepStrictEqual(yield* versions(location), known)

          const newer = yield* startLaterWorker(location)
          assert.deepStrictEqual(yield* versions(location), [...known, later])
          older.clear()
          yield* older.untilBegan(10)
          yield* newer.until((events) => events.filter(({ _tag }) => _tag === "Began").length >= 10)

          yield* older.kill
          const again = yield* startWorker(location, options)
          yield* again.untilBegan(10)
          assert.deepStrictEqual(yield* versions(location), [...known, later])

          yield* Fiber.interrupt(producing)
          const all = yield* Queue.takeAll(handles)
          const values = yield* AsyncResult.all(all)
          assert.deepStrictEqual(
            values.map(({ n }) => n),
            all.map((_, n) => n)
          )
          const results = yield* Effect.forEach(all, poll)
          assert.isTrue(results.every(({ state }) => state === "SUCCESS"))
          // what the killed worker held, beside its slots: outcomes on their way
          assert.isAtMost(results.filter(({ attempts }) => attempts > 1).length, 2 * options.concurrency)
          assert.strictEqual(yield* DeadLetters.count(), 0)
          yield* drained
        }).pipe(
          Effect.provide(
            Layer.provideMerge(
              SqlStore.layer({ prefix: location.prefix }),
              Layer.merge(StoreLocations.clientLayer(location), NodeServices.layer)
            )
          )
        )
      }),
    120_000
  )
}

describe.concurrent("sqlite: a step of the schema", () => suite(TemporaryLocations.sqlite))
await describeWithPostgres("postgres: a step of the schema", () => suite(TemporaryLocations.postgres))
await describeWithMariadb("mariadb: a step of the schema", () => suite(TemporaryLocations.mariadb))
