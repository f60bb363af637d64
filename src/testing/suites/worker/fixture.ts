/**
 * The pairing under test, as the tests of `WorkerSuite` speak to it: through the services that users have, and
 * through the drivers, for what happens behind a worker's back.
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

/** The subject of a test. */
export type Subject = Effect.Success<ReturnType<typeof subject>>

/** Registers one test. */
export type Test = (
  title: string,
  body: (on: Subject, context: TestContext) => Effect.fn.Return<void, unknown, Scope.Scope | Services>
) => void

/** A worker that runs. */
export interface Running {
  readonly id: string
  readonly stats: Effect.Effect<Worker.Stats>
  /** Stops it as a shutdown does, and returns when it has stopped. */
  readonly stop: Effect.Effect<void>
}

/** A worker whose connection can be cut. */
export interface Apart extends Running {
  readonly faults: Faults
}

/** How a worker that vanished had run its task. */
export interface Abandoned {
  /** In units of time; 1 by default. */
  readonly lease?: number
  readonly delivery?: "at-least-once" | "at-most-once"
  readonly maxCrashes?: number
  /** Whether the message was acked before the worker vanished. */
  readonly acked?: boolean
}

const DEAD = "a worker that vanished"

const services = Effect.fnUntraced(function* (drivers: Drivers) {
  const backend = yield* Backend.make(drivers.backend)
  return Context.make(Backend.Backend, backend).pipe(
    Context.add(Broker.Broker, yield* Broker.make(drivers.broker))
  )
})

const STEPS_PER_UNIT = 10

/** Virtual time in small steps: what a step wakes has gone to sleep again when the next one comes. */
export const inSteps = (time: Suite.Time): Suite.Time => ({
  ...time,
  pass: (count) =>
    Effect.repeat(time.pass(1 / STEPS_PER_UNIT), { times: Math.ceil(count * STEPS_PER_UNIT) - 1 })
})

/** What the tests need of a pairing, made in the scope of one test. */
export const subject = Effect.fnUntraced(function* (drivers: Drivers, time: Suite.Time) {
  const faults = new Faults()
  const context = yield* services(faults.over(drivers))
  // what hangs on purpose must not keep the test from ending
  yield* Effect.addFinalizer(() => Effect.sync(() => faults.heal()))
  let tokens = 0

  /** Lets time pass until the check holds. */
  const eventually = <E, R>(what: string, check: Effect.Effect<boolean, E, R>): Effect.Effect<void, E, R> =>
    Effect.contextWith((context: Context.Context<R>) =>
      time.eventually(what, Effect.provideContext(check, context))
    )

  /** Lets time pass until the effect is done. */
  const within = <A, E, R>(what: string, effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.gen(function* () {
      const fiber = yield* Effect.forkChild(effect)
      yield* time.eventually(
        what,
        Effect.sync(() => fiber.pollUnsafe() !== undefined)
      )
      return yield* Fiber.join(fiber)
    })
  const until = (what: string, check: () => boolean) => time.eventually(what, Effect.sync(check))

  const start = Effect.fnUntraced(function* <const Tasks extends ReadonlyArray<Task.Any>>(
    tasks: Tasks,
    handlers: Layer.Layer<Task.HandlerOf<Tasks[number]>>,
    options: Worker.Options | undefined,
    using: Context.Context<Services>
  ): Effect.fn.Return<Running, never, Scope.Scope> {
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
    return { id: worker.id, stats: worker.stats, stop: Scope.close(scope, Exit.void) }
  })

  /** Starts a worker: no drain, and a lease that no test outlives, unless told otherwise. */
  const work = <const Tasks extends ReadonlyArray<Task.Any>>(
    tasks: Tasks,
    handlers: Layer.Layer<Task.HandlerOf<Tasks[number]>>,
    options?: Worker.Options
  ): Effect.Effect<Running, never, Scope.Scope> => start(tasks, handlers, options, context)

  /** Starts a worker with a connection of its own, which can be cut. */
  const workApart = Effect.fnUntraced(function* <const Tasks extends ReadonlyArray<Task.Any>>(
    tasks: Tasks,
    handlers: Layer.Layer<Task.HandlerOf<Tasks[number]>>,
    options?: Worker.Options
  ): Effect.fn.Return<Apart, never, Scope.Scope> {
    const faults = new Faults()
    // a driver's hints run once at a time, and they do so for the test's own services
    const { hints: _, ...backend } = drivers.backend
    const apart = yield* services(
      faults.over({
        backend: { ...backend, capabilities: { ...backend.capabilities, hints: false } },
        broker: drivers.broker
      })
    )
    const worker = yield* start(tasks, handlers, options, apart)
    yield* Effect.addFinalizer(() => Effect.sync(() => faults.heal()))
    return { ...worker, faults }
  })

  /** Runs effects and workers over other services. */
  const over = (using: Context.Context<Services>) => ({
    provide: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.provideContext(effect, using),
    work: <const Tasks extends ReadonlyArray<Task.Any>>(
      tasks: Tasks,
      handlers: Layer.Layer<Task.HandlerOf<Tasks[number]>>,
      options?: Worker.Options
    ) => start(tasks, handlers, options, using)
  })

  const find = (id: string) => Suite.only(drivers.backend.read([id]))
  const read = (id: string): Effect.Effect<TaskRecord, unknown> =>
    Effect.map(find(id), (record) => {
      assert(record !== undefined, `the record of ${id} is there`)
      return record
    })
  const counts = (queue = "default") => Suite.only(drivers.broker.counts([queue]))

  /** Waits for the outcome, letting time pass. */
  const outcome = <A, E, R>(handle: AsyncResult.AsyncResult<A, E, R>, options?: AsyncResult.GetOptions) =>
    within(`task ${handle.taskId} ends`, AsyncResult.exit(handle, options))
  const value = <A, E, R>(handle: AsyncResult.AsyncResult<A, E, R>) =>
    within(`task ${handle.taskId} ends`, AsyncResult.get(handle))
  /** Waits for the failure, letting time pass. */
  const failure = <A, E, R>(handle: AsyncResult.AsyncResult<A, E, R>) =>
    Effect.map(Effect.flip(value(handle)), (error): TaskFailed.TaskFailed<E> => {
      assert(error._tag === "TaskFailed", `a failure of the task, and no ${error._tag}: ${error.message}`)
      return error
    })
  /** Waits for a failure of that reason. */
  const reason = <A, E, R, Tag extends TaskFailed.Reason<E>["_tag"]>(
    handle: AsyncResult.AsyncResult<A, E, R>,
    tag: Tag
  ) =>
    Effect.map(failure(handle), (failed) => {
      assert.strictEqual(failed.reason._tag, tag, failed.message)
      return failed.reason as Extract<TaskFailed.Reason<E>, { readonly _tag: Tag }>
    })

  const claim = (max = 1, lease = time.long) =>
    drivers.broker.claim({ queues: ["default"], max, leaseMillis: lease, worker: DEAD })
  const claimOne = (lease?: number) =>
    Effect.map(claim(1, lease), ([delivery]) => {
      assert(delivery !== undefined, "there is a message to claim")
      return delivery
    })

  /** Lets go of a claim as a vanished worker does: by its lease, or with its connection. */
  const vanish = ({ handle }: Delivery, leaseMillis: number) =>
    drivers.broker.capabilities.lease === "store"
      ? Effect.asVoid(drivers.broker.renew([handle], leaseMillis))
      : drivers.broker.release([{ handle, afterMillis: leaseMillis }])

  /** Starts the next task, as a worker that vanishes then and there. */
  const abandon = Effect.fnUntraced(function* ({
    acked = false,
    delivery: mode = "at-least-once",
    lease = 1,
    maxCrashes = 3
  }: Abandoned = {}) {
    const leaseMillis = time.units(lease)
    const delivery = yield* claimOne()
    const message = yield* TaskMessage.decode(delivery.body)
    const token = `vanished/${++tokens}`
    const started = yield* Suite.only(
      drivers.backend.start([
        {
          id: message.id,
          task: message.task,
          generation: message.generation,
          token,
          worker: DEAD,
          queue: delivery.queue,
          body: delivery.body,
          leaseMillis,
          deliveryMode: mode,
          maxCrashes,
          expiresMillis: message.expires,
          retentionMillis: time.long,
          deadLetterRetentionMillis: time.long
        }
      ])
    )
    assert.strictEqual(started._tag, "Run", "the worker that vanishes starts its task")
    if (acked) yield* drivers.broker.ack([delivery.handle])
    else yield* vanish(delivery, leaseMillis)
    const settle = (outcome: Outcome) =>
      Suite.only(drivers.backend.settle([{ id: message.id, token, outcome }]))
    return { delivery, message, token, settle }
  })

  /** Sends bytes as they are, under the name of a task. */
  const send = (id: string, task: string, body: string, queue = "default") =>
    drivers.broker.publish([{ id, task, queue, priority: 100, delayMillis: 0, body }])

  /** Nothing is left in the queue: waiting, delayed or claimed. */
  const drained = (queue = "default") =>
    time.eventually(
      "no message is left in the queue",
      Effect.map(counts(queue), ({ claimed, delayed, ready }) => claimed + delayed + ready === 0)
    )

  /** Collects what a stream gives, from now on. */
  const follow = Effect.fnUntraced(function* <A, E, R>(stream: Stream.Stream<A, E, R>) {
    const seen: Array<A> = []
    const fiber = yield* Effect.forkScoped(
      Stream.runForEach(stream, (one) => Effect.sync(() => void seen.push(one)))
    )
    return { seen, done: within("the stream ends", Fiber.join(fiber)) }
  })

  return {
    drivers,
    time,
    faults,
    context,
    eventually,
    within,
    until,
    work,
    workApart,
    over,
    find,
    read,
    counts,
    outcome,
    value,
    failure,
    reason,
    claim,
    claimOne,
    abandon,
    send,
    drained,
    follow,
    duration: (units: number) => Duration.millis(time.units(units)),
    worker: DEAD
  }
})

/** A gate that a handler waits at. */
export class Gate {
  /** How many have come to the gate. */
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

  /** Lets all through, also those who come later. */
  open(): void {
    this.isOpen = true
    for (const go of this.waiting.splice(0)) go(Effect.void)
  }
}
