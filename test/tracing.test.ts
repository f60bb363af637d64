import { assert, describe, it } from "@effect/vitest"
import {
  AsyncResult,
  type Backend,
  type Broker,
  DeadLetters,
  MemoryStore,
  RetryPolicy,
  Task,
  TaskContext,
  Tracing,
  Worker
} from "chicory"
import {
  Cause,
  Duration,
  Effect,
  Exit,
  Layer,
  Metric,
  Option,
  References,
  Result,
  Schema,
  Tracer
} from "effect"
import { TestClock } from "effect/testing"
import { fromTraceparent, toTraceparent } from "../src/internal/task/traceContext.ts"
import * as TaskMessage from "../src/TaskMessage.ts"
import { makeRecordingTracer } from "../src/testing/suites/worker/recordingTracer.ts"
import { advance, flush, fork, make as makeFixture, startWorker } from "./support/memoryFixture.ts"

class NoAddress extends Schema.TaggedError<NoAddress>()("NoAddress", { to: Schema.String }) {}

const Mail = Task.make("mail", {
  payload: { to: Schema.String },
  error: NoAddress,
  retry: RetryPolicy.fixed({ maxRetries: 1, delay: "1 second" })
})
const MailLive = Mail.toLayer(({ to }) =>
  to === "nobody" ? Effect.fail(new NoAddress({ to })) : Effect.withSpan(Effect.void, "smtp")
)
const WorkerLive = Worker.layer([Mail], { drainTimeout: 0 }).pipe(Layer.provide(MailLive))
const Live = Layer.provideMerge(WorkerLive, MemoryStore.layer())

const SEND = "send default"
const PROCESS = "process default"

const attributesOf = (span: Tracer.Span | undefined) => Object.fromEntries(span!.attributes)
const parentOf = (span: Tracer.Span | undefined) => Option.getOrUndefined(span!.parent)?.spanId
const exitOf = (span: Tracer.Span | undefined): Exit.Exit<unknown, unknown> => {
  assert(span?.status._tag === "Ended", "the span has ended")
  return span.status.exit
}
const errorOf = (span: Tracer.Span | undefined) => Result.getOrThrow(Exit.findError(exitOf(span)))
const linksOf = (span: Tracer.Span | undefined) => span!.links.map(({ span: { spanId } }) => spanId)

describe("spans of tasks", () => {
  it.effect("an enqueue has a span, whose child is the run, whose children are the handler's", () => {
    const { names, named, trace } = makeRecordingTracer()
    return Effect.gen(function* () {
      const result = yield* Effect.withSpan(Mail.delay({ to: "ada" }), "request")
      yield* AsyncResult.get(result)
      yield* flush
      assert.deepStrictEqual(names(), ["request", SEND, PROCESS, "smtp"])
      const [request] = named("request")
      const [send] = named(SEND)
      const [run] = named(PROCESS)
      assert(send !== undefined && run !== undefined)
      assert.strictEqual(send.kind, "producer")
      assert.strictEqual(run.kind, "consumer")
      assert.strictEqual(parentOf(send), request?.spanId)
      assert.strictEqual(parentOf(run), send.spanId)
      assert.strictEqual(run.traceId, request?.traceId)
      assert.strictEqual(parentOf(named("smtp")[0]), run.spanId)
      const shared = {
        "messaging.system": "memory",
        "messaging.destination.name": "default",
        "messaging.message.id": result.taskId,
        "chicory.task.name": "mail"
      }
      assert.deepStrictEqual(attributesOf(send), {
        ...shared,
        "messaging.operation.name": "send",
        "messaging.operation.type": "send"
      })
      assert.deepStrictEqual(attributesOf(run), {
        ...shared,
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "chicory.task.attempt": 1
      })
      assert.isTrue(Exit.isSuccess(exitOf(send)))
      assert.isTrue(Exit.isSuccess(exitOf(run)))
    }).pipe(Effect.provide(Live), trace)
  })

  it.effect("a task ends although its tracer throws at the end of its span", () =>
    Effect.gen(function* () {
      const result = yield* Mail.delay({ to: "ada" })
      assert.strictEqual((yield* AsyncResult.exit(result))._tag, "Success")
    }).pipe(
      Effect.provide(Live),
      Effect.provideService(
        Tracer.Tracer,
        Tracer.make({
          span: (options) => {
            const span = new Tracer.NativeSpan(options)
            if (options.name === PROCESS) {
              span.end = () => {
                throw new Error("no collector")
              }
            }
            return span
          }
        })
      )
    )
  )

  it.effect("an enqueue of many has one span, with their number", () => {
    const { named, trace } = makeRecordingTracer()
    return Effect.gen(function* () {
      const payloads = Array.from({ length: 300 }, (_, n) => ({ to: `reader ${n}` }))
      yield* AsyncResult.all(yield* Mail.delayAll(payloads))
      const [send, ...others] = named(SEND)
      assert.deepStrictEqual(others, [])
      assert.deepInclude(attributesOf(send), {
        "messaging.batch.message_count": 300,
        "messaging.operation.name": "send",
        "messaging.destination.name": "default"
      })
      assert.notProperty(attributesOf(send), "messaging.message.id")
      const runs = named(PROCESS)
      assert.strictEqual(runs.length, 300)
      for (const run of runs) assert.strictEqual(parentOf(run), send?.spanId)
    }).pipe(Effect.provide(Live), trace)
  })

  it.effect("an enqueue of many with options of each has the queue of its tasks, if it is one", () => {
    const { named, trace } = makeRecordingTracer()
    return Effect.gen(function* () {
      const payloads = [{ to: "ada" }, { to: "grace" }]
      yield* Mail.delayAll(payloads, (_, index) => ({ queue: index === 0 ? "mail" : "default" }))
      yield* Mail.delayAll(payloads, () => ({ queue: "mail" }))
      yield* Mail.delayAll(payloads, (_, index) => ({ id: `mail ${index}` }))
      assert.deepStrictEqual(
        named("send").map(({ attributes }) => attributes.get("messaging.destination.name")),
        [undefined, "mail", "default"]
      )
      yield* Mail.delayAll(payloads, { queue: "mail" })
      assert.strictEqual(named("send mail")[0]?.attributes.get("messaging.destination.name"), "mail")
    }).pipe(Effect.provide(MemoryStore.layer()), trace)
  })

  it.effect("an enqueue that fails has the tag of its error", () => {
    const { named, trace } = makeRecordingTracer()
    return Effect.gen(function* () {
      const isText = Schema.is(Schema.String)
      const Odd = Task.make("odd", {
        payload: Schema.Unknown.check(Schema.makeFilter((u: unknown) => isText(u) || "not a text"))
      })
      yield* Effect.flip(Odd.send(1n, { queue: "odd ones" }))
      yield* Effect.flip(Odd.delayAll(["a", 1n]))
      const [one] = named("send odd ones")
      assert.strictEqual(one?.attributes.get("error.type"), "EncodeError")
      assert.propertyVal(errorOf(one), "_tag", "EncodeError")
      const [many] = named(SEND)
      assert.strictEqual(many?.attributes.get("error.type"), "PartialEnqueue")
      assert.propertyVal(errorOf(many), "_tag", "PartialEnqueue")
      assert.strictEqual(many?.attributes.get("messaging.batch.message_count"), 1)
    }).pipe(Effect.provide(MemoryStore.layer()), trace)
  })

  it.effect("an enqueue that finds an earlier task has the id of that one", () => {
    const { named, trace } = makeRecordingTracer()
    return Effect.gen(function* () {
      const Once = Task.make("once", { idempotencyKey: () => "key" })
      const first = yield* Once.send()
      assert.strictEqual(yield* Once.send(), first)
      assert.deepStrictEqual(
        named(SEND).map(({ attributes }) => attributes.get("messaging.message.id")),
        [first, first]
      )
    }).pipe(Effect.provide(MemoryStore.layer()), trace)
  })

  it.effect("every attempt and every replay has a span, which is a child of the producer's", () => {
    const { named, trace } = makeRecordingTracer()
    return Effect.gen(function* () {
      const result = yield* Effect.withSpan(Mail.delay({ to: "nobody" }), "request")
      const waiting = yield* fork(Effect.flip(AsyncResult.get(result)))
      yield* advance("2 seconds")
      assert.isDefined(waiting.pollUnsafe())
      const [letter] = yield* DeadLetters.list(Mail)
      yield* DeadLetters.replay(letter!.id)
      yield* advance("2 seconds")
      const [send] = named(SEND)
      const runs = named(PROCESS)
      assert.deepStrictEqual(
        runs.map((span) => span.attributes.get("chicory.task.attempt")),
        [1, 2, 1, 2]
      )
      for (const run of runs) {
        assert.strictEqual(parentOf(run), send?.spanId)
        assert.strictEqual(run.attributes.get("error.type"), "NoAddress")
        assert.instanceOf(errorOf(run), NoAddress)
      }
    }).pipe(Effect.provide(Live), trace)
  })

  it.effect("the span of a run is a root without a producer's span", () => {
    const { named, trace } = makeRecordingTracer()
    return Effect.gen(function* () {
      const result = yield* Mail.delay({ to: "ada" })
      yield* Effect.provide(AsyncResult.get(result), WorkerLive).pipe(Effect.withSpan("layer"), trace)
      const [run] = named(PROCESS)
      assert.isUndefined(parentOf(run))
      assert.deepStrictEqual(linksOf(run), [])
    }).pipe(Effect.provide(MemoryStore.layer()))
  })
})

/** Tasks that end in many ways. */
const Ends = Task.make("ends", {
  payload: Schema.Literals(["dies", "gives no effect", "times out", "asks for a retry", "is interrupted"]),
  success: Schema.Int,
  timeout: "1 minute",
  retry: RetryPolicy.fixed({ maxRetries: 1, delay: "1 second" })
})
/** What a program without types may give in place of an effect. */
const noEffect: Effect.Effect<never> = Effect.suspend(() => 42 as never)
const EndsLive = Ends.toLayer(
  Effect.fnUntraced(function* (how) {
    if (how === "gives no effect") return yield* noEffect
    if (how === "dies") return yield* Effect.die(new TypeError("not a function"))
    if (how !== "asks for a retry") return yield* Effect.never
    const { retry } = yield* TaskContext.TaskContext
    return yield* retry()
  })
)

describe("the end of a run", () => {
  const cases = [
    ["dies", 1, ["Died"]],
    ["gives no effect", 1, ["Died"]],
    ["times out", 2, ["TimedOut", "TimedOut"]],
    ["asks for a retry", 2, [undefined, "RetriesExhausted"]]
  ] as const
  for (const [how, attempts, types] of cases) {
    it.effect(`has the tag of its error where the handler ${how}`, () => {
      const { named, trace } = makeRecordingTracer()
      return Effect.gen(function* () {
        const waiting = yield* fork(Effect.flip(AsyncResult.get(yield* Ends.delay(how))))
        for (let passed = 0; passed < 4; passed++) yield* advance("1 minute")
        assert.isDefined(waiting.pollUnsafe())
        const runs = named(PROCESS)
        assert.strictEqual(runs.length, attempts)
        assert.deepStrictEqual(
          runs.map(({ attributes }) => attributes.get("error.type")),
          [...types]
        )
        assert.deepStrictEqual(
          runs.map((run) => Exit.isFailure(exitOf(run))),
          types.map((type) => type !== undefined)
        )
      }).pipe(
        Effect.provide(
          Worker.layer([Ends], { drainTimeout: 0 }).pipe(
            Layer.provide(EndsLive),
            Layer.provideMerge(MemoryStore.layer())
          )
        ),
        trace
      )
    })
  }

  it.effect("is no error where the worker interrupts the handler", () => {
    const { named, trace } = makeRecordingTracer()
    return Effect.gen(function* () {
      yield* Ends.send("is interrupted")
      yield* Effect.provide(
        flush,
        Worker.layer([Ends], { drainTimeout: 0 }).pipe(Layer.provide(EndsLive))
      ).pipe(trace)
      const [run] = named(PROCESS)
      const exit = exitOf(run)
      assert.isTrue(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause))
      assert.isFalse(run!.attributes.has("error.type"))
    }).pipe(Effect.provide(MemoryStore.layer()))
  })

  it.effect("has the tag of a payload that does not decode, and of a result that does not encode", () => {
    const { named, trace } = makeRecordingTracer()
    return Effect.gen(function* () {
      const Sender = Task.make("typed", { payload: Schema.String, success: Schema.String })
      const Typed = Task.make("typed", {
        payload: Schema.NonEmptyString,
        success: Schema.String.check(Schema.isMaxLength(1))
      })
      const worker = Worker.layer([Typed], { drainTimeout: 0 }).pipe(
        Layer.provide(Typed.toLayer((text) => Effect.succeed(text)))
      )
      yield* Effect.gen(function* () {
        yield* Effect.flip(AsyncResult.get(yield* Sender.delay("")))
        yield* Effect.flip(AsyncResult.get(yield* Sender.delay("too long")))
      }).pipe(Effect.provide(worker))
      const runs = named(PROCESS)
      assert.deepStrictEqual(
        runs.map(({ attributes }) => attributes.get("error.type")),
        ["PayloadInvalid", "ResultInvalid"]
      )
      for (const run of runs) assert.isTrue(Exit.isFailure(exitOf(run)))
    }).pipe(Effect.provide(MemoryStore.layer()), trace)
  })
})

describe("the type of an error", () => {
  const Odd = Task.make("odd", {
    payload: { how: Schema.Literals(["unknown", "declared", "dies", "interrupts"]) },
    error: NoAddress
  })
  const OddLive = Odd.toLayer(({ how }): Effect.Effect<void, NoAddress> => {
    if (how === "dies") return Effect.die(new Error("a bug"))
    if (how === "interrupts") return Effect.interrupt
    return Effect.fail(
      how === "declared" ? new NoAddress({ to: "" }) : (new TypeError("not declared") as never)
    )
  })
  for (const [how, type] of [
    ["unknown", "ResultInvalid"],
    ["declared", "NoAddress"],
    ["dies", "Died"],
    ["interrupts", "Died"]
  ] as const) {
    it.effect(`is the same in a span and in a metric: ${type} where the handler's error is "${how}"`, () => {
      const { named, trace } = makeRecordingTracer()
      return Effect.gen(function* () {
        yield* Effect.flip(AsyncResult.get(yield* Odd.delay({ how })))
        yield* flush
        const measured = (yield* Metric.snapshot)
          .filter(({ id }) => id === "messaging.process.duration")
          .map(({ attributes }) => attributes?.["error.type"])
        assert.deepStrictEqual(measured, [type])
        assert.strictEqual(named(PROCESS)[0]?.attributes.get("error.type"), type)
      }).pipe(
        Effect.provide(
          Worker.layer([Odd], { drainTimeout: 0 }).pipe(
            Layer.provide(OddLive),
            Layer.provideMerge(MemoryStore.layer())
          )
        ),
        trace,
        Effect.provideService(Metric.MetricRegistry, new Map())
      )
    })
  }
})

/** Enqueues a task, passes the time, and returns the span of the enqueue and that of the run. */
const afterWaiting = Effect.fnUntraced(function* (
  wait: Duration.Input,
  after?: Duration.Input
): Effect.fn.Return<
  { readonly send: Tracer.Span; readonly run: Tracer.Span },
  unknown,
  Backend.Backend | Broker.Broker
> {
  const { named, trace } = makeRecordingTracer()
  const worker =
    after === undefined ? WorkerLive : Layer.provide(WorkerLive, Layer.succeed(Tracing.linkAfter, after))
  yield* Effect.gen(function* () {
    const result = yield* Mail.delay({ to: "ada" })
    yield* TestClock.adjust(wait)
    yield* Effect.provide(AsyncResult.get(result), worker)
  }).pipe(trace)
  const [send] = named(SEND)
  const [run] = named(PROCESS)
  assert(send !== undefined && run !== undefined)
  return { send, run }
})

const isChild = ({ run, send }: { readonly send: Tracer.Span; readonly run: Tracer.Span }) => {
  if (parentOf(run) === send.spanId) {
    assert.deepStrictEqual(linksOf(run), [])
    assert.strictEqual(run.traceId, send.traceId)
    return true
  }
  assert.isUndefined(parentOf(run))
  assert.deepStrictEqual(linksOf(run), [send.spanId])
  assert.notStrictEqual(run.traceId, send.traceId)
  return false
}

describe("a run that waited", () => {
  it.effect("is a child of the producer's span within an hour, and has a link to it from then on", () =>
    Effect.gen(function* () {
      assert.isTrue(isChild(yield* afterWaiting("59 minutes")))
      assert.isFalse(isChild(yield* afterWaiting("1 hour")))
    }).pipe(Effect.provide(MemoryStore.layer()))
  )

  it.effect("is a child for as long as the worker says", () =>
    Effect.gen(function* () {
      assert.isFalse(isChild(yield* afterWaiting(0, 0)))
      assert.isTrue(isChild(yield* afterWaiting("9 minutes", "10 minutes")))
      assert.isFalse(isChild(yield* afterWaiting("10 minutes", "10 minutes")))
      assert.isTrue(isChild(yield* afterWaiting("30 days", Duration.infinity)))
      const exit = yield* Effect.exit(afterWaiting(0, "-1 seconds"))
      assert(Exit.isFailure(exit))
      assert.include(Cause.pretty(exit.cause), "Tracing.linkAfter must be a duration from zero on")
    }).pipe(Effect.provide(MemoryStore.layer()))
  )

  it.effect("counts the time from the enqueue, not from when the task was due", () => {
    const { named, trace } = makeRecordingTracer()
    return Effect.gen(function* () {
      yield* Mail.delay({ to: "nobody" }, { delay: Duration.millis(3_599_500) })
      yield* Mail.delay({ to: "ada" }, { delay: "1 day" })
      yield* advance(Duration.millis(3_599_500))
      yield* advance("1 day")
      const runs = named(PROCESS)
      // the first attempt, its retry a second later, and the other task
      assert.deepStrictEqual(
        runs.map((run) => parentOf(run) === undefined),
        [false, true, true]
      )
      assert.deepStrictEqual(
        runs.map(({ links }) => links.length),
        [0, 1, 1]
      )
    }).pipe(Effect.provide(Live), trace)
  })

  it.effect("is late by the age of its message where that has no time", () =>
    Effect.gen(function* () {
      const fixture = yield* makeFixture()
      const { named, trace } = makeRecordingTracer()
      const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
      const publish = (id: string) =>
        fixture.create(id, { task: "mail" }).pipe(
          Effect.andThen(
            fixture.brokerDriver.publish([
              {
                id,
                task: "mail",
                queue: "default",
                priority: 100,
                delayMillis: 0,
                body: TaskMessage.encode(
                  {
                    v: 1,
                    id,
                    generation: 0,
                    task: "mail",
                    queue: "default",
                    retries: 0,
                    priority: 100,
                    traceparent
                  },
                  `{"to":"ada"}`
                )
              }
            ])
          )
        )
      yield* publish("a")
      yield* TestClock.adjust("1 hour")
      yield* publish("b")
      yield* trace(startWorker(fixture, Mail, MailLive))
      const runs = named(PROCESS)
      assert.deepStrictEqual(runs.map(parentOf), [undefined, "b7ad6b7169203331"])
    })
  )
})

/** Enqueues a task and returns the message. */
const sent = Effect.fnUntraced(function* <R>(
  enqueue: Effect.Effect<unknown, unknown, R>
): Effect.fn.Return<TaskMessage.TaskMessage, unknown, Exclude<R, Backend.Backend | Broker.Broker>> {
  return yield* Effect.scoped(
    Effect.gen(function* () {
      const { context, items } = yield* makeFixture()
      yield* Effect.provideContext(enqueue, context)
      const [envelope] = items("publish") as ReadonlyArray<{ readonly body: string }>
      return yield* TaskMessage.decode(envelope?.body)
    })
  )
})

describe("the trace context of a message", () => {
  it.effect("is that of the enqueue's span, with the time", () => {
    const { named, trace } = makeRecordingTracer()
    return Effect.gen(function* () {
      yield* TestClock.adjust("1 second")
      const message = yield* sent(trace(Mail.delay({ to: "ada" })))
      assert.strictEqual(message.traceparent, toTraceparent(named(SEND)[0]!))
      assert.strictEqual(message.enqueuedAt, 1000)
    })
  })

  it.effect("is absent without a tracer, and where tracing is disabled", () => {
    const { names, trace } = makeRecordingTracer()
    return Effect.gen(function* () {
      const delay = Effect.asVoid(Mail.delay({ to: "ada" }))
      for (const untraced of [
        delay,
        Effect.withSpan(delay, "request"),
        Effect.asVoid(Mail.delayAll([{ to: "ada" }])),
        trace(Effect.withTracerEnabled(delay, false)),
        trace(Effect.provideService(delay, Tracer.Tracer, Tracer.nativeTracer))
      ]) {
        const message = yield* sent(untraced)
        assert.notProperty(message, "traceparent")
        assert.notProperty(message, "enqueuedAt")
      }
      assert.deepStrictEqual(names(), [])
    })
  })

  it.effect("has the sampling decision of the producer, which the run follows", () => {
    const { named, trace } = makeRecordingTracer()
    return Effect.gen(function* () {
      for (const sampled of [false, true]) {
        const result = yield* Effect.withSpan(Mail.delay({ to: "ada" }), "request", { sampled })
        yield* AsyncResult.get(result)
        yield* flush
        const spans = [SEND, PROCESS, "smtp"].map((name) => named(name).at(-1)?.sampled)
        assert.deepStrictEqual(spans, [sampled, sampled, sampled])
      }
      const result = yield* Mail.delay({ to: "ada" }).pipe(
        Effect.provideService(References.MinimumTraceLevel, "Error")
      )
      yield* AsyncResult.get(result)
      assert.isFalse(named(PROCESS).at(-1)?.sampled)
    }).pipe(Effect.provide(Live), trace)
  })

  it.effect("goes on to the handler of a worker without a tracer", () => {
    const { named, trace } = makeRecordingTracer()
    return Effect.gen(function* () {
      const Asks = Task.make("asks", { success: Schema.String })
      const worker = Worker.layer([Asks], { drainTimeout: 0 }).pipe(
        Layer.provide(
          Asks.toLayer(() => Effect.map(Effect.currentParentSpan, ({ spanId }) => spanId).pipe(Effect.orDie))
        )
      )
      const result = yield* trace(Asks.delay())
      const spanId = yield* Effect.provide(AsyncResult.get(result), worker)
      assert.strictEqual(spanId, named(SEND)[0]?.spanId)
    }).pipe(Effect.provide(MemoryStore.layer()))
  })

  it.effect("is absent for a span with other ids than those of the specification, and the task runs", () => {
    const { spans, trace } = makeRecordingTracer()
    const odd = Tracer.externalSpan({ traceId: "x".repeat(100_000), spanId: "y" })
    return Effect.gen(function* () {
      yield* AsyncResult.get(yield* Effect.withParentSpan(Mail.delay({ to: "ada" }), odd))
      yield* flush
      const [send, run] = spans
      assert.strictEqual(send?.name, SEND)
      assert.isUndefined(parentOf(run))
    }).pipe(Effect.provide(Live), trace)
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
  ])("text %# decodes to no span", (traceparent) => {
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
  ])("a span with other ids than those of the specification has no traceparent (%#)", (traceId, spanId) => {
    assert.isUndefined(toTraceparent(Tracer.externalSpan({ traceId, spanId })))
  })

  it("a trace id of 64 bits is padded", () => {
    const span = Tracer.externalSpan({ traceId: parent, spanId: parent, sampled: false })
    assert.strictEqual(toTraceparent(span), `00-${"0".repeat(16)}${parent}-${parent}-00`)
  })
})
