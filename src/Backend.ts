/**
 * Where results live: a service given by a Layer, over a `BackendDriver`.
 *
 * A program needs no more of it than its layer. Its operations serve this library's own modules; users call
 * `AsyncResult`, `Worker` and `DeadLetters`.
 */
import { Context, Duration, Effect, Exit, Layer, type Scope, Stream } from "effect"
import type {
  BackendDriver,
  CancelAnswer,
  ClaimedMessage,
  Completion,
  Created,
  DeadLetter,
  Heartbeat,
  NewRecord,
  DeadLetterQuery,
  ParkedMessage,
  Renew,
  Renewed,
  Settled,
  Settlement,
  Start,
  Started,
  TaskRecord,
  StartDefaults,
  WorkerInfo
} from "./BackendDriver.ts"
import type { ClaimRequest, Envelope, Batch } from "./BrokerDriver.ts"
import * as Batcher from "./internal/concurrency/Batcher.ts"
import * as defaults from "./internal/defaults.ts"
import * as Calling from "./internal/driver/driverCalls.ts"
import * as Subscriptions from "./internal/driver/Subscriptions.ts"
import * as metrics from "./internal/metrics.ts"
import { positiveDuration, positiveOrInfinite } from "./internal/options.ts"
import { makeMemoryBackend } from "./memory/MemoryBackendDriver.ts"
import { BackendError, BackendNotConfigured, isRetryable, type ReadError } from "./StoreError.ts"

export { BackendError, BackendNotConfigured } from "./StoreError.ts"
export type { ReadError } from "./StoreError.ts"

/** The fused operations of a store, coalesced. */
export interface FusedService {
  readonly store: object
  readonly enqueue: Batcher.Batcher<
    { readonly record: NewRecord; readonly message: Envelope },
    Created,
    ReadError
  >
  readonly claim:
    | ((
        claim: ClaimRequest & { readonly startDefaults: ReadonlyArray<StartDefaults> }
      ) => Effect.Effect<ReadonlyArray<ClaimedMessage>, ReadError>)
    | undefined
  readonly settle: Batcher.Batcher<
    { readonly settlement: Settlement; readonly handle: string },
    Settled,
    ReadError
  >
}

/** The driver's operations, coalesced, with this library's errors. */
export interface BackendService {
  /** The store's name. */
  readonly name: string
  /** `false` for `layerNotConfigured`. */
  readonly configured: boolean
  /** For tasks that do not say how long their results stay; `Infinity`: for ever. */
  readonly retentionMillis: number
  readonly capabilities: BackendDriver["capabilities"]
  /** For a broker of the same store. */
  readonly fusion: FusedService | undefined
  readonly create: Batcher.Batcher<NewRecord, Created, ReadError>
  readonly markPublished: Batcher.Batcher<string, void, ReadError>
  readonly start: (starts: Batch<Start>) => Effect.Effect<ReadonlyArray<Started>, ReadError>
  readonly renew: Batcher.Batcher<Renew, Renewed, ReadError>
  readonly settle: Batcher.Batcher<Settlement, Settled, ReadError>
  /** `undefined`: the store is not part of its callers' transactions. */
  readonly complete: ((completion: Completion) => Effect.Effect<Settled, ReadError>) | undefined
  readonly parkMessage: (letters: Batch<ParkedMessage>) => Effect.Effect<void, ReadError>
  readonly read: Batcher.Batcher<string, TaskRecord | undefined, ReadError>
  /** Whom to tell of changes; `undefined` where the store gives no hints: then whoever waits polls. */
  readonly subscriptions: Subscriptions.Subscriptions<ReadError> | undefined
  readonly cancel: Batcher.Batcher<string, CancelAnswer, ReadError>
  readonly forget: Batcher.Batcher<string, void, ReadError>
  readonly reopen: (
    letterIds: Batch<string>
  ) => Effect.Effect<ReadonlyArray<DeadLetter | undefined>, ReadError>
  readonly getDeadLetters: (
    ids: Batch<string>
  ) => Effect.Effect<ReadonlyArray<DeadLetter | undefined>, ReadError>
  readonly listDeadLetters: (query: DeadLetterQuery) => Effect.Effect<ReadonlyArray<DeadLetter>, ReadError>
  readonly countDeadLetters: (task: string | undefined) => Effect.Effect<number, ReadError>
  readonly removeDeadLetters: (ids: Batch<string>) => Effect.Effect<ReadonlyArray<boolean>, ReadError>
  readonly heartbeat: (worker: Heartbeat, ttlMillis: number) => Effect.Effect<void, ReadError>
  readonly unregisterWorker: (worker: string) => Effect.Effect<void, ReadError>
  readonly workers: Effect.Effect<ReadonlyArray<WorkerInfo>, ReadError>
  readonly sweep: (limit: number) => Effect.Effect<number, ReadError>
}

/** Where results live. */
export class Backend extends Context.Service<Backend, BackendService>()("chicory/Backend") {}

/** How a facade treats its driver. */
export interface Options {
  /**
   * Where the store gives hints: what is awaited is read again this often, up to 2,048 tasks at a time, those first
   * that went unread for longest. Default 5 seconds.
   */
  readonly sweepInterval?: Duration.Input | undefined
  /**
   * How long the results of tasks stay that do not say so themselves, counted from their end; `Duration.infinity`: for
   * ever. Default 1 day.
   */
  readonly retention?: Duration.Input | undefined
}

/** The characters of an outcome. */
const sizeOfSettlement = ({ outcome }: Settlement): number =>
  outcome._tag === "Success"
    ? outcome.exit.length
    : outcome._tag === "Failure"
      ? outcome.exit.length + (outcome.deadLetter?.body.length ?? 0)
      : 0

/** Coalesces, wraps errors, and listens for hints until the scope closes. */
export const make = Effect.fnUntraced(function* <E>(
  driver: BackendDriver<E>,
  options?: Options
): Effect.fn.Return<Backend["Service"], never, Scope.Scope> {
  const isPermanent = (error: ReadError) => !isRetryable(error)
  const { batched, batchedVoid, call, toError } = Calling.make<ReadError>({
    toError: (operation) => (cause) =>
      new BackendError({
        operation: `${driver.name} backend: ${operation}`,
        retryable: driver.isPermanent?.(cause) !== true,
        cause
      }),
    isPermanent
  })

  const { complete, fusion } = driver
  const claim = fusion?.claim
  const producing = { key: driver.batchKey, splitWhenIdle: driver.capabilities.prefersLargeBatches !== true }
  const hints = driver.capabilities.hints ? driver.hints : undefined
  const live = metrics.liveWaiters(driver.name)
  const context = yield* Effect.context<never>()
  const subscriptions =
    hints === undefined
      ? undefined
      : yield* Subscriptions.make<ReadError>({
          subscribe: (ids, until) => call("subscribe", () => driver.subscribe(ids, until)),
          read: (ids) => call("read", () => driver.read(ids)),
          unsubscribe: (ids) => call("unsubscribe", () => driver.unsubscribe(ids)),
          hints: Stream.mapError(hints, toError("hints")),
          isPermanent,
          sweepInterval: positiveDuration("sweepInterval", options?.sweepInterval ?? "5 seconds"),
          maxBatch: Calling.maxBatch * 8,
          onSubscribers: (change) => live.updateUnsafe(change, context)
        })

  return Backend.of({
    name: driver.name,
    configured: true,
    retentionMillis: Duration.toMillis(
      positiveOrInfinite("retention", options?.retention ?? defaults.retention)
    ),
    capabilities: driver.capabilities,
    fusion:
      fusion === undefined
        ? undefined
        : {
            store: fusion.store,
            enqueue: yield* batched("enqueue", fusion.enqueue, {
              ...producing,
              sizeOf: ({ message }) => message.body.length
            }),
            claim: claim === undefined ? undefined : (asked) => call("claim", () => claim(asked)),
            settle: yield* batched("settle", fusion.settle, {
              sizeOf: ({ settlement }) => sizeOfSettlement(settlement)
            })
          },
    create: yield* batched("create", driver.create, producing),
    markPublished: yield* batchedVoid("markPublished", driver.markPublished, producing),
    start: (starts) => call("start", () => driver.start(starts)),
    renew: yield* batched("renew", driver.renew, { sizeOf: ({ progress }) => progress?.length ?? 0 }),
    settle: yield* batched("settle", driver.settle, { sizeOf: sizeOfSettlement }),
    complete: complete === undefined ? undefined : (one) => call("complete", () => complete(one)),
    parkMessage: (letters) => call("parkMessage", () => driver.parkMessage(letters)),
    read: yield* batched("read", driver.read),
    subscriptions,
    cancel: yield* batched("cancel", driver.cancel),
    forget: yield* batchedVoid("forget", driver.forget),
    reopen: (ids) => call("reopen", () => driver.reopen(ids)),
    getDeadLetters: (ids) => call("getDeadLetters", () => driver.getDeadLetters(ids)),
    listDeadLetters: (query) => call("listDeadLetters", () => driver.listDeadLetters(query)),
    countDeadLetters: (task) => call("countDeadLetters", () => driver.countDeadLetters(task)),
    removeDeadLetters: (ids) => call("removeDeadLetters", () => driver.removeDeadLetters(ids)),
    heartbeat: (worker, ttlMillis) => call("heartbeat", () => driver.heartbeat(worker, ttlMillis)),
    unregisterWorker: (worker) => call("unregisterWorker", () => driver.unregisterWorker(worker)),
    workers: call("workers", () => driver.workers),
    sweep: (limit) => call("sweep", () => driver.sweep(limit))
  })
})

/** A layer over the effect that makes a driver. */
export const layer = <E, EX = never, R = never>(
  driver: Effect.Effect<BackendDriver<E>, EX, R>,
  options?: Options
): Layer.Layer<Backend, EX, Exclude<R, Scope.Scope>> =>
  Layer.effect(
    Backend,
    Effect.flatMap(driver, (made) => make(made, options))
  )

/** A driver that keeps everything in this process. Every time is that of `Clock`. */
export const makeDriverMemory: Effect.Effect<BackendDriver<never>> = makeMemoryBackend

/**
 * Results in this process, for tests and for work that need not outlive it. It has the semantics of every other
 * store (leases, retention, dead letters), with every time from `Clock`, so that a test plays them under
 * `TestClock`.
 */
export const layerMemory: Layer.Layer<Backend> = layer(makeDriverMemory)

const notConfigured = (operation: string) => Effect.fail(new BackendNotConfigured({ operation }))
const noBatcher = (operation: string) => ({
  request: () => Batcher.resolved(Exit.fail(new BackendNotConfigured({ operation }))),
  isUnbatched: () => false,
  one: () => notConfigured(operation),
  many: noMany(operation)
})
const noMany = (operation: string) => (items: ReadonlyArray<unknown>) =>
  Effect.forEach(items, () => Effect.exit(notConfigured(operation)))

/**
 * No results at all, for programs that fire and forget: whatever needs a record fails with
 * `BackendNotConfigured`. Tasks run at least once and are retried (the message counts), and what fails for good is
 * parked by the broker.
 */
export const layerNotConfigured: Layer.Layer<Backend> = Layer.succeed(Backend, {
  name: "none",
  configured: false,
  retentionMillis: Infinity,
  capabilities: { hints: false },
  fusion: undefined,
  create: noBatcher("create"),
  markPublished: noBatcher("markPublished"),
  start: () => notConfigured("start"),
  renew: noBatcher("renew"),
  settle: noBatcher("settle"),
  complete: undefined,
  parkMessage: () => notConfigured("parkMessage"),
  read: noBatcher("AsyncResult"),
  subscriptions: undefined,
  cancel: noBatcher("AsyncResult.cancel"),
  forget: noBatcher("AsyncResult.forget"),
  reopen: () => notConfigured("DeadLetters.replay"),
  getDeadLetters: () => notConfigured("DeadLetters.replay"),
  listDeadLetters: () => notConfigured("DeadLetters.list"),
  countDeadLetters: () => notConfigured("DeadLetters.count"),
  removeDeadLetters: () => notConfigured("DeadLetters.remove"),
  heartbeat: () => notConfigured("heartbeat"),
  unregisterWorker: () => notConfigured("unregisterWorker"),
  workers: notConfigured("Worker.active"),
  sweep: () => notConfigured("sweep")
})
