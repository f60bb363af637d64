/**
 * The backend's port over SQL: the operations, each in its transaction, and the news of what they changed.
 */
import { Effect } from "effect"
import type { BackendDriver, NewRecord, Settled, Settlement } from "../../BackendDriver.ts"
import type { Batch } from "../../BrokerDriver.ts"
import type { Database, StoreError } from "../Database.ts"
import { isPermanent } from "../isPermanent.ts"
import type { TaskNotifier, ChangeKind } from "../notify/TaskNotifier.ts"
import type { BatchResult } from "./BatchResult.ts"
import * as Stopping from "./cancel.ts"
import type { CreateOperations } from "./create.ts"
import * as DeadLetters from "./deadLetters.ts"
import * as Reading from "./read.ts"
import * as Leasing from "./renew.ts"
import * as Starting from "./start.ts"
import * as Retention from "./sweep.ts"
import type { TaskRows } from "./TaskRows.ts"
import * as Workers from "./workers.ts"

/** What the driver shares with others of the same store. */
export interface BackendParts {
  readonly db: Database
  /** Whether `changes` tells anybody; otherwise whoever waits has to read. */
  readonly hints: boolean
  readonly changes: TaskNotifier
  readonly records: TaskRows
  readonly enqueuing: CreateOperations
  /** Belongs into a transaction. */
  readonly settle: (batch: Batch<Settlement>) => Effect.Effect<BatchResult<Settled>, StoreError>
}

/** Runs an operation in a transaction, or what comes to one, and tells what it changed once that is committed. */
const committed =
  ({ changes, db }: BackendParts, transaction: Database["inTransaction"]) =>
  <In, A>(operation: (batch: In) => Effect.Effect<BatchResult<A>, StoreError>, kind: ChangeKind = "end") =>
  (batch: In): Effect.Effect<ReadonlyArray<A>, StoreError> =>
    db.outsideTransaction(
      Effect.map(
        transaction(
          Effect.tap(operation(batch), ({ changed, ended = [] }) =>
            changes.recordChanges([...changed, ...ended])
          )
        ),
        ({ answers, changed, ended = [] }) => {
          changes.notify(changed, kind)
          changes.notify(ended, "end")
          return answers
        }
      )
    )

/** Tells of records that came. */
export const notifyCreated =
  ({ changes }: BackendParts) =>
  (records: ReadonlyArray<NewRecord>): void =>
    changes.notifyLocal(records.map(({ id }) => id))

/** The driver, without what it may do together with a broker. */
export const make = (parts: BackendParts, options: { readonly name: string }): BackendDriver<StoreError> => {
  const { changes, db, enqueuing, records } = parts
  const { outsideTransaction: apart } = db
  const inTransaction = committed(parts, db.inTransaction)
  const inOne = committed(parts, db.inTransactionIfNeeded)
  const tellCreated = notifyCreated(parts)
  const reading = Reading.make(db, records)
  const stopping = Stopping.make(db, records)
  const letters = DeadLetters.make(db, records)
  const workers = Workers.make(db)
  const sweep = inTransaction(Retention.make(db, records))
  // tasks that were looked at too soon must not keep it from what lies behind them
  const sweepUpTo = (limit: number): Effect.Effect<number, StoreError> =>
    Effect.flatMap(sweep(limit), ([swept]) => {
      const { count, looked } = swept!
      const left = limit - count
      return looked < limit || left <= 0
        ? Effect.succeed(count)
        : Effect.map(sweepUpTo(left), (more) => count + more)
    })

  const endLapsed = inTransaction(reading.endLapsed)
  const forget = inTransaction(stopping.forget)
  const getMany = (ids: Batch<string>) =>
    Effect.flatMap(reading.read(ids), ({ lapsed, records: found }) =>
      lapsed.length === 0
        ? Effect.succeed(found)
        : Effect.andThen(
            endLapsed(lapsed),
            Effect.map(reading.read(ids), (again) => again.records)
          )
    )

  return {
    name: options.name,
    capabilities: {
      hints: parts.hints,
      prefersLargeBatches: db.dialect.name !== "sqlite"
    },
    batchKey: db.transactionOf,
    isPermanent,
    create: (batch) =>
      Effect.tap(db.inCallerTransaction(enqueuing.create(batch)), () =>
        db.afterCommit(() => tellCreated(batch))
      ),
    markPublished: (ids) => db.inCallerTransaction(enqueuing.markPublished(ids)),
    start: inTransaction(Starting.make(db, records), "step"),
    renew: inOne(Leasing.make(db), "step"),
    settle: inTransaction(parts.settle),
    parkMessage: (parked) => apart(db.inTransaction(letters.park(parked))),
    read: (ids) => apart(getMany(ids)),
    subscribe: (ids, until = "change") => apart(Effect.andThen(changes.subscribe(ids, until), getMany(ids))),
    unsubscribe: (ids) => Effect.sync(() => changes.unsubscribe(ids)),
    ...(parts.hints ? { hints: changes.hints } : {}),
    cancel: (ids) =>
      apart(
        Effect.map(
          db.inTransaction(
            Effect.tap(stopping.cancel(ids), ({ changed }) => changes.recordChangesForAll(changed))
          ),
          ({ answers, changed }) => {
            changes.notifyAll(changed)
            return answers
          }
        )
      ),
    forget: (ids) => Effect.asVoid(forget(ids)),
    reopen: inTransaction(letters.reopen),
    getDeadLetters: (ids) => apart(letters.getMany(ids)),
    listDeadLetters: (page) => apart(letters.list(page)),
    countDeadLetters: (task) => apart(letters.count(task)),
    removeDeadLetters: (ids) => apart(db.inTransaction(letters.remove(ids))),
    heartbeat: (worker, ttlMillis) => apart(workers.heartbeat(worker, ttlMillis)),
    unregisterWorker: (worker) => apart(workers.farewell(worker)),
    workers: apart(workers.list),
    sweep: (limit) => Effect.tap(sweepUpTo(limit), () => apart(changes.trim))
  }
}
