import { assert, describe, it } from "@effect/vitest"
import { AsyncResult, Backend, Broker, MemoryStore, RetryPolicy, Task, TaskContext, Worker } from "chicory"
import { Context, Effect, Layer, Metric, Schema, type Scope } from "effect"
import { ConnectionError, SqlError } from "effect/sql/SqlError"
import { fork, advance, flush } from "./support/memoryFixture.ts"

class Refused extends Schema.TaggedError<Refused>()("Refused", { by: Schema.String }) {}

const Work = Task.make("work", {
  payload: { fails: Schema.Number },
  error: Refused,
  queue: "jobs",
  retry: RetryPolicy.fixed({ maxRetries: 1, delay: "1 second" })
})

const WorkLive = Work.toLayer(({ fails }) =>
  Effect.andThen(
    Effect.sleep("2 seconds"),
    fails === 0
      ? Effect.void
      : fails === 1
        ? Effect.fail(new Refused({ by: "a-customer" }))
        : Effect.die(new Error("a bug"))
  )
)

const StoresLive = Layer.mergeAll(Backend.layerMemory, Broker.layerMemory)
const WorkerLive = Worker.layer([Work], { drainTimeout: 0, heartbeat: "1 second" }).pipe(
  Layer.provide(WorkLive)
)
const liveOver = (stores: Layer.Layer<Backend.Backend | Broker.Broker>) =>
  Layer.provideMerge(WorkerLive, stores)
const Live = liveOver(StoresLive)

/** Registers a test with its own registry of metrics. */
const test = (
  name: string,
  body: () => Effect.fn.Return<void, unknown, Backend.Backend | Broker.Broker | Scope.Scope>,
  live = Live as Layer.Layer<Backend.Backend | Broker.Broker>
) =>
  it.effect(name, () =>
    Effect.gen(body).pipe(Effect.provide(live), Effect.provideService(Metric.MetricRegistry, new Map()))
  )

/** Returns the state of the metrics of that name with these attributes. */
const metrics = (id: string, attributes: Record<string, string> = {}) =>
  Effect.map(Metric.snapshot, (all) =>
    all.filter(
      (metric) =>
        metric.id === id &&
        Object.entries(attributes).every(([key, value]) => metric.attributes?.[key] === value)
    )
  )

const count = (id: string, attributes?: Record<string, string>) =>
  Effect.map(metrics(id, attributes), (found) =>
    found.reduce((sum, { state }) => sum + Number((state as { count?: number | bigint }).count ?? 0), 0)
  )

/** The types of the calls to the broker, by their names. */
const operations = Effect.map(
  metrics("messaging.client.operation.duration", { "messaging.system": "memory" }),
  (found) =>
    Object.fromEntries(
      found.map(({ attributes }) => [
        attributes?.["messaging.operation.name"],
        attributes?.["messaging.operation.type"]
      ])
    )
)

/** How often handlers ran, and for how many seconds, by the type of the error; `""` for a success. */
const durations = Effect.map(metrics("messaging.process.duration"), (found) =>
  Object.fromEntries(
    found.map(({ attributes, state }) => {
      const { count, sum } = state as { readonly count: number; readonly sum: number }
      return [attributes?.["error.type"] ?? "", [count, sum]]
    })
  )
)

const runToEnd = (fails: number) =>
  Effect.gen(function* () {
    const waiting = yield* fork(Effect.exit(AsyncResult.get(yield* Work.delay({ fails }))))
    yield* advance("10 seconds")
    assert.isDefined(waiting.pollUnsafe())
  })

describe("metrics", () => {
  test("count sent and claimed messages", function* () {
    yield* Work.delayAll([{ fails: 0 }, { fails: 0 }])
    yield* Work.delay({ fails: 0 })
    yield* advance("10 seconds")
    const attributes = { "messaging.system": "memory", "messaging.destination.name": "jobs" }
    assert.strictEqual(yield* count("messaging.client.sent.messages", attributes), 3)
    assert.strictEqual(yield* count("messaging.client.consumed.messages", attributes), 3)
  })

  test("count a message in another queue for that queue", function* () {
    yield* Work.delay({ fails: 0 }, { queue: "others" })
    yield* Work.delayAll([{ fails: 0 }, { fails: 0 }, { fails: 0 }], (_, index) =>
      index === 1 ? { queue: "others" } : {}
    )
    const sentTo = (queue: string) =>
      count("messaging.client.sent.messages", { "messaging.destination.name": queue })
    assert.deepStrictEqual([yield* sentTo("others"), yield* sentTo("jobs")], [2, 2])
  })

  test("measure handler durations in seconds, by the error's tag, of retried attempts too", function* () {
    yield* runToEnd(0)
    yield* runToEnd(1)
    yield* runToEnd(2)
    assert.deepStrictEqual(yield* durations, { "": [1, 2], Refused: [2, 4], Died: [1, 2] })
  })

  test("name the error of an attempt that has no tag by its reason", function* () {
    const Untagged = Task.make("untagged", {
      payload: { how: Schema.Literals(["text", "timeout", "request"]) },
      error: Schema.String,
      timeout: "1 second",
      retry: RetryPolicy.fixed({ maxRetries: 1, delay: "1 second" })
    })
    const handler = Untagged.toLayer(({ how }) =>
      Effect.gen(function* () {
        if (how === "text") return yield* Effect.fail("no")
        if (how === "timeout") return yield* Effect.never
        return yield* (yield* TaskContext.TaskContext).retry()
      })
    )
    yield* Layer.build(Layer.provide(Worker.layer([Untagged], { drainTimeout: 0 }), handler))
    yield* Untagged.delayAll([{ how: "text" }, { how: "timeout" }, { how: "request" }])
    yield* advance("10 seconds")
    assert.deepStrictEqual(yield* durations, {
      Failed: [2, 0],
      TimedOut: [2, 2],
      RetryRequested: [1, 0],
      RetriesExhausted: [1, 0]
    })
  })

  test(
    "count no released run as a success",
    function* () {
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* Layer.build(WorkerLive)
          yield* Work.delay({ fails: 0 })
          yield* advance("1 second")
        })
      )
      yield* flush
      assert.deepStrictEqual(yield* durations, { Released: [1, 1] })
    },
    StoresLive
  )

  test("count what is rare from zero on, from the start of the worker", function* () {
    for (const id of ["chicory.task.retries", "chicory.task.dead_letters", "chicory.worker.leases_lost"]) {
      const [counter, ...others] = yield* metrics(id, { "chicory.task.name": "work" })
      assert.lengthOf(others, 0)
      assert.strictEqual(yield* count(id), 0)
      assert.isDefined(counter, id)
    }
  })

  test("count retries and dead letters", function* () {
    yield* runToEnd(1)
    yield* runToEnd(2)
    assert.strictEqual(yield* count("chicory.task.retries", { "chicory.task.name": "work" }), 1)
    assert.strictEqual(yield* count("chicory.task.dead_letters", { "chicory.task.name": "work" }), 2)
  })

  test("count no dead letter for a task that is cancelled while it runs", function* () {
    const result = yield* Work.delay({ fails: 0 })
    yield* advance("1 second")
    assert.strictEqual(yield* AsyncResult.cancel(result), "Requested")
    yield* advance("1 second")
    assert.isTrue(yield* AsyncResult.failed(result))
    assert.strictEqual(yield* count("chicory.task.dead_letters"), 0)
    assert.strictEqual(yield* count("messaging.process.duration", { "error.type": "Cancelled" }), 1)
  })

  test("measure the time that messages wait in their queue, in seconds", function* () {
    yield* Work.delay({ fails: 0 }, { delay: "5 seconds" })
    yield* advance("10 seconds")
    const [found] = yield* metrics("chicory.task.time_in_queue", { "messaging.destination.name": "jobs" })
    const { count, sum } = found!.state as { readonly count: number; readonly sum: number }
    assert.strictEqual(count, 1)
    // counted from its due time
    assert.isAtMost(sum, 1)
  })

  test("count deliveries of ended tasks", function* () {
    const result = yield* Work.delay({ fails: 0 }, { delay: "1 second" })
    assert.strictEqual(yield* AsyncResult.cancel(result), "Cancelled")
    yield* advance("2 seconds")
    assert.strictEqual(yield* count("chicory.worker.duplicates_suppressed"), 1)
  })

  test(
    "say how many tasks a worker runs, of how many, until it stops",
    function* () {
      const values = Effect.gen(function* () {
        const [running, slots] = [
          yield* metrics("chicory.worker.running"),
          yield* metrics("chicory.worker.slots")
        ]
        return [...running, ...slots].map(({ state }) => (state as { readonly value: number }).value)
      })
      yield* Effect.scoped(
        Effect.gen(function* () {
          const worker = Context.get(yield* Layer.build(WorkerLive), Worker.Worker)
          assert.deepStrictEqual(yield* values, [0, 16])
          yield* Work.delayAll([{ fails: 0 }, { fails: 0 }])
          yield* advance("1 second")
          assert.deepStrictEqual(yield* values, [2, 16])
          const [running] = yield* metrics("chicory.worker.running")
          assert.strictEqual(running?.attributes?.["chicory.worker.id"], worker.id)
        })
      )
      assert.deepStrictEqual(yield* values, [])
    },
    StoresLive
  )

  test("measure the calls to the broker", function* () {
    yield* runToEnd(0)
    assert.deepStrictEqual(yield* operations, {
      publish: "send",
      "setAside.tasks": undefined,
      claim: "receive",
      ack: "settle"
    })
  })

  test(
    "measure the calls to a store that is both broker and backend",
    function* () {
      yield* runToEnd(0)
      assert.deepStrictEqual(yield* operations, {
        enqueue: "send",
        "setAside.tasks": undefined,
        claim: "receive",
        settle: "settle"
      })
    },
    liveOver(MemoryStore.layer())
  )

  test(
    "name the error of a failed call",
    function* () {
      const broker = yield* Broker.make({
        ...(yield* Broker.makeDriverMemory),
        counts: () => Effect.fail(new SqlError({ reason: new ConnectionError({ cause: "gone" }) })),
        purge: () => Effect.die(new TypeError("a bug"))
      })
      yield* Effect.exit(broker.counts(["jobs"]))
      yield* Effect.exit(broker.purge("jobs", 1))
      yield* broker.claim({ queues: ["jobs"], max: 1, leaseMillis: 1000, worker: "w" })
      const found = yield* metrics("messaging.client.operation.duration")
      const errors = found.map(({ attributes }) => [
        attributes?.["messaging.operation.name"],
        attributes?.["error.type"]
      ])
      assert.deepStrictEqual(Object.fromEntries(errors), {
        counts: "ConnectionError",
        purge: "TypeError",
        claim: undefined
      })
    },
    StoresLive
  )

  test("count waiters with hints until they leave", function* () {
    const waiting = yield* fork(
      Effect.all(
        [
          AsyncResult.get(AsyncResult.make("a")),
          AsyncResult.get(AsyncResult.make("b"), { timeout: "1 second" })
        ],
        { concurrency: "unbounded" }
      ).pipe(Effect.exit)
    )
    const live = Effect.map(
      metrics("chicory.result.live_waiters", { "chicory.backend": "memory" }),
      ([found]) => [found?.type, (found?.state as { readonly value: number } | undefined)?.value]
    )
    assert.deepStrictEqual(yield* live, ["Gauge", 2])
    yield* advance("1 second")
    assert.isDefined(waiting.pollUnsafe())
    assert.deepStrictEqual(yield* live, ["Gauge", 0])
  })

  test("have no task id and no payload among their attributes", function* () {
    const results = yield* Work.delayAll([{ fails: 0 }, { fails: 1 }, { fails: 2 }])
    const ids = new Set(results.map(({ taskId }) => taskId))
    yield* advance("30 seconds")
    const all = yield* Metric.snapshot
    assert.isAbove(all.length, 8)
    for (const { attributes } of all) {
      for (const value of Object.values(attributes ?? {})) assert.isFalse(ids.has(value))
    }
    const keys = new Set(all.flatMap(({ attributes }) => Object.keys(attributes ?? {})))
    assert.sameMembers(
      [...keys],
      [
        "messaging.system",
        "messaging.destination.name",
        "messaging.operation.name",
        "messaging.operation.type",
        "chicory.task.name",
        "chicory.worker.id",
        "error.type",
        "unit"
      ]
    )
    yield* flush
  })
})
