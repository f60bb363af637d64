/**
 * How messages travel: a service given by a Layer, over a `BrokerDriver`.
 *
 * A program needs no more of it than its layer, `counts` and `purge`; its operations serve this library's own
 * modules.
 */
import { Clock, Context, type Duration, Effect, Layer, Option, type Scope, Stream } from "effect"
import { Backend } from "./Backend.ts"
import type {
  ClaimRequest,
  BrokerDriver,
  QueueCounts,
  Delivery,
  Envelope,
  Release,
  Batch
} from "./BrokerDriver.ts"
import type * as Batcher from "./internal/concurrency/Batcher.ts"
import * as defaults from "./internal/defaults.ts"
import * as Calling from "./internal/driver/driverCalls.ts"
import * as metrics from "./internal/metrics.ts"
import { positiveDuration } from "./internal/options.ts"
import { makeMemoryBroker } from "./memory/MemoryBrokerDriver.ts"
import { BrokerError, isRetryable } from "./StoreError.ts"

export { BrokerError } from "./StoreError.ts"
export type { QueueCounts } from "./BrokerDriver.ts"

/** The driver's operations, coalesced, with this library's errors. */
export interface BrokerService {
  /** The store's name. */
  readonly name: string
  readonly capabilities: BrokerDriver["capabilities"]
  /** The store that it shares with a backend. */
  readonly store: object | undefined
  /** For workers that do not say how long they hold a claim. */
  readonly lease: Duration.Duration
  readonly publish: Batcher.Batcher<Envelope, void, BrokerError>
  readonly claim: (claim: ClaimRequest) => Effect.Effect<ReadonlyArray<Delivery>, BrokerError>
  readonly ready: (queues: Batch<string>, slots: number) => Stream.Stream<void, BrokerError>
  readonly renew: (
    handles: Batch<string>,
    leaseMillis: number
  ) => Effect.Effect<ReadonlyArray<boolean>, BrokerError>
  readonly lost: Stream.Stream<ReadonlyArray<string>, BrokerError>
  readonly ack: Batcher.Batcher<string, boolean, BrokerError>
  readonly returnUnhandled: Batcher.Batcher<string, void, BrokerError>
  readonly release: Batcher.Batcher<Release, void, BrokerError>
  readonly reject: Batcher.Batcher<{ readonly handle: string; readonly reason: string }, void, BrokerError>
  readonly counts: (queues: Batch<string>) => Effect.Effect<ReadonlyArray<QueueCounts>, BrokerError>
  readonly purge: (queue: string, limit: number) => Effect.Effect<ReadonlyArray<string>, BrokerError>
}

/** How messages travel. */
export class Broker extends Context.Service<Broker, BrokerService>()("chicory/Broker") {}

/** How a facade treats its driver. */
export interface Options {
  /**
   * How long claims and runs are held without a sign of life, by workers that do not say so themselves. Default 30
   * seconds.
   */
  readonly lease?: Duration.Input | undefined
}

/** Measures how long calls take. */
const timed =
  (system: string) =>
  (operation: string) =>
  <A, E>(call: Effect.Effect<A, E>): Effect.Effect<A, E> =>
    Effect.withFiber((fiber) => {
      const clock = fiber.getRef(Clock.Clock)
      const start = clock.monotonicTimeNanosUnsafe()
      return Effect.onExit(call, () =>
        Effect.sync(() => {
          const seconds = Number(clock.monotonicTimeNanosUnsafe() - start) / 1e9
          metrics.forOperation(system, operation).updateUnsafe(seconds, fiber.context)
        })
      )
    })

/** Coalesces and wraps errors until the scope closes. */
export const make = Effect.fnUntraced(function* <E>(
  driver: BrokerDriver<E>,
  options?: Options
): Effect.fn.Return<Broker["Service"], never, Scope.Scope> {
  const { batched, batchedVoid, call, toError } = Calling.make<BrokerError>({
    toError: (operation) => (cause) =>
      new BrokerError({
        operation: `${driver.name} broker: ${operation}`,
        retryable: driver.isPermanent?.(cause) !== true,
        cause
      }),
    isPermanent: (error) => !isRetryable(error),
    around: timed(driver.name)
  })

  return Broker.of({
    name: driver.name,
    capabilities: driver.capabilities,
    store: driver.store,
    lease: positiveDuration("lease", options?.lease ?? defaults.lease),
    publish: yield* batchedVoid("publish", driver.publish, {
      key: driver.batchKey,
      splitWhenIdle: driver.capabilities.prefersLargeBatches !== true,
      sizeOf: ({ body }) => body.length
    }),
    claim: (claim) => call("claim", () => driver.claim(claim)),
    ready: (queues, slots) => Stream.mapError(driver.ready(queues, slots), toError("ready")),
    renew: (handles, leaseMillis) => call("renew", () => driver.renew(handles, leaseMillis)),
    lost: driver.lost === undefined ? Stream.never : Stream.mapError(driver.lost, toError("lost")),
    ack: yield* batched("ack", driver.ack),
    returnUnhandled: yield* batchedVoid("returnUnhandled", driver.returnUnhandled ?? (() => Effect.void)),
    release: yield* batchedVoid("release", driver.release, { sizeOf: ({ body }) => body?.length ?? 0 }),
    reject: yield* batchedVoid("reject", driver.reject),
    counts: (queues) => call("counts", () => driver.counts(queues)),
    purge: (queue, limit) => call("purge", () => driver.purge(queue, limit))
  })
})

/** A layer over the effect that makes a driver. */
export const layer = <E, EX = never, R = never>(
  driver: Effect.Effect<BrokerDriver<E>, EX, R>,
  options?: Options
): Layer.Layer<Broker, EX, Exclude<R, Scope.Scope>> =>
  Layer.effect(
    Broker,
    Effect.flatMap(driver, (made) => make(made, options))
  )

/** A driver that keeps everything in this process. Every time is that of `Clock`. */
export const makeDriverMemory: Effect.Effect<BrokerDriver<never>> = makeMemoryBroker

/** Messages in this process, with leases, delays and priorities; every time is that of `Clock`. */
export const layerMemory: Layer.Layer<Broker> = layer(makeDriverMemory)

/** How many messages each of the queues holds, in order. */
export const counts = (
  queues: Batch<string>
): Effect.Effect<ReadonlyArray<QueueCounts>, BrokerError, Broker> =>
  Broker.use((broker) => broker.counts(queues))

/**
 * Removes every message of a queue that nobody has claimed, and answers how many. Where a `Backend` is at hand, the
 * tasks end as cancelled, so that nobody waits for them in vain.
 */
export const purge = Effect.fn("Broker.purge")(function* (
  queue: string
): Effect.fn.Return<number, BrokerError, Broker> {
  const broker = yield* Broker
  const backend = yield* Effect.serviceOption(Backend)
  let purged = 0
  while (true) {
    const ids = yield* broker.purge(queue, Calling.maxBatch)
    if (ids.length === 0) return purged
    purged += ids.length
    if (Option.isSome(backend) && backend.value.configured) {
      const answers = yield* backend.value.cancel.many(ids)
      const failed = answers.filter((answer) => answer._tag === "Failure").length
      if (failed > 0) yield* Effect.logWarning(`${failed} purged tasks could not be marked as cancelled`)
    }
  }
})
