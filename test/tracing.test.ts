import { assert, describe, it } from "@effect/vitest"
import { AsyncResult, Backend, Broker, DeadLetters, RetryPolicy, Task, Worker } from "chicory"
import { Effect, Layer, Option, Schema, Tracer } from "effect"
import { fromTraceparent, toTraceparent } from "../src/internal/task/traceContext.ts"
import { fork, advance, flush } from "./support/memoryFixture.ts"

/** A tracer that keeps its spans. */
const recording = () => {
  const spans: Array<Tracer.Span> = []
  const tracer = Tracer.make({
    span: (options) => {
      const span = new Tracer.NativeSpan(options)
      spans.push(span)
      return span
    }
  })
  const named = (name: string) => spans.filter((span) => span.name === name)
  return { tracer, named }
}

const Mail = Task.make("mail", {
  payload: { to: Schema.String },
  error: Schema.String,
  retry: RetryPolicy.fixed({ maxRetries: 1, delay: "1 second" })
})
const MailLive = Mail.toLayer(({ to }) =>
  to === "nobody" ? Effect.fail("no such address") : Effect.withSpan(Effect.void, "smtp")
)
const Live = Worker.layer([Mail], { drainTimeout: 0 }).pipe(
  Layer.provide(MailLive),
  Layer.provideMerge(Layer.mergeAll(Backend.layerMemory, Broker.layerMemory))
)

const parentOf = (span: Tracer.Span | undefined) => Option.getOrThrow(span!.parent)

describe("trace context", () => {
  it.effect("the worker's span is the child of the producer's and the parent of the handler's", () => {
    const { named, tracer } = recording()
    return Effect.gen(function* () {
      const result = yield* Effect.withSpan(Mail.delay({ to: "ada" }), "request")
      yield* AsyncResult.get(result)
      const [request] = named("request")
      const [run] = named("mail")
      const [smtp] = named("smtp")
      assert.strictEqual(run?.kind, "consumer")
      assert.strictEqual(parentOf(run).spanId, request?.spanId)
      assert.strictEqual(run?.traceId, request?.traceId)
      assert.strictEqual(parentOf(smtp).spanId, run?.spanId)
      assert.strictEqual(run?.attributes.get("messaging.message.id"), result.taskId)
      assert.strictEqual(run?.attributes.get("messaging.destination.name"), "default")
    }).pipe(Effect.provide(Live), Effect.withTracer(tracer))
  })

  it.effect("every attempt and every replay is a child of the producer's span", () => {
    const { named, tracer } = recording()
    return Effect.gen(function* () {
      const result = yield* Effect.withSpan(Mail.delay({ to: "nobody" }), "request")
      const waiting = yield* fork(Effect.flip(AsyncResult.get(result)))
      yield* advance("2 seconds")
      assert.isDefined(waiting.pollUnsafe())
      const [letter] = yield* DeadLetters.list(Mail)
      yield* DeadLetters.replay(letter!.id)
      yield* advance("2 seconds")
      const [request] = named("request")
      const runs = named("mail")
      assert.deepStrictEqual(
        runs.map((span) => span.attributes.get("chicory.task.attempt")),
        [1, 2, 1, 2]
      )
      for (const run of runs) assert.strictEqual(parentOf(run).spanId, request?.spanId)
    }).pipe(Effect.provide(Live), Effect.withTracer(tracer))
  })

  it.effect("the worker's span is a root without a producer's span", () => {
    const { named, tracer } = recording()
    return Effect.gen(function* () {
      yield* AsyncResult.get(yield* Mail.delay({ to: "ada" }))
      yield* flush
      const [run] = named("mail")
      assert.isTrue(Option.isNone(run!.parent))
    }).pipe(Effect.provide(Live), Effect.withTracer(tracer))
  })

  it("a traceparent round-trips", () => {
    const span = Tracer.externalSpan({
      traceId: "0af7651916cd43dd8448eb211c80319c",
      spanId: "b7ad6b7169203331"
    })
    assert.strictEqual(toTraceparent(span), "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    const back = fromTraceparent(toTraceparent(span))
    assert.deepStrictEqual([back?.traceId, back?.spanId, back?.sampled], [span.traceId, span.spanId, true])
  })

  const trace = "0af7651916cd43dd8448eb211c80319c"
  const parent = "b7ad6b7169203331"

  it.each([
    "",
    "00-",
    "garbage",
    `zz-${trace}-${parent}-01`,
    `ff-${trace}-${parent}-01`,
    `00-${trace.toUpperCase()}-${parent}-01`,
    `00-${"0".repeat(32)}-${parent}-01`,
    `00-${trace}-${"0".repeat(16)}-01`,
    `00-${trace}-${parent}-0`,
    `00-${trace}-${parent}-01-`,
    `00-${trace}-${parent}-01${"a".repeat(100_000)}`,
    `01-${trace}-${parent}-01more`,
    `00-${trace}-${parent}-01\n`,
    undefined
  ])("%s decodes to no span", (traceparent) => {
    assert.isUndefined(fromTraceparent(traceparent))
  })

  it("a traceparent of a later version is read by its first 55 characters", () => {
    for (const more of ["", "-", `-${"a".repeat(100_000)}`]) {
      const span = fromTraceparent(`cc-${trace}-${parent}-09${more}`)
      assert.deepStrictEqual([span?.traceId, span?.spanId, span?.sampled], [trace, parent, true])
    }
  })

  it.each([
    ["x".repeat(100_000), parent],
    [trace, "x".repeat(100_000)],
    ["noop", "noop"],
    ["", ""]
  ])("a span with other ids than those of the specification has no traceparent", (traceId, spanId) => {
    assert.isUndefined(toTraceparent(Tracer.externalSpan({ traceId, spanId })))
  })

  it("a trace id of 64 bits is padded", () => {
    const span = Tracer.externalSpan({ traceId: parent, spanId: parent, sampled: false })
    assert.strictEqual(toTraceparent(span), `00-${"0".repeat(16)}${parent}-${parent}-00`)
  })

  it.effect("a task whose producer's span has other ids runs, and its message carries none of them", () => {
    const { named, tracer } = recording()
    const odd = Tracer.externalSpan({ traceId: "x".repeat(100_000), spanId: "y" })
    return Effect.gen(function* () {
      yield* AsyncResult.get(yield* Effect.withParentSpan(Mail.delay({ to: "ada" }), odd))
      const [run] = named("mail")
      assert.isTrue(Option.isNone(run!.parent))
    }).pipe(Effect.provide(Live), Effect.withTracer(tracer))
  })
})
