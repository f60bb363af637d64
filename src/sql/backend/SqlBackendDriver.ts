/**
 * The backend's port over SQL: the operations, each in its transaction, and the news of what they changed.
 */
import { Effect } from "effect"
import type { BackendDriver, NewRecord, Settled, Settlement } from "../../BackendDriver.ts"
import type { Batch } from "../../BrokerDriver.ts"
import type { Database, StoreError } from "../Database.ts"
import { isPermanent } from "../isPermanent.ts"
import type { Changes, Kind } from "../notify/TaskNotifier.ts"
import type { Changed } from "./BatchResult.ts"
import * as Stopping from "./cancel.ts"
import type { Enqueuing } from "./create.ts"
import * as DeadLetters from "./deadLetters.ts"
import * as Reading from "./read.ts"
import * as Leasing from "./renew.ts"
import * as Starting from "./start.ts"
import * as Retention from "./sweep.ts"
import type { Records } from "./TaskRows.ts"
import * as Workers from "./workers.ts"

/** What the driver shares with others of the same store. */
export interface Parts {
  readonly db: Database
  /** Whether `changes` tells anybody; otherwise whoever waits has to read. */
  readonly hints: boolean
  readonly changes: Changes
  readonly records: Records
  readonly enqueuing: Enqueuing
  /** Belongs into a transaction. */
  readonly settle: (batch: Batch<Settlement>) => Effect.Effect<Changed<Settled>, StoreError>
}

/** Runs an operation in a transaction, or what comes to one, and tells what it changed once that is committed. */
const committed =
  ({ changes, db }: Parts, transaction: Database["transaction"]) =>
  <In, A>(operation: (batch: In) => Effect.Effect<Changed<A>, StoreError>, kind: Kind = "end") =>
  (batch: In): Effect.Effect<ReadonlyArray<A>, StoreError> =>
    db.apart(
      Effect.map(
        transaction(
          Effect.tap(operation(batch), ({ changed, ended = [] }) => changes.record([...changed, ...ended]))
        ),
        ({ answers, changed, ended = [] }) => {
          changes.tell(changed, kind)
          changes.tell(ended, "end")
          return answers
        }
      )
    )

/** Tells of records that came. */
export const created =
  ({ changes }: Parts) =>
  (records: ReadonlyArray<NewRecord>): void =>
    changes.tellHere(records.map(({ id }) => id))

/** The driver, without what it may do together with a broker. */
export const make = (parts: Parts, options: { readonly name: string }): BackendDriver<StoreError> => {
  const { changes, db, enqueuing, records } = parts
  const { apart } = db
  const inTransaction = committed(parts, db.transaction)
  const inOne = committed(parts, db.atOnce)
  const tellCreated = created(parts)
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
      Effect.tap(db.joining(enqueuing.create(batch)), () => db.afterCommit(() => tellCreated(batch))),
    markPublished: (ids) => db.joining(enqueuing.markPublished(ids)),
    start: inTransaction(Starting.make(db, records), "step"),
    renew: inOne(Leasing.make(db), "step"),
    settle: inTransaction(parts.settle),
    parkMessage: (parked) => apart(db.transaction(letters.park(parked))),
    getMany: (ids) => apart(getMany(ids)),
    watch: (ids, until = "change") => apart(Effect.andThen(changes.watch(ids, until), getMany(ids))),
    unwatch: (ids) => Effect.sync(() => changes.unwatch(ids)),
    ...(parts.hints ? { hints: changes.hints } : {}),
    cancel: (ids) =>
      apart(
        Effect.map(
          db.transaction(Effect.tap(stopping.cancel(ids), ({ changed }) => changes.recordForAll(changed))),
          ({ answers, changed }) => {
            changes.tellAll(changed)
            return answers
          }
        )
      ),
    forget: (ids) => Effect.asVoid(forget(ids)),
    reopen: inTransaction(letters.reopen),
    getDeadLetters: (ids) => apart(letters.getMany(ids)),
    deadLetters: (page) => apart(letters.list(page)),
    countDeadLetters: (task) => apart(letters.count(task)),
    removeDeadLetters: (ids) => apart(db.transaction(letters.remove(ids))),
    heartbeat: (worker, ttlMillis) => apart(workers.heartbeat(worker, ttlMillis)),
    unregisterWorker: (worker) => apart(workers.farewell(worker)),
    workers: apart(workers.list),
    sweep: (limit) => Effect.tap(sweepUpTo(limit), () => apart(changes.trim))
  }
}
