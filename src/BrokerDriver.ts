/**
 * The port that a store implements to carry messages.
 *
 * A broker knows nothing of results, retries or dead letters: a retry is a message that is put back with a delay, and
 * the record in the backend decides which delivery runs. A message may be delivered twice without harm; a lost message
 * is a lost task.
 *
 * The rules of `BackendDriver` for batches, atomicity, failure, isolation and clock hold here too. Every operation
 * except `claim` is safe to repeat; `claim` is safe to repeat where `repeatableClaims` is `true`. `BrokerSuite` of
 * `chicory/testing/suites` tests a driver against these rules.
 *
 * @since 0.1.0
 * @module
 */
import type { Array as Arr, Context, Effect, Stream } from "effect"

/**
 * A batch of at least one item.
 *
 * @category models
 * @since 0.1.0
 */
export type Batch<A> = Arr.NonEmptyReadonlyArray<A>

/**
 * A message to publish: the fields that a driver routes by, and the encoded message, which a driver never parses.
 *
 * @category models
 * @since 0.1.0
 */
export interface Envelope {
  /** The id of the task. Not unique: a broker does not merge messages by id. */
  readonly id: string
  /** The task's name. */
  readonly task: string
  readonly queue: string
  /** 0 to 255; a higher one is claimed first. */
  readonly priority: number
  /** Milliseconds from now until the message is due; at most `maxDelayMillis`. */
  readonly delayMillis: number
  /** The incarnation of the task: digits and small letters, at most 32. Default: empty. */
  readonly incarnation?: string | undefined
  /** The generation of the task. Default 0. */
  readonly generation?: number | undefined
  /** The encoded `TaskMessage`. */
  readonly body: string
}

/**
 * A message that was claimed.
 *
 * @category models
 * @since 0.1.0
 */
export interface Delivery {
  /** Identifies this claim in all later calls. A message that is claimed again has another handle. */
  readonly handle: string
  /** The id of the task; `undefined` for bytes that another program published. */
  readonly id: string | undefined
  /** The task's name; `undefined` for bytes that another program published. */
  readonly task: string | undefined
  /** As it was published, where the store keeps it. */
  readonly incarnation?: string | undefined
  /** As it was published, where the store keeps it. */
  readonly generation?: number | undefined
  readonly queue: string
  /**
   * Milliseconds since the message became due, by the broker's clock, or by the producer's clock where the broker shows
   * none. A lapsed claim does not reset it; `Release` says what does.
   */
  readonly ageMillis: number
  /**
   * Milliseconds for which the message was put back with `preserveDueTime`, in all. Given where the ages are those of
   * clocks that may differ; elsewhere the age serves for it.
   */
  readonly waitedMillis?: number | undefined
  /** The body as it was published, or the bytes that another program published. Empty with `oversizedBytes`. */
  readonly body: string | Uint8Array
  /**
   * How many bytes the body has, where they exceed what a message of this library has (`maxMessageBytes`, 4 MiB and
   * 64 KiB) and the driver did not load them. The worker makes a dead letter of the message.
   */
  readonly oversizedBytes?: number | undefined
}

/**
 * A request for messages.
 *
 * @category models
 * @since 0.1.0
 */
export interface ClaimRequest {
  readonly queues: Batch<string>
  /**
   * How many messages to return at most; at least 1. A retry may have a smaller one than the claim before: messages that
   * exceed it become due again, at the latest when their lease is over.
   */
  readonly max: number
  /** Milliseconds for which the messages are leased to the worker. */
  readonly leaseMillis: number
  /** The id of the worker. */
  readonly worker: string
  /** Identifies the claim: letters, digits and `-._`. Shared only by a claim and its repetitions. */
  readonly claimId?: string | undefined
  /** Whether the claim of this `claimId` failed before, so that its effect is unknown. Default `false`. */
  readonly isRetry?: boolean | undefined
  /**
   * The names of the tasks that the worker runs, for drivers with `setAside`: the same array in every claim of a worker.
   * Default: the claim takes messages of every task that are due, and none that were set aside.
   */
  readonly tasks?: ReadonlyArray<string> | undefined
}

/**
 * A task with messages that claims have set aside.
 *
 * @category models
 * @since 0.1.0
 */
export interface SetAsideTask {
  readonly queue: string
  /** The task's name. */
  readonly task: string
  /** Milliseconds for which the oldest of the messages has been due, or since it was last put back. */
  readonly waitedMillis: number
}

/**
 * A request for messages of one task that claims have set aside.
 *
 * @category models
 * @since 0.1.0
 */
export interface SetAsideClaim {
  readonly queue: string
  /** The task's name. */
  readonly task: string
  /** Takes messages that have been due for as many milliseconds at least. */
  readonly minWaitedMillis: number
  /** How many messages to return at most; at least 1. */
  readonly max: number
  /** As in `ClaimRequest`. */
  readonly leaseMillis: number
  /** As in `ClaimRequest`. */
  readonly worker: string
}

/**
 * Claims by task: a worker is given the messages of the tasks that it runs, and no number of others keeps it from them.
 *
 * **When to use**
 *
 * Implement where the store can move a message in one step. Without it a worker claims the messages of every task, and puts back
 * those that it cannot run.
 *
 * **Details**
 *
 * A claim with `tasks` returns messages of these tasks. It sets aside the messages of others that it meets before them, in the
 * order of claims, at most a few thousand at a time, and finds those of its own tasks behind any number of others: within a
 * second behind a hundred thousand. `ready` emits where it left some of either.
 *
 * A message that was set aside keeps its due time, its priority and its age, and waits for a claim whose `tasks` have its task.
 * Such a claim takes it in the order of claims, or before messages that are due. The first claim of a worker looks for messages
 * that were set aside; later ones need to do so once a second, and while they find some. A claimed message that is released, or
 * whose lease is over, is ready or delayed as any other.
 *
 * A driver may return a message of another task where it cannot set it aside. The worker puts it back.
 *
 * @category models
 * @since 0.1.0
 */
export interface SetAside<out E = unknown> {
  /** Lists the tasks with messages that were set aside in the queues: 100 of a queue at most, and of each the oldest wait. */
  readonly tasks: (queues: Batch<string>) => Effect.Effect<ReadonlyArray<SetAsideTask>, E>
  /** Claims messages that were set aside, as `claim` does. Bounded as `claim` in bytes; returns at once, also with none. */
  readonly claim: (claim: SetAsideClaim) => Effect.Effect<ReadonlyArray<Delivery>, E>
}

/**
 * A request to put a claimed message back. Nothing is counted.
 *
 * @category models
 * @since 0.1.0
 */
export interface Release {
  readonly handle: string
  /** Milliseconds from now until the message is due again. */
  readonly afterMillis: number
  /**
   * Whether the message keeps the time from which its age is counted. Default `false`: its age is counted from when it
   * is due again. In the order of claims it comes behind what becomes due before it, either way.
   */
  readonly preserveDueTime?: boolean | undefined
  /** Replaces the body. Used without a backend only, where the message itself counts its retries. */
  readonly body?: string | undefined
}

/**
 * A message that `purge` removed.
 *
 * @see `BackendDriver.withdraw`, which ends its task
 *
 * @category models
 * @since 0.1.0
 */
export interface PurgedMessage {
  /** The id of the task. */
  readonly id: string
  /** The incarnation of the task. */
  readonly incarnation: string
  /** The generation of the task. */
  readonly generation: number
}

/**
 * The numbers of messages in a queue.
 *
 * @category models
 * @since 0.1.0
 */
export interface QueueCounts {
  /** Messages that may be claimed now, those with a lapsed claim included. */
  readonly ready: number
  /** Messages that are not due yet. */
  readonly delayed: number
  /** Messages that workers hold. */
  readonly claimed: number
  /** Messages that claims have set aside. They are in none of the other numbers. Left out where there are none. */
  readonly setAside?: number | undefined
  /**
   * Messages that were parked without a backend. Left out where there are none, and by stores that do not keep them with
   * their queue.
   */
  readonly parked?: number | undefined
  /**
   * Milliseconds, by the store's clock, since the longest due of the ready messages became due; 0 where none is ready. A
   * release makes a message due anew, a lapsed claim does not. Left out by stores that do not know it, as RabbitMQ.
   */
  readonly oldestMillis?: number | undefined
}

/**
 * The port that carries messages. `E` is the store's own error, which the facade wraps in a `BrokerError`.
 *
 * The head of this module has the rules that hold for every operation.
 *
 * @category models
 * @since 0.1.0
 */
export interface BrokerDriver<out E = unknown> {
  /** Names the store in errors and metrics. */
  readonly name: string
  readonly capabilities: {
    /**
     * The number of distinct priorities. 1: the store has no priorities, a call that asks for one fails as `Unsupported`,
     * and a worker of a task that asks for one is not built.
     */
    readonly priorities: number
    /**
     * Whether order and priorities hold over a whole queue, and over the queues of one claim. Default `true`. `false`:
     * a queue lies in several parts, and they hold within each.
     */
    readonly ordered?: boolean | undefined
    /**
     * Whether `ready` misses no cause, since the store lives in this process alone. An idle worker does not claim at
     * intervals then. Default `false`.
     */
    readonly reliableHints?: boolean | undefined
    /** Whether a claim with `isRetry` is answered again. Default `false`. */
    readonly repeatableClaims?: boolean | undefined
    /** What holds a claim: a lease in the `store`, which is renewed, or the worker's `connection`. */
    readonly lease: "store" | "connection"
    /** Milliseconds for which a claim holds at most, whatever is renewed. Default: unlimited. */
    readonly maxClaimMillis?: number | undefined
    /** The longest delay of a message, in milliseconds. A call that asks for more fails as `Unsupported`. */
    readonly maxDelayMillis: number
    /**
     * Whether the fixed cost of a call is so high that one large batch is better than two small ones at the same time.
     * Default `false`.
     */
    readonly prefersLargeBatches?: boolean | undefined
    /** As in `BackendDriver`, for the payloads of messages. */
    readonly maxBytes?: number | undefined
    /** As in `BackendDriver`. */
    readonly sharedConnections?: number | undefined
  }
  /** Identifies the store that this broker shares with a backend; compared with `Fusion.store`. */
  readonly store?: object | undefined
  /**
   * As in `BackendDriver`. Asked for `publish`. `counts` runs in the caller's context too. Every other operation runs
   * outside any caller transaction; inside of one the facade refuses `purge`.
   */
  readonly batchKey?: ((context: Context.Context<never>) => unknown) | undefined
  /** As in `BackendDriver`. */
  readonly isPermanent?: ((error: unknown) => boolean) | undefined
  /**
   * Stores messages. When it returns, they are durable, as far as the store is, and confirmed. Repeated, it may store a
   * message twice, and each copy is delivered: a broker does not merge by id.
   */
  readonly publish: (messages: Batch<Envelope>) => Effect.Effect<void, E>
  /**
   * Claims at most `max` due messages from any of the queues: the highest priority first, then in the order in which
   * they became due. Returns at once, also with none. Each message goes to one claim. A claim whose lease is over makes
   * its message due again.
   *
   * A claim takes at least one message, if one is due, and ends before it has more than about 2 MiB of bodies. Where more
   * is due then, `ready` emits.
   *
   * With `repeatableClaims`, a claim with `isRetry` first returns what the claim of that `claimId` took and still holds,
   * with a new lease, and then claims more, up to `max`. What that claim took of messages that were set aside may wait for the end
   * of its lease instead. Without, it makes a new claim, and the messages of the failed claim wait until their lease is over.
   */
  readonly claim: (claim: ClaimRequest) => Effect.Effect<ReadonlyArray<Delivery>, E>
  /** Claims by task. `undefined`: claims take the messages of every task. */
  readonly setAside?: SetAside<E> | undefined
  /**
   * Emits when there may be messages to claim: some are there already, one was published or put back, or a delay or a
   * lease is over. May emit without cause, and may miss a cause, because a worker also claims every second, except with
   * `reliableHints`. `slots` is how many messages the worker takes at most: a store that pushes messages need not push
   * more. A worker without a free slot does not pull, so the stream buffers one cause at most. When it ends, the store takes
   * back what it pushed and the worker did not claim.
   */
  readonly ready: (queues: Batch<string>, slots: number) => Stream.Stream<void, E>
  /**
   * Holds claims for `leaseMillis` from now, lapsed ones too until they are taken over. `false`: no longer held;
   * `undefined`: not renewed, since something else holds the message at the moment, for which a renewal does not wait.
   */
  readonly renew: (
    handles: Batch<string>,
    leaseMillis: number
  ) => Effect.Effect<ReadonlyArray<boolean | undefined>, E>
  /** Emits claims that were lost without a renewal, such as those of a closed channel. */
  readonly lost?: Stream.Stream<ReadonlyArray<string>, E> | undefined
  /**
   * Removes messages. A lapsed claim may still be acked until another claim takes its message. `false`: the claim is no
   * longer held, and nothing was removed; a repeated ack answers this too.
   */
  readonly ack: (handles: Batch<string>) => Effect.Effect<ReadonlyArray<boolean>, E>
  /**
   * Gives up claims that the worker could not handle, so that their messages are due again. Needed where the
   * `connection` holds claims; with leases in the store they are due again when the lease is over. Passes over claims
   * that are no longer held.
   */
  readonly returnUnhandled?: ((handles: Batch<string>) => Effect.Effect<void, E>) | undefined
  /** Puts messages back. Passes over claims that are no longer held, so a repeated release does nothing. */
  readonly release: (releases: Batch<Release>) => Effect.Effect<void, E>
  /**
   * Parks messages natively, out of reach of every claim, for as long as a dead letter stays, or drops them. Used without a
   * backend only.
   */
  readonly reject: (
    rejections: Batch<{ readonly handle: string; readonly reason: string }>
  ) => Effect.Effect<void, E>
  /**
   * Counts the messages of each queue, in order. Where the `connection` holds claims, only those of this process are
   * known.
   */
  readonly counts: (queues: Batch<string>) => Effect.Effect<ReadonlyArray<QueueCounts>, E>
  /**
   * Removes up to `limit` messages that no worker has claimed: delayed ones and those with a lapsed claim too, and those that
   * `counts` reports as parked or set aside. Returns what it removed; nothing when the queue is empty.
   */
  readonly purge: (queue: string, limit: number) => Effect.Effect<ReadonlyArray<PurgedMessage>, E>
}
