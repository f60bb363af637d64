/**
 * How messages travel: a service given by a Layer, over a `BrokerDriver`.
 *
 * A program needs no more of it than its layer, `counts` and `purge`; its operations serve this library's own
 * modules.
 */
import {
  Array as Arr,
  Clock,
  Context,
  Effect,
  Function,
  Layer,
  Option,
  Schema,
  type Scope,
  Stream
} from "effect"
import { Backend } from "./Backend.ts"
import type { Batch } from "./BackendDriver.ts"
import type { BrokerDriver, Counts, Delivery, Envelope, Release } from "./BrokerDriver.ts"
import * as Batcher from "./internal/batcher.ts"
import { describe } from "./internal/describe.ts"
import { makeMemoryBroker } from "./internal/memoryBroker.ts"
import * as metrics from "./internal/metrics.ts"

export type * from "./BrokerDriver.ts"

/** A call to the broker failed, or its outcome is unknown. */
export class BrokerError extends Schema.TaggedError<BrokerError>("chicory/BrokerError")("BrokerError", {
  taskId: Schema.optionalKey(Schema.String),
  /** The store and what was asked of it. */
  operation: Schema.String,
  /** `false`: it would fail the same way again, however often it is tried (a wrong password, a corrupt file). */
  retryable: Schema.Boolean,
  cause: Schema.Defect()
}) {
  override get message(): string {
    const whose = this.taskId === undefined ? "" : ` for task ${this.taskId}`
    const again = this.retryable ? "" : "; trying again will not help"
    return `${this.operation} failed${whose}: ${describe(this.cause)}${again}`
  }
}

/** The driver's operations, coalesced, with this library's errors. */
export interface Facade {
  /** The store's name. */
  readonly name: string
  readonly capabilities: BrokerDriver["capabilities"]
  /** The store that it shares with a backend. */
  readonly store: object | undefined
  readonly publish: Batcher.Batcher<Envelope, void, BrokerError>
  readonly claim: (
    options: Parameters<BrokerDriver["claim"]>[0]
  ) => Effect.Effect<ReadonlyArray<Delivery>, BrokerError>
  readonly ready: (queues: Batch<string>) => Stream.Stream<void, BrokerError>
  readonly renew: (
    handles: Batch<string>,
    leaseMillis: number
  ) => Effect.Effect<ReadonlyArray<boolean>, BrokerError>
  readonly lost: Stream.Stream<ReadonlyArray<string>, BrokerError>
  readonly ack: Batcher.Batcher<string, boolean, BrokerError>
  readonly release: Batcher.Batcher<Release, void, BrokerError>
  readonly reject: Batcher.Batcher<{ readonly handle: string; readonly reason: string }, void, BrokerError>
  readonly counts: (queues: Batch<string>) => Effect.Effect<ReadonlyArray<Counts>, BrokerError>
  readonly purge: (queue: string, limit: number) => Effect.Effect<ReadonlyArray<string>, BrokerError>
}

/** How messages travel. */
export class Broker extends Context.Service<Broker, Facade>()("chicory/Broker") {}

const MAX_BATCH = 256
const CALLS = 4

/** Coalesces and wraps errors until the scope closes. */
export const make = Effect.fnUntraced(function* <E>(
  driver: BrokerDriver<E>
): Effect.fn.Return<Broker["Service"], never, Scope.Scope> {
  const isPermanent = driver.isPermanent ?? (() => false)
  const wrapError = (operation: string) => (cause: unknown) =>
    new BrokerError({
      operation: `${driver.name} broker: ${operation}`,
      retryable: !isPermanent(cause),
      cause
    })
  const timed = (operation: string) => {
    const duration = metrics.forOperation(driver.name, operation)
    const fail = Function.flow(wrapError(operation), Effect.fail)
    return <A>(effect: Effect.Effect<A, E>): Effect.Effect<A, BrokerError> =>
      Effect.withFiber((fiber) => {
        const clock = fiber.getRef(Clock.Clock)
        const start = clock.monotonicTimeNanosUnsafe()
        // a driver that dies is an error like any other: it must not end a loop
        return Effect.onExit(Effect.catchDefect(Effect.catch(effect, fail), fail), () =>
          Effect.sync(() => {
            duration.updateUnsafe(Number(clock.monotonicTimeNanosUnsafe() - start) / 1e9, fiber.context)
          })
        )
      })
  }
  const batched = <In, Out>(
    operation: string,
    run: (batch: Batch<In>) => Effect.Effect<ReadonlyArray<Out>, E>,
    key?: BrokerDriver["batchKey"]
  ): Effect.Effect<Batcher.Batcher<In, Out, BrokerError>, never, Scope.Scope> => {
    const wrapped = timed(operation)
    return Batcher.make<In, Out, BrokerError>({
      run: (batch) => wrapped(Effect.suspend(() => run(batch))),
      isPermanent: (error) => !error.retryable,
      maxBatch: MAX_BATCH,
      concurrency: CALLS,
      key
    })
  }
  const silent =
    <In>(run: (batch: Batch<In>) => Effect.Effect<void, E>) =>
    (batch: Batch<In>): Effect.Effect<ReadonlyArray<void>, E> =>
      Effect.map(run(batch), () => Arr.map(batch, () => undefined))
  const claim = timed("claim")
  const renew = timed("renew")

  return Broker.of({
    name: driver.name,
    capabilities: driver.capabilities,
    store: driver.store,
    publish: yield* batched("publish", silent(driver.publish), driver.batchKey),
    claim: (options) => claim(driver.claim(options)),
    ready: (queues) => Stream.mapError(driver.ready(queues), wrapError("ready")),
    renew: (handles, leaseMillis) => renew(driver.renew(handles, leaseMillis)),
    lost: driver.lost === undefined ? Stream.never : Stream.mapError(driver.lost, wrapError("lost")),
    ack: yield* batched("ack", driver.ack),
    release: yield* batched("release", silent(driver.release)),
    reject: yield* batched("reject", silent(driver.reject)),
    counts: (queues) => timed("counts")(driver.counts(queues)),
    purge: (queue, limit) => timed("purge")(driver.purge(queue, limit))
  })
})

/** A layer over the effect that makes a driver. */
export const layer = <E, EX = never, R = never>(
  driver: Effect.Effect<BrokerDriver<E>, EX, R>
): Layer.Layer<Broker, EX, Exclude<R, Scope.Scope>> => Layer.effect(Broker, Effect.flatMap(driver, make))

/** A driver that keeps everything in this process. Every time is that of `Clock`. */
export const makeDriverMemory: Effect.Effect<BrokerDriver<never>> = makeMemoryBroker

/** Messages in this process, with leases, delays and priorities; every time is that of `Clock`. */
export const layerMemory: Layer.Layer<Broker> = layer(makeDriverMemory)

/** How many messages each of the queues holds, in order. */
export const counts = (queues: Batch<string>): Effect.Effect<ReadonlyArray<Counts>, BrokerError, Broker> =>
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
    const ids = yield* broker.purge(queue, MAX_BATCH)
    if (ids.length === 0) return purged
    purged += ids.length
    if (Option.isSome(backend) && backend.value.configured) {
      const answers = yield* backend.value.cancel.many(ids)
      const failed = answers.filter((answer) => answer._tag === "Failure").length
      if (failed > 0) yield* Effect.logWarning(`${failed} purged tasks could not be marked as cancelled`)
    }
  }
})
