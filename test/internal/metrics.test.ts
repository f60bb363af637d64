import { assert, it } from "@effect/vitest"
import { Effect, Metric } from "effect"
import * as metrics from "../../src/internal/metrics.ts"

it.effect("the queues of a process beyond a thousand share their series", () =>
  Effect.gen(function* () {
    const system = "a broker with many queues"
    for (let n = 0; n < 1200; n++) {
      yield* Metric.update(metrics.forQueue(system, `customer ${n}`).sent, 1)
    }
    const sent = (yield* Metric.snapshot).filter(
      ({ attributes, id }) =>
        id === "messaging.client.sent.messages" && attributes?.["messaging.system"] === system
    )
    assert.strictEqual(sent.length, 1001)
    const others = sent.filter(({ attributes }) => attributes?.["otel.metric.overflow"] === "true")
    assert.lengthOf(others, 1)
    assert.deepInclude(others[0]?.state, { count: 200 })
    assert.strictEqual(metrics.forQueue(system, "customer 7"), metrics.forQueue(system, "customer 7"))
  })
)
