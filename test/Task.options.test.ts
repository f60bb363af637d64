import { assert, describe, it } from "@effect/vitest"
import { type Backend, type Broker, RetryPolicy, Task, Worker } from "chicory"
import { Cause, Effect, Exit, Layer, Schema, type Scope } from "effect"
import { Add, assertNothingEnqueued, onePayload } from "./support/enqueuing.ts"
import { test } from "./support/memoryTest.ts"

type Services = Scope.Scope | Backend.Backend | Broker.Broker

describe("options out of range", () => {
  const thrown = (make: () => unknown): string => {
    try {
      make()
    } catch (error) {
      assert.instanceOf(error, RangeError)
      return error.message
    }
    return assert.fail("throws a RangeError")
  }

  const tasks: ReadonlyArray<readonly [what: string, make: () => unknown, message: string]> = [
    ["an empty name", () => Task.make(""), "the name must be a text of 1 to 255 characters"],
    [
      "a name of 256 characters",
      () => Task.make("x".repeat(256)),
      "the name must be a text of 1 to 255 characters"
    ],
    [
      "an empty queue",
      () => Task.make("t", { queue: "" }),
      `Task.make("t"): queue must be a text of 1 to 255`
    ],
    [
      "a priority of 256",
      () => Task.make("t", { priority: 256 }),
      "priority must be a whole number from 0 to 255"
    ],
    [
      "a priority of -1",
      () => Task.make("t", { priority: -1 }),
      "priority must be a whole number from 0 to 255"
    ],
    [
      "a priority of 1.5",
      () => Task.make("t", { priority: 1.5 }),
      "priority must be a whole number from 0 to 255"
    ],
    [
      "a timeout of zero",
      () => Task.make("t", { timeout: 0 }),
      "timeout must be a finite duration above zero"
    ],
    [
      "an infinite timeout",
      () => Task.make("t", { timeout: "Infinity" }),
      "timeout must be a finite duration"
    ],
    [
      "a negative expiry",
      () => Task.make("t", { expires: -1 }),
      "expires must be a finite duration above zero"
    ],
    [
      "an expiry that is no duration",
      () => Task.make("t", { expires: "soon" as never }),
      "expires must be a finite"
    ],
    [
      "a retention of zero",
      () => Task.make("t", { retention: 0 }),
      "retention must be a duration above zero"
    ],
    [
      "maxCrashes of zero",
      () => Task.make("t", { maxCrashes: 0 }),
      "maxCrashes must be a whole number from 1 on"
    ],
    [
      "a retry policy with at-most-once delivery",
      () =>
        Task.make("t", { delivery: "at-most-once", retry: RetryPolicy.fixed({ maxRetries: 1, delay: 0 }) }),
      `"at-most-once" never runs a task twice`
    ],
    [
      "retryDefects with at-most-once delivery",
      () => Task.make("t", { delivery: "at-most-once", retryDefects: true }),
      `"at-most-once" never runs a task twice`
    ],
    [
      "a custom policy with half a retry",
      () => Task.make("t", { retry: { ...RetryPolicy.never, maxRetries: 0.5 } }),
      `Task.make("t"): retry: maxRetries must be a whole number from 0 on`
    ],
    [
      "a negative maxRetries",
      () => RetryPolicy.fixed({ maxRetries: -1, delay: "1 second" }),
      "RetryPolicy.fixed: maxRetries must be a whole number from 0 on"
    ],
    [
      "a negative delay",
      () => RetryPolicy.linear({ maxRetries: 1, delay: "-1 seconds" }),
      "RetryPolicy.linear: delay must be a finite duration from zero on"
    ],
    [
      "an infinite delay",
      () => RetryPolicy.exponential({ maxRetries: 1, delay: "Infinity" }),
      "RetryPolicy.exponential: delay must be a finite duration from zero on"
    ],
    [
      "a negative maxDelay",
      () => RetryPolicy.exponential({ maxRetries: 1, delay: 1, maxDelay: -1 }),
      "RetryPolicy.exponential: maxDelay must be a finite duration from zero on"
    ],
    [
      "a factor of zero",
      () => RetryPolicy.exponential({ maxRetries: 1, delay: 1, factor: 0 }),
      "RetryPolicy.exponential: factor must be a number above zero"
    ],
    [
      "a factor of NaN",
      () => RetryPolicy.exponential({ maxRetries: 1, delay: 1, factor: Number.NaN }),
      "RetryPolicy.exponential: factor must be a number above zero"
    ],
    [
      "a rule with a negative delay",
      () =>
        Task.make("t", {
          error: Schema.TaggedStruct("Busy", {}),
          retry: { ...RetryPolicy.fixed({ maxRetries: 1, delay: 1 }), byTag: { Busy: -5 } }
        }),
      `Task.make("t"): retry: byTag.Busy must be a finite duration from zero on`
    ],
    [
      "a schedule with infinite maxRetries",
      () => RetryPolicy.fromSchedule(RetryPolicy.never.schedule, { maxRetries: Number.POSITIVE_INFINITY }),
      "RetryPolicy.fromSchedule: maxRetries must be a whole number from 0 on"
    ]
  ]
  it.each(tasks.map(([what, make, message]) => [what, { make, message }] as const))(
    "%s throws at its definition",
    (_, { make, message }) => {
      assert.include(thrown(make), message)
    }
  )

  const calls: ReadonlyArray<readonly [what: string, options: Task.EnqueueOptions, message: string]> = [
    ["a delay that is no number", { delay: Number.NaN }, "add: delay must be a finite duration, but is NaN"],
    ["an infinite delay", { delay: "Infinity" }, "add: delay must be a finite duration"],
    ["a delay that is no duration", { delay: "soon" as never }, "add: delay must be a finite duration"],
    ["both delay and at", { delay: 1, at: 1 }, "add: give either delay or at, not both"],
    ["an at that is no date", { at: "soon" }, `add: at must be a date, but is "soon"`],
    ["an expiry of zero", { expires: 0 }, "add: expires must be a finite duration above zero"],
    ["a priority of 256", { priority: 256 }, "add: priority must be a whole number from 0 to 255"],
    ["an empty queue", { queue: "" }, "add: queue must be a text of 1 to 255 characters"],
    ["an empty id", { id: "" }, "add: id must be a text of 1 to 255 characters"]
  ]
  for (const [what, options, message] of calls) {
    test(`${what} is a defect of the call, which enqueues nothing`, function* (on) {
      const calls: ReadonlyArray<Effect.Effect<unknown, unknown, Services>> = [
        Add.delay(onePayload, options),
        Add.send(onePayload, options),
        Add.delayAll([onePayload], options)
      ]
      for (const call of calls) {
        const exit = yield* Effect.exit(call)
        assert(Exit.isFailure(exit))
        assert.isTrue(Cause.hasDies(exit.cause), "a defect")
        assert.include(String((Cause.squash(exit.cause) as Error).message), message)
      }
      yield* assertNothingEnqueued(on)
    })
  }

  const workers: ReadonlyArray<readonly [what: string, options: Worker.Options, message: string]> = [
    ["concurrency of zero", { concurrency: 0 }, "Worker.layer: concurrency must be a whole number from 1 on"],
    [
      "concurrency of 1.5",
      { concurrency: 1.5 },
      "Worker.layer: concurrency must be a whole number from 1 on"
    ],
    ["a lease of zero", { lease: 0 }, "Worker.layer: lease must be a finite duration above zero"],
    ["an infinite lease", { lease: "Infinity" }, "Worker.layer: lease must be a finite duration above zero"],
    [
      "a negative drainTimeout",
      { drainTimeout: -1 },
      "Worker.layer: drainTimeout must be a finite duration from zero"
    ],
    ["a heartbeat of zero", { heartbeat: 0 }, "Worker.layer: heartbeat must be a finite duration above zero"],
    [
      "a negative unknownTaskGrace",
      { unknownTaskGrace: -1 },
      "Worker.layer: unknownTaskGrace must be a finite duration"
    ],
    ["an empty queue", { queues: [""] }, "Worker.layer: queues must be a text of 1 to 255 characters"]
  ]
  for (const [what, options, message] of workers) {
    test(`${what} is a defect of the worker layer`, function* (on) {
      const layer = Worker.layer([Add], options).pipe(
        Layer.provide(Add.toLayer(({ a, b }) => Effect.succeed(a + b))),
        Layer.provide(on.layer)
      )
      const exit = yield* Effect.exit(Layer.build(layer))
      assert(Exit.isFailure(exit))
      assert.include(String((Cause.squash(exit.cause) as Error).message), message)
    })
  }

  test("a worker with two tasks of one name is a defect", function* (on) {
    const layer = Worker.layer([Add, Task.make("add")]).pipe(
      Layer.provide(Add.toLayer(() => Effect.succeed(0))),
      Layer.provide(on.layer)
    )
    const exit = yield* Effect.exit(Layer.build(layer))
    assert(Exit.isFailure(exit))
    assert.include((Cause.squash(exit.cause) as Error).message, `two tasks are named "add"`)
  })

  test("a worker without a handler is a defect", function* (on) {
    const tasks: Array<Task.Any> = [Add]
    const exit = yield* Effect.exit(Layer.build(Worker.layer(tasks).pipe(Layer.provide(on.layer))))
    assert(Exit.isFailure(exit))
    assert.include((Cause.squash(exit.cause) as Error).message, `there is no handler for "add"`)
  })
})
