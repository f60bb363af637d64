/**
 * The port that a store implements to hold results: records of tasks, tokens and leases of runs, dead letters,
 * and the registry of workers.
 *
 * A driver speaks in batches and in encoded text; it parses no payload, no exit and no progress. The facade over
 * it (`Backend.make`) coalesces what concurrent fibers ask for. Whoever writes a driver proves it with
 * `BackendSuite` of `chicory/testing`.
 *
 * - A batch is answered item by item, in order. An id may occur twice in one batch; the items are then applied
 *   one after the other, in order.
 * - A call that fails means *unknown*: it may have been applied. Every operation is safe to repeat.
 * - One bad item must not fail the others where the store can tell them apart.
 * - All times are judged by the store's clock. A driver is given durations in milliseconds and answers epoch
 *   milliseconds of the store's clock.
 */
import type { Context, Effect, Stream } from "effect"
import type { Batch, ClaimRequest, Delivery, Envelope } from "./BrokerDriver.ts"
import type { TaskState } from "./TaskState.ts"

/** An end that the store itself decided, without a run's exit: the facade makes the `TaskFailed` of it. */
export type StoreDecidedEnd = "Expired" | "WorkerLost" | "Cancelled" | "Forgotten"

/** A task as it is stored. */
export interface TaskRecord {
  readonly id: string
  /** The task's name. */
  readonly task: string
  readonly state: TaskState
  /** Grows by one with every replay of a dead letter; 0 at first. */
  readonly generation: number
  /** Starts of this generation that were not released. */
  readonly attempt: number
  /** Retries that the task's policy granted in this generation. */
  readonly retries: number
  /** Starts over a lease that had run out, in this generation. */
  readonly crashes: number
  /** The encoded exit of the run that ended the task; `null` before, and where `ended` says why. */
  readonly exit: string | null
  /** The last progress that was written, encoded. */
  readonly progress: string | null
  /** The worker of the last run. */
  readonly worker: string | null
  /** Someone asked a running task to stop. */
  readonly cancelRequested: boolean
  /**
   * Set with `FAILURE` where the store decided the end. `Forgotten` alone is set before the end: the task runs
   * on, the record goes when it ends, and whoever waits is told at once.
   */
  readonly ended: StoreDecidedEnd | null
  readonly enqueuedAt: number | null
  /** The first start of this generation. */
  readonly startedAt: number | null
  readonly finishedAt: number | null
  /** When a task that waits expires; `null`: never. */
  readonly expiresAt: number | null
}

/** What `create` writes. */
export interface NewRecord {
  readonly id: string
  readonly task: string
  /** An idempotency key, scoped by the task's name. */
  readonly key: string | undefined
  /** Tells another payload under the same key or id. Empty where neither was given: never compared. */
  readonly payloadHash: string
  /** From now on; a task that waits longer ends as expired. */
  readonly expiresMillis: number | undefined
  /** How long the record stays after its end; `undefined`: for ever. */
  readonly retentionMillis: number | undefined
  /** `false`: a reservation, whose message is not known to be sent. */
  readonly published: boolean
}

/** The answer of `create`. */
export type Created =
  | { readonly _tag: "Created" }
  | {
      readonly _tag: "Existing"
      /** The id that holds the key, or the id asked for. */
      readonly id: string
      /** Same task and same payload hash. A record that a run created takes over the hash and the key. */
      readonly same: boolean
      readonly published: boolean
    }

/** A delivered message asks to run. */
export interface Start {
  readonly id: string
  readonly task: string
  readonly generation: number
  /** Unique for this run. A repeated `start` with the token of the open run answers `Run` again, and holds its lease anew. */
  readonly token: string
  readonly worker: string
  /**
   * For the dead letter, if the task ends here as `WorkerLost`. Of an at-most-once run they are kept on the record
   * while it is open, since its message is gone.
   */
  readonly queue: string
  readonly body: string | Uint8Array
  readonly leaseMillis: number
  readonly deliveryMode: "at-least-once" | "at-most-once"
  /** The task ends as `WorkerLost` when its crashes reach this number. */
  readonly maxCrashes: number
  /** For a record that has to be created here; counted from now. */
  readonly expiresMillis: number | undefined
  /** Written to the record. */
  readonly retentionMillis: number | undefined
  /** How long a dead letter stays that the store itself writes for this run. */
  readonly deadLetterRetentionMillis: number | undefined
}

/**
 * The answer of `start`, decided in one atomic step:
 *
 * 1. a final record, or a message of an older generation: `Drop`
 * 2. waiting and expired: the record ends so, `Drop`
 * 3. started under a live lease, or a retry that is not due: `Busy` for the remainder
 * 4. started and the lease ran out: an at-most-once task ends as `WorkerLost`, with its dead letter; otherwise `crashes`
 *    grows by one, and the task ends as `WorkerLost`, with its dead letter, when it reaches `maxCrashes`. Under a cancel
 *    request it ends as cancelled instead. Ended: `Drop`
 * 5. otherwise `Run`. A missing record is created; a newer generation is taken over, as `reopen` opens one; a reservation
 *    is published.
 */
export type Started =
  | {
      readonly _tag: "Run"
      /** An integer of the task that grows by one with every run, over all generations. */
      readonly fence: number
      readonly attempt: number
      readonly retries: number
      readonly crashes: number
    }
  | { readonly _tag: "Drop" }
  | { readonly _tag: "Busy"; readonly millis: number }

/** Holds the lease of a run, and writes its progress. */
export interface Renew {
  readonly id: string
  readonly token: string
  readonly leaseMillis: number
  readonly progress?: string | undefined
}

/** What the starts of one task have in common, so that a store can start what it gives out. */
export interface StartDefaults {
  readonly task: string
  readonly leaseMillis: number
  /** As in `Start`. */
  readonly maxCrashes: number
  readonly retentionMillis: number | undefined
  readonly deadLetterRetentionMillis: number | undefined
}

/** A message that was claimed, and perhaps started as it was. */
export interface ClaimedMessage {
  readonly delivery: Delivery
  /** `undefined`: it is still to be started. The token is the store's. */
  readonly run: { readonly token: string; readonly started: Started } | undefined
}

/** `Held` also after the lease ran out, as long as nobody took the run over. `Lost`: another token, or no open run. */
export type Renewed = "Held" | "CancelRequested" | "Lost"

/** How a run ended. */
export type Outcome =
  | { readonly _tag: "Success"; readonly exit: string; readonly retentionMillis: number | undefined }
  | {
      readonly _tag: "Failure"
      readonly exit: string
      readonly retentionMillis: number | undefined
      /** Written with the record, in the same step. */
      readonly deadLetter: NewDeadLetter | undefined
    }
  /** `RETRY`, due after that time; `retries` grows by one. Under a cancel request: the task ends as cancelled. */
  | { readonly _tag: "Retry"; readonly afterMillis: number }
  /** Back to `PENDING` or `RETRY` (due at once), the attempt uncounted. Under a cancel request: ends as cancelled. */
  | { readonly _tag: "Release" }

/** The dead letter of a run. What else there is to know of it is on the record. */
export interface NewDeadLetter {
  readonly reason: string
  readonly queue: string
  readonly body: string | Uint8Array
  readonly retentionMillis: number | undefined
}

/** The end of a run, fenced by its token. */
export interface Settlement {
  readonly id: string
  readonly token: string
  readonly outcome: Outcome
}

/**
 * `Stored` (also when the same settlement is repeated before the next start), `Cancelled`: a retry or release under a cancel request
 * ended the task. `Lost`: the run was superseded, or the task is final; nothing was written.
 */
export type Settled = "Stored" | "Cancelled" | "Lost"

/** The success of a run, to be stored in its caller's transaction. */
export interface Completion {
  readonly settlement: Settlement
  /** The message of the run, acked in the same transaction, where the broker is of the same store. */
  readonly handle: string | undefined
}

/** A message that no run can be made of. */
export interface ParkedMessage {
  /** Makes a repeated call harmless. */
  readonly deadLetterId: string
  readonly queue: string
  /** The tag of the reason, for filters. */
  readonly reason: string
  /** The encoded failure. */
  readonly exit: string
  readonly body: string | Uint8Array
  readonly retentionMillis: number | undefined
}

/** A message that will not be run again, unless it is replayed. */
export interface DeadLetter {
  /** `<task id>:<generation>` for the letter of a task; the `deadLetterId` of a parked message. */
  readonly id: string
  readonly taskId: string | null
  readonly task: string | null
  readonly generation: number
  readonly queue: string
  /** The tag of the reason. */
  readonly reason: string
  /** The encoded failure; `null` where the store decided the end (`WorkerLost`). */
  readonly exit: string | null
  readonly worker: string | null
  readonly body: string | Uint8Array
  readonly attempts: number
  readonly at: number
}

/** A page of dead letters, newest first. */
export interface DeadLetterQuery {
  readonly task?: string | undefined
  readonly limit: number
  /** The id of the last letter of the page before. If it is gone, some may be seen again, none is missed. */
  readonly after?: string | undefined
}

/** A worker, as its heartbeat described it. */
export interface WorkerInfo {
  readonly id: string
  readonly hostname: string
  readonly pid: number
  readonly queues: ReadonlyArray<string>
  readonly tasks: ReadonlyArray<string>
  readonly concurrency: number
  readonly running: number
  /** Epoch milliseconds of the store's clock at the first heartbeat. */
  readonly startedAt: number
  /** Epoch milliseconds of the store's clock at the last heartbeat. */
  readonly seenAt: number
}

/** What a worker tells of itself; the store adds the times. */
export type Heartbeat = Omit<WorkerInfo, "startedAt" | "seenAt">

/** What a cancel came to. `Requested`: the task is running and was asked to stop. */
export type CancelAnswer = "Cancelled" | "Requested" | "AlreadyDone" | "Unknown"

/**
 * Two steps of the engine in one of the store, for a backend and a broker that are the same store. It saves round
 * trips, and changes nothing: the same tables or keys are written as by the steps one by one. Whoever overrides
 * operations of a driver leaves its `fusion` out.
 */
export interface Fusion<out E = unknown> {
  /** The broker with the same `store` is the other half. */
  readonly store: object
  /** `create`, and `publish` of what was created. Where a record exists, nothing is published. */
  readonly enqueue: (
    items: Batch<{ readonly record: NewRecord; readonly message: Envelope }>
  ) => Effect.Effect<ReadonlyArray<Created>, E>
  /**
   * `claim`, and `start` of the at-least-once tasks whose terms are given, where nothing has to be known but what the
   * store knows of a message. What is left out comes without a run, and is started by itself.
   */
  readonly claim?:
    | ((
        claim: ClaimRequest & { readonly startDefaults: ReadonlyArray<StartDefaults> }
      ) => Effect.Effect<ReadonlyArray<ClaimedMessage>, E>)
    | undefined
  /**
   * `settle`, and what follows for the message: `ack` after a final outcome or `Cancelled`, `release` after a retry
   * (when it is due) or a release (at once), nothing after `Lost`.
   */
  readonly settle: (
    items: Batch<{ readonly settlement: Settlement; readonly handle: string }>
  ) => Effect.Effect<ReadonlyArray<Settled>, E>
}

/** The port. `E` is the store's own error: the facade wraps it. */
export interface BackendDriver<out E = unknown> {
  /** Names the store in errors and metrics. */
  readonly name: string
  readonly capabilities: {
    /** Whether `hints` tells of changes. */
    readonly hints: boolean
    /**
     * Whether a call costs so much by itself, however little it carries, that a large one is better than two small ones
     * at a time. Default `false`.
     */
    readonly prefersLargeBatches?: boolean | undefined
    /** Whether the store itself removes records whose retention ran out; otherwise the sweep does. Default `false`. */
    readonly expiresRecords?: boolean | undefined
  }
  /**
   * Requests with a key of their own are never put into a batch, and run in their caller's context (that is, in
   * the caller's transaction). Absent or `undefined`: requests may share batches. Asked for `create` and
   * `markPublished` only; everything else runs apart from any caller's transaction.
   */
  readonly batchKey?: ((context: Context.Context<never>) => unknown) | undefined
  /** Whether an error would come again however often the call is repeated (authentication, a corrupt file). */
  readonly isPermanent?: ((error: unknown) => boolean) | undefined
  /** Used where the broker is of the same store. */
  readonly fusion?: Fusion<E> | undefined
  /** Writes `PENDING` and reserves keys. */
  readonly create: (records: Batch<NewRecord>) => Effect.Effect<ReadonlyArray<Created>, E>
  readonly markPublished: (ids: Batch<string>) => Effect.Effect<void, E>
  readonly start: (starts: Batch<Start>) => Effect.Effect<ReadonlyArray<Started>, E>
  readonly renew: (renewals: Batch<Renew>) => Effect.Effect<ReadonlyArray<Renewed>, E>
  /** Compare-and-set on *not final* and the token. A forgotten record is removed by its final settlement. */
  readonly settle: (settlements: Batch<Settlement>) => Effect.Effect<ReadonlyArray<Settled>, E>
  /**
   * `settle`, in the caller's transaction, for stores whose transactions callers can open. Outside of one it fails.
   */
  readonly complete?: ((completion: Completion) => Effect.Effect<Settled, E>) | undefined
  readonly parkMessage: (letters: Batch<ParkedMessage>) => Effect.Effect<void, E>
  /**
   * Reads. A task found expired, or at-most-once with its lease run out, is ended first, so that nobody waits for
   * what cannot finish. A record whose retention ran out is not there.
   */
  readonly read: (ids: Batch<string>) => Effect.Effect<ReadonlyArray<TaskRecord | undefined>, E>
  /**
   * Registers interest and reads, in one atomic step. Without hints: a plain read. Where only the `end` matters, a
   * store may spare the hints of all that comes before. What was registered for the end may be registered again for
   * every change.
   */
  readonly subscribe: (
    ids: Batch<string>,
    until?: "change" | "end"
  ) => Effect.Effect<ReadonlyArray<TaskRecord | undefined>, E>
  readonly unsubscribe: (ids: Batch<string>) => Effect.Effect<void, E>
  /**
   * Ids that may have changed (state or progress): those watched here, and those of runs that were started here for
   * which a cancel was requested; or `resync`: any may have, and what is watched may have to be registered again. Hints may be lost, doubled, late. The stream runs at most once at a time.
   */
  readonly hints?: Stream.Stream<ReadonlyArray<string> | "resync", E> | undefined
  /** A waiting task ends at once; a running one (also over a lease that ran out) is asked to stop. */
  readonly cancel: (ids: Batch<string>) => Effect.Effect<ReadonlyArray<CancelAnswer>, E>
  /** Removes a final record; marks an unfinished one. Its key is free at once. */
  readonly forget: (ids: Batch<string>) => Effect.Effect<void, E>
  /**
   * Opens the tasks of dead letters for their next generation (the letter's + 1): a final record that is not of a later
   * generation, or a missing one, becomes `PENDING`, enqueued now, with nothing counted and no expiry; a record that is
   * of a later generation, or unfinished, is left alone. A missing record goes on with the letter's fence. Answers the
   * letter, which stays; `undefined`: no such letter. A parked letter is answered and nothing is opened.
   */
  readonly reopen: (letterIds: Batch<string>) => Effect.Effect<ReadonlyArray<DeadLetter | undefined>, E>
  /** Reads letters; nothing is opened. */
  readonly getDeadLetters: (ids: Batch<string>) => Effect.Effect<ReadonlyArray<DeadLetter | undefined>, E>
  readonly listDeadLetters: (query: DeadLetterQuery) => Effect.Effect<ReadonlyArray<DeadLetter>, E>
  readonly countDeadLetters: (task: string | undefined) => Effect.Effect<number, E>
  readonly removeDeadLetters: (ids: Batch<string>) => Effect.Effect<ReadonlyArray<boolean>, E>
  readonly heartbeat: (worker: Heartbeat, ttlMillis: number) => Effect.Effect<void, E>
  /** Takes a worker that stopped off the list. */
  readonly unregisterWorker: (worker: string) => Effect.Effect<void, E>
  readonly workers: Effect.Effect<ReadonlyArray<WorkerInfo>, E>
  /**
   * Ends what expired while waiting, ends at-most-once runs whose lease ran out, and removes what outlived its
   * retention: records, dead letters, workers, and reservations that were never published for as long as their
   * retention. At most `limit` of each; answers how many in all.
   */
  readonly sweep: (limit: number) => Effect.Effect<number, E>
}
