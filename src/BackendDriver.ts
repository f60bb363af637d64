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
import type { Batch, ClaimRequest, Delivery, Envelope } from "./BrokerDriver.ts"
import type { TaskState } from "./TaskState.ts"

/**
 * An end that the store decides without the exit of a run. The facade makes the reason of a `TaskFailed` from it.
 *
 * **Details**
 *
 * - `Expired`: the task waited until its expiry (L1).
 * - `WorkerLost`: the lease of an at-most-once run is over (L3), or the crashes reached their limit (S9).
 * - `Cancelled`: the task was cancelled while it waited (C4), or when its run ended under a cancel request (L2, S8, T2).
 * - `Forgotten`: the record was forgotten (F2).
 *
 * @category models
 * @since 0.1.0
 */
export type StoreDecidedEnd = "Expired" | "WorkerLost" | "Cancelled" | "Forgotten"

/**
 * A task as the store returns it. Times are epoch milliseconds of the store's clock.
 *
 * @category models
 * @since 0.1.0
 */
export interface TaskRecord {
  readonly id: string
  /** The task's name. */
  readonly task: string
  readonly state: TaskState
  /** 0 at first; grows by one with every replay of a dead letter. */
  readonly generation: number
  /** Starts of this generation, without those that were released. */
  readonly attempt: number
  /** Retries of this generation that the task's policy granted. */
  readonly retries: number
  /** Starts of this generation over a lapsed lease. */
  readonly crashes: number
  /** The encoded exit of the run that ended the task; `null` before the end, and where `ended` says why it ended. */
  readonly exit: string | null
  /** The last progress that was written, encoded. */
  readonly progress: string | null
  /** The id of the worker of the last run. */
  readonly worker: string | null
  /** Whether a running task was asked to stop. */
  readonly cancelRequested: boolean
  /**
   * Why the store ended the task, set together with `FAILURE`. `Forgotten` alone is set before the end: the task runs
   * on, its record is removed when it ends, and waiters are notified at once.
   */
  readonly ended: StoreDecidedEnd | null
  /** When the task was enqueued, or reopened; `null` for a record that a start created. */
  readonly enqueuedAt: number | null
  /** When this generation started for the first time. */
  readonly startedAt: number | null
  readonly finishedAt: number | null
  /** When a waiting task expires; `null`: never. */
  readonly expiresAt: number | null
}

/**
 * A record to create.
 *
 * @see {@link BackendDriver} for `create`
 *
 * @category models
 * @since 0.1.0
 */
export interface NewRecord {
  readonly id: string
  /** The task's name. */
  readonly task: string
  /** The idempotency key, any text, scoped by the task's name. `undefined`: none. */
  readonly key: string | undefined
  /** Identifies the payload under a given key or id. Empty where neither was given, and then never compared. */
  readonly payloadHash: string
  /** Milliseconds from now after which a task that still waits expires. `undefined`: never. */
  readonly expiresMillis: number | undefined
  /** Milliseconds for which the record is kept after the task's end. `undefined`: forever. */
  readonly retentionMillis: number | undefined
  /** `false` for a reservation: its message is not known to be sent yet. */
  readonly published: boolean
}

/**
 * The answer of `create` (E1 to E3).
 *
 * **Details**
 *
 * - `Created`: the record was written.
 * - `Existing`: the key or the id is taken, and nothing was written, except that a record which a start created adopts
 *   the payload hash, the key and the time of the enqueue (E3).
 *
 * @category models
 * @since 0.1.0
 */
export type Created =
  | { readonly _tag: "Created" }
  | {
      readonly _tag: "Existing"
      /** The id of the task that holds the key, or else the id that was asked for. */
      readonly id: string
      /** Whether the task's name and the payload hash are the same. An empty hash on either side equals any other. */
      readonly same: boolean
      /** Whether the message of the existing record is known to be sent. */
      readonly published: boolean
    }

/**
 * A request to run a delivered message.
 *
 * @see {@link Started} for the answer and its rules
 *
 * @category models
 * @since 0.1.0
 */
export interface Start {
  readonly id: string
  /** The task's name. */
  readonly task: string
  /** The generation of the message. */
  readonly generation: number
  /** The token of the run, unique for each start. A request that is repeated has the same token (S1). */
  readonly token: string
  /** The id of the worker. */
  readonly worker: string
  /**
   * The queue of the message, for the dead letter if this request ends the task as `WorkerLost`. The record of an
   * at-most-once run keeps queue and body while the run is open, because its message is already removed.
   */
  readonly queue: string
  /** The body of the message, as it was delivered. */
  readonly body: string | Uint8Array
  /** Milliseconds for which the run is leased to the worker. */
  readonly leaseMillis: number
  readonly deliveryMode: "at-least-once" | "at-most-once"
  /** The task ends as `WorkerLost` when its crashes reach this number (S9). At least 1. */
  readonly maxCrashes: number
  /** For a record that this request creates: milliseconds from now after which the task expires while it waits. */
  readonly expiresMillis: number | undefined
  /** Written to the record: milliseconds for which it is kept after the task's end. `undefined`: forever. */
  readonly retentionMillis: number | undefined
  /** Milliseconds for which a dead letter is kept that the store itself writes for this run. `undefined`: forever. */
  readonly deadLetterRetentionMillis: number | undefined
}

/**
 * The answer of `start`.
 *
 * **Details**
 *
 * - `Run`: the record is `STARTED` under the token and the lease of the request.
 * - `Drop`: the message is to be removed.
 * - `Busy`: the message is to be put back for `millis`.
 *
 * One atomic step decides by the first rule that applies. A missing record is created first, and waits.
 *
 * - **S1** The open run has the token of the request: hold its lease anew, and answer the same `Run` again.
 * - **S2** The task has ended: `Drop`.
 * - **S3** The message is of an older generation than the record: `Drop`.
 * - **S4** The task waits and has expired (L1): end it as `Expired`, `Drop`.
 * - **S5** The task waits for a retry that is not due: `Busy` for the remainder.
 * - **S6** The task runs under a live lease: `Busy` for the remainder.
 * - **S7** The lease of an at-most-once run is over: end the task as `Cancelled` if that was requested (L2), otherwise
 *   as `WorkerLost` with a dead letter (L3); `Drop`.
 * - **S8** The lease is over and a cancel was requested: count a crash, end the task as `Cancelled`, `Drop`.
 * - **S9** The lease is over and the crashes reach `maxCrashes`: end the task as `WorkerLost` with a dead letter, `Drop`.
 * - **S10** Otherwise `Run`. A start over a lapsed lease counts a crash. A message of a newer generation opens that
 *   generation first, as `reopen` does. A reservation counts as published from here on.
 *
 * The dead letter of S7 has the queue and body of the lost run; that of S9 has those of the request.
 *
 * @category models
 * @since 0.1.0
 */
export type Started =
  | {
      readonly _tag: "Run"
      /** An integer of the task that grows by one with every run, over all its generations. */
      readonly fence: number
      /** Starts of this generation with this one, without those that were released. */
      readonly attempt: number
      readonly retries: number
      readonly crashes: number
    }
  | { readonly _tag: "Drop" }
  | { readonly _tag: "Busy"; readonly millis: number }

/**
 * A request to hold the lease of a run, and to write its progress.
 *
 * @see {@link Renewed} for the answer and its rules
 *
 * @category models
 * @since 0.1.0
 */
export interface Renew {
  readonly id: string
  /** The token of the run. */
  readonly token: string
  /** Milliseconds from now for which the run is leased. */
  readonly leaseMillis: number
  /** The encoded progress. `undefined`: what was written before stays. */
  readonly progress?: string | undefined
}

/**
 * What all starts of one task have in common, for a store that starts messages as it delivers them.
 *
 * @see {@link Start} for what each field means
 * @see {@link Fusion} for the operation that takes them
 *
 * @category models
 * @since 0.1.0
 */
export interface StartDefaults {
  /** The task's name. */
  readonly task: string
  readonly leaseMillis: number
  readonly maxCrashes: number
  readonly retentionMillis: number | undefined
  readonly deadLetterRetentionMillis: number | undefined
}

/**
 * A message that was claimed by a fused claim, and possibly started in the same step.
 *
 * @category models
 * @since 0.1.0
 */
export interface ClaimedMessage {
  readonly delivery: Delivery
  /** The answer of its start, under a token that the store made. `undefined`: the worker has to start it. */
  readonly run: { readonly token: string; readonly started: Started } | undefined
}

/**
 * The answer of `renew`.
 *
 * **Details**
 *
 * - `Lost` (N1): there is no record, no open run, or another token.
 * - `Held` (N2): the lease holds anew. This also revives a lapsed lease, as long as no other start took the run over.
 * - `CancelRequested` (N2): the lease holds anew, and the task was asked to stop.
 *
 * @category models
 * @since 0.1.0
 */
export type Renewed = "Held" | "CancelRequested" | "Lost"

/**
 * How a run ended.
 *
 * **Details**
 *
 * - `Success`, `Failure`: the task ends with this exit. `retentionMillis` replaces that of the record.
 * - `Retry`: the task returns to `RETRY`, due in `afterMillis`, and `retries` grows by one.
 * - `Release`: the task returns to `PENDING`, or to `RETRY` if it has been retried, due at once; the attempt is
 *   subtracted again.
 *
 * `Retry` and `Release` under a cancel request end the task as `Cancelled` instead (T2).
 *
 * @category models
 * @since 0.1.0
 */
export type Outcome =
  | {
      readonly _tag: "Success"
      /** The encoded exit. */
      readonly exit: string
      readonly retentionMillis: number | undefined
    }
  | {
      readonly _tag: "Failure"
      /** The encoded exit. */
      readonly exit: string
      readonly retentionMillis: number | undefined
      /** Written with the record, in the same atomic step. */
      readonly deadLetter: NewDeadLetter | undefined
    }
  | { readonly _tag: "Retry"; readonly afterMillis: number }
  | { readonly _tag: "Release" }

/**
 * The dead letter of a run that failed. The store adds what the record knows: id, task, generation, worker, attempts,
 * and the time.
 *
 * @see {@link DeadLetter} for what is read
 *
 * @category models
 * @since 0.1.0
 */
export interface NewDeadLetter {
  /** The tag of the failure's reason. */
  readonly reason: string
  readonly queue: string
  readonly body: string | Uint8Array
  /** Milliseconds for which the dead letter is kept. `undefined`: forever. */
  readonly retentionMillis: number | undefined
}

/**
 * The outcome of a run, fenced by the run's token.
 *
 * @category models
 * @since 0.1.0
 */
export interface Settlement {
  readonly id: string
  readonly token: string
  readonly outcome: Outcome
}

/**
 * The answer of `settle` and `complete`.
 *
 * **Details**
 *
 * - `Stored`: the outcome was written (T3), or repeats one that was written and is still in place (T4, T6).
 * - `Cancelled`: a retry or a release ended the task, because a cancel was requested (T2), or repeats such an end (T5).
 * - `Lost`: the run was superseded, or the task has another outcome (T1, T7). Nothing was written.
 *
 * @category models
 * @since 0.1.0
 */
export type Settled = "Stored" | "Cancelled" | "Lost"

/**
 * The success of a run, stored in the transaction of its caller.
 *
 * @category models
 * @since 0.1.0
 */
export interface Completion {
  readonly settlement: Settlement
  /** The claim of the run's message, acked in the same transaction. `undefined`: the broker is another store. */
  readonly handle: string | undefined
}

/**
 * A message that no run can be made of: its bytes do not decode, or no worker knows its task.
 *
 * @category models
 * @since 0.1.0
 */
export interface ParkedMessage {
  /** The id of the dead letter. An id that exists makes the call do nothing. */
  readonly deadLetterId: string
  readonly queue: string
  /** The tag of the failure's reason. */
  readonly reason: string
  /** The encoded exit. */
  readonly exit: string
  readonly body: string | Uint8Array
  /** Milliseconds for which the dead letter is kept. `undefined`: forever. */
  readonly retentionMillis: number | undefined
}

/**
 * A message that is not run again unless it is replayed.
 *
 * @category models
 * @since 0.1.0
 */
export interface DeadLetter {
  /** `<task id>:<generation>` for a task that ended; the `deadLetterId` of a parked message. */
  readonly id: string
  /** `null` for a parked message. */
  readonly taskId: string | null
  /** The task's name; `null` for a parked message. */
  readonly task: string | null
  readonly generation: number
  readonly queue: string
  /** The tag of the failure's reason. */
  readonly reason: string
  /** The encoded exit; `null` where the store decided the end (`WorkerLost`). */
  readonly exit: string | null
  /** The id of the worker of the last run. */
  readonly worker: string | null
  /** The body of the message, as it was delivered. */
  readonly body: string | Uint8Array
  /** The `attempt` of the record; 0 for a parked message. */
  readonly attempts: number
  /** When it was written, in epoch milliseconds of the store's clock. */
  readonly at: number
}

/**
 * Selects a page of dead letters, newest first.
 *
 * @category models
 * @since 0.1.0
 */
export interface DeadLetterQuery {
  /** The name of the task. `undefined`: all dead letters, parked messages too. */
  readonly task?: string | undefined
  /** How many to return at most. */
  readonly limit: number
  /**
   * The id of the last dead letter of the page before. If it was removed since, a page may repeat some, and misses
   * none.
   */
  readonly after?: string | undefined
}

/**
 * A worker, as its last heartbeat described it.
 *
 * @category models
 * @since 0.1.0
 */
export interface WorkerInfo {
  readonly id: string
  readonly hostname: string
  readonly pid: number
  /** The queues that it claims from. */
  readonly queues: ReadonlyArray<string>
  /** The names of the tasks that it runs. */
  readonly tasks: ReadonlyArray<string>
  /** How many tasks it runs at once at most. */
  readonly concurrency: number
  /** How many tasks it was running. */
  readonly running: number
  /** Epoch milliseconds of the store's clock at the first heartbeat. */
  readonly startedAt: number
  /** Epoch milliseconds of the store's clock at the last heartbeat. */
  readonly seenAt: number
}

/**
 * How a worker describes itself. The store adds the times.
 *
 * @category models
 * @since 0.1.0
 */
export type Heartbeat = Omit<WorkerInfo, "startedAt" | "seenAt">

/**
 * The answer of `cancel`.
 *
 * **Details**
 *
 * - `AlreadyDone`: the task has ended (C1), or ended as `Expired` with this call (C3).
 * - `Requested`: the task runs, and was asked to stop (C2).
 * - `Cancelled`: the task waited, and ended as `Cancelled` (C4).
 * - `Unknown`: there is no record.
 *
 * @category models
 * @since 0.1.0
 */
export type CancelAnswer = "Cancelled" | "Requested" | "AlreadyDone" | "Unknown"

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
   */
  readonly claim?:
    | ((
        claim: ClaimRequest & { readonly startDefaults: ReadonlyArray<StartDefaults> }
      ) => Effect.Effect<ReadonlyArray<ClaimedMessage>, E>)
    | undefined
  /**
   * Does `settle`, and what follows for the message, in one atomic step for each item: `ack` after a final outcome or
   * `Cancelled`; `release` after a retry, for when it is due, or after a release, at once; nothing after `Lost`.
   */
  readonly settle: (
    items: Batch<{ readonly settlement: Settlement; readonly handle: string }>
  ) => Effect.Effect<ReadonlyArray<Settled>, E>
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
    /**
     * Whether the fixed cost of a call is so high that one large batch is better than two small ones at the same time.
     * Default `false`.
     */
    readonly prefersLargeBatches?: boolean | undefined
    /** Whether the store itself removes records whose retention is over. Default `false`: `sweep` removes them. */
    readonly expiresRecords?: boolean | undefined
  }
  /**
   * Returns the key of the caller's transaction, found in the caller's context. A request with a key runs alone, in the
   * caller's context, and so in its transaction. Requests for which it returns `undefined` may share a batch. Asked for
   * `create`, `markPublished` and `fusion.enqueue` only; every other operation runs outside any caller transaction.
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
   * is held by another record, or else where the id is taken (E1 to E3). Repeated, it answers `Existing` with the same
   * id.
   */
  readonly create: (records: Batch<NewRecord>) => Effect.Effect<ReadonlyArray<Created>, E>
  /** Marks reservations as published. Passes over records that are published already, and ids that are unknown. */
  readonly markPublished: (ids: Batch<string>) => Effect.Effect<void, E>
  /**
   * Starts runs, as S1 to S10 say: see `Started`. Of any number of starts that ask at once, one runs. Repeated with the
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
   */
  readonly read: (ids: Batch<string>) => Effect.Effect<ReadonlyArray<TaskRecord | undefined>, E>
  /**
   * Subscribes this driver to changes of tasks, and reads them as `read` does, in one atomic step for each id: a change
   * after the answer is hinted. An id may be subscribed to before its task exists. With `"end"` a store may leave out
   * the hints of changes before the end; a later subscription to `"change"` (the default) replaces it. Without hints it
   * is a plain read. Repeated, it does nothing more than read.
   */
  readonly subscribe: (
    ids: Batch<string>,
    until?: "change" | "end"
  ) => Effect.Effect<ReadonlyArray<TaskRecord | undefined>, E>
  /** Ends subscriptions. Passes over ids without one. */
  readonly unsubscribe: (ids: Batch<string>) => Effect.Effect<void, E>
  /**
   * Emits ids that may have changed in state or progress: those that are subscribed to, and those of runs that were
   * started by this driver and for which a cancel was requested. Emits `"resync"` after a gap: any id may have changed,
   * and subscriptions may be gone, so the facade subscribes to all of its ids anew. Hints may be lost, repeated or late.
   * The facade runs the stream at most once at a time, and runs it anew when it ends or fails. Required where
   * `capabilities.hints` is `true`.
   */
  readonly hints?: Stream.Stream<ReadonlyArray<string> | "resync", E> | undefined
  /** Ends waiting tasks as `Cancelled`, and asks running tasks to stop, even over a lapsed lease (C1 to C4). */
  readonly cancel: (ids: Batch<string>) => Effect.Effect<ReadonlyArray<CancelAnswer>, E>
  /**
   * Removes the records of tasks that have ended (F1); marks the others as `Forgotten` (F2), to be removed at their end
   * (F3). Frees the keys at once. Passes over ids that are unknown.
   */
  readonly forget: (ids: Batch<string>) => Effect.Effect<void, E>
  /**
   * Opens the tasks of dead letters for their next generation, and returns the dead letters, which stay (R1 to R3);
   * `undefined` for an id without one. An opened task is `PENDING` in the dead letter's generation + 1, enqueued now,
   * with nothing counted and no expiry. A missing record is created, with the fence that the dead letter keeps. A record
   * that has not ended, or is of a later generation, is left alone, so a repeated call opens nothing more. For a parked
   * message nothing is opened.
   */
  readonly reopen: (deadLetterIds: Batch<string>) => Effect.Effect<ReadonlyArray<DeadLetter | undefined>, E>
  /** Reads dead letters by their ids; `undefined` for an id without one. */
  readonly getDeadLetters: (ids: Batch<string>) => Effect.Effect<ReadonlyArray<DeadLetter | undefined>, E>
  /** Reads one page of dead letters, newest first. Those of the same moment are in a fixed order. */
  readonly listDeadLetters: (query: DeadLetterQuery) => Effect.Effect<ReadonlyArray<DeadLetter>, E>
  /** Counts the dead letters of a task, or with `undefined` all of them. */
  readonly countDeadLetters: (task: string | undefined) => Effect.Effect<number, E>
  /** Removes dead letters. Answers `false` for an id without one. */
  readonly removeDeadLetters: (ids: Batch<string>) => Effect.Effect<ReadonlyArray<boolean>, E>
  /** Writes a worker to the registry, for `ttlMillis` from now. A worker that is listed keeps its `startedAt`. */
  readonly heartbeat: (worker: Heartbeat, ttlMillis: number) => Effect.Effect<void, E>
  /** Removes a worker that stopped from the registry. Passes over an id that is unknown. */
  readonly unregisterWorker: (worker: string) => Effect.Effect<void, E>
  /** Reads the workers whose last heartbeat still holds. */
  readonly workers: Effect.Effect<ReadonlyArray<WorkerInfo>, E>
  /**
   * Ends the tasks that time has ended (L1 to L3), and removes what is over: records and dead letters after their
   * retention, workers after their heartbeat, and reservations that were not published for as long as their retention.
   * Handles at most `limit` of each kind; returns how many it handled in all. Workers call it from time to time.
   */
  readonly sweep: (limit: number) => Effect.Effect<number, E>
}
