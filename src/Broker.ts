/**
 * Carries the messages of tasks from producers to workers.
 *
 * A program provides a `Broker` as a layer and uses it through `Task` and `Worker`. The layers of SQLite, PostgreSQL,
 * MariaDB, Redis and RabbitMQ are in `chicory/sqlite`, `chicory/sql`, `chicory/redis` and `chicory/rabbitmq`. Except for
 * `counts` and `purge` of this module, the operations of the service are internal, and change without notice.
 *
 * @since 0.1.0
 * @module
 */
import {
  Array as Arr,
  Context,
  type Duration,
  Effect,
  Layer,
  Option,
  Schedule,
  type Scope,
  Stream
} from "effect"
import { Backend } from "./Backend.ts"
import type { Batch, BrokerDriver, PurgedMessage, QueueCounts } from "./BrokerDriver.ts"
import { backoff } from "./internal/backoff.ts"
import * as defaults from "./internal/defaults.ts"
import type { BrokerService } from "./internal/driver/BrokerService.ts"
import * as depthGauges from "./internal/driver/depthGauges.ts"
import * as DriverCalls from "./internal/driver/driverCalls.ts"
import { measureEvery } from "./internal/driver/measureEvery.ts"
import { outagesOf } from "./internal/driver/Outages.ts"
import { timed } from "./internal/driver/timed.ts"
import * as metrics from "./internal/metrics.ts"
import { positiveDuration, text, wholeNumber } from "./internal/options.ts"
import { untraced } from "./internal/tracing.ts"
import { makeMemoryBroker } from "./memory/MemoryBrokerDriver.ts"
import { BrokerError, isRetryable, type ReadError } from "./StoreError.ts"

export { BrokerError } from "./StoreError.ts"
export type { QueueCounts } from "./BrokerDriver.ts"

/**
 * Service that carries the messages of tasks.
 *
 * @see {@link layer} for the layer of a driver
 * @see {@link layerMemory} for messages in this process
 *
 * @category services
 * @since 0.1.0
 */
export class Broker extends Context.Service<Broker, BrokerService>()("chicory/Broker") {}

/**
 * Options of every broker.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /** How long claims and runs are leased by workers that set no `lease`. Default 30 seconds. */
  readonly lease?: Duration.Input | undefined
}

/**
 * Makes the service from a driver.
 *
 * **When to use**
 *
 * Use to provide a driver as a service; `layer` provides it as a layer.
 *
 * **Details**
 *
 * Calls of concurrent fibers are coalesced into batches of at most 256 items, or 2 MiB of characters, until the scope
 * closes. Every error of the driver, defects included, becomes a `BrokerError`. A call after the scope has closed fails
 * with one that is not retryable.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function* <E>(
  driver: BrokerDriver<E>,
  options?: Options
): Effect.fn.Return<Broker["Service"], never, Scope.Scope> {
  const failed = (operation: string, retryable: boolean, cause: unknown) =>
    new BrokerError({ operation: `${driver.name} broker: ${operation}`, retryable, cause })
  const { batched, batchedVoid, call, refusing, toError } = yield* DriverCalls.make<BrokerError>({
    toError: (operation) => (cause) => failed(operation, driver.isPermanent?.(cause) !== true, cause),
    toClosedError: (operation) => failed(operation, false, DriverCalls.storeClosed()),
    toRefusedError: (operation) => failed(operation, false, DriverCalls.insideTransaction()),
    key: driver.batchKey,
    isPermanent: (error) => !isRetryable(error),
    around: timed(driver.name)
  })

  return Broker.of({
    name: driver.name,
    outages: outagesOf(driver.store, driver.name),
    capabilities: driver.capabilities,
    store: driver.store,
    lease: positiveDuration("lease", options?.lease ?? defaults.lease),
    publish: yield* batchedVoid("publish", driver.publish, {
      key: driver.batchKey,
      splitWhenIdle: driver.capabilities.prefersLargeBatches !== true,
      sizeOf: ({ body }) => body.length
    }),
    claim: (claim) => call("claim", () => driver.claim(claim)),
    setAside: driver.setAside && {
      tasks: (queues) => call("setAside.tasks", () => driver.setAside!.tasks(queues)),
      claim: (claim) => call("setAside.claim", () => driver.setAside!.claim(claim))
    },
    ready: (queues, slots) => Stream.mapError(driver.ready(queues, slots), toError("ready")),
    renew: (handles, leaseMillis) => call("renew", () => driver.renew(handles, leaseMillis)),
    lost: driver.lost === undefined ? Stream.never : Stream.mapError(driver.lost, toError("lost")),
    ack: yield* batched("ack", driver.ack),
    returnUnhandled: yield* batchedVoid("returnUnhandled", driver.returnUnhandled ?? (() => Effect.void)),
    release: yield* batchedVoid("release", driver.release, { sizeOf: ({ body }) => body?.length ?? 0 }),
    reject: yield* batchedVoid("reject", driver.reject),
    counts: (queues) => call("counts", () => driver.counts(queues)),
    purge: (queue, limit) => refusing("purge")(call("purge", () => driver.purge(queue, limit)))
  })
})

/**
 * Provides a `Broker` from an effect that makes a driver.
 *
 * @see `BrokerDriver` of `chicory/driver`
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = <E, EX = never, R = never>(
  driver: Effect.Effect<BrokerDriver<E>, EX, R>,
  options?: Options
): Layer.Layer<Broker, EX, Exclude<R, Scope.Scope>> =>
  Layer.effect(
    Broker,
    Effect.flatMap(untraced(driver), (made) => make(made, options))
  )

/**
 * Makes a driver that keeps everything in this process. Every time is that of `Clock`.
 *
 * @see {@link layerMemory} for the layer
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeDriverMemory: Effect.Effect<BrokerDriver<never>> = makeMemoryBroker

/**
 * Carries messages in this process, with leases, delays and priorities.
 *
 * **When to use**
 *
 * Use for tests, and for tasks that may be lost with their process. Every time is that of `Clock`, so that a test moves
 * it with `TestClock`.
 *
 * @see `Backend.layerMemory` for results in this process
 *
 * @category layers
 * @since 0.1.0
 */
export const layerMemory: Layer.Layer<Broker> = layer(makeDriverMemory)

/**
 * Counts the messages of each of the queues, in order.
 *
 * @see {@link purge} to remove messages
 *
 * @category getters
 * @since 0.1.0
 */
export const counts = (
  queues: Batch<string>
): Effect.Effect<ReadonlyArray<QueueCounts>, BrokerError, Broker> =>
  Broker.use((broker) => broker.counts(queues))

/** Queues that one layer measures, at most: each is counted by statements of its own. */
const MAX_MEASURED_QUEUES = 200

/**
 * Options of {@link depthMetrics}.
 *
 * @category options
 * @since 0.1.0
 */
export interface DepthMetricsOptions {
  /** The queues to measure: 1 to 200. */
  readonly queues: Batch<string>
  /** How long after a measurement the next one begins. Default 15 seconds. */
  readonly every?: Duration.Input | undefined
}

/**
 * Measures how many messages wait in queues, and for how long, as metrics.
 *
 * **When to use**
 *
 * Use in a process that lives on while workers come and go, such as the one that serves your metrics. Workers do not
 * measure their queues. One process is enough for all workers of a store; where several measure a queue, they report
 * the same values, which must not be added up.
 *
 * **Details**
 *
 * Sets two gauges, with `messaging.system` and `messaging.destination.name`:
 *
 * - `chicory.queue.depth`: messages by `chicory.message.state`, which is `ready`, `delayed` or `claimed`, and where there
 *   are any `set_aside`, of tasks that no worker knows, and `parked`, without a backend;
 * - `chicory.queue.oldest_age`: seconds for which the longest due message has waited, 0 where none is due. RabbitMQ does
 *   not know it, so there is no such gauge.
 *
 * All queues are counted in one call, at once and then at intervals. When a call fails, or takes longer than 30 seconds,
 * the gauges are removed until a later one succeeds: a store that cannot be asked has no depth, rather than an old one.
 * Failures of more than 30 seconds are a warning in the log, with another line when they end. The gauges are removed too
 * when the layer's scope closes.
 *
 * Another number of queues, and an interval that is not finite and above zero, are defects.
 *
 * **Example** (Measuring two queues)
 *
 * ```ts
 * import { Broker } from "chicory"
 * import { SqliteStore } from "chicory/sqlite"
 * import { Layer } from "effect"
 *
 * const DepthsLive = Broker.depthMetrics({ queues: ["default", "mail"], every: "30 seconds" }).pipe(
 *   Layer.provide(SqliteStore.layer({ filename: "tasks.db" }))
 * )
 * ```
 *
 * @see {@link counts} to count once
 * @see `Backend.deadLetterMetrics` for dead letters
 *
 * @category observability
 * @since 0.1.0
 */
export const depthMetrics = (options: DepthMetricsOptions): Layer.Layer<never, never, Broker> =>
  Layer.effectDiscard(
    Effect.gen(function* () {
      const broker = yield* Broker
      const context = yield* Effect.context<never>()
      const at = (what: string) => `Broker.depthMetrics: ${what}`
      const queues = Arr.dedupe(Arr.map(options.queues, (queue) => text(at("queues"), queue)))
      wholeNumber(at("the number of queues"), queues.length, 1, MAX_MEASURED_QUEUES)
      const gauges = queues.map((queue) => metrics.forDepth(broker.name, queue))
      yield* measureEvery({
        what: "the depth of queues",
        outages: broker.outages,
        interval: positiveDuration(at("every"), options.every ?? "15 seconds"),
        measure: Effect.map(broker.counts(queues), (counts) =>
          counts.forEach((count, i) => depthGauges.set(gauges[i]!, count, context))
        ),
        remove: Effect.sync(() => gauges.forEach((gauge) => depthGauges.remove(gauge, context)))
      })
    })
  )

/** How long a purge tries to end the tasks of the messages that it removed. */
const WITHDRAW_FOR = "10 seconds"

/** Ends the tasks of purged messages. Logs the ids where it fails: nothing else knows of them by then. */
const withdraw = (
  backend: Backend["Service"],
  queue: string,
  messages: Batch<PurgedMessage>
): Effect.Effect<void, ReadError> =>
  backend.withdraw(messages).pipe(
    Effect.retry({ schedule: Schedule.upTo(backoff, { duration: WITHDRAW_FOR }), while: isRetryable }),
    Effect.tapCause((cause) =>
      Effect.logWarning(
        `Failed to end ${messages.length} purged tasks; they stay as they are until they are cancelled`,
        cause
      ).pipe(Effect.annotateLogs({ queue, tasks: messages.map(({ id }) => id) }))
    )
  )

/** Removes a batch of messages and ends their tasks. An interruption waits for both. */
const purgeBatch = (
  broker: Broker["Service"],
  backend: Backend["Service"] | undefined,
  queue: string
): Effect.Effect<number, BrokerError | ReadError> =>
  Effect.uninterruptible(
    Effect.gen(function* () {
      const messages = yield* broker.purge(queue, DriverCalls.maxBatch)
      if (backend !== undefined && Arr.isReadonlyArrayNonEmpty(messages)) {
        yield* withdraw(backend, queue, messages)
      }
      return messages.length
    })
  )

/**
 * Removes every message of a queue that no worker has claimed, delayed and parked ones too, and returns how many it
 * removed. It ends when it finds none, so it removes what is published meanwhile as well.
 *
 * **Details**
 *
 * Where the context has a `Backend`, the tasks end as cancelled, so that their waiters are notified: those that wait at
 * once. A task that runs, although its message could be removed, runs on: it ends as cancelled only if its run does not
 * end it, because its worker has died, it is retried or it is released.
 *
 * Messages are removed in batches, and the tasks of a batch are ended before the next one is removed; an interruption
 * waits for both. A backend that fails is tried again for 10 seconds. Then the purge fails with its error and removes no
 * more, and a warning in the log has the ids of the tasks that it could not end.
 *
 * **Gotchas**
 *
 * A task whose message was removed and that was not ended stays `PENDING` or `RETRY`: after such an error, after a
 * `BrokerError` of a removal whose answer was lost, and where the process is killed between the two steps. Another purge
 * does not find its message; `AsyncResult.cancel` ends it.
 *
 * @see {@link counts} to count messages
 *
 * @category managing
 * @since 0.1.0
 */
export const purge = Effect.fn("Broker.purge")(function* (
  queue: string
): Effect.fn.Return<number, BrokerError | ReadError, Broker> {
  const broker = yield* Broker
  const backend = Option.getOrUndefined(
    Option.filter(yield* Effect.serviceOption(Backend), ({ configured }) => configured)
  )
  let purged = 0
  while (true) {
    const removed = yield* purgeBatch(broker, backend, queue)
    if (removed === 0) return purged
    purged += removed
  }
})
