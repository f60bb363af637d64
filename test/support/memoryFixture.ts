/**
 * A memory backend and a memory broker whose calls are counted. A test can run tasks on them by hand, to the
 * millisecond.
 */
import { assert } from "@effect/vitest"
import { Backend, Broker, type Task, TaskFailed, Worker } from "chicory"
import type { BackendDriver, NewRecord, Outcome, Start, BrokerDriver } from "chicory/driver"
import { Context, Effect, type Fiber, Layer, type Scope } from "effect"
import { TestClock } from "effect/testing"
import { makeMemoryDrivers } from "../../src/memory/MemoryDrivers.ts"

type Operations<D> = { readonly [K in keyof D]?: D[K] }

/** How a fixture differs from the plain memory stores. */
export interface Options {
  /** Whether both are one store with fused operations. Default: two stores. */
  readonly fused?: boolean | undefined
  /** Whether the backend hints of changes. Default `true`. */
  readonly hints?: boolean | undefined
  /** Replaces operations of the backend's driver; these are counted as well. */
  readonly backend?: ((driver: BackendDriver<never>) => Operations<BackendDriver>) | undefined
  /** Replaces operations of the broker's driver; these are counted as well. */
  readonly broker?: ((driver: BrokerDriver<never>) => Operations<BrokerDriver>) | undefined
}

/** Calls by operation, with the items of each. */
type Calls = Map<string, Array<ReadonlyArray<unknown>>>

const counted = <D extends object>(driver: D, calls: Calls, order: Array<string>): D => {
  const wrapped = Object.entries(driver).map(([name, operation]) => [
    name,
    typeof operation === "function" && name !== "isPermanent" && name !== "batchKey"
      ? (...args: ReadonlyArray<unknown>) => {
          const items = Array.isArray(args[0]) ? args[0] : [args[0]]
          calls.set(name, [...(calls.get(name) ?? []), items])
          order.push(name)
          return (operation as (...args: ReadonlyArray<unknown>) => unknown)(...args)
        }
      : operation
  ])
  return Object.fromEntries(wrapped) as D
}

const exitText = (exit: unknown): string => JSON.stringify(exit)

/** Makes a fixture, which ends with the scope. */
export const make = Effect.fnUntraced(function* (options: Options = {}) {
  const calls: Calls = new Map()
  const order: Array<string> = []
  const { backend: driver, broker: brokerDriver } =
    options.fused === true
      ? yield* makeMemoryDrivers
      : { backend: yield* Backend.makeDriverMemory, broker: yield* Broker.makeDriverMemory }
  const hints = options.hints ?? true
  const fusion = driver.fusion === undefined ? {} : { fusion: counted(driver.fusion, calls, order) }
  const backend = yield* Backend.make(
    counted(
      { ...driver, ...fusion, capabilities: { ...driver.capabilities, hints }, ...options.backend?.(driver) },
      calls,
      order
    )
  )
  const broker = yield* Broker.make(
    counted({ ...brokerDriver, ...options.broker?.(brokerDriver) }, calls, order)
  )
  const context = Context.mergeAll(
    Context.make(Backend.Backend, backend),
    Context.make(Broker.Broker, broker)
  )

  const create = (id: string, more?: Partial<NewRecord>) =>
    Effect.asVoid(
      driver.create([
        {
          id,
          task: "sum",
          incarnation: "",
          queue: "default",
          key: undefined,
          payloadHash: "",
          delayMillis: 0,
          expiresMillis: undefined,
          retentionMillis: undefined,
          reservedMillis: undefined,
          ...more
        }
      ])
    )
  const start = (id: string, more?: Partial<Start>) =>
    Effect.map(
      driver.start([
        {
          id,
          task: "sum",
          incarnation: "",
          generation: 0,
          token: `run of ${id}`,
          worker: "w1",
          queue: "default",
          body: "{}",
          leaseMillis: 3_600_000,
          deliveryMode: "at-least-once",
          maxCrashes: 3,
          retentionMillis: undefined,
          deadLetterRetentionMillis: undefined,
          ...more
        }
      ]),
      ([started]) => assert.strictEqual(started?._tag, "Run")
    )
  const settle = (id: string, outcome: Outcome) =>
    Effect.map(driver.settle([{ id, token: `run of ${id}`, outcome }]), ([settled]) =>
      assert.strictEqual(settled, "Stored")
    )
  const end = (id: string, outcome: Outcome) => Effect.andThen(start(id), settle(id, outcome))
  return {
    driver,
    brokerDriver,
    backend,
    broker,
    /** Services for `Effect.provideContext`. */
    context,
    /** As a layer, for a worker. */
    layer: Layer.succeedContext(context),
    /** How often an operation was called. */
    count: (...operations: ReadonlyArray<string>): number =>
      operations.reduce((sum, operation) => sum + (calls.get(operation)?.length ?? 0), 0),
    /** The items of all calls of an operation, in order. */
    items: (operation: string): ReadonlyArray<unknown> => (calls.get(operation) ?? []).flat(),
    /** The given operations in the order in which they were called. */
    sequence: (...operations: ReadonlyArray<string>): ReadonlyArray<string> =>
      order.filter((operation) => operations.includes(operation)),
    clearCalls: Effect.sync(() => {
      calls.clear()
      order.length = 0
    }),
    create,
    start,
    settle,
    /** Runs the task and stores its success; the value is JSON. */
    succeed: (id: string, value: unknown, retentionMillis?: number) =>
      end(id, { _tag: "Success", exit: exitText({ _tag: "Success", value }), retentionMillis }),
    /** Runs the task and stores a failure; the error is JSON. */
    fail: (id: string, error: unknown) =>
      end(id, {
        _tag: "Failure",
        exit: exitText({ _tag: "Failure", reason: { _tag: "Failed", error, retriesExhausted: false } }),
        retentionMillis: undefined,
        deadLetter: undefined
      }),
    progress: (id: string, value: unknown) =>
      driver.renew([{ id, token: `run of ${id}`, leaseMillis: 3_600_000, progress: JSON.stringify(value) }])
  }
})

/** Starts a worker over the fixture, which stops with the scope. */
export const startWorker = <T extends Task.Any>(
  { layer }: MemoryFixture,
  task: T,
  handler: Layer.Layer<Task.HandlerOf<T>>,
  options?: Worker.Options
): Effect.Effect<void, never, Scope.Scope> => {
  const worker: Layer.Layer<Worker.Worker, never, Backend.Backend | Broker.Broker> = Layer.provide(
    Worker.layer([task], { drainTimeout: 0, ...options }),
    handler
  )
  return Effect.andThen(Layer.build(Layer.provide(worker, layer)), flush)
}

/** A fixture. */
export type MemoryFixture = Effect.Success<ReturnType<typeof make>>

/** Runs all fibers until each of them waits. */
export const flush: Effect.Effect<void> = Effect.asVoid(Effect.repeat(Effect.yieldNow, { times: 60 }))

/** Flushes all fibers, advances the test clock, and flushes them again. */
export const advance = (...args: Parameters<typeof TestClock.adjust>): Effect.Effect<void> =>
  flush.pipe(Effect.andThen(TestClock.adjust(...args)), Effect.andThen(flush))

/** Starts an effect in a fiber and flushes all fibers. */
export const fork = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<Fiber.Fiber<A, E>, never, R> =>
  Effect.tap(Effect.forkChild(effect), flush)

/** Checks that a fiber has not ended. */
export const assertPending = (fiber: Fiber.Fiber<unknown, unknown>): void =>
  assert.isUndefined(fiber.pollUnsafe(), "the fiber is pending")

/** Returns the exit of a fiber that has ended. */
export const exitOf = <A, E>(fiber: Fiber.Fiber<A, E>) => {
  const exit = fiber.pollUnsafe()
  assert(exit !== undefined, "the fiber has ended")
  return exit
}

/** Returns the reason of a `TaskFailed`. */
export const reasonOf = (error: unknown): TaskFailed.Reason<unknown> => {
  assert(error instanceof TaskFailed.TaskFailed, `a TaskFailed, and not ${String(error)}`)
  return error.reason
}
