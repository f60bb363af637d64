/**
 * Implements the backend's port over SQL: runs each operation in its transaction, and notifies of what it changed.
 */
import { Effect } from "effect"
import type {
  BackendDriver,
  NewRecord,
  Settled,
  Settlement,
  Start,
  Started,
  Swept
} from "../../BackendDriver.ts"
import type { Batch } from "../../BrokerDriver.ts"
import type { Database, StoreError } from "../Database.ts"
import { isPermanent } from "../isPermanent.ts"
import type { ChangeKind, TaskNotifier } from "../notify/TaskNotifier.ts"
import type { BatchResult } from "./BatchResult.ts"
import { makeCancel } from "./cancel.ts"
import type { CreateOperations } from "./create.ts"
import { makeDeadLetters } from "./deadLetters.ts"
import { makeDocuments } from "./documents.ts"
import { makeForget } from "./forget.ts"
import { makeRead, type ReadOperations } from "./read.ts"
import { makeRenew } from "./renew.ts"
import { makeReopen } from "./reopen.ts"
import { makeSweep } from "./sweep.ts"
import type { TaskRows } from "./TaskRows.ts"
import { makeWithdraw } from "./withdraw.ts"
import { makeWorkers } from "./workers.ts"

/** The parts that the driver shares with the fused operations. */
export interface BackendParts {
  readonly db: Database
  readonly notifier: TaskNotifier
  readonly taskRows: TaskRows
  readonly creating: CreateOperations
  /** Needs a transaction. */
  readonly start: (batch: Batch<Start>) => Effect.Effect<BatchResult<Started>, StoreError>
  /** Needs a transaction. */
  readonly settle: (batch: Batch<Settlement>) => Effect.Effect<BatchResult<Settled>, StoreError>
}

/** Runs an operation in a transaction, and notifies of what it changed after the commit. */
const makeNotifying =
  ({ db, notifier }: BackendParts, inTransaction: Database["inTransaction"]) =>
  <In, A>(
    operation: (batch: In) => Effect.Effect<BatchResult<A>, StoreError>,
    kind: ChangeKind = "end"
  ): ((batch: In) => Effect.Effect<ReadonlyArray<A>, StoreError>) =>
  (batch) =>
    db.outsideTransaction(
      Effect.map(
        inTransaction(
          Effect.tap(operation(batch), ({ changed, ended = [] }) =>
            notifier.recordChanges([...changed, ...ended])
          )
        ),
        ({ answers, changed, ended = [] }) => {
          notifier.notify(changed, kind)
          notifier.notify(ended, "end")
          return answers
        }
      )
    )

/** Notifies waiters of this process of records that were created. */
export const notifyCreated = ({ notifier }: BackendParts, records: ReadonlyArray<NewRecord>): void =>
  notifier.notifyLocal(records.map(({ id }) => id))

/** Sweeps until the limit is reached: tasks that are checked too early must not hold up those behind them. */
const makeSweepUpTo = (parts: BackendParts): ((limit: number) => Effect.Effect<Swept, StoreError>) => {
  const { db, taskRows } = parts
  const sweep = makeNotifying(parts, db.inTransaction)(makeSweep(db, taskRows))
  const sweepUpTo = (limit: number): Effect.Effect<Swept, StoreError> =>
    Effect.flatMap(sweep(limit), ([step]) => {
      const { checked, handled, lost } = step!
      const left = limit - handled
      return checked < limit || left <= 0
        ? Effect.succeed({ handled, lost })
        : Effect.map(sweepUpTo(left), (more) => ({
            handled: handled + more.handled,
            lost: [...lost, ...more.lost]
          }))
    })
  return sweepUpTo
}

/**
 * Reads records, after it has ended those that have lapsed. In a caller's transaction it writes nothing, since the locks
 * of what it wrote would be held until the commit: it returns the lapsed ones as ended.
 */
const makeReadOperation = (
  parts: BackendParts,
  { endLapsed, read }: ReadOperations
): BackendDriver<StoreError>["read"] => {
  const { db } = parts
  const end = makeNotifying(parts, db.inTransaction)(endLapsed)
  return (ids) =>
    Effect.withFiber(({ context }) =>
      Effect.flatMap(read(ids), ({ lapsed, records }) =>
        lapsed.length === 0 || db.transactionOf(context) !== undefined
          ? Effect.succeed(records)
          : Effect.andThen(
              end(lapsed),
              Effect.map(read(ids), (again) => again.records)
            )
      )
    )
}

/** Cancels, and notifies all processes: the worker of a running task has no subscription to it. */
const makeNotifyingCancel = ({
  db,
  notifier,
  taskRows
}: BackendParts): BackendDriver<StoreError>["cancel"] => {
  const cancel = makeCancel(db, taskRows)
  return (ids) =>
    db.outsideTransaction(
      Effect.map(
        db.inTransaction(Effect.tap(cancel(ids), ({ changed }) => notifier.recordChangesForAll(changed))),
        ({ answers, changed }) => {
          notifier.notifyAll(changed)
          return answers
        }
      )
    )
}

/** Makes the driver without `complete` and `fusion`, which need the broker of the same database. */
export const make = (parts: BackendParts, options: { readonly name: string }): BackendDriver<StoreError> => {
  const { creating, db, notifier, taskRows } = parts
  const { inCallerTransaction, outsideTransaction, readsInCallerTransaction } = db
  const notifying = makeNotifying(parts, db.inTransaction)
  const withdraw = notifying(makeWithdraw(db, taskRows))
  const forget = notifying(makeForget(db, taskRows))
  const reopen = makeReopen(db, taskRows)
  const reads = makeRead(db, taskRows)
  const read = makeReadOperation(parts, reads)
  const deadLetters = makeDeadLetters(db)
  const workers = makeWorkers(db)
  const sweepUpTo = makeSweepUpTo(parts)

  return {
    name: options.name,
    capabilities: {
      hints: notifier.hints !== undefined,
      prefersLargeBatches: !db.dialect.isLocalFile,
      maxBytes: db.maxBytes,
      sharedConnections: db.connections
    },
    batchKey: db.transactionOf,
    isPermanent,
    create: (batch) =>
      Effect.tap(inCallerTransaction(creating.create(batch)), () =>
        db.afterCommit(() => notifyCreated(parts, batch))
      ),
    markPublished: (records) => inCallerTransaction(creating.markPublished(records)),
    start: notifying(parts.start, "step"),
    renew: makeNotifying(parts, db.inTransactionIfNeeded)(makeRenew(db), "step"),
    settle: notifying(parts.settle),
    parkMessage: (messages) => outsideTransaction(db.inTransaction(deadLetters.park(messages))),
    read: (ids) => readsInCallerTransaction(read(ids)),
    readHistory: (ids) => readsInCallerTransaction(reads.readHistory(ids)),
    subscribe: (ids, until = "change") =>
      outsideTransaction(Effect.andThen(notifier.subscribe(ids, until), read(ids))),
    unsubscribe: (ids) => Effect.sync(() => notifier.unsubscribe(ids)),
    hints: notifier.hints,
    cancel: makeNotifyingCancel(parts),
    withdraw: (messages) => Effect.asVoid(withdraw(messages)),
    forget: (ids) => Effect.asVoid(forget(ids)),
    reopen: (ids, reservedMillis) => notifying((batch: Batch<string>) => reopen(batch, reservedMillis))(ids),
    getDeadLetters: (ids) => readsInCallerTransaction(deadLetters.getMany(ids)),
    listDeadLetters: (page) => readsInCallerTransaction(deadLetters.list(page)),
    listDeadLetterIds: (page) => readsInCallerTransaction(deadLetters.listIds(page)),
    countDeadLetters: (task) => readsInCallerTransaction(deadLetters.count(task)),
    removeDeadLetters: (ids) => outsideTransaction(db.inTransaction(deadLetters.remove(ids))),
    heartbeat: (worker, ttlMillis) => outsideTransaction(workers.heartbeat(worker, ttlMillis)),
    unregisterWorker: (worker) => outsideTransaction(workers.unregister(worker)),
    workers: readsInCallerTransaction(workers.list),
    documents: makeDocuments(db),
    sweep: (limit) => Effect.tap(sweepUpTo(limit), () => outsideTransaction(notifier.trim))
  }
}
