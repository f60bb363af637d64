/**
 * The port that a store implements to carry messages.
 *
 * A broker knows nothing of results, retries or dead letters: a retry is a message put back with a delay, and the
 * record in the backend decides who runs. Doubled messages are harmless, lost ones are not. Whoever writes a
 * driver proves it with `BrokerSuite` of `chicory/testing`. The rules for batches, failures and times are those
 * of `BackendDriver`; every operation but `claim` is safe to repeat.
 */
import type { Array as Arr, Context, Effect, Stream } from "effect"

/** A batch: at least one item. */
export type Batch<A> = Arr.NonEmptyReadonlyArray<A>

/** What a driver routes by, and `body`, the encoded `TaskMessage`, which it never parses. */
export interface Envelope {
  readonly id: string
  /** The task's name. */
  readonly task: string
  readonly queue: string
  /** 0 to 255, higher first. */
  readonly priority: number
  readonly delayMillis: number
  /** Of the task, for stores that start what they give out. Default 0. */
  readonly generation?: number | undefined
  /** Milliseconds from the enqueue after which the task expires, for the same. */
  readonly expiresMillis?: number | undefined
  readonly body: string
}

/** A message that was claimed. */
export interface Delivery {
  /** The receipt for all later calls; of this claim alone: a message claimed again has another one. */
  readonly handle: string
  /** `undefined` where foreign bytes came in. */
  readonly id: string | undefined
  readonly task: string | undefined
  /** As they were published, where the store keeps them. */
  readonly generation?: number | undefined
  readonly expiresMillis?: number | undefined
  readonly queue: string
  /**
   * How long ago the message became due, by the broker's clock, or by the senders' where it shows none; a lapse makes
   * it no younger. See `Release.keepDue`.
   */
  readonly ageMillis: number
  /**
   * For how long it was put back with `Release.keepDue`, in all. Given where ages are known by clocks that may differ;
   * elsewhere the age is as good.
   */
  readonly waitedMillis?: number | undefined
  readonly body: string | Uint8Array
}

/** What a worker asks for. */
export interface ClaimRequest {
  readonly queues: Batch<string>
  readonly max: number
  readonly leaseMillis: number
  readonly worker: string
  /** Letters, digits and `-._`. No other claim has it, but one that is made again. */
  readonly claimId?: string | undefined
  /** The claim of that name failed, and what became of it is unknown. */
  readonly isRetry?: boolean | undefined
}

/** A message put back, nothing counted. */
export interface Release {
  readonly handle: string
  readonly afterMillis: number
  /** The message keeps the time from which its age is counted. Otherwise it is due anew, after `afterMillis`. */
  readonly preserveDueTime?: boolean | undefined
  /** Replaces the body: only without a backend, where the message itself counts its retries. */
  readonly body?: string | undefined
}

/** Messages of a queue. */
export interface QueueCounts {
  readonly ready: number
  readonly delayed: number
  readonly claimed: number
}

/** The port. `E` is the store's own error: the facade wraps it. */
export interface BrokerDriver<out E = unknown> {
  /** Names the store in errors and metrics. */
  readonly name: string
  readonly capabilities: {
    /** How many priorities are told apart; 1: none. */
    readonly priorities: number
    /**
     * `false`: a queue lies in several parts, and order and priorities hold within each of them. Default `true`: they
     * hold over the whole queue, and over the queues of one claim.
     */
    readonly ordered?: boolean | undefined
    /** Whether a claim that is made `again` is answered again. Default `false`. */
    readonly repeatableClaims?: boolean | undefined
    /** Who holds a claim: a lease in the `store` that is renewed, or the `connection`. */
    readonly lease: "store" | "connection"
    /** How long a claim is held at most, whatever is renewed. Default: for ever. */
    readonly maxClaimMillis?: number | undefined
    /** The longest delay that a message can have. */
    readonly maxDelayMillis: number
    /**
     * Whether a call costs so much by itself, however little it carries, that a large one is better than two small ones
     * at a time. Default `false`.
     */
    readonly prefersLargeBatches?: boolean | undefined
  }
  /** The store that this broker shares with a backend; see `Fusion`. */
  readonly store?: object | undefined
  /** As in `BackendDriver`; asked for `publish` only. */
  readonly batchKey?: ((context: Context.Context<never>) => unknown) | undefined
  /** As in `BackendDriver`. */
  readonly isPermanent?: ((error: unknown) => boolean) | undefined
  /** Durable and confirmed on return. Doubles are allowed, and each is delivered: a broker does not merge by id. */
  readonly publish: (messages: Batch<Envelope>) => Effect.Effect<void, E>
  /**
   * At most `max` messages that are due, of any of the queues, highest priority first, then in the order in which
   * they became due. Never waits. A claim whose lease ran out makes the message due again.
   *
   * With `repeatableClaims` a claim that is made `again` brings what it took and still holds, and then more, up to
   * `max`. Otherwise it takes anew, and what it took waits for its lease to run out.
   */
  readonly claim: (claim: ClaimRequest) => Effect.Effect<ReadonlyArray<Delivery>, E>
  /**
   * Emits when something may be there to claim: a message came, a delay or a lease ran out. May emit for nothing;
   * a reason may be lost (a worker also looks every second). Whoever listens has so many `slots`: a store that pushes
   * messages need not push more than it has room for. What was pushed and not claimed is given back when the stream
   * ends.
   */
  readonly ready: (queues: Batch<string>, slots: number) => Stream.Stream<void, E>
  /** `false`: the claim is no longer held. */
  readonly renew: (handles: Batch<string>, leaseMillis: number) => Effect.Effect<ReadonlyArray<boolean>, E>
  /** Handles that were lost without asking: a closed channel. */
  readonly lost?: Stream.Stream<ReadonlyArray<string>, E> | undefined
  /** Removes messages. A claim that lapsed may still be acked until it is taken over. `false`: the claim was no longer held, and nothing was removed. */
  readonly ack: (handles: Batch<string>) => Effect.Effect<ReadonlyArray<boolean>, E>
  /**
   * Gives up claims with which nothing could be done, so that their messages are due again, where a lease does not do
   * so by running out: where the `connection` holds claims. Those that are no longer held are passed over.
   */
  readonly returnUnhandled?: ((handles: Batch<string>) => Effect.Effect<void, E>) | undefined
  /** Puts messages back; claims that are no longer held are passed over. */
  readonly release: (releases: Batch<Release>) => Effect.Effect<void, E>
  /** Parks messages natively, out of the way of every claim: only used without a backend. */
  readonly reject: (
    rejections: Batch<{ readonly handle: string; readonly reason: string }>
  ) => Effect.Effect<void, E>
  /** A claim whose lease ran out counts as ready. Where the `connection` holds claims, only this process's are known. */
  readonly counts: (queues: Batch<string>) => Effect.Effect<ReadonlyArray<QueueCounts>, E>
  /** Removes up to `limit` messages that nobody has claimed; answers the ids of their tasks. */
  readonly purge: (queue: string, limit: number) => Effect.Effect<ReadonlyArray<string>, E>
}
