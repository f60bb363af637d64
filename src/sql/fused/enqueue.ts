/**
 * Enqueues tasks: creates their records and publishes their messages in one step.
 */
import { Array as Arr, Effect } from "effect"
import type { Created } from "../../BackendDriver.ts"
import type { Batch } from "../../BrokerDriver.ts"
import { type BackendParts, notifyCreated } from "../backend/SqlBackendDriver.ts"
import { type BrokerParts, notifyPublished } from "../broker/SqlBrokerDriver.ts"
import type { StoreError } from "../Database.ts"
import { distinctBatches, type Indexed } from "../distinctBatches.ts"
import {
  makeEnqueue as makeEnqueueStatement,
  makeEnqueueAllNew,
  makeEnqueueByView,
  type NewTask
} from "./singleStatement.ts"

/** Enqueues a batch; returns an answer for each task. */
type Enqueue = (tasks: Batch<NewTask>) => Effect.Effect<ReadonlyArray<Created>, StoreError>

/** Neither an id nor a key was given, so that no other task can have it. */
const isFresh = ({ record }: NewTask): boolean => record.payloadHash === "" && record.key === undefined

const isTaken = (error: StoreError): boolean =>
  error._tag === "SqlError" && error.reason._tag === "UniqueViolation"

/** Publishes the messages of the records that were created. */
const publishCreated = (
  { messages }: BrokerParts,
  tasks: ReadonlyArray<NewTask>,
  answers: ReadonlyArray<Created>
) => {
  const created = tasks.filter((_, index) => answers[index]!._tag === "Created").map(({ message }) => message)
  return Arr.isReadonlyArrayNonEmpty(created) ? messages.publish(created) : Effect.void
}

/** Enqueues with several statements, in a transaction. */
const makeInTransaction =
  ({ creating, db }: BackendParts, broker: BrokerParts): Enqueue =>
  (tasks) =>
    db.inTransaction(
      Effect.tap(creating.create(Arr.map(tasks, ({ record }) => record)), (answers) =>
        publishCreated(broker, tasks, answers)
      )
    )

/** Enqueues new tasks with one statement, and others with several. */
const makeByView = (backend: BackendParts, broker: BrokerParts): Enqueue => {
  const enqueueNew = makeEnqueueByView(backend.db)
  const inTransaction = makeInTransaction(backend, broker)
  const { maxRows } = backend.db.dialect
  const allCreated = (tasks: Batch<NewTask>) => tasks.map((): Created => ({ _tag: "Created" }))
  return (tasks) =>
    tasks.length <= maxRows && tasks.every(isFresh)
      ? Effect.catchIf(Effect.as(enqueueNew(tasks), allCreated(tasks)), isTaken, () => inTransaction(tasks))
      : inTransaction(tasks)
}

/** Enqueues with one statement, and those tasks whose id or key is taken with several more. */
const makeInSingleStatement = ({ creating, db }: BackendParts, broker: BrokerParts): Enqueue => {
  const enqueue = makeEnqueueStatement(db)
  const enqueueAllNew = makeEnqueueAllNew(db)

  /** Enqueues those tasks that are new. A statement that fails would end a caller's transaction. */
  const enqueueNew = (tasks: ReadonlyArray<NewTask>): Effect.Effect<ReadonlySet<string>, StoreError> =>
    Effect.withFiber(({ context }) =>
      tasks.every(isFresh) && db.transactionOf(context) === undefined
        ? Effect.catchIf(enqueueAllNew(tasks), isTaken, () => enqueue(tasks))
        : enqueue(tasks)
    )
  const enqueueTaken = (taken: ReadonlyArray<Indexed<NewTask>>) =>
    db.inTransaction(
      Effect.tap(
        creating.createTaken(taken.map(({ index, item }) => ({ index, item: item.record }))),
        (answers) =>
          publishCreated(
            broker,
            taken.map(({ item }) => item),
            taken.map(({ index }) => answers.get(index)!)
          )
      )
    )
  const enqueueDistinct = Effect.fnUntraced(function* (
    items: ReadonlyArray<Indexed<NewTask>>,
    answers: Array<Created>
  ): Effect.fn.Return<void, StoreError> {
    const created = yield* db.retryOnDeadlock(enqueueNew(items.map(({ item }) => item)))
    const taken = items.filter(({ index, item }) => {
      if (!created.has(item.record.id)) return true
      answers[index] = { _tag: "Created" }
      return false
    })
    if (taken.length === 0) return
    for (const [index, answer] of yield* enqueueTaken(taken)) answers[index] = answer
  })

  return (tasks) =>
    Effect.suspend(() => {
      const answers: Array<Created> = []
      return Effect.as(
        Effect.forEach(
          distinctBatches(tasks, ({ record }) => record.id),
          (items) => enqueueDistinct(items, answers),
          { discard: true }
        ),
        answers
      )
    })
}

/** Makes the operation. In a caller's transaction it notifies after the commit. */
export const makeEnqueue = (backend: BackendParts, broker: BrokerParts): Enqueue => {
  const { db } = backend
  const { enqueueView, writableCtes } = db.dialect
  const make = writableCtes ? makeInSingleStatement : enqueueView ? makeByView : makeInTransaction
  const enqueue = make(backend, broker)
  return (tasks) =>
    Effect.tap(db.inCallerTransaction(enqueue(tasks)), (answers) => {
      const created = tasks.filter((_, index) => answers[index]!._tag === "Created")
      if (created.length === 0) return Effect.void
      return db.afterCommit(() => {
        notifyCreated(
          backend,
          created.map(({ record }) => record)
        )
        notifyPublished(
          broker,
          created.map(({ message }) => message)
        )
      })
    })
}
