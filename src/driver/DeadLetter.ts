/**
 * Dead letters, as a backend driver keeps them. `BackendDriver` exports these types.
 *
 * @since 0.1.0
 */

/**
 * The dead letter of a run that failed. The store adds what the record knows: id, task, generation, worker, attempts,
 * and the time.
 *
 * @see {@link DeadLetter} for the type that is read
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
 * A place in the order of all dead letters, newest first. No two letters ever have the same one.
 *
 * @see {@link DeadLetterQuery} for the letters after it
 *
 * @category models
 * @since 0.1.0
 */
export interface DeadLetterPosition {
  /** When the dead letter was written, in epoch milliseconds of the store's clock. */
  readonly at: number
  /** A number that the store gives: of two dead letters of the same moment, the newer one has the higher number. */
  readonly order: number
}

/**
 * A message that is not run again unless it is replayed.
 *
 * @category models
 * @since 0.1.0
 */
export interface DeadLetter extends DeadLetterPosition {
  /**
   * For a task that ended, `<task id>:<generation>`, with `.<incarnation>` behind it unless that is empty; the
   * `deadLetterId` of a parked message.
   */
  readonly id: string
  /** `null` for a parked message. */
  readonly taskId: string | null
  /** The task's name; `null` for a parked message. */
  readonly task: string | null
  /** The incarnation of the task; empty for a parked message. */
  readonly incarnation: string
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
}

/**
 * A dead letter without its contents: its id and its position.
 *
 * @category models
 * @since 0.1.0
 */
export interface DeadLetterId extends DeadLetterPosition, Pick<DeadLetter, "id"> {}

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
  /** Lists what is older than this position, whether or not a dead letter is still there. Default: from the newest on. */
  readonly after?: DeadLetterPosition | undefined
}

/**
 * The answer of `reopen`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Reopened {
  readonly letter: DeadLetter
  /** `false`: the id of the task belongs to a later enqueue now, and nothing was opened (R4). */
  readonly replayable: boolean
}
