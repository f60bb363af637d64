/**
 * Keeps the results of tasks: their records, outcomes, progress and dead letters.
 *
 * A program provides a `Backend` as a layer and uses it through `Task`, `AsyncResult`, `Worker` and `DeadLetters`. The
 * layers of SQLite, PostgreSQL, MariaDB and Redis are in `chicory/sqlite`, `chicory/sql` and `chicory/redis`. The
 * operations of the service itself are internal, and change without notice.
 *
 * @since 0.1.0
 * @module
 */
import { Context, Duration, Effect, Exit, Layer, Metric, type Scope, Stream } from "effect"
import type { BackendDriver, Settlement } from "./BackendDriver.ts"
import * as Batcher from "./internal/concurrency/Batcher.ts"
import * as defaults from "./internal/defaults.ts"
import type { BackendService } from "./internal/driver/BackendService.ts"
import { boundedDocuments } from "./internal/driver/boundedDocuments.ts"
import * as DriverCalls from "./internal/driver/driverCalls.ts"
import { measureEvery } from "./internal/driver/measureEvery.ts"
import { Outages, outagesOf } from "./internal/driver/Outages.ts"
import * as Subscriptions from "./internal/driver/Subscriptions.ts"
import { timed } from "./internal/driver/timed.ts"
import * as metrics from "./internal/metrics.ts"
import { positiveDuration, positiveOrInfinite, wholeNumber } from "./internal/options.ts"
import { untraced } from "./internal/tracing.ts"
import { makeMemoryBackend } from "./memory/MemoryBackendDriver.ts"
import { BackendError, BackendNotConfigured, isRetryable, type ReadError } from "./StoreError.ts"

export { BackendError, BackendNotConfigured } from "./StoreError.ts"
export type { ReadError } from "./StoreError.ts"

/**
 * Service that keeps the results of tasks.
 *
 * @see {@link layer} for the layer of a driver
 * @see {@link layerMemory} for results in this process
 * @see {@link layerNotConfigured} for programs without results
 *
 * @category services
 * @since 0.1.0
 */
export class Backend extends Context.Service<Backend, BackendService>()("chicory/Backend") {}

/**
 * Options of every backend.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /**
   * How often awaited tasks are read although the store gives hints, since a hint may be lost. Each time up to 2,048
   * tasks are read, those first that were not read for longest. The memory store loses no hint, and reads nothing.
   * Default 5 seconds.
   */
  readonly sweepInterval?: Duration.Input | undefined
  /**
   * How long the results of tasks without a `retention` are kept, counted from their end. `Duration.infinity`: forever.
   * Default 1 day.
   */
  readonly retention?: Duration.Input | undefined
}

/** Returns the characters of an outcome. */
const sizeOfSettlement = ({ outcome }: Settlement): number =>
  outcome._tag === "Success"
    ? outcome.exit.length
    : outcome._tag === "Failure"
      ? outcome.exit.length + (outcome.deadLetter?.body.length ?? 0)
      : outcome._tag === "Retry"
        ? (outcome.failure?.length ?? 0)
        : 0

/**
 * Makes the service from a driver.
 *
 * **When to use**
 *
 * Use to provide a driver as a service; `layer` provides it as a layer.
 *
 * **Details**
 *
 * Calls of concurrent fibers are coalesced into batches of at most 256 items, or 2 MiB of characters. Every error of the
 * driver, defects included, becomes a `BackendError`. Hints are read until the scope closes. Then all that wait for a
 * result fail, and so does every later call, with a `BackendError` that is not retryable.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function* <E>(
  driver: BackendDriver<E>,
  options?: Options
): Effect.fn.Return<Backend["Service"], never, Scope.Scope> {
  const outages = outagesOf(driver.fusion?.store, driver.name)
  const isPermanent = (error: ReadError) => !isRetryable(error)
  const failed = (operation: string, retryable: boolean, cause: unknown) =>
    new BackendError({ operation: `${driver.name} backend: ${operation}`, retryable, cause })
  const calls = yield* DriverCalls.make<ReadError>({
    toError: (operation) => (cause) => failed(operation, driver.isPermanent?.(cause) !== true, cause),
    toClosedError: (operation) => failed(operation, false, DriverCalls.storeClosed()),
    toRefusedError: (operation) => failed(operation, false, DriverCalls.insideTransaction()),
    key: driver.batchKey,
    isPermanent
  })
  const { batched, batchedVoid, call, refusing, refusingBatcher, toClosedError, toError } = calls

  const { complete, documents, fusion, readHistory } = driver
  const claim = fusion?.claim
  const closeClaim = fusion?.closeClaim
  /** Records the calls that carry messages too, as those of a broker. */
  const measured =
    <In, Out>(operation: string, run: (input: In) => Effect.Effect<Out, E>) =>
    (input: In): Effect.Effect<Out, E> =>
      timed(driver.name)(operation)(run(input))
  const producerOptions = {
    key: driver.batchKey,
    splitWhenIdle: driver.capabilities.prefersLargeBatches !== true
  }
  const hints = driver.capabilities.hints ? driver.hints : undefined
  const reliableHints = hints !== undefined && driver.capabilities.reliableHints === true
  const sweepInterval = positiveDuration("sweepInterval", options?.sweepInterval ?? "5 seconds")
  const waiters = metrics.liveWaiters(driver.name)
  const context = yield* Effect.context<never>()
  const subscriptions =
    hints === undefined
      ? undefined
      : yield* Subscriptions.make<ReadError>({
          subscribe: (ids, until) =>
            call("subscribe", () => Effect.map(driver.subscribe(ids, until), DriverCalls.someAnswers)),
          read: (ids) => call("read", () => Effect.map(driver.read(ids), DriverCalls.someAnswers)),
          unsubscribe: (ids) => call("unsubscribe", () => driver.unsubscribe(ids)),
          hints: Stream.mapError(hints, toError("hints")),
          outages,
          isPermanent,
          toClosedError: () => toClosedError("subscribe"),
          subscribesCreated: driver.capabilities.subscribesCreated === true,
          sweepInterval: reliableHints ? undefined : sweepInterval,
          maxBatch: DriverCalls.maxBatch * 8,
          onSubscribers: (change) => waiters.modifyUnsafe(change, context)
        })

  return Backend.of({
    name: driver.name,
    outages,
    configured: true,
    retentionMillis: Duration.toMillis(
      positiveOrInfinite("retention", options?.retention ?? defaults.retention)
    ),
    capabilities: { ...driver.capabilities, reliableHints },
    fusion:
      fusion === undefined
        ? undefined
        : {
            store: fusion.store,
            enqueue: yield* batched("enqueue", measured("enqueue", fusion.enqueue), {
              ...producerOptions,
              sizeOf: ({ message }) => message.body.length
            }),
            claim:
              claim === undefined
                ? undefined
                : (request) => call("claim", () => measured("claim", claim)(request)),
            closeClaim:
              closeClaim === undefined ? undefined : (worker) => call("closeClaim", () => closeClaim(worker)),
            settle: yield* batched("settle", measured("settle", fusion.settle), {
              sizeOf: ({ settlement }) => sizeOfSettlement(settlement)
            })
          },
    create: yield* batched("create", driver.create, producerOptions),
    markPublished: yield* batched("markPublished", driver.markPublished, producerOptions),
    start: (starts) => call("start", () => driver.start(starts)),
    renew: yield* batched("renew", driver.renew, { sizeOf: ({ progress }) => progress?.length ?? 0 }),
    settle: yield* batched("settle", driver.settle, { sizeOf: sizeOfSettlement }),
    complete:
      complete === undefined ? undefined : (completion) => call("complete", () => complete(completion)),
    parkMessage: (messages) => call("parkMessage", () => driver.parkMessage(messages)),
    read: yield* batched("read", driver.read, { key: driver.batchKey }),
    readHistory:
      readHistory === undefined
        ? undefined
        : yield* batched("readHistory", readHistory, {
            key: driver.batchKey,
            sizeOf: () => defaults.maxHistorySize
          }),
    subscriptions,
    cancel: refusingBatcher("cancel", yield* batched("cancel", driver.cancel)),
    withdraw: (messages) => refusing("withdraw")(call("withdraw", () => driver.withdraw(messages))),
    forget: refusingBatcher("forget", yield* batchedVoid("forget", driver.forget)),
    reopen: (ids, reservedMillis) =>
      refusing("reopen")(call("reopen", () => driver.reopen(ids, reservedMillis))),
    getDeadLetters: (ids) => call("getDeadLetters", () => driver.getDeadLetters(ids)),
    listDeadLetters: (query) => call("listDeadLetters", () => driver.listDeadLetters(query)),
    listDeadLetterIds: (query) => call("listDeadLetterIds", () => driver.listDeadLetterIds(query)),
    countDeadLetters: (task) => call("countDeadLetters", () => driver.countDeadLetters(task)),
    removeDeadLetters: (ids) =>
      refusing("removeDeadLetters")(call("removeDeadLetters", () => driver.removeDeadLetters(ids))),
    heartbeat: (worker, ttlMillis) => call("heartbeat", () => driver.heartbeat(worker, ttlMillis)),
    unregisterWorker: (worker) => call("unregisterWorker", () => driver.unregisterWorker(worker)),
    workers: call("workers", () => driver.workers),
    documents:
      documents === undefined
        ? undefined
        : boundedDocuments<ReadError>(
            {
              get: (keys) => call("documents.get", () => documents.get(keys)),
              write: (writes) => call("documents.write", () => documents.write(writes)),
              list: (query) => call("documents.list", () => documents.list(query))
            },
            (operation) => (cause) => failed(operation, false, cause)
          ),
    sweep: (limit) => call("sweep", () => driver.sweep(limit))
  })
})

/**
 * Provides a `Backend` from an effect that makes a driver.
 *
 * @see `BackendDriver` of `chicory/driver`
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = <E, EX = never, R = never>(
  driver: Effect.Effect<BackendDriver<E>, EX, R>,
  options?: Options
): Layer.Layer<Backend, EX, Exclude<R, Scope.Scope>> =>
  Layer.effect(
    Backend,
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
export const makeDriverMemory: Effect.Effect<BackendDriver<never>> = makeMemoryBackend

/**
 * Keeps results in this process.
 *
 * **When to use**
 *
 * Use for tests, and for tasks that may be lost with their process. Leases, retention and dead letters are those of
 * every other store, and every time is that of `Clock`, so that a test moves it with `TestClock`.
 *
 * @see `Broker.layerMemory` for messages in this process
 *
 * @category layers
 * @since 0.1.0
 */
export const layerMemory: Layer.Layer<Backend> = layer(makeDriverMemory)

const notConfigured = (operation: string) => Effect.fail(new BackendNotConfigured({ operation }))
const failingBatcher = (operation: string) => ({
  request: () => Batcher.resolved(Exit.fail(new BackendNotConfigured({ operation }))),
  isUnbatched: () => false,
  one: () => notConfigured(operation),
  many: failingMany(operation)
})
const failingMany = (operation: string) => (items: ReadonlyArray<unknown>) =>
  Effect.forEach(items, () => Effect.exit(notConfigured(operation)))

/**
 * Keeps no results.
 *
 * **When to use**
 *
 * Use for programs that enqueue tasks and never await them, with any broker.
 *
 * **Details**
 *
 * Tasks run at least once. The message counts their retries, and the broker parks those that fail for good. Every
 * operation that needs a record fails with `BackendNotConfigured`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerNotConfigured: Layer.Layer<Backend> = Layer.succeed(Backend, {
  name: "none",
  outages: new Outages("none"),
  configured: false,
  retentionMillis: Infinity,
  capabilities: { hints: false },
  fusion: undefined,
  create: failingBatcher("create"),
  markPublished: failingBatcher("markPublished"),
  start: () => notConfigured("start"),
  renew: failingBatcher("renew"),
  settle: failingBatcher("settle"),
  complete: undefined,
  parkMessage: () => notConfigured("parkMessage"),
  read: failingBatcher("AsyncResult"),
  readHistory: undefined,
  subscriptions: undefined,
  cancel: failingBatcher("AsyncResult.cancel"),
  withdraw: () => notConfigured("Broker.purge"),
  forget: failingBatcher("AsyncResult.forget"),
  reopen: () => notConfigured("DeadLetters.replay"),
  getDeadLetters: () => notConfigured("DeadLetters.replay"),
  listDeadLetters: () => notConfigured("DeadLetters.list"),
  listDeadLetterIds: () => notConfigured("DeadLetters.purge"),
  countDeadLetters: () => notConfigured("DeadLetters.count"),
  removeDeadLetters: () => notConfigured("DeadLetters.remove"),
  heartbeat: () => notConfigured("heartbeat"),
  unregisterWorker: () => notConfigured("unregisterWorker"),
  workers: notConfigured("Worker.active"),
  documents: undefined,
  sweep: () => notConfigured("sweep")
})

/** Tasks that one layer counts, at most: each is counted by a call of its own. */
const MAX_COUNTED_TASKS = 200

/**
 * Options of {@link deadLetterMetrics}.
 *
 * @category options
 * @since 0.1.0
 */
export interface DeadLetterMetricsOptions {
  /** Tasks to count one by one: 1 to 200. Default: all dead letters are counted together. */
  readonly tasks?: ReadonlyArray<{ readonly name: string }> | undefined
  /** How long after a measurement the next one begins. Default 1 minute. */
  readonly every?: Duration.Input | undefined
}

/**
 * Measures how many dead letters the backend keeps, as a metric.
 *
 * **When to use**
 *
 * Use in one process, beside `Broker.depthMetrics`. Workers count the dead letters that they write, as
 * `chicory.task.dead_letters`; this layer reports those that the backend keeps, of all processes, until they are replayed,
 * removed, or two weeks old.
 *
 * **Details**
 *
 * Sets the gauge `chicory.dead_letter.count`, with `chicory.backend`: one for all dead letters, or one for each of the
 * `tasks`, with `chicory.task.name`. Each task is counted by a call of its own, at once and then at intervals. What
 * `Broker.depthMetrics` says of failures holds here.
 *
 * Another number of tasks, and an interval that is not finite and above zero, are defects.
 *
 * @see `DeadLetters.count` to count once
 *
 * @category observability
 * @since 0.1.0
 */
export const deadLetterMetrics = (
  options: DeadLetterMetricsOptions = {}
): Layer.Layer<never, never, Backend> =>
  Layer.effectDiscard(
    Effect.gen(function* () {
      const backend = yield* Backend
      const context = yield* Effect.context<never>()
      const at = (what: string) => `Backend.deadLetterMetrics: ${what}`
      const tasks = options.tasks?.map(({ name }) => name) ?? [undefined]
      wholeNumber(at("the number of tasks"), tasks.length, 1, MAX_COUNTED_TASKS)
      const gauges = tasks.map((task) => ({ task, gauge: metrics.forDeadLetters(backend.name, task) }))
      yield* measureEvery({
        what: "the number of dead letters",
        outages: backend.outages,
        interval: positiveDuration(at("every"), options.every ?? "1 minute"),
        measure: Effect.forEach(
          gauges,
          ({ gauge, task }) =>
            Effect.map(backend.countDeadLetters(task), (count) => gauge.updateUnsafe(count, context)),
          { discard: true }
        ),
        remove: Effect.sync(() => gauges.forEach(({ gauge }) => Metric.removeUnsafe(gauge, context)))
      })
    })
  )
