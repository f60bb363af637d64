/**
 * The runs of tasks, as a backend driver starts, renews and settles them. `BackendDriver` exports these types.
 *
 * @since 0.1.0
 */
import type { ClaimRequest, Delivery } from "../BrokerDriver.ts"
import type { NewDeadLetter } from "./DeadLetter.ts"
import type { StoreDecidedEnd } from "./TaskRecord.ts"

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
  /** The incarnation of the message. */
  readonly incarnation: string
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
 * - `Drop`: the message is to be removed. Where this start ended the task (S4, S7 to S9), `ended` says how.
 * - `NoRecord`: the same, because there is no record.
 * - `Busy`: the message is to be put back for `millis`.
 *
 * One atomic step decides by the first rule that applies.
 *
 * - **S0** There is no record: `NoRecord`. A start creates none.
 * - **S1** The open run has the token of the request: renew its lease, and answer the same `Run` again, without
 *   `lostWorker`.
 * - **S2** The task has ended: `Drop`.
 * - **S3** The message is of another task or incarnation than the record, or of an older generation: `Drop`.
 * - **S4** The task waits and has expired (L1): end it as `Expired`, `Drop`.
 * - **S5** The task waits for a retry that is not due: `Busy` for the remainder.
 * - **S6** The task runs under a live lease: `Busy` for the remainder.
 * - **S7** The lease of an at-most-once run is over: end the task as `Cancelled` if that was requested (L2), otherwise
 *   as `WorkerLost` with a dead letter (L3); `Drop`.
 * - **S8** The lease is over, and a cancel was requested or the message was withdrawn: end the task as `Cancelled` (L2),
 *   `Drop`.
 * - **S9** The lease is over and the crashes reach `maxCrashes`: end the task as `WorkerLost` with a dead letter, `Drop`.
 * - **S10** Otherwise `Run`. A start over a lapsed lease counts a crash. A message of a newer generation opens that
 *   generation first, as `reopen` does. A reservation counts as published from here on.
 *
 * The dead letter of S7 has the queue and body of the lost run; that of S9 has those of the request.
 *
 * A worker reports an end, and a worker that was lost, when it is answered so. Each is answered to one start alone: a
 * repetition, for a start whose answer was lost, finds a task that has ended (S2), or the open run (S1).
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
      /**
       * The id of the worker whose run had lapsed, where this start counts a crash for it (S10); `unknown` where the store
       * does not have it. Left out otherwise.
       */
      readonly lostWorker?: string | undefined
    }
  | {
      readonly _tag: "Drop"
      /** How this start ended the task. Left out where it did not. */
      readonly ended?: EndedByStart | undefined
    }
  | { readonly _tag: "NoRecord" }
  | { readonly _tag: "Busy"; readonly millis: number }

/**
 * The end of a task by a start, as the record has it from then on.
 *
 * @category models
 * @since 0.1.0
 */
export interface EndedByStart {
  readonly reason: Exclude<StoreDecidedEnd, "Forgotten">
  /** Starts of the generation, without this one and those that were released. */
  readonly attempt: number
  readonly crashes: number
  /** The id of the worker of the last run; `null` where there was none. */
  readonly worker: string | null
}

/**
 * What all starts of one task have in common, for a store that starts messages as it delivers them.
 *
 * @see {@link Start} for what each field means
 * @see `Fusion.claim`, which takes them
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
  /**
   * The answer of its start, under a token that the store made; never `NoRecord`. `undefined`: the worker has to start
   * it.
   */
  readonly run: { readonly token: string; readonly started: Started } | undefined
}

/**
 * A message that came after a fused claim: the store claimed it for the worker of that claim as it was enqueued, and started
 * its run in the same step.
 *
 * @see `FusedClaimRequest`, which says where it is passed to
 *
 * @category models
 * @since 0.1.0
 */
export interface HandedOver {
  readonly message: ClaimedMessage
  /** Milliseconds for which the lease has run, at most. */
  readonly leasedMillis: number
}

/**
 * A request for messages that are started as they are claimed.
 *
 * @category models
 * @since 0.1.0
 */
export interface FusedClaimRequest extends ClaimRequest {
  /** The at-least-once tasks of the worker. */
  readonly startDefaults: ReadonlyArray<StartDefaults>
  /**
   * Takes what the store hands over later: a claim that finds less than `max` may wait for as many messages as it did not
   * find, until the next claim of the worker, or `closeClaim`. A store may leave it unused. It runs to its end at once, and
   * does not throw.
   *
   * `false`: the worker does not take the message now. The store keeps it, as one that was lost on the way, for the answer of
   * the worker's next claim, or of `closeClaim`.
   */
  readonly onHandedOver?: ((handedOver: HandedOver) => boolean) | undefined
}

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
 * The answer of `renew`.
 *
 * **Details**
 *
 * - `Lost` (N1): there is no record, no open run, or another token.
 * - `Held` (N2): the lease is renewed. This also revives a lapsed lease, as long as no other start took the run over.
 * - `CancelRequested` (N2): the lease is renewed, and the task was asked to stop.
 * - `Unknown` (N3): nothing was renewed, since something else holds the record at the moment, such as an open transaction. A
 *   renewal never waits for it, because the runs of a batch would lose their leases for the sake of one.
 * - `ProgressRefused` (N4): the lease is renewed, and the progress was not written, since the store is full.
 *
 * @category models
 * @since 0.1.0
 */
export type Renewed = "Held" | "CancelRequested" | "Lost" | "Unknown" | "ProgressRefused"

/**
 * How a run ended.
 *
 * **Details**
 *
 * - `Success`, `Failure`: the task ends with this exit. `retentionMillis` replaces that of the record.
 * - `Retry`: the task returns to `RETRY`, due in `afterMillis`, and `retries` grows by one. `failure` is appended to the
 *   history of the task's generation.
 * - `Release`: the task returns to `PENDING`, or to `RETRY` if it has been retried, due at once; the attempt is
 *   subtracted again.
 *
 * `Retry` and `Release` end the task as `Cancelled` instead if that was requested, or if its message was withdrawn (T2).
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
  | {
      readonly _tag: "Retry"
      readonly afterMillis: number
      /**
       * What made the attempt fail: ASCII text of at most 8 KiB, which ends with a line break. The store appends it to
       * what it has, and keeps the last `maxHistorySize` characters: see `BackendDriver.readHistory`.
       */
      readonly failure?: string | undefined
    }
  | { readonly _tag: "Release" }

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
