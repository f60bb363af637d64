/**
 * What tests of programs and of their handlers need. It depends on no test framework.
 *
 * ```ts
 * import { AsyncResult, Task, Worker } from "chicory"
 * import { Testing } from "chicory/testing"
 * import { Effect, Layer } from "effect"
 *
 * const Greet = Task.make("greet")
 * const GreetLive = Greet.toLayer(() => Effect.log("hello"))
 * const WorkerLive = Layer.provide(Worker.layer([Greet]), GreetLive)
 *
 * const test = Effect.flatMap(Greet.delay(), (result) => AsyncResult.get(result)).pipe(
 *   Effect.provide(WorkerLive),
 *   Effect.provide(Testing.layer)
 * )
 * ```
 *
 * @since 0.1.0
 * @module
 */
import { Context, Duration, Effect, Layer, type Schema } from "effect"
import * as Backend from "../Backend.ts"
import type { BackendDriver } from "../BackendDriver.ts"
import * as Broker from "../Broker.ts"
import type { Envelope } from "../BrokerDriver.ts"
import { DefaultDrainTimeout } from "../internal/defaultDrainTimeout.ts"
import { requestRetry } from "../internal/task/CurrentRun.ts"
import { definitionOf } from "../internal/task/TaskDefinition.ts"
import { makeMemoryDrivers } from "../memory/MemoryDrivers.ts"
import type * as Task from "../Task.ts"
import { TaskContext } from "../TaskContext.ts"
import * as TaskMessage from "../TaskMessage.ts"

/** The messages that were enqueued in the store of the layer, in order; `undefined` outside of it. */
const Enqueues = Context.Reference<ReadonlyArray<Envelope> | undefined>("chicory/testing/Enqueues", {
  defaultValue: () => undefined
})

/** Returns a memory driver that adds what it enqueues to `enqueues`. */
const recordEnqueues = (backend: BackendDriver<never>, enqueues: Array<Envelope>): BackendDriver<never> => {
  const { fusion } = backend
  if (fusion === undefined) return backend
  return {
    ...backend,
    fusion: {
      ...fusion,
      enqueue: (items) =>
        Effect.tap(fusion.enqueue(items), (created) =>
          Effect.sync(() => {
            items.forEach(({ message }, i) => {
              if (created[i]?._tag === "Created") enqueues.push(message)
            })
          })
        )
    }
  }
}

/**
 * The `Backend` and the `Broker` of a new store in memory.
 *
 * **Details**
 *
 * Each build of the layer has its own store. Every time comes from Effect's `Clock`, so leases, delays, retries and
 * retention follow `TestClock`.
 *
 * The layer sets the default `drainTimeout` of workers to 0, as under `TestClock` nothing would end a drain: a handler that
 * still runs when the scope of its worker closes is interrupted at once, and its task is released.
 *
 * @see {@link enqueued} for what was enqueued
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<Backend.Backend | Broker.Broker> = Layer.fresh(
  Layer.effectContext(
    Effect.gen(function* () {
      const drivers = yield* makeMemoryDrivers
      const enqueues: Array<Envelope> = []
      const backend = yield* Backend.make(recordEnqueues(drivers.backend, enqueues))
      return Context.make(Backend.Backend, backend).pipe(
        Context.add(Broker.Broker, yield* Broker.make(drivers.broker)),
        Context.add(Enqueues, enqueues),
        Context.add(DefaultDrainTimeout, Duration.zero)
      )
    })
  )
)

/**
 * A task that was enqueued.
 *
 * @category models
 * @since 0.1.0
 */
export interface Enqueued<out Payload> {
  readonly taskId: string
  /** The payload, decoded as a worker would decode it. */
  readonly payload: Payload
  readonly queue: string
  /** 0 to 255. */
  readonly priority: number
  /** Between the enqueue and the time when the task is due. */
  readonly delay: Duration.Duration
}

/**
 * Returns the tasks that were enqueued in the store of `Testing.layer`, in order, whether or not they have run since.
 *
 * **Details**
 *
 * A call that enqueued nothing is not among them: one that failed, or one whose id or idempotency key was there already. Nor is
 * the replay of a dead letter. Outside of `Testing.layer` the effect dies.
 *
 * **Example** (Asserting on what a program enqueued)
 *
 * ```ts
 * import { Task } from "chicory"
 * import { Testing } from "chicory/testing"
 * import { Effect, Schema } from "effect"
 *
 * const SendMail = Task.make("mail.send", { payload: { to: Schema.String } })
 *
 * const signUp = (email: string) => SendMail.delay({ to: email }, { delay: "1 hour" })
 *
 * const test = Effect.gen(function* () {
 *   yield* signUp("ada@example.com")
 *   const [mail] = yield* Testing.enqueued(SendMail)
 *   return mail?.payload.to === "ada@example.com"
 * }).pipe(Effect.provide(Testing.layer))
 * ```
 *
 * @category getters
 * @since 0.1.0
 */
export const enqueued = <
  Name extends string,
  Payload extends Schema.Constraint,
  Success extends Schema.Constraint,
  Error extends Schema.Constraint,
  Progress extends Schema.Constraint
>(
  task: Task.Task<Name, Payload, Success, Error, Progress>
): Effect.Effect<
  ReadonlyArray<Enqueued<Payload["Type"]>>,
  never,
  Broker.Broker | Payload["DecodingServices"]
> =>
  Effect.gen(function* () {
    const enqueues = yield* Enqueues
    if (enqueues === undefined) {
      return yield* Effect.die(new Error("Testing.enqueued needs the store of Testing.layer"))
    }
    const { name, payload } = definitionOf(task)
    const ofTask = enqueues.filter((envelope) => envelope.task === name)
    return yield* Effect.forEach(ofTask, ({ body, delayMillis, id, priority, queue }) =>
      Effect.map(
        Effect.orDie(
          Effect.flatMap(TaskMessage.decode(body), (message) => payload.decode(message.payload))
        ) as Effect.Effect<Payload["Type"], never, Payload["DecodingServices"]>,
        (decoded): Enqueued<Payload["Type"]> => ({
          taskId: id,
          payload: decoded,
          queue,
          priority,
          delay: Duration.millis(delayMillis)
        })
      )
    )
  })

/**
 * Options of `context`.
 *
 * @category options
 * @since 0.1.0
 */
export interface ContextOptions {
  /** Default: `test`. */
  readonly taskId?: string | undefined
  /** Default: `test`. */
  readonly taskName?: string | undefined
  /** Default: one more than `retries`. */
  readonly attempt?: number | undefined
  /** Retries so far. Default: 0. */
  readonly retries?: number | undefined
  /** Default: 0. */
  readonly maxRetries?: number | undefined
  /** Default: the attempt. */
  readonly fence?: number | undefined
}

/**
 * The `TaskContext` of an attempt, for the unit test of a handler without a worker.
 *
 * **Details**
 *
 * `TaskContext.retry` ends the handler with a defect, as it does under a worker.
 *
 * **Gotchas**
 *
 * `progress` of a task writes nothing outside of a worker. A handler that calls it needs the `taskName` of its task.
 *
 * @category layers
 * @since 0.1.0
 */
export const context = (options: ContextOptions = {}): Layer.Layer<TaskContext> => {
  const { maxRetries = 0, retries = 0, taskId = "test", taskName = "test" } = options
  const attempt = options.attempt ?? retries + 1
  return Layer.succeed(TaskContext, {
    taskId,
    taskName,
    attempt,
    retries,
    maxRetries,
    isLastRetry: retries >= maxRetries,
    remainingRetries: Math.max(0, maxRetries - retries),
    fence: options.fence ?? attempt,
    retry: requestRetry
  })
}
