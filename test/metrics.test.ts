import { assert, describe, it } from "@effect/vitest"
import { AsyncResult, Backend, Broker, RetryPolicy, Task, Worker } from "chicory"
import { Effect, Layer, Metric, Schema } from "effect"
import { fork, advance, flush } from "./support/memoryFixture.ts"

const Work = Task.make("work", {
  payload: { fails: Schema.Number },
  error: Schema.String,
  queue: "jobs",
  retry: RetryPolicy.fixed({ maxRetries: 1, delay: "1 second" })
})

const WorkLive = Work.toLayer(({ fails }) =>
  Effect.andThen(
    Effect.sleep("2 seconds"),
    fails === 0 ? Effect.void : fails === 1 ? Effect.fail("no") : Effect.die(new Error("a bug"))
  )
)

const StoresLive = Layer.mergeAll(Backend.layerMemory, Broker.layerMemory)
const Live = Worker.layer([Work], { drainTimeout: 0, heartbeat: "1 second" }).pipe(
  Layer.provide(WorkLive),
  Layer.provideMerge(StoresLive)
)

/** Registers a test with its own registry of metrics. */
const test = (
  name: string,
  body: () => Effect.fn.Return<void, unknown, Backend.Backend | Broker.Broker>,
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

  test("measure handler durations in seconds, by error tag", function* () {
    yield* runToEnd(0)
    yield* runToEnd(1)
    yield* runToEnd(2)
    const found = yield* metrics("messaging.process.duration", { "chicory.task.name": "work" })
    const seconds = new Map(
      found.map(({ attributes, state }) => {
        const { count, sum } = state as { readonly count: number; readonly sum: number }
        return [attributes?.["error.type"] ?? "", [count, sum]]
      })
    )
    // the failing task ran twice, and a retry is not counted as an error
    assert.deepStrictEqual(seconds.get("Failed"), [1, 2])
    assert.deepStrictEqual(seconds.get("Died"), [1, 2])
    assert.deepStrictEqual(seconds.get(""), [2, 4])
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

  test("measure what is enqueued for an idle worker, and what is purged", function* () {
    const delayed = Effect.map(
      metrics("chicory.queue.depth", { "messaging.destination.name": "jobs", state: "delayed" }),
      ([found]) => (found?.state as { readonly value: number } | undefined)?.value
    )
    yield* advance("1 hour")
    yield* Work.delay({ fails: 0 }, { delay: "1 day" })
    yield* advance("1 second")
    assert.strictEqual(yield* delayed, 1)
    yield* advance("1 hour")
    yield* Broker.purge("jobs")
    yield* advance("1 second")
    assert.strictEqual(yield* delayed, 0)
  })

  test("measure the depth of queues, by state", function* () {
    yield* Work.delayAll([{ fails: 0 }, { fails: 0 }])
    yield* Work.delay({ fails: 0 }, { delay: "1 hour" })
    yield* advance("1 second")
    const found = yield* metrics("chicory.queue.depth", { "messaging.destination.name": "jobs" })
    const depth = found.map(({ attributes, state }) => [
      attributes?.["state"],
      (state as { value: number }).value
    ])
    assert.sameDeepMembers(depth, [
      ["claimed", 2],
      ["delayed", 1],
      ["ready", 0]
    ])
  })

  test("measure the calls to the broker", function* () {
    yield* runToEnd(0)
    const found = yield* metrics("messaging.client.operation.duration", { "messaging.system": "memory" })
    const names = found.map(({ attributes }) => attributes?.["messaging.operation.name"])
    assert.includeMembers(names, ["publish", "claim", "ack", "counts"])
  })

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
    assert.strictEqual(yield* count("chicory.result.live_waiters", { "chicory.backend": "memory" }), 2)
    yield* advance("1 second")
    assert.isDefined(waiting.pollUnsafe())
    assert.strictEqual(yield* count("chicory.result.live_waiters", { "chicory.backend": "memory" }), 0)
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
        "chicory.task.name",
        "error.type",
        "state"
      ]
    )
    yield* flush
  })
})
