/**
 * The operations of a backend as the library's own modules call them: the driver's, in batches, with `BackendError`.
 *
 * A `Batcher` sends the items of concurrent fibers in one call; the other operations are one call each.
 */
import type { Effect } from "effect"
import type {
  BackendDriver,
  CancelAnswer,
  ClaimedMessage,
  Completion,
  Created,
  DeadLetter,
  DeadLetterId,
  DeadLetterQuery,
  FusedClaimRequest,
  Documents,
  Heartbeat,
  NewRecord,
  PublishedRecord,
  ParkedMessage,
  Renew,
  Renewed,
  Reopened,
  Settled,
  Settlement,
  Start,
  Started,
  Swept,
  TaskRecord,
  WorkerInfo
} from "../../BackendDriver.ts"
import type { Batch, Envelope, PurgedMessage } from "../../BrokerDriver.ts"
import type { ReadError } from "../../StoreError.ts"
import type { Batcher } from "../concurrency/Batcher.ts"
import type { Outages } from "./Outages.ts"
import type { Subscriptions } from "./Subscriptions.ts"

/** The operations of `Fusion`. */
export interface FusedService {
  readonly store: object
  readonly enqueue: Batcher<{ readonly record: NewRecord; readonly message: Envelope }, Created, ReadError>
  readonly claim:
    | ((claim: FusedClaimRequest) => Effect.Effect<ReadonlyArray<ClaimedMessage>, ReadError>)
    | undefined
  readonly closeClaim:
    | ((worker: string) => Effect.Effect<ReadonlyArray<ClaimedMessage>, ReadError>)
    | undefined
  readonly settle: Batcher<{ readonly settlement: Settlement; readonly handle: string }, Settled, ReadError>
}

/** The operations of `BackendDriver`, where no comment says otherwise. */
export interface BackendService {
  /** The store's name. */
  readonly name: string
  /** Logs the outages of the store, which the other service of the same store shares. */
  readonly outages: Outages
  /** `false` for `Backend.layerNotConfigured`, whose operations all fail. */
  readonly configured: boolean
  /** The retention of tasks that set none; `Infinity`: forever. */
  readonly retentionMillis: number
  readonly capabilities: BackendDriver["capabilities"]
  /** Used with a broker of the same store; `undefined`: the store has none. */
  readonly fusion: FusedService | undefined
  readonly create: Batcher<NewRecord, Created, ReadError>
  readonly markPublished: Batcher<PublishedRecord, boolean, ReadError>
  readonly start: (starts: Batch<Start>) => Effect.Effect<ReadonlyArray<Started>, ReadError>
  readonly renew: Batcher<Renew, Renewed, ReadError>
  readonly settle: Batcher<Settlement, Settled, ReadError>
  /** `undefined`: the store has no transactions that callers open. */
  readonly complete: ((completion: Completion) => Effect.Effect<Settled, ReadError>) | undefined
  readonly parkMessage: (messages: Batch<ParkedMessage>) => Effect.Effect<void, ReadError>
  readonly read: Batcher<string, TaskRecord | undefined, ReadError>
  /** `undefined`: the store keeps no histories. */
  readonly readHistory: Batcher<string, string | undefined, ReadError> | undefined
  /** Notifies waiters of changes; `undefined`: the store gives no hints, and waiters poll with `read`. */
  readonly subscriptions: Subscriptions<ReadError> | undefined
  readonly cancel: Batcher<string, CancelAnswer, ReadError>
  readonly withdraw: (messages: Batch<PurgedMessage>) => Effect.Effect<void, ReadError>
  readonly forget: Batcher<string, void, ReadError>
  readonly reopen: (
    deadLetterIds: Batch<string>,
    reservedMillis: number
  ) => Effect.Effect<ReadonlyArray<Reopened | undefined>, ReadError>
  readonly getDeadLetters: (
    ids: Batch<string>
  ) => Effect.Effect<ReadonlyArray<DeadLetter | undefined>, ReadError>
  readonly listDeadLetters: (query: DeadLetterQuery) => Effect.Effect<ReadonlyArray<DeadLetter>, ReadError>
  readonly listDeadLetterIds: (
    query: DeadLetterQuery
  ) => Effect.Effect<ReadonlyArray<DeadLetterId>, ReadError>
  readonly countDeadLetters: (task: string | undefined) => Effect.Effect<number, ReadError>
  readonly removeDeadLetters: (ids: Batch<string>) => Effect.Effect<ReadonlyArray<boolean>, ReadError>
  readonly heartbeat: (worker: Heartbeat, ttlMillis: number) => Effect.Effect<void, ReadError>
  readonly unregisterWorker: (worker: string) => Effect.Effect<void, ReadError>
  readonly workers: Effect.Effect<ReadonlyArray<WorkerInfo>, ReadError>
  /**
   * `undefined`: the store keeps no documents. Any number of keys and of writes. What is out of bounds is a `BackendError` that is
   * not retryable.
   */
  readonly documents: Documents<ReadError> | undefined
  readonly sweep: (limit: number) => Effect.Effect<Swept, ReadError>
}
