/** Ids with unusual characters, end to end on each store: they are kept exactly or refused at once. */
import { assert, describe, it } from "@effect/vitest"
import { AsyncResult, type Backend, type Broker, DeadLetters, Task } from "chicory"
import { Cause, Effect, Exit, Layer, Logger, Option, Schema, type Scope } from "effect"
import { describeWithMariadb } from "../mariadb/server.ts"
import { describeWithPostgres } from "../postgres/server.ts"
import { describeWithRabbit } from "../rabbitmq/server.ts"
import { describeWithRedis } from "../redis/server.ts"
import { Count, countingHandler, roundTrip, type Store, startWorker } from "../support/storeFixture.ts"
import { type StoreLocation, layer } from "../support/storeLocations.ts"
import * as TemporaryLocations from "../support/temporaryLocations.ts"
import { loneSurrogate } from "./randomValues.ts"

const ids: ReadonlyArray<string> = [
  " ",
  "a",
  "A",
  "a ",
  " a",
  "a\n",
  "\n",
  "\t\r\n",
  "\u2028\u00a0\ufeff",
  "\u0001\u007f",
  "é",
  "e\u0301",
  "🌶️",
  "-",
  "%",
  "%zz",
  "%2D",
  "{a}",
  "{chicory:0}",
  "}{",
  ":",
  "a:0",
  "a:0:1",
  "/",
  "1/2/3",
  ",",
  "*",
  "'; DROP TABLE chicory_tasks; --",
  '"',
  "\\",
  "?",
  "$1",
  "[]",
  "null",
  "__proto__",
  "constructor",
  "x".repeat(255),
  "é".repeat(255),
  "🌶".repeat(127)
]

/** Fails until the test mends it. */
const Fragile = Task.make("fragile", { payload: {}, success: Schema.Number, error: Schema.String })

/** Ids that a store may be unable to keep. */
const refusable = ["\0", "a\0b", loneSurrogate, `a${loneSurrogate}b`]

const isTyped = (exit: Exit.Exit<unknown, { readonly _tag: string }>): boolean => {
  const error = Exit.findErrorOption(exit)
  return Option.isSome(error) && ["BackendError", "BrokerError", "EncodeError"].includes(error.value._tag)
}

/** Whether an id was refused: by a typed error, or as a programmer's error. */
const isRefused = (exit: Exit.Exit<unknown, { readonly _tag: string }>): boolean =>
  isTyped(exit) || (Exit.isFailure(exit) && Cause.squash(exit.cause) instanceof RangeError)

const suite = (temporaryLocation: Effect.Effect<StoreLocation, unknown, Scope.Scope>): void => {
  const test = (
    name: string,
    body: (store: Store) => Effect.Effect<void, unknown, Scope.Scope | Backend.Backend | Broker.Broker>
  ) =>
    it.live(
      name,
      () =>
        Effect.gen(function* () {
          const store = yield* Layer.build(layer(yield* temporaryLocation))
          yield* Effect.provideContext(body(store), store)
          // refused ids are logged as warnings
        }).pipe(Effect.provide(Logger.layer([]))),
      60_000
    )

  test("each names a separate task", (store) =>
    Effect.gen(function* () {
      yield* startWorker(store, Count, countingHandler().layer)
      const handles = yield* Effect.forEach(ids, (id, n) => Count.delay({ n, millis: 0 }, { id }), {
        concurrency: "unbounded"
      })
      assert.deepStrictEqual(
        handles.map(({ taskId }) => taskId),
        ids
      )
      assert.deepStrictEqual(
        yield* AsyncResult.all(handles, { timeout: "25 seconds" }),
        ids.map((_, n) => n)
      )
      // reads by the id, as another process does
      for (const [n, id] of ids.entries()) {
        const found = Option.getOrThrow(yield* AsyncResult.poll(Count.result(id)))
        assert.strictEqual(found.taskId, id)
        assert.deepStrictEqual(found.exit, Option.some(Exit.succeed(n)))
        assert.strictEqual(found.attempts, 1)
      }
    }))

  test("each has a dead letter that is found, replayed and removed", (store) =>
    Effect.gen(function* () {
      let mended = false
      yield* startWorker(
        store,
        Fragile,
        Fragile.toLayer(() => (mended ? Effect.succeed(1) : Effect.fail("broken")))
      )
      const handles = yield* Effect.forEach(ids, (id) => Fragile.delay({}, { id }), {
        concurrency: "unbounded"
      })
      for (const handle of handles) {
        const failed = yield* Effect.flip(AsyncResult.get(handle, { timeout: "25 seconds" }))
        assert(failed._tag === "TaskFailed" && failed.reason._tag === "Failed", String(failed))
        assert.strictEqual(failed.taskId, handle.taskId)
      }
      const letters = yield* DeadLetters.list(Fragile)
      assert.sameMembers(
        letters.map(({ taskId }) => Option.getOrThrow(taskId)),
        [...ids]
      )
      mended = true
      for (const { id } of letters) assert.isTrue(yield* DeadLetters.replay(id), id)
      yield* AsyncResult.all(handles, { timeout: "25 seconds" })
      assert.strictEqual(yield* DeadLetters.count(), 0)
    }))

  test("an unsupported id fails its own call alone, or runs", (store) =>
    Effect.gen(function* () {
      yield* startWorker(store, Count, countingHandler().layer)
      const all = [...refusable, "x".repeat(256), "x".repeat(10_000), ""]
      const exits = yield* Effect.forEach(
        ["good", ...all, "better"],
        (id, n) => Effect.exit(Effect.suspend(() => Count.delay({ n, millis: 0 }, { id }))),
        { concurrency: "unbounded" }
      )
      for (const [n, exit] of exits.entries()) {
        if (Exit.isFailure(exit)) {
          assert.isTrue(isRefused(exit), String(exit))
          assert.notInclude([0, exits.length - 1], n)
          continue
        }
        assert.isAtMost(exit.value.taskId.length, 255)
        assert.strictEqual(yield* AsyncResult.get(exit.value, { timeout: "25 seconds" }), n)
      }
      for (const id of all) {
        // a read of it is answered
        const read = yield* Effect.exit(Effect.suspend(() => AsyncResult.poll(Count.result(id))))
        assert.isTrue(Exit.isSuccess(read) || isRefused(read), `${JSON.stringify(id)}: ${String(read)}`)
      }
      assert.strictEqual(yield* roundTrip(7), 7)
    }))
}

describe.concurrent("ids on SQLite", () => suite(TemporaryLocations.sqlite))
await describeWithPostgres("ids on PostgreSQL", () => suite(TemporaryLocations.postgres))
await describeWithMariadb("ids on MariaDB", () => suite(TemporaryLocations.mariadb))
await describeWithRedis("ids on Redis", () => suite(TemporaryLocations.redis))
await describeWithRabbit("ids on RabbitMQ", () =>
  suite(TemporaryLocations.rabbitmq(TemporaryLocations.sqlite))
)
