/**
 * The port that a store implements to keep results: task records, the tokens and leases of runs, dead letters, and the
 * registry of workers.
 *
 * `Backend.make` turns a driver into the service that programs use. It coalesces concurrent calls into batches, and
 * wraps the driver's errors in `BackendError`. A driver receives encoded text, and parses no payload, no exit and no
 * progress.
 *
 * **Rules for every operation**
 *
 * - *Batches.* The answers of a batch are in the order of its items. An id may occur more than once in a batch; its
 *   items are applied one after the other, in order.
 * - *Atomicity.* Each item is applied in one atomic step: no other call sees half of it. A batch need not be atomic.
 * - *Failure.* A call that fails is *unknown*: each of its items may have been applied. Every operation is therefore
 *   safe to repeat with the same arguments.
 * - *Isolation.* An item that the store refuses does not fail the others, where the store can tell them apart. A batch
 *   that fails with a permanent error (`isPermanent`) is repeated by the facade in halves.
 * - *Clock.* The store's clock decides every time. Arguments are durations in milliseconds; answers are epoch
 *   milliseconds of the store's clock.
 * - *Retention.* A record or a dead letter whose retention is over counts as missing, whether or not `sweep` has
 *   removed it.
 *
 * Rule numbers such as S1 or T4 are those of `src/internal/task/transitions.ts`, which has the same decisions as pure
 * functions; `docs/state-machine.md` shows them as a table. `BackendSuite` of `chicory/testing/suites` tests a driver
 * against all of them.
 *
 * @since 0.1.0
 * @module
 */
import type { Context, Effect, Stream } from "effect"
import type { Batch, Envelope, PurgedMessage } from "./BrokerDriver.ts"
import type {
  DeadLetter,
  DeadLetterId,
  DeadLetterQuery,
  ParkedMessage,
  Reopened
} from "./driver/DeadLetter.ts"
import type { Documents } from "./driver/Document.ts"
import type {
  CancelAnswer,
  Created,
  Hint,
  NewRecord,
  PublishedRecord,
  TaskRecord
} from "./driver/TaskRecord.ts"
import type {
  ClaimedMessage,
  Completion,
  FusedClaimRequest,
  Renew,
  Renewed,
  Settled,
  Settlement,
  Start,
  Started
} from "./driver/TaskRun.ts"
import type { Heartbeat, WorkerInfo } from "./driver/WorkerInfo.ts"

export type * from "./driver/DeadLetter.ts"
export type * from "./driver/Document.ts"
export type * from "./driver/TaskRecord.ts"
export type * from "./driver/TaskRun.ts"
export type * from "./driver/WorkerInfo.ts"

/**
 * Operations that do one step of the backend and one of the broker together, where both are the same store.
 *
 * **When to use**
 *
 * Use to save round trips and commits. Fusion changes nothing else: it writes the same tables or keys as the steps one
 * by one, and processes with and without it work on the same store.
 *
 * **Gotchas**
 *
 * A driver that wraps another one and overrides operations has to leave out the `fusion` of the wrapped driver, which
 * would bypass the overrides.
 *
 * @see {@link BackendDriver} for the steps
 *
 * @category models
 * @since 0.1.0
 */
export interface Fusion<out E = unknown> {
  /** Identifies the store. Fusion is used with a broker whose `store` is the same object. */
  readonly store: object
  /**
   * Does `create`, and `publish` for each record that was created, in one atomic step for each item. Publishes nothing
   * where a record exists. Runs in the caller's transaction where `batchKey` finds one.
   */
  readonly enqueue: (
    items: Batch<{ readonly record: NewRecord; readonly message: Envelope }>
  ) => Effect.Effect<ReadonlyArray<Created>, E>
  /**
   * Does `claim`, and `start` for messages of the at-least-once tasks in `startDefaults`, as far as the envelope has
   * all that a start needs. Other messages, and any that the store chooses to leave, are returned without a run; the
   * worker starts them by themselves. `undefined`: the worker claims and starts in two steps.
   *
   * A store that hands over what is enqueued after a claim (`onHandedOver`) loses nothing of it: the next claim of the
   * worker also returns what was handed over and not taken, counted in `max`. It hands over nothing that a claim would
   * not return first.
   */
  readonly claim?: ((claim: FusedClaimRequest) => Effect.Effect<ReadonlyArray<ClaimedMessage>, E>) | undefined
  /**
   * Ends the wait of a worker's last claims for what is handed over. Returns what was handed over and not taken. Asked for
   * once the worker claims no more. `undefined`: the store hands nothing over.
   */
  readonly closeClaim?: ((worker: string) => Effect.Effect<ReadonlyArray<ClaimedMessage>, E>) | undefined
  /**
   * Does `settle`, and what follows for the message, in one atomic step for each item: `ack` after a final outcome or
   * `Cancelled`; `release` after a retry, for when it is due, or after a release, at once; nothing after `Lost`.
   */
  readonly settle: (
    items: Batch<{ readonly settlement: Settlement; readonly handle: string }>
  ) => Effect.Effect<ReadonlyArray<Settled>, E>
}

/**
 * The answer of `sweep`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Swept {
  /** How many tasks, dead letters and workers it handled in all. */
  readonly handled: number
  /** The names of the tasks that it ended as `WorkerLost` (L3), one for each end. The worker logs them. */
  readonly lost: ReadonlyArray<string>
}

/**
 * The port that keeps results. `E` is the store's own error, which the facade wraps in a `BackendError`.
 *
 * The head of this module has the rules that hold for every operation.
 *
 * @see {@link Fusion} for the operations of a store that is backend and broker
 *
 * @category models
 * @since 0.1.0
 */
export interface BackendDriver<out E = unknown> {
  /** Names the store in errors and metrics. */
  readonly name: string
  readonly capabilities: {
    /** Whether `hints` reports changes. `false`: waiters poll with `read`. */
    readonly hints: boolean
    /** Whether `create` and `Fusion.enqueue` subscribe to a record that asks for it. Default `false`. */
    readonly subscribesCreated?: boolean | undefined
    /**
     * Whether the store lives in this process alone, so that no hint is lost. While `hints` runs, such a store hints
     * every change as it happens, ends tasks when their time comes (L1 to L3), and removes by itself what `sweep` would
     * remove. Then nothing is read or swept at intervals, and an idle worker sends no heartbeats: it registers with an
     * infinite `ttlMillis`, until it stops. Default `false`.
     */
    readonly reliableHints?: boolean | undefined
    /**
     * Whether the fixed cost of a call is so high that one large batch is better than two small ones at the same time.
     * Default `false`.
     */
    readonly prefersLargeBatches?: boolean | undefined
    /** Whether the store itself removes records whose retention is over. Default `false`: `sweep` removes them. */
    readonly expiresRecords?: boolean | undefined
    /**
     * The most bytes of an encoded payload, result, error or progress that the store takes, where its server limits what
     * is written at once. A larger payload fails as `PayloadTooLarge`, and a larger result as `ResultInvalid`, before
     * the driver is called. All that holds values of this size has to fit: a message has a payload and up to 16 KiB
     * beside it, and a dead letter has such a message and an error. A driver splits batches that are too large. Default:
     * 4 MiB, which is also the most.
     */
    readonly maxBytes?: number | undefined
    /**
     * The number of connections to the store that this process has at most, where handlers can hold them too, in
     * transactions. A worker refuses one, and warns of fewer than its `concurrency`. Default: handlers hold none.
     */
    readonly sharedConnections?: number | undefined
  }
  /**
   * Returns the key of the caller's transaction, found in the caller's context. A request with a key runs alone, in the
   * caller's context, and so in its transaction. Requests for which it returns `undefined` may share a batch. Asked for
   * `create`, `markPublished`, `fusion.enqueue`, `read` and `readHistory`. `getDeadLetters`, `listDeadLetters`, `listDeadLetterIds`,
   * `countDeadLetters`, `workers` and those of `documents` run in the caller's context too. Every other operation runs
   * outside any caller transaction; inside of one the facade refuses those that programs call.
   */
  readonly batchKey?: ((context: Context.Context<never>) => unknown) | undefined
  /**
   * Returns whether an error would occur again however often the call is repeated, such as a refused password or a
   * corrupt file. Default: no error is permanent.
   */
  readonly isPermanent?: ((error: unknown) => boolean) | undefined
  /** Used where the broker is of the same store. */
  readonly fusion?: Fusion<E> | undefined
  /**
   * Writes records as `PENDING`, generation 0, enqueued now, and reserves their keys. Answers `Existing` where the key
   * is held by another record, or else where the id is taken (E1 to E4). Repeated, it answers `Existing` with the same
   * id.
   */
  readonly create: (records: Batch<NewRecord>) => Effect.Effect<ReadonlyArray<Created>, E>
  /**
   * Marks reservations as published. Passes over records that are published already, and over those of another generation,
   * whose message is another. Answers whether there is a record of that incarnation.
   */
  readonly markPublished: (records: Batch<PublishedRecord>) => Effect.Effect<ReadonlyArray<boolean>, E>
  /**
   * Starts runs, as S0 to S10 say: see `Started`. Of any number of starts that ask at once, one runs. Repeated with the
   * token of the open run, it answers the same run.
   */
  readonly start: (starts: Batch<Start>) => Effect.Effect<ReadonlyArray<Started>, E>
  /** Holds the leases of open runs for `leaseMillis` from now, and writes progress (N1, N2). */
  readonly renew: (renewals: Batch<Renew>) => Effect.Effect<ReadonlyArray<Renewed>, E>
  /**
   * Writes the outcomes of runs, with their dead letters (T1 to T7). An outcome is written only if the task has not
   * ended and its last run has the token of the settlement; a lapsed lease does not matter, as long as no other start
   * took the run over. A final settlement removes the record of a forgotten task (F3). Repeated before the next start,
   * it answers the same.
   */
  readonly settle: (settlements: Batch<Settlement>) => Effect.Effect<ReadonlyArray<Settled>, E>
  /**
   * Does `settle` in the caller's transaction, for stores whose transactions callers can open. Fails outside of one.
   * `undefined`: the store has no such transactions.
   */
  readonly complete?: ((completion: Completion) => Effect.Effect<Settled, E>) | undefined
  /** Writes dead letters for messages that no run can be made of. Does nothing for an id that exists. */
  readonly parkMessage: (messages: Batch<ParkedMessage>) => Effect.Effect<void, E>
  /**
   * Reads records; `undefined` for an id without one. A task that time has ended (L1 to L3) is ended first and returned
   * as ended, so that no waiter waits for a task that cannot finish.
   *
   * Returns the records of the first ids, at least one, and then as many as have about 2 MiB of text together. The caller
   * reads the rest with another call.
   */
  readonly read: (ids: Batch<string>) => Effect.Effect<ReadonlyArray<TaskRecord | undefined>, E>
  /**
   * Reads the histories of tasks: the `failure` of every retry of the current generation, in the order in which they were
   * stored, and of these texts the last `maxHistorySize` characters, also where that cuts the first of them. `undefined`
   * for a task without a record, and for one that was not retried in its generation with a `failure`.
   *
   * A history is removed with its record, and when a newer generation is opened. `undefined`: the driver keeps none, and
   * `TaskResult.history` is empty. Asked for tasks whose record has `retries`, and for no others; at most 128 at a time.
   */
  readonly readHistory?:
    | ((ids: Batch<string>) => Effect.Effect<ReadonlyArray<string | undefined>, E>)
    | undefined
  /**
   * Subscribes this driver to changes of tasks, and reads them as `read` does, in one atomic step for each id: a change
   * after the answer is hinted. An id may be subscribed to before its task exists. With `"end"` a store may leave out
   * the hints of changes before the end; a later subscription to `"change"` (the default) replaces it. Without hints it
   * is a plain read. Repeated, it does nothing more than read. The ids behind the records that were returned may be
   * subscribed to or not.
   */
  readonly subscribe: (
    ids: Batch<string>,
    until?: "change" | "end"
  ) => Effect.Effect<ReadonlyArray<TaskRecord | undefined>, E>
  /** Ends subscriptions. Passes over ids without one. */
  readonly unsubscribe: (ids: Batch<string>) => Effect.Effect<void, E>
  /**
   * Emits the tasks that may have changed in state or progress: those that are subscribed to, and those of runs that were
   * started by this driver and for which a cancel was requested. Emits `"resync"` after a gap: any task may have changed,
   * and subscriptions may be gone, so the facade subscribes to all of its ids again. Hints may be lost, repeated or late.
   * The facade runs the stream at most once at a time, and runs it again when it ends or fails. Required where
   * `capabilities.hints` is `true`.
   */
  readonly hints?: Stream.Stream<ReadonlyArray<Hint> | "resync", E> | undefined
  /**
   * Ends waiting tasks as `Cancelled`, and asks running tasks to stop, even over a lapsed lease (C1 to C4). Where the
   * store also has the messages, it removes those of tasks that end here, or by L1, before they are due.
   */
  readonly cancel: (ids: Batch<string>) => Effect.Effect<ReadonlyArray<CancelAnswer>, E>
  /**
   * Ends the tasks of messages that were removed from their queues: at once where they wait, and otherwise when their
   * runs do not end them (W1 to W3).
   */
  readonly withdraw: (messages: Batch<PurgedMessage>) => Effect.Effect<void, E>
  /**
   * Removes the records of tasks that have ended (F1); marks the others as `Forgotten` (F2), to be removed at their end
   * (F3). Frees the keys at once. Passes over ids that are unknown.
   */
  readonly forget: (ids: Batch<string>) => Effect.Effect<void, E>
  /**
   * Opens the tasks of dead letters for their next generation, and returns the dead letters, which stay (R1 to R5);
   * `undefined` for an id without one. An opened task is `PENDING` in the dead letter's generation + 1, enqueued now,
   * with nothing counted, no expiry and no history. A missing record is created, with the fence and the queue that the
   * dead letter keeps. A record that has not ended, or is of a later generation, is left alone, so a repeated call opens
   * nothing more. For a parked message nothing is opened.
   *
   * An opened task is a reservation, as with `create`: unless it is started, or marked as published, within
   * `reservedMillis`, its record is removed, since no message may have been sent. A repeated call renews a reservation.
   */
  readonly reopen: (
    deadLetterIds: Batch<string>,
    reservedMillis: number
  ) => Effect.Effect<ReadonlyArray<Reopened | undefined>, E>
  /** Reads dead letters by their ids; `undefined` for an id without one. */
  readonly getDeadLetters: (ids: Batch<string>) => Effect.Effect<ReadonlyArray<DeadLetter | undefined>, E>
  /**
   * Reads one page of dead letters, newest first; after a position, what is older than it. A page has at least one, if there
   * is one, and ends before it has more than about 2 MiB of bodies and exits.
   */
  readonly listDeadLetters: (query: DeadLetterQuery) => Effect.Effect<ReadonlyArray<DeadLetter>, E>
  /** Lists as `listDeadLetters` does, without reading more of the dead letters than their ids. */
  readonly listDeadLetterIds: (query: DeadLetterQuery) => Effect.Effect<ReadonlyArray<DeadLetterId>, E>
  /** Counts the dead letters of a task, or with `undefined` all of them. */
  readonly countDeadLetters: (task: string | undefined) => Effect.Effect<number, E>
  /** Removes dead letters. Answers `false` for an id without one. */
  readonly removeDeadLetters: (ids: Batch<string>) => Effect.Effect<ReadonlyArray<boolean>, E>
  /**
   * Writes a worker to the registry, for `ttlMillis` from now; `Infinity`, with `reliableHints` alone: until it is
   * unregistered. A worker that is listed keeps its `startedAt`.
   */
  readonly heartbeat: (worker: Heartbeat, ttlMillis: number) => Effect.Effect<void, E>
  /** Removes a worker that stopped from the registry. Passes over an id that is unknown. */
  readonly unregisterWorker: (worker: string) => Effect.Effect<void, E>
  /** Reads the workers whose last heartbeat still holds. */
  readonly workers: Effect.Effect<ReadonlyArray<WorkerInfo>, E>
  /** Small named values, written by compare-and-set. `undefined`: the driver keeps none. */
  readonly documents?: Documents<E> | undefined
  /**
   * Ends the tasks that time has ended (L1 to L3), and removes what has outlived its time: records and dead letters after
   * their retention, workers after their heartbeat, and reservations that were not published in their time. Handles at most
   * `limit` of each kind. Workers call it from time to time.
   */
  readonly sweep: (limit: number) => Effect.Effect<Swept, E>
}
