/** What Effect's exporters make of the metrics: their units, in OTLP and in Prometheus' text. */
import { assert, describe, it } from "@effect/vitest"
import { AsyncResult, Broker, Backend, MemoryStore, Task, Worker } from "chicory"
import { Effect, Layer, Metric, Schema } from "effect"
import { HttpClient, HttpClientResponse } from "effect/http"
import { OtlpMetrics, OtlpSerialization, PrometheusMetrics } from "effect/observability"
import { Flusher } from "effect/observability/OtlpExporter"
import { advance, fork } from "./support/memoryFixture.ts"

const Work = Task.make("work", { payload: Schema.Int, error: Schema.String })

const Live = Layer.mergeAll(
  Worker.layer([Work], { drainTimeout: 0 }).pipe(
    Layer.provide(
      Work.toLayer((n) => Effect.andThen(Effect.sleep("2 seconds"), n > 0 ? Effect.fail("no") : Effect.void))
    )
  ),
  Broker.depthMetrics({ queues: ["default"] }),
  Backend.deadLetterMetrics()
).pipe(Layer.provideMerge(MemoryStore.layer()))

/** Runs tasks, so that there are metrics. */
const runTasks = Effect.gen(function* () {
  yield* fork(Effect.exit(AsyncResult.get(yield* Work.delay(0))))
  yield* Work.delay(1)
  yield* advance("2 minutes")
})

const test = (name: string, body: Effect.Effect<void, unknown, Layer.Success<typeof Live>>) =>
  it.effect(name, () =>
    body.pipe(Effect.provide(Live), Effect.provideService(Metric.MetricRegistry, new Map()))
  )

const units: Readonly<Record<string, string>> = {
  "messaging.client.sent.messages": "{message}",
  "messaging.client.consumed.messages": "{message}",
  "messaging.client.operation.duration": "s",
  "messaging.process.duration": "s",
  "chicory.task.time_in_queue": "s",
  "chicory.task.dead_letters": "{dead_letter}",
  "chicory.task.retries": "{retry}",
  "chicory.worker.leases_lost": "{lease}",
  "chicory.worker.running": "{task}",
  "chicory.worker.slots": "{task}",
  "chicory.result.live_waiters": "{waiter}",
  "chicory.queue.depth": "{message}",
  "chicory.queue.oldest_age": "s",
  "chicory.dead_letter.count": "{dead_letter}"
}

interface OtlpBody {
  readonly resourceMetrics: ReadonlyArray<{
    readonly scopeMetrics: ReadonlyArray<{
      readonly metrics: ReadonlyArray<{ readonly name: string; readonly unit: string }>
    }>
  }>
}

describe("the unit of every metric", () => {
  test(
    "is exported over OTLP, also with attributes of the process",
    Effect.gen(function* () {
      const bodies: Array<OtlpBody> = []
      const client = HttpClient.make((request) =>
        Effect.sync(() => {
          const { body } = request
          assert(body._tag === "Uint8Array")
          bodies.push(JSON.parse(new TextDecoder().decode(body.body)) as OtlpBody)
          return HttpClientResponse.fromWeb(request, new Response())
        })
      )
      yield* runTasks
      yield* Effect.flatMap(Flusher, ({ flush }) => flush).pipe(
        Effect.provide(
          OtlpMetrics.layer({ url: "http://localhost/v1/metrics", resource: { serviceName: "shop" } })
        ),
        Effect.provide(OtlpSerialization.layerJson),
        Effect.provideService(HttpClient.HttpClient, client)
      )
      const exported = bodies.at(-1)?.resourceMetrics[0]?.scopeMetrics[0]?.metrics ?? []
      assert.deepStrictEqual(Object.fromEntries(exported.map(({ name, unit }) => [name, unit])), units)
    }).pipe(Effect.provideService(Metric.CurrentMetricAttributes, { region: "eu" }))
  )

  test(
    "is no label of Prometheus, whose values are in seconds",
    Effect.gen(function* () {
      yield* runTasks
      const text = yield* PrometheusMetrics.format()
      assert.notInclude(text, "unit=")
      const labels =
        `messaging_system="memory",chicory_task_name="work",messaging_destination_name="default",` +
        `messaging_operation_name="process",messaging_operation_type="process"`
      assert.include(text, "# TYPE messaging_process_duration histogram")
      assert.include(text, `messaging_process_duration_sum{${labels}} 2\n`)
      assert.include(text, `messaging_process_duration_sum{${labels},error_type="Failed"} 2\n`)
      assert.include(text, "# TYPE chicory_result_live_waiters gauge")
      for (const name of Object.keys(units)) assert.include(text, `# TYPE ${name.replaceAll(".", "_")} `)
    })
  )
})
