import { assert, it } from "@effect/vitest"
import { AsyncResult, Backend, Broker, MemoryStore, Task, Worker } from "chicory"
import { SqlBackend, SqlBroker, SqlStore } from "chicory/sql"
import { SqliteBackend, SqliteBroker, SqliteClient, SqliteStore } from "chicory/sqlite"
import { Cause, Context, Duration, Effect, Exit, Layer, Option, Schema } from "effect"
import { TestClock } from "effect/testing"

const Plain = Task.make("plain", { success: Schema.Number })
const Kept = Task.make("kept", { success: Schema.Number, retention: "1 hour" })
const Stuck = Task.make("stuck", {})

const StoresLive = Layer.merge(
  Backend.layer(Backend.makeDriverMemory, { retention: "1 minute" }),
  Broker.layer(Broker.makeDriverMemory, { lease: "90 seconds" })
)
const HandlersLive = Layer.mergeAll(
  Plain.toLayer(() => Effect.succeed(1)),
  Kept.toLayer(() => Effect.succeed(2)),
  Stuck.toLayer(() => Effect.never)
)
const WorkerLive = Worker.layer([Plain, Kept, Stuck], { drainTimeout: 0 }).pipe(Layer.provide(HandlersLive))

it.effect("a task without a retention has the backend layer's", () =>
  Effect.gen(function* () {
    const plain = yield* Plain.delay()
    const kept = yield* Kept.delay()
    yield* TestClock.adjust("10 seconds")
    assert.isTrue(yield* AsyncResult.successful(plain))
    yield* TestClock.adjust("1 minute")
    assert.isTrue(Option.isNone(yield* AsyncResult.poll(plain)))
    assert.isTrue(Option.isSome(yield* AsyncResult.poll(kept)))
  }).pipe(Effect.provide(WorkerLive), Effect.provide(StoresLive))
)

it.effect("a worker without a lease has the broker layer's", () =>
  Effect.gen(function* () {
    const backend = yield* Backend.Backend
    const { taskId } = yield* Stuck.delay()
    const start = (token: string) =>
      backend.start([
        {
          id: taskId,
          task: "stuck",
          incarnation: "",
          generation: 0,
          token,
          worker: "another",
          queue: "default",
          body: "",
          leaseMillis: 1000,
          deliveryMode: "at-least-once",
          maxCrashes: 3,
          retentionMillis: undefined,
          deadLetterRetentionMillis: undefined
        }
      ])
    yield* Effect.scoped(
      Effect.gen(function* () {
        yield* Layer.build(WorkerLive)
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual(yield* start("t"), [{ _tag: "Busy", millis: 89_000 }])
      })
    )
  }).pipe(Effect.provide(StoresLive))
)

const filename = ":memory:"
const retention = "7 minutes"
const lease = "77 seconds"
const DatabaseLive = SqliteClient.layer({ filename })

for (const [store, layer] of Object.entries<Layer.Layer<Backend.Backend | Broker.Broker, unknown>>({
  MemoryStore: MemoryStore.layer({ retention, lease }),
  SqliteStore: SqliteStore.layer({ filename, retention, lease }),
  "SqliteBackend and SqliteBroker": Layer.merge(
    SqliteBackend.layer({ filename, retention }),
    SqliteBroker.layer({ filename, lease })
  ),
  SqlStore: Layer.provide(SqlStore.layer({ retention, lease }), DatabaseLive),
  "SqlBackend and SqlBroker": Layer.provide(
    Layer.merge(SqlBackend.layer({ retention }), SqlBroker.layer({ lease })),
    DatabaseLive
  )
})) {
  it.live(`${store} takes the defaults of tasks and workers`, () =>
    Effect.gen(function* () {
      const context = yield* Layer.build(layer)
      assert.strictEqual(Context.get(context, Backend.Backend).retentionMillis, 7 * 60_000)
      assert.strictEqual(Duration.toMillis(Context.get(context, Broker.Broker).lease), 77_000)
    })
  )
}

it("MemoryStore.layer is one layer without options, and another one for each call with options", () => {
  assert.strictEqual(MemoryStore.layer(), MemoryStore.layer())
  assert.notStrictEqual(MemoryStore.layer({}), MemoryStore.layer({}))
})

it.effect("defaults out of range are a defect that names the range", () =>
  Effect.gen(function* () {
    const wrong: ReadonlyArray<readonly [Layer.Layer<never>, string]> = [
      [Backend.layer(Backend.makeDriverMemory, { sweepInterval: 0 }), "sweepInterval must be"],
      [Backend.layer(Backend.makeDriverMemory, { retention: 0 }), "retention must be"],
      [Broker.layer(Broker.makeDriverMemory, { lease: 0 }), "lease must be"]
    ]
    for (const [layer, allowed] of wrong) {
      const exit = yield* Effect.exit(Effect.scoped(Layer.build(layer)))
      assert(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
      assert.include(String(Cause.squash(exit.cause)), allowed)
    }
  })
)
