/**
 * The records of tasks, as a backend driver creates and returns them. `BackendDriver` exports these types.
 *
 * @since 0.1.0
 */
import type { TaskState } from "../TaskState.ts"

/**
 * An end that the store decides without the exit of a run. The facade makes the reason of a `TaskFailed` from it.
 *
 * **Details**
 *
 * - `Expired`: the task waited until its expiry (L1).
 * - `WorkerLost`: the lease of an at-most-once run is over (L3), or the crashes reached their limit (S9).
 * - `Cancelled`: the task was cancelled while it waited (C4), or when its run ended under a cancel request, or
 *   without a message to go on with (L2, S8, T2, W3).
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
  /** The incarnation of the enqueue that made the record. */
  readonly incarnation: string
  /** 0 at first; grows by one with every replay of a dead letter. */
  readonly generation: number
  /** Starts of this generation, without those that were released. */
  readonly attempt: number
  /** Retries of this generation that the task's policy granted. */
  readonly retries: number
  /** Starts of this generation over a lapsed lease. */
  readonly crashes: number
  /** The queue that the task was enqueued in. `undefined`: the driver does not keep it. */
  readonly queue?: string | undefined
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
  /** When the task was enqueued, or reopened. */
  readonly enqueuedAt: number
  /** When this generation started for the first time: not before `enqueuedAt`, also if the clock was set back. */
  readonly startedAt: number | null
  readonly finishedAt: number | null
  /** When a waiting task expires; `null`: never. */
  readonly expiresAt: number | null
  /**
   * Of a task that waits: when its retry, or the delay of its enqueue, is due; `null` where there is none. A time in the
   * past stays until the task is started. `undefined`: the driver does not keep it.
   */
  readonly dueAt?: number | null | undefined
}

/**
 * A record to create.
 *
 * @see `BackendDriver.create`
 *
 * @category models
 * @since 0.1.0
 */
export interface NewRecord {
  readonly id: string
  /** The task's name. */
  readonly task: string
  /**
   * Tells the enqueues of one id apart: messages and dead letters of another incarnation than the record's have no effect
   * on it. Digits and small letters, at most 32; empty where the id was made for this enqueue alone.
   */
  readonly incarnation: string
  /** The queue of the task's message. It stays on the record. */
  readonly queue: string
  /** The idempotency key, any text, scoped by the task's name. `undefined`: none. */
  readonly key: string | undefined
  /** Identifies the payload under a given key or id. Empty where neither was given, and then never compared. */
  readonly payloadHash: string
  /**
   * Milliseconds from now until the task's message is due; 0: at once. The record shows it as `dueAt`. No start depends on
   * it, as the delay is kept by the broker.
   */
  readonly delayMillis: number
  /** Milliseconds from now after which a task that still waits expires. `undefined`: never. */
  readonly expiresMillis: number | undefined
  /** Milliseconds for which the record is kept after the task's end. `undefined`: forever. */
  readonly retentionMillis: number | undefined
  /**
   * Milliseconds after which a reservation, whose message is not known to be sent yet, is removed unless it is marked as
   * published. `undefined`: the message is sent together with the record.
   */
  readonly reservedMillis: number | undefined
  /**
   * Whether to subscribe this driver to the task's end, in the step that creates the record. Asked for where
   * `capabilities.subscribesCreated` is `true`, of records without a key whose id was made for this enqueue alone.
   */
  readonly subscribe?: boolean | undefined
}

/**
 * A change of a task: its id; or the last record of a task that has ended, which saves a read.
 *
 * **Details**
 *
 * A hint may come late: a record counts only for those who wait for its incarnation and generation. A store sends small records
 * alone.
 *
 * @see `BackendDriver.hints`
 *
 * @category models
 * @since 0.1.0
 */
export type Hint = string | TaskRecord

/**
 * A record that the message of one generation is known to be published for.
 *
 * @see `BackendDriver.markPublished`
 *
 * @category models
 * @since 0.1.0
 */
export interface PublishedRecord {
  readonly id: string
  readonly incarnation: string
  /** The generation of the message. */
  readonly generation: number
}

/**
 * The answer of `create` (E1 to E4).
 *
 * **Details**
 *
 * - `Created`: the record was written.
 * - `Existing`: the key or the id is taken, and nothing was written, except that a record which a replay created adopts
 *   the payload hash and the key (E3), and that the reservation of the same task is renewed (E4).
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
      /** The incarnation of the existing record. */
      readonly incarnation: string
      /** The generation of the existing record, in which the message of a reservation has to be sent. */
      readonly generation: number
      /** Whether the task's name and the payload hash are the same (E1, E2). An empty hash on either side equals any other. */
      readonly same: boolean
      /** Whether the message of the existing record is known to be sent. */
      readonly published: boolean
    }

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
