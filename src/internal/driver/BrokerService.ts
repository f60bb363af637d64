/**
 * The operations of a broker as the library's own modules call them: the driver's, in batches, with `BrokerError`.
 *
 * A `Batcher` sends the items of concurrent fibers in one call; the other operations are one call each.
 */
import type { Duration, Effect, Stream } from "effect"
import type {
  Batch,
  BrokerDriver,
  ClaimRequest,
  Delivery,
  Envelope,
  PurgedMessage,
  QueueCounts,
  Release,
  SetAside
} from "../../BrokerDriver.ts"
import type { BrokerError } from "../../StoreError.ts"
import type { Batcher } from "../concurrency/Batcher.ts"
import type { Outages } from "./Outages.ts"

/** The operations of `BrokerDriver`, where no comment says otherwise. */
export interface BrokerService {
  /** The store's name. */
  readonly name: string
  /** Logs the outages of the store, which the other service of the same store shares. */
  readonly outages: Outages
  readonly capabilities: BrokerDriver["capabilities"]
  /** Identifies the store that it shares with a backend; `undefined`: it shares none. */
  readonly store: object | undefined
  /** The lease of workers that set none. */
  readonly lease: Duration.Duration
  readonly publish: Batcher<Envelope, void, BrokerError>
  readonly claim: (claim: ClaimRequest) => Effect.Effect<ReadonlyArray<Delivery>, BrokerError>
  readonly setAside: SetAside<BrokerError> | undefined
  readonly ready: (queues: Batch<string>, slots: number) => Stream.Stream<void, BrokerError>
  readonly renew: (
    handles: Batch<string>,
    leaseMillis: number
  ) => Effect.Effect<ReadonlyArray<boolean | undefined>, BrokerError>
  /** Emits nothing where the driver has no such stream. */
  readonly lost: Stream.Stream<ReadonlyArray<string>, BrokerError>
  readonly ack: Batcher<string, boolean, BrokerError>
  /** Does nothing where the driver has no such operation. */
  readonly returnUnhandled: Batcher<string, void, BrokerError>
  readonly release: Batcher<Release, void, BrokerError>
  readonly reject: Batcher<{ readonly handle: string; readonly reason: string }, void, BrokerError>
  readonly counts: (queues: Batch<string>) => Effect.Effect<ReadonlyArray<QueueCounts>, BrokerError>
  readonly purge: (queue: string, limit: number) => Effect.Effect<ReadonlyArray<PurgedMessage>, BrokerError>
}
