/**
 * Calls inside a transaction of the store's client: they are answered in the transaction or refused at once, and none waits
 * for a connection that the transaction holds.
 */
import { assert, it } from "@effect/vitest"
import { AsyncResult, Broker, DeadLetters, Task, Worker } from "chicory"
import { SqlStore } from "chicory/sql"
import { Context, Deferred, Effect, Fiber, Layer, Option, Schema, type Scope, Stream } from "effect"
import { SqlClient } from "effect/sql"
import { withoutAges } from "../support/withoutAges.ts"
import { type Databases, type Services, storeOn, work } from "./transactionSuite.ts"

const Mail = Task.make("mail", { payload: Schema.Int, success: Schema.Int, progress: Schema.Int })
const Keyed = Task.make("keyed", { payload: Schema.Int, idempotencyKey: (n) => `key ${n}` })
const Broken = Task.make("broken", { payload: Schema.Int, error: Schema.String })

const succeed = Mail.toLayer(Effect.succeed)

/** Runs an effect in as many transactions at once as the client has connections. */
const inEveryConnection = <A, E, R>({ client, connections }: Databases, effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const allOpen = yield* Deferred.make<void>()
    let open = 0
    const inOne = client.withTransaction(
      Effect.gen(function* () {
        if (++open === connections) yield* Deferred.succeed(allOpen, undefined)
        yield* Deferred.await(allOpen)
        return yield* effect
      })
    )
    return yield* Effect.all(
      Array.from({ length: connections }, () => inOne),
      { concurrency: "unbounded" }
    ).pipe(Effect.timeout("5 seconds"))
  })

const isRefused = (error: { readonly _tag: string; readonly message: string }) => {
  assert.include(["BackendError", "BrokerError"], error._tag)
  assert.isFalse((error as unknown as { readonly retryable: boolean }).retryable)
  assert.match(error.message, /inside an open transaction|open transaction of the SqlClient/)
}

/** Registers the tests. */
export const suite = (make: Effect.Effect<Databases, unknown, Scope.Scope>): void => {
  const test = (
    name: string,
    body: (databases: Databases) => Effect.Effect<void, unknown, Services | Scope.Scope>
  ) =>
    it.live(
      name,
      () =>
        Effect.gen(function* () {
          const databases = yield* make
          const { client, prefix } = databases
          yield* Effect.provideContext(body(databases), yield* storeOn(client, { prefix }))
        }),
      60_000
    )

  test("answers reads inside transactions that hold all connections", (databases) =>
    Effect.gen(function* () {
      const waiting = yield* Mail.delay(1)
      const answers = yield* inEveryConnection(
        databases,
        Effect.all({
          state: AsyncResult.state(waiting),
          ready: AsyncResult.ready(waiting),
          unknown: AsyncResult.poll(Mail.result("unknown")),
          polled: AsyncResult.poll(waiting),
          count: DeadLetters.count(),
          letters: DeadLetters.list(),
          counts: Effect.map(Broker.counts(["default"]), withoutAges),
          workers: Worker.active
        })
      )
      for (const answer of answers) {
        assert.deepStrictEqual(
          { ...answer, polled: Option.isSome(answer.polled) },
          {
            state: "PENDING",
            ready: false,
            unknown: Option.none(),
            polled: true,
            count: 0,
            letters: [],
            counts: [{ ready: 1, delayed: 0, claimed: 0 }],
            workers: []
          }
        )
      }
    }))

  test("shows a transaction its own tasks, and no other", ({ client }) =>
    Effect.gen(function* () {
      const id = yield* client.withTransaction(
        Effect.gen(function* () {
          const { taskId } = yield* Mail.delay(1)
          const [first] = yield* Mail.delayAll([2, 3])
          assert.isTrue(Option.isSome(yield* AsyncResult.poll(Mail.result(taskId))))
          assert.isTrue(Option.isSome(yield* AsyncResult.poll(first!)))
          assert.deepStrictEqual(withoutAges(yield* Broker.counts(["default"])), [
            { ready: 3, delayed: 0, claimed: 0 }
          ])
          return taskId
        })
      )
      assert.isTrue(Option.isSome(yield* AsyncResult.poll(Mail.result(id))))
    }))

  test("refuses at once, inside transactions that hold all connections, what would need another one", (databases) =>
    Effect.gen(function* () {
      const waiting = yield* Mail.delay(1)
      const refused = yield* inEveryConnection(
        databases,
        Effect.all([
          Effect.flip(AsyncResult.cancel(waiting)),
          Effect.flip(AsyncResult.forget(waiting)),
          Effect.flip(AsyncResult.get(waiting)),
          Effect.flip(AsyncResult.get(waiting, { timeout: "3 seconds", pollInterval: "10 millis" })),
          Effect.flip(AsyncResult.all([waiting, waiting])),
          Effect.flip(AsyncResult.race([waiting])),
          Effect.flip(Stream.runDrain(AsyncResult.stream([waiting]))),
          Effect.flip(Stream.runDrain(AsyncResult.changes(waiting))),
          Effect.flip(DeadLetters.remove("none")),
          Effect.flip(Broker.purge("default"))
        ])
      )
      for (const errors of refused) for (const error of errors) isRefused(error)
      // the transactions are intact, and the calls work outside of them
      assert.strictEqual(yield* AsyncResult.cancel(waiting), "Cancelled")
    }))

  test("refuses to replay a dead letter inside a transaction, and replays it afterwards", ({ client }) =>
    Effect.gen(function* () {
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* work(
            Broken,
            Broken.toLayer(() => Effect.fail("no"))
          )
          yield* Effect.exit(AsyncResult.get(yield* Broken.delay(1)))
        })
      )
      const [letter] = yield* DeadLetters.list()
      const refused = yield* Effect.flip(client.withTransaction(DeadLetters.replay(letter!.id)))
      isRefused(refused)
      // caught inside of the transaction, which commits
      const asNew = yield* client.withTransaction(Effect.flip(DeadLetters.replayAsNew(letter!.id)))
      isRefused(asNew)
      assert.deepStrictEqual(withoutAges(yield* Broker.counts(["default"])), [
        { ready: 0, delayed: 0, claimed: 0 }
      ])
      assert.isTrue(yield* DeadLetters.replay(letter!.id))
    }))

  test("returns a result inside a transaction, where the task has ended", ({ client }) =>
    Effect.gen(function* () {
      yield* work(Mail, succeed)
      const ended = yield* Mail.delay(7)
      yield* AsyncResult.get(ended)
      const never = yield* Mail.delay(8, { delay: "1 hour" })
      yield* client.withTransaction(
        Effect.gen(function* () {
          assert.strictEqual(yield* AsyncResult.get(ended), 7)
          assert.deepStrictEqual(yield* AsyncResult.all([ended]), [7])
          assert.strictEqual(yield* AsyncResult.race([never, ended]), 7)
          const states = yield* Stream.runCollect(AsyncResult.changes(ended))
          assert.deepStrictEqual(
            states.map(({ state }) => state),
            ["SUCCESS"]
          )
          // a read that waits for nothing is no wait
          const late = yield* Effect.flip(AsyncResult.get(never, { timeout: 0 }))
          assert.strictEqual(late._tag, "TimeoutError")
        })
      )
    }))

  test("shows a task whose time is over as ended inside a transaction, and writes nothing", ({
    client,
    prefix
  }) =>
    Effect.gen(function* () {
      const expired = yield* Mail.delay(1, { expires: "10 millis" })
      yield* Effect.sleep("20 millis")
      const stored = Effect.map(
        client.unsafe<{ readonly state: string }>(`SELECT state FROM ${prefix}_tasks`),
        ([row]) => row?.state
      )
      yield* client.withTransaction(
        Effect.gen(function* () {
          const failed = yield* Effect.flip(AsyncResult.get(expired))
          assert.strictEqual(failed._tag === "TaskFailed" && failed.reason._tag, "Expired")
          assert.strictEqual(yield* stored, "PENDING")
        })
      )
      assert.strictEqual(yield* AsyncResult.state(expired), "FAILURE")
      assert.strictEqual(yield* stored, "FAILURE")
    }))

  test("drops progress that a handler writes inside a transaction, and runs on", ({ client }) =>
    Effect.gen(function* () {
      let runs = 0
      yield* work(
        Mail,
        Mail.toLayer((n) =>
          Effect.gen(function* () {
            runs++
            yield* Mail.progress(1)
            yield* client.withTransaction(Mail.progress(2))
            return yield* SqlStore.transact(Effect.as(Mail.progress(3), n))
          }).pipe(Effect.orDie)
        )
      )
      const result = yield* Mail.delay(7)
      assert.strictEqual(yield* AsyncResult.get(result, { timeout: "20 seconds" }), 7)
      assert.strictEqual(runs, 1)
      const polled = Option.getOrThrow(yield* AsyncResult.poll(result))
      assert.deepStrictEqual(polled.progress, Option.some(1))
    }))

  test("refuses to open a store inside transactions that hold all connections", (databases) =>
    Effect.gen(function* () {
      const { client, prefix } = databases
      for (const layer of [SqlStore.layer({ prefix }), SqlStore.layerStorage({ prefix })]) {
        const open = Layer.build(Layer.provide(layer, Layer.succeed(SqlClient.SqlClient, client)))
        const errors = yield* inEveryConnection(databases, Effect.flip(Effect.scoped(open)))
        for (const error of errors) {
          assert.strictEqual(error._tag, "BackendError")
          assert.isFalse(error.retryable)
          assert.include(error.message, "cannot be opened inside a transaction")
        }
      }
    }))

  test("bounds a call outside a transaction while transactions hold all connections", (databases) =>
    Effect.gen(function* () {
      const { client, connections, prefix } = databases
      const context = yield* storeOn(client, { prefix, callTimeout: "300 millis" })
      const started = yield* Deferred.make<void>()
      const end = yield* Deferred.make<void>()
      let open = 0
      const holding = yield* Effect.forkChild(
        Effect.all(
          Array.from({ length: connections }, () =>
            client.withTransaction(
              Effect.suspend(() =>
                Effect.andThen(
                  ++open === connections ? Deferred.succeed(started, undefined) : Effect.void,
                  Deferred.await(end)
                )
              )
            )
          ),
          { concurrency: "unbounded" }
        )
      )
      yield* Deferred.await(started)
      const state = Effect.provideContext(AsyncResult.state(Mail.result("unknown")), context)
      const failed = yield* Effect.timeout(Effect.flip(state), "5 seconds")
      assert(failed._tag === "BackendError")
      assert.isTrue(failed.retryable)
      assert.include(failed.message, "did not answer within 300ms")
      yield* Deferred.succeed(end, undefined)
      yield* Fiber.join(holding)
      assert.strictEqual(yield* state, "PENDING")
    }))

  test("bounds a call inside a transaction, which stays usable for a rollback", ({ client, other, prefix }) =>
    Effect.gen(function* () {
      const bounded = yield* storeOn(client, { prefix, callTimeout: "300 millis" })
      const there = yield* storeOn(other, { prefix })
      // a file has one writer at a time, so a second transaction does not begin
      if (client.onDialectOrElse({ sqlite: () => true, orElse: () => false })) return
      const inside = yield* Deferred.make<void>()
      const commit = yield* Deferred.make<void>()
      const first = yield* Effect.forkChild(
        Context.get(there, SqlClient.SqlClient).withTransaction(
          Effect.andThen(
            Effect.provideContext(Keyed.delay(1), there),
            Effect.andThen(Deferred.succeed(inside, undefined), Deferred.await(commit))
          )
        )
      )
      yield* Deferred.await(inside)
      const second = Effect.provideContext(Keyed.delay(1), bounded)
      const failed = yield* Effect.timeout(Effect.flip(client.withTransaction(second)), "10 seconds")
      assert(failed._tag === "BackendError")
      assert.isTrue(failed.retryable)
      yield* Deferred.succeed(commit, undefined)
      yield* Fiber.join(first)
      assert.isString((yield* client.withTransaction(second)).taskId)
    }))
}
