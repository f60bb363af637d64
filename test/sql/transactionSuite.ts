/** The guarantees of transactions, on any database. */
import { assert, it } from "@effect/vitest"
import { AsyncResult, Backend, Broker, Task, Worker } from "chicory"
import type { Documents } from "chicory/driver"
import { SqlBackend, SqlStore } from "chicory/sql"
import {
  Array as Arr,
  Cause,
  Context,
  Deferred,
  Effect,
  Exit,
  Fiber,
  Layer,
  Option,
  Schema,
  type Scope
} from "effect"
import { SqlClient } from "effect/sql"
import { reasonOf } from "../support/memoryFixture.ts"
import { withoutAges } from "../support/withoutAges.ts"

const Mail = Task.make("mail", { payload: Schema.Int, success: Schema.Int })
const Keyed = Task.make("keyed", {
  payload: Schema.Int,
  success: Schema.Int,
  idempotencyKey: (n) => `key ${n}`
})
const Book = Task.make("book", { payload: Schema.Int, success: Schema.Int.check(Schema.isLessThan(100)) })

const Next = Task.make("next", { payload: Schema.Int, queue: "next" })

/** Fails an effect, so that its transaction rolls back. */
class Refused extends Schema.TaggedError<Refused>()("Refused", {}) {}

/** Two clients of one database, as of two processes, and the prefix of its tables. */
export interface Databases {
  readonly client: SqlClient.SqlClient
  /** The connections of the first client, at most. */
  readonly connections: number
  readonly other: SqlClient.SqlClient
  readonly prefix: string
}

/** The services of a store and its client. */
export type Services = SqlClient.SqlClient | Backend.Backend | Broker.Broker

/** Opens a store on a client. */
export const storeOn = (client: SqlClient.SqlClient, options: SqlStore.Options) =>
  Layer.build(Layer.provideMerge(SqlStore.layer(options), Layer.succeed(SqlClient.SqlClient, client)))

const ready = Effect.map(Broker.counts(["default"]), ([counts]) => counts?.ready)
const exists = (id: string) => Effect.map(AsyncResult.poll(Mail.result(id)), Option.isSome)

/** Creates a table of the program itself. */
const makeTable = ({ client, prefix }: Databases) =>
  Effect.acquireRelease(
    Effect.as(client.unsafe(`CREATE TABLE ${prefix}_book (n BIGINT NOT NULL PRIMARY KEY)`), `${prefix}_book`),
    (name) => Effect.orDie(client.unsafe(`DROP TABLE ${name}`))
  )

const rowsOf = (name: string) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.map(sql.unsafe<{ readonly n: number | bigint }>(`SELECT n FROM ${name} ORDER BY n`), (found) =>
      found.map(({ n }) => Number(n))
    )
  )

const insert = (name: string, n: number) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.orDie(sql.unsafe(`INSERT INTO ${name} (n) VALUES (${n})`))
  )

/** Starts a worker that stops with the test. */
export const work = <T extends Task.Any>(task: T, handler: Layer.Layer<Task.HandlerOf<T>, never, Services>) =>
  Effect.flatMap(Effect.context<Services>(), (context) =>
    Layer.build(
      Worker.layer([task], { drainTimeout: 0 }).pipe(
        Layer.provide(handler),
        Layer.provide(Layer.succeedContext(context))
      )
    )
  )

/** Registers the tests. */
export const suite = (make: Effect.Effect<Databases, unknown, Scope.Scope>): void => {
  const test = (
    name: string,
    body: (
      databases: Databases,
      /** Runs an effect as another process. */
      elsewhere: <A, E, R>(
        effect: Effect.Effect<A, E, R | Services>
      ) => Effect.Effect<A, E, Exclude<R, Services>>
    ) => Effect.Effect<void, unknown, Services | Scope.Scope>
  ) =>
    it.live(
      name,
      () =>
        Effect.gen(function* () {
          const databases = yield* make
          const here = yield* storeOn(databases.client, { prefix: databases.prefix })
          const there = yield* storeOn(databases.other, { prefix: databases.prefix })
          yield* Effect.provideContext(
            body(databases, (effect) => Effect.provideContext(effect, there) as never),
            here
          )
        }),
      60_000
    )

  test("shows a task once its transaction has committed, and not before", ({ client }, elsewhere) =>
    Effect.gen(function* () {
      const inside = yield* Deferred.make<string>()
      const commit = yield* Deferred.make<void>()
      const transaction = yield* Effect.forkChild(
        client.withTransaction(
          Effect.gen(function* () {
            const { taskId } = yield* Mail.delay(1)
            yield* Deferred.succeed(inside, taskId)
            yield* Deferred.await(commit)
          })
        )
      )
      const id = yield* Deferred.await(inside)
      assert.isFalse(yield* elsewhere(exists(id)))
      assert.strictEqual(yield* elsewhere(ready), 0)
      yield* Deferred.succeed(commit, undefined)
      yield* Fiber.join(transaction)
      assert.isTrue(yield* elsewhere(exists(id)))
      assert.strictEqual(yield* elsewhere(ready), 1)
    }))

  test("runs a task after the commit, and returns its result", ({ client }, elsewhere) =>
    Effect.gen(function* () {
      let committed = false
      yield* elsewhere(
        work(
          Mail,
          Mail.toLayer((n) => Effect.sync(() => (committed ? n : -1)))
        )
      )
      const result = yield* client.withTransaction(
        Effect.tap(Mail.delay(7), () =>
          Effect.andThen(
            // longer than a worker pauses between two polls
            Effect.sleep("1200 millis"),
            Effect.sync(() => {
              committed = true
            })
          )
        )
      )
      assert.strictEqual(yield* AsyncResult.get(result), 7)
    }))

  test("leaves no task and no key of a transaction that rolls back", ({ client }) =>
    Effect.gen(function* () {
      const ids: Array<string> = []
      const refused = yield* Effect.exit(
        client.withTransaction(
          Effect.gen(function* () {
            ids.push((yield* Mail.delay(1)).taskId, (yield* Keyed.delay(1)).taskId)
            ids.push(...(yield* Mail.delayAll([2, 3, 4])).map(({ taskId }) => taskId))
            return yield* new Refused()
          })
        )
      )
      assert.isTrue(Exit.isFailure(refused))
      assert.strictEqual(ids.length, 5)
      for (const id of ids) assert.isFalse(yield* exists(id))
      assert.strictEqual(yield* ready, 0)
      const again = yield* Keyed.delay(1)
      assert.notInclude(ids, again.taskId)
      assert.strictEqual(yield* ready, 1)
    }))

  test("keeps the documents of a transaction that commits, and of none that rolls back", ({ client }) =>
    Effect.gen(function* () {
      const { documents } = yield* Backend.Backend
      assert(documents !== undefined)
      const write = (version: string, expected: string | undefined) =>
        documents.write([{ kind: "pause", key: "a", version, expected, value: version }])
      const read = Effect.map(documents.get([{ kind: "pause", key: "a" }]), ([found]) => found?.value)
      yield* client.withTransaction(write("v1", undefined))
      const rolledBack = client.withTransaction(
        Effect.gen(function* () {
          assert.deepStrictEqual(yield* write("v2", "v1"), [true])
          assert.strictEqual(yield* read, "v2")
          return yield* new Refused()
        })
      )
      assert.instanceOf(yield* Effect.flip(rolledBack), Refused)
      assert.strictEqual(yield* read, "v1")
    }))

  test("shows a document that is written in a transaction nobody else before the commit", ({
    client
  }, elsewhere) =>
    Effect.gen(function* () {
      const document = { kind: "pause", key: "a" }
      const use = Effect.fnUntraced(function* <A, E>(
        f: (documents: Documents<unknown>) => Effect.Effect<A, E>
      ) {
        const { documents } = yield* Backend.Backend
        assert(documents !== undefined)
        return yield* f(documents)
      })
      const read = use(({ get }) => Effect.map(get([document]), ([found]) => found?.value))
      const keys = use(({ list }) => list({ kind: "pause", limit: 32 }))
      yield* client.withTransaction(
        Effect.gen(function* () {
          yield* use(({ write }) => write([{ ...document, version: "v1", expected: undefined, value: "1" }]))
          assert.strictEqual(yield* read, "1")
          assert.strictEqual((yield* keys).length, 1)
          assert.isUndefined(yield* elsewhere(read))
          assert.deepStrictEqual(yield* elsewhere(keys), [])
        })
      )
      assert.strictEqual(yield* elsewhere(read), "1")
    }))

  test("rolls back the tasks of a savepoint, and keeps the others", ({ client }) =>
    Effect.gen(function* () {
      const [outer, inner] = yield* client.withTransaction(
        Effect.gen(function* () {
          const outer = yield* Mail.delay(1)
          let inner: AsyncResult.AsyncResult<number> | undefined
          yield* Effect.exit(
            client.withTransaction(
              Effect.gen(function* () {
                inner = yield* Mail.delay(2)
                return yield* new Refused()
              })
            )
          )
          return [outer, inner!] as const
        })
      )
      assert.isTrue(yield* exists(outer.taskId))
      assert.isFalse(yield* exists(inner.taskId))
      assert.strictEqual(yield* ready, 1)
    }))

  test("rolls back a savepoint with the transaction around it", ({ client }) =>
    Effect.gen(function* () {
      let id = ""
      yield* Effect.exit(
        client.withTransaction(
          Effect.gen(function* () {
            id = (yield* client.withTransaction(Mail.delay(1))).taskId
            return yield* new Refused()
          })
        )
      )
      assert.notStrictEqual(id, "")
      assert.isFalse(yield* exists(id))
      assert.strictEqual(yield* ready, 0)
    }))

  test("commits or rolls back the tasks of each of thousands of concurrent transactions by itself", ({
    client
  }) =>
    Effect.gen(function* () {
      const enqueue = (n: number) =>
        n % 3 === 0
          ? Effect.map(Mail.delayAll([n, n]), (results) => results.map(({ taskId }) => taskId))
          : Effect.map(n % 3 === 1 ? Mail.delay(n) : Keyed.delay(n), ({ taskId }) => [taskId])
      const outcomes = yield* Effect.forEach(
        Arr.range(1, 2000),
        (n) => {
          let ids: ReadonlyArray<string> = []
          const one = Effect.gen(function* () {
            ids = yield* enqueue(n)
            // lets other fibers run
            yield* Effect.yieldNow
            if (n % 2 === 0) return yield* new Refused()
          })
          // some of them in no transaction, which share batches
          const whole = n % 5 === 0 ? Effect.ignore(one) : Effect.exit(client.withTransaction(one))
          return Effect.map(whole, () => ({ ids, stays: n % 2 === 1 || n % 5 === 0 }))
        },
        { concurrency: 64 }
      )
      const all = outcomes.flatMap(({ ids, stays }) => ids.map((id) => ({ id, stays })))
      assert.isAbove(all.length, 2000)
      const found = yield* Effect.forEach(all, ({ id }) => exists(id), { concurrency: "unbounded" })
      assert.deepStrictEqual(
        found,
        all.map(({ stays }) => stays)
      )
      assert.strictEqual(yield* ready, all.filter(({ stays }) => stays).length)
    }))

  test("waits for a key that an open transaction has taken", ({ client }, elsewhere) =>
    Effect.gen(function* () {
      const decide = Effect.fnUntraced(function* (n: number, commits: boolean) {
        const inside = yield* Deferred.make<string>()
        const end = yield* Deferred.make<void>()
        const first = yield* Effect.forkChild(
          Effect.exit(
            client.withTransaction(
              Effect.gen(function* () {
                yield* Deferred.succeed(inside, (yield* Keyed.delay(n)).taskId)
                yield* Deferred.await(end)
                if (!commits) return yield* new Refused()
              })
            )
          )
        )
        const id = yield* Deferred.await(inside)
        const second = yield* Effect.forkChild(elsewhere(Keyed.delay(n)))
        yield* Effect.sleep("100 millis")
        assert.isUndefined(second.pollUnsafe())
        yield* Deferred.succeed(end, undefined)
        yield* Fiber.join(first)
        return (yield* Fiber.join(second)).taskId === id
      })
      assert.isTrue(yield* decide(1, true))
      assert.isFalse(yield* decide(2, false))
      assert.strictEqual(yield* ready, 2)
    }))

  test("refuses to enqueue in a transaction with stores that are not in its database", (databases) =>
    Effect.gen(function* () {
      const { client, prefix } = databases
      const refusal = (context: Context.Context<Backend.Backend | Broker.Broker>) =>
        Effect.gen(function* () {
          const refused = yield* Effect.flip(client.withTransaction(Mail.delay(1)))
          assert(refused._tag === "Unsupported")
          assert.include(refused.message, "SqlStore")
          const partly = yield* Effect.flip(client.withTransaction(Mail.delayAll([1, 2])))
          assert(partly._tag === "PartialEnqueue" && partly.error._tag === "Unsupported")
          assert.strictEqual(yield* ready, 0)
          // outside the transaction it works
          yield* Mail.delay(1)
          assert.strictEqual(yield* ready, 1)
        }).pipe(Effect.provideContext(context))
      yield* refusal(yield* Layer.build(Layer.merge(Backend.layerMemory, Broker.layerMemory)))
      yield* refusal(
        yield* Layer.build(
          Layer.merge(
            Layer.provide(SqlBackend.layer({ prefix }), Layer.succeed(SqlClient.SqlClient, client)),
            Broker.layerMemory
          )
        )
      )
    }))

  test("completes a task in the transaction of its handler's writes", (databases, elsewhere) =>
    Effect.gen(function* () {
      const table = yield* makeTable(databases)
      yield* work(
        Book,
        Book.toLayer((n) =>
          SqlStore.transact(
            Effect.gen(function* () {
              yield* insert(table, n)
              yield* Effect.orDie(Next.send(n))
              return n + 1
            })
          ).pipe(Effect.orDie)
        )
      )
      const result = yield* elsewhere(Book.delay(1))
      assert.strictEqual(yield* elsewhere(AsyncResult.get(result)), 2)
      assert.deepStrictEqual(yield* elsewhere(rowsOf(table)), [1])
      // its message was removed and that of the next task added
      const none = { ready: 0, delayed: 0, claimed: 0 }
      assert.deepStrictEqual(withoutAges(yield* Broker.counts(["default", "next"])), [
        none,
        { ...none, ready: 1 }
      ])
    }))

  test("writes nothing if the effect of transact fails, and the handler continues", (databases) =>
    Effect.gen(function* () {
      const table = yield* makeTable(databases)
      yield* work(
        Book,
        Book.toLayer((n) =>
          SqlStore.transact(Effect.andThen(insert(table, n), new Refused())).pipe(
            Effect.catchTag("Refused", () => Effect.succeed(n + 10)),
            Effect.orDie
          )
        )
      )
      const result = yield* Book.delay(1)
      assert.strictEqual(yield* AsyncResult.get(result), 11)
      assert.deepStrictEqual(yield* rowsOf(table), [])
    }))

  test("rolls back a result that does not encode, and ends the task", (databases) =>
    Effect.gen(function* () {
      const table = yield* makeTable(databases)
      yield* work(
        Book,
        Book.toLayer((n) => SqlStore.transact(Effect.as(insert(table, n), 100)).pipe(Effect.orDie))
      )
      const failed = yield* Effect.flip(AsyncResult.get(yield* Book.delay(1)))
      assert.strictEqual(reasonOf(failed)._tag, "ResultInvalid")
      assert.deepStrictEqual(yield* rowsOf(table), [])
    }))

  test("refuses transact inside a transaction, and keeps the result of one after it", (databases) =>
    Effect.gen(function* () {
      const { client } = databases
      const table = yield* makeTable(databases)
      const refusals: Array<string> = []
      yield* work(
        Book,
        Book.toLayer((n) =>
          Effect.gen(function* () {
            const refused = yield* Effect.exit(
              client.withTransaction(SqlStore.transact(Effect.as(insert(table, n), 1)))
            )
            if (Exit.isFailure(refused)) refusals.push(Cause.pretty(refused.cause))
            return yield* SqlStore.transact(Effect.as(insert(table, n + 1), 2))
          }).pipe(Effect.orDie)
        )
      )
      const result = yield* Book.delay(1)
      assert.strictEqual(yield* AsyncResult.get(result), 2)
      assert.deepStrictEqual(yield* rowsOf(table), [2])
      assert.include(refusals.join(), "cannot be a part of another transaction")
    }))

  test("dies with a reason outside a handler, or with a backend in another database", () =>
    Effect.gen(function* () {
      const outside = yield* Effect.exit(
        SqlStore.transact(Effect.succeed(1)) as Effect.Effect<number, unknown, Services>
      )
      assert(Exit.isFailure(outside))
      assert.include(Cause.pretty(outside.cause), "has to be called in the handler")
      const memory = yield* Layer.build(Layer.merge(Backend.layerMemory, Broker.layerMemory))
      const failed = yield* Effect.gen(function* () {
        yield* work(
          Book,
          Book.toLayer((n) => SqlStore.transact(Effect.succeed(n)).pipe(Effect.orDie))
        )
        return yield* Effect.flip(AsyncResult.get(yield* Book.delay(1)))
      }).pipe(
        Effect.updateContext((context: Context.Context<Services | Scope.Scope>) =>
          Context.merge(context, memory)
        )
      )
      const reason = reasonOf(failed)
      assert(reason._tag === "Died")
      assert.include(String(reason.defect), "needs the results in the database")
    }))
}
