/**
 * The pairing under test, with the operations that the tests of `WorkerSuite` use: on the services that programs have, and
 * on the drivers, to change what a worker does not see.
 */
import { assert, type TestContext } from "@effect/vitest"
import { Context, Duration, Effect, Exit, Fiber, Layer, Scope, Stream } from "effect"
import * as AsyncResult from "../../../AsyncResult.ts"
import * as Backend from "../../../Backend.ts"
import type { Outcome, TaskRecord } from "../../../BackendDriver.ts"
import * as Broker from "../../../Broker.ts"
import type { Delivery } from "../../../BrokerDriver.ts"
import type * as Task from "../../../Task.ts"
import type * as TaskFailed from "../../../TaskFailed.ts"
import * as TaskMessage from "../../../TaskMessage.ts"
import * as Worker from "../../../Worker.ts"
import * as Suite from "../Suite.ts"
import { type Drivers, Faults } from "./faults.ts"

/** The services of a pairing. */
export type Services = Backend.Backend | Broker.Broker

/** The fixture of a test. */
export type Fixture = Effect.Success<ReturnType<typeof makeFixture>>

/** Registers one test. */
export type Test = (
  title: string,
  body: (t: Fixture, context: TestContext) => Effect.fn.Return<void, unknown, Scope.Scope | Services>
) => void

/** A started worker. */
export interface RunningWorker {
  readonly id: string
  readonly stats: Effect.Effect<Worker.Stats>
  readonly health: Effect.Effect<Worker.Health>
  readonly events: Stream.Stream<Worker.WorkerEvent>
  /** Shuts the worker down, and returns once it has stopped. */
  readonly stop: Effect.Effect<void>
}

/** A worker whose connection can be cut. */
export interface SeparateWorker extends RunningWorker {
  readonly faults: Faults
}

/** How a worker that vanished had started its task. */
export interface VanishedRun {
  /** In units of time. Default 1. */
  readonly lease?: number
  readonly delivery?: "at-least-once" | "at-most-once"
  readonly maxCrashes?: number
  /** Whether the message was acked before the worker vanished. */
  readonly acked?: boolean
}

const VANISHED_WORKER = "a worker that vanished"

const services = Effect.fnUntraced(function* (drivers: Drivers) {
  const backend = yield* Backend.make(drivers.backend)
  return Context.make(Backend.Backend, backend).pipe(
    Context.add(Broker.Broker, yield* Broker.make(drivers.broker))
  )
})

const STEPS_PER_UNIT = 10

/** Passes virtual time in small steps, so that a fiber that one step wakes sleeps again before the next step. */
export const inSmallSteps = (time: Suite.Time): Suite.Time => ({
  ...time,
  pass: (count) =>
    Effect.repeat(time.pass(1 / STEPS_PER_UNIT), { times: Math.ceil(count * STEPS_PER_UNIT) - 1 })
})

/** Makes the fixture, in the scope of one test. */
export const makeFixture = Effect.fnUntraced(function* (drivers: Drivers, time: Suite.Time) {
  const faults = new Faults()
  const context = yield* services(faults.applyTo(drivers))
  // calls that hang on purpose must not keep the test from ending
  yield* Effect.addFinalizer(() => Effect.sync(() => faults.heal()))
  let tokens = 0

  /** Passes time until the check succeeds. */
  const eventually = <E, R>(what: string, check: Effect.Effect<boolean, E, R>): Effect.Effect<void, E, R> =>
    Effect.contextWith((context: Context.Context<R>) =>
      time.eventually(what, Effect.provideContext(check, context))
    )

  /** Passes time until the effect completes, and returns its result. */
  const complete = <A, E, R>(what: string, effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.gen(function* () {
      const fiber = yield* Effect.forkChild(effect)
      yield* time.eventually(
        what,
        Effect.sync(() => fiber.pollUnsafe() !== undefined)
      )
      return yield* Fiber.join(fiber)
    })
  /** Passes time until the condition holds. */
  const until = (what: string, check: () => boolean) => time.eventually(what, Effect.sync(check))

  const start = Effect.fnUntraced(function* <const Tasks extends ReadonlyArray<Task.Any>>(
    tasks: Tasks,
    handlers: Layer.Layer<Task.HandlerOf<Tasks[number]>>,
    options: Worker.Options | undefined,
    using: Context.Context<Services>
  ): Effect.fn.Return<RunningWorker, never, Scope.Scope> {
    const scope = yield* Scope.fork(yield* Effect.scope)
    const layer = Worker.layer(tasks, {
      lease: Duration.millis(time.long),
      drainTimeout: 0,
      ...options
    }).pipe(Layer.provide(handlers), Layer.provide(Layer.succeedContext(using)))
    const worker = Context.get(
      yield* Layer.buildWithScope(layer as Layer.Layer<Worker.Worker>, scope),
      Worker.Worker
    )
    const { events, health, id, stats } = worker
    return { id, stats, health, events, stop: Scope.close(scope, Exit.void) }
  })

  /** Starts a worker. Defaults: no drain, and a lease that outlives the test. */
  const startWorker = <const Tasks extends ReadonlyArray<Task.Any>>(
    tasks: Tasks,
    handlers: Layer.Layer<Task.HandlerOf<Tasks[number]>>,
    options?: Worker.Options
  ): Effect.Effect<RunningWorker, never, Scope.Scope> => start(tasks, handlers, options, context)

  /** Starts a worker with its own connection, which can be cut. */
  const startSeparateWorker = Effect.fnUntraced(function* <const Tasks extends ReadonlyArray<Task.Any>>(
    tasks: Tasks,
    handlers: Layer.Layer<Task.HandlerOf<Tasks[number]>>,
    options?: Worker.Options
  ): Effect.fn.Return<SeparateWorker, never, Scope.Scope> {
    const faults = new Faults()
    // a driver's hints can be subscribed to once, and the services of the test have done so
    const { hints: _, ...backend } = drivers.backend
    // another process has other outages
    const { fusion } = backend
    const store = drivers.broker.store === undefined ? {} : { store: {} }
    const ownServices = yield* services(
      faults.applyTo({
        backend: {
          ...backend,
          capabilities: { ...backend.capabilities, hints: false },
          ...(fusion === undefined ? {} : { fusion: { ...fusion, ...store } })
        },
        broker: { ...drivers.broker, ...store }
      })
    )
    const worker = yield* start(tasks, handlers, options, ownServices)
    yield* Effect.addFinalizer(() => Effect.sync(() => faults.heal()))
    return { ...worker, faults }
  })

  /** Runs effects and workers with other services. */
  const withServices = (using: Context.Context<Services>) => ({
    provide: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.provideContext(effect, using),
    startWorker: <const Tasks extends ReadonlyArray<Task.Any>>(
      tasks: Tasks,
      handlers: Layer.Layer<Task.HandlerOf<Tasks[number]>>,
      options?: Worker.Options
    ) => start(tasks, handlers, options, using)
  })

  const readOptional = (id: string) => Suite.only(drivers.backend.read([id]))
  const read = (id: string): Effect.Effect<TaskRecord, unknown> =>
    Effect.map(readOptional(id), (record) => {
      assert(record !== undefined, `the record of ${id} exists`)
      return record
    })
  const counts = (queue = "default") =>
    Effect.map(Suite.only(drivers.broker.counts([queue])), ({ oldestMillis: _, ...counts }) => counts)

  /** Passes time until the task ends, and returns its exit. */
  const awaitExit = <A, E, R>(handle: AsyncResult.AsyncResult<A, E, R>, options?: AsyncResult.GetOptions) =>
    complete(`task ${handle.taskId} ends`, AsyncResult.exit(handle, options))
  /** Passes time until the task ends, and returns its value. */
  const awaitValue = <A, E, R>(handle: AsyncResult.AsyncResult<A, E, R>) =>
    complete(`task ${handle.taskId} ends`, AsyncResult.get(handle))
  /** Passes time until the task ends, and returns its failure. */
  const awaitFailure = <A, E, R>(handle: AsyncResult.AsyncResult<A, E, R>) =>
    Effect.map(Effect.flip(awaitValue(handle)), (error): TaskFailed.TaskFailed<E> => {
      assert(error._tag === "TaskFailed", `expected TaskFailed, got ${error._tag}: ${error.message}`)
      return error
    })
  /** Passes time until the task ends, expects a failure of that reason, and returns the reason. */
  const awaitReason = <A, E, R, Tag extends TaskFailed.Reason<E>["_tag"]>(
    handle: AsyncResult.AsyncResult<A, E, R>,
    tag: Tag
  ) =>
    Effect.map(awaitFailure(handle), (failed) => {
      assert.strictEqual(failed.reason._tag, tag, failed.message)
      return failed.reason as Extract<TaskFailed.Reason<E>, { readonly _tag: Tag }>
    })

  const claim = (max = 1, lease = time.long) =>
    drivers.broker.claim({ queues: ["default"], max, leaseMillis: lease, worker: VANISHED_WORKER })
  const claimOne = (lease?: number) =>
    Effect.map(claim(1, lease), ([delivery]) => {
      assert(delivery !== undefined, "there is a message to claim")
      return delivery
    })

  /** Ends a claim as the store does for a vanished worker: by its lease, or with its connection. */
  const vanish = ({ handle }: Delivery, leaseMillis: number) =>
    drivers.broker.capabilities.lease === "store"
      ? Effect.asVoid(drivers.broker.renew([handle], leaseMillis))
      : drivers.broker.release([{ handle, afterMillis: leaseMillis }])

  /** Claims and starts the next task as a worker that vanishes right after. */
  const startAndVanish = Effect.fnUntraced(function* ({
    acked = false,
    delivery: mode = "at-least-once",
    lease = 1,
    maxCrashes = 3
  }: VanishedRun = {}) {
    const leaseMillis = time.units(lease)
    const delivery = yield* claimOne()
    const message = yield* TaskMessage.decode(delivery.body)
    const token = `vanished/${++tokens}`
    const started = yield* Suite.only(
      drivers.backend.start([
        {
          id: message.id,
          task: message.task,
          incarnation: message.incarnation ?? "",
          generation: message.generation,
          token,
          worker: VANISHED_WORKER,
          queue: delivery.queue,
          body: delivery.body,
          leaseMillis,
          deliveryMode: mode,
          maxCrashes,
          retentionMillis: time.long,
          deadLetterRetentionMillis: time.long
        }
      ])
    )
    assert.strictEqual(started._tag, "Run", "the vanishing worker starts its task")
    if (acked) yield* drivers.broker.ack([delivery.handle])
    else yield* vanish(delivery, leaseMillis)
    const settle = (outcome: Outcome) =>
      Suite.only(drivers.backend.settle([{ id: message.id, token, outcome }]))
    return { delivery, message, token, settle }
  })

  /** Publishes a message with any body, with a record of its task unless there is one. */
  const publishRaw = (id: string, task: string, body: string, queue = "default") =>
    drivers.backend
      .create([
        {
          id,
          task,
          incarnation: "",
          queue,
          key: undefined,
          payloadHash: "",
          delayMillis: 0,
          expiresMillis: undefined,
          retentionMillis: time.long,
          reservedMillis: undefined
        }
      ])
      .pipe(
        Effect.andThen(drivers.broker.publish([{ id, task, queue, priority: 100, delayMillis: 0, body }]))
      )

  /** Passes time until the queue holds no message: ready, delayed, claimed or set aside. */
  const untilDrained = (queue = "default") =>
    time.eventually(
      "no message is left in the queue",
      Effect.map(
        counts(queue),
        ({ claimed, delayed, ready, setAside = 0 }) => claimed + delayed + ready + setAside === 0
      )
    )

  /** Collects the values of a stream, from now on. */
  const collect = Effect.fnUntraced(function* <A, E, R>(stream: Stream.Stream<A, E, R>) {
    const values: Array<A> = []
    const fiber = yield* Effect.forkScoped(
      Stream.runForEach(stream, (one) => Effect.sync(() => void values.push(one)))
    )
    return { values, done: complete("the stream ends", Fiber.join(fiber)) }
  })

  return {
    drivers,
    time,
    faults,
    context,
    eventually,
    complete,
    until,
    startWorker,
    startSeparateWorker,
    withServices,
    readOptional,
    read,
    counts,
    awaitExit,
    awaitValue,
    awaitFailure,
    awaitReason,
    claim,
    claimOne,
    startAndVanish,
    publishRaw,
    untilDrained,
    collect,
    duration: (units: number) => Duration.millis(time.units(units)),
    vanishedWorker: VANISHED_WORKER
  }
})

/** A gate at which handlers wait. */
export class Gate {
  /** How many handlers have reached the gate. */
  entered = 0
  private waiting: Array<(go: Effect.Effect<void>) => void> = []
  private isOpen = false

  /** Waits until the gate is open. */
  readonly pass: Effect.Effect<void> = Effect.callback((resume) => {
    this.entered++
    if (this.isOpen) return resume(Effect.void)
    this.waiting.push(resume)
    return Effect.sync(() => {
      this.waiting = this.waiting.filter((other) => other !== resume)
    })
  })

  /** Opens the gate for good. */
  open(): void {
    this.isOpen = true
    for (const go of this.waiting.splice(0)) go(Effect.void)
  }
}
