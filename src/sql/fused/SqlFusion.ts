/**
 * Record and message, claim and start, outcome and acknowledgement: each pair in one transaction, or in one statement
 * where the database can do that and the case is plain.
 */
import { Array as Arr, Effect } from "effect"
import type { ClaimedMessage, Completion, Created, Fusion, Settled, Settlement } from "../../BackendDriver.ts"
import type { Release, Batch } from "../../BrokerDriver.ts"
import { redeliveryDelay } from "../../internal/driver/redeliveryDelay.ts"
import * as Settling from "../backend/settle.ts"
import * as SqlBackendDriver from "../backend/SqlBackendDriver.ts"
import type { Released } from "../broker/Messages.ts"
import * as SqlBrokerDriver from "../broker/SqlBrokerDriver.ts"
import { NoTransaction, distinctBatches, type StoreError } from "../Database.ts"
import * as singleStatement from "./singleStatement.ts"
import type { ToEnqueue } from "./singleStatement.ts"

interface ToSettle {
  readonly settlement: Settlement
  readonly handle: string
}

/**
 * The success of a run, and the acknowledgement of its message, in the caller's transaction; others are told after its
 * commit.
 */
export const makeComplete =
  ({ changes, db, settle }: SqlBackendDriver.BackendParts, { messages }: SqlBrokerDriver.BrokerParts) =>
  ({ handle, settlement }: Completion): Effect.Effect<Settled, StoreError | NoTransaction> =>
    Effect.withFiber<Settled, StoreError | NoTransaction>(({ context }) => {
      if (db.transactionOf(context) === undefined) return Effect.fail(new NoTransaction())
      return Effect.gen(function* () {
        const { answers, changed } = yield* settle([settlement])
        if (handle !== undefined && answers[0] === "Stored") yield* messages.ack([handle])
        yield* changes.recordChanges(changed)
        yield* db.afterCommit(() => changes.notify(changed, "end"))
        return answers[0]!
      })
    })

/** Neither an id nor a key was given, so that nobody else can have taken it. */
const isFresh = ({ record }: ToEnqueue): boolean => record.payloadHash === "" && record.key === undefined

const isTaken = (error: StoreError): boolean =>
  error._tag === "SqlError" && error.reason._tag === "UniqueViolation"

/** Over a backend and a broker in the same tables. */
export const make = (
  backend: SqlBackendDriver.BackendParts,
  broker: SqlBrokerDriver.BrokerParts,
  store: object
): Fusion<StoreError> => {
  const { changes, db, enqueuing, settle: settleRuns } = backend
  const { messages, readiness } = broker
  const tellCreated = SqlBackendDriver.notifyCreated(backend)
  const tellPublished = SqlBrokerDriver.notifyPublished(broker)
  const { writableCtes: chains, update } = db.dialect
  const one = chains && update.answers ? singleStatement.make(db, update.text) : undefined

  // #region Enqueue

  const publishCreated = (items: ReadonlyArray<ToEnqueue>, answers: ReadonlyArray<Created>) => {
    const made = items.filter((_, index) => answers[index]!._tag === "Created").map(({ message }) => message)
    return Arr.isReadonlyArrayNonEmpty(made) ? messages.publish(made) : Effect.void
  }
  const enqueueAll = (items: Batch<ToEnqueue>): Effect.Effect<ReadonlyArray<Created>, StoreError> =>
    db.inTransaction(
      Effect.tap(enqueuing.create(Arr.map(items, ({ record }) => record)), (answers) =>
        publishCreated(items, answers)
      )
    )
  const createInOne = (
    { enqueue, enqueueAllNew: enqueueNew }: singleStatement.SingleStatements,
    items: ReadonlyArray<ToEnqueue>
  ): Effect.Effect<ReadonlySet<string>, StoreError> =>
    Effect.withFiber(({ context }) =>
      // a statement that fails would be the end of a caller's transaction
      items.every(isFresh) && db.transactionOf(context) === undefined
        ? Effect.catchIf(enqueueNew(items), isTaken, () => enqueue(items))
        : enqueue(items)
    )
  const enqueueInOne = (
    one: singleStatement.SingleStatements,
    items: Batch<ToEnqueue>
  ): Effect.Effect<ReadonlyArray<Created>, StoreError> =>
    Effect.suspend(() => {
      const answers: Array<Created> = []
      const round = Effect.fnUntraced(function* (
        numbered: ReadonlyArray<{ readonly item: ToEnqueue; readonly index: number }>
      ) {
        const made = yield* db.retryOnDeadlock(
          createInOne(
            one,
            numbered.map(({ item }) => item)
          )
        )
        const taken = numbered.filter(({ index, item }) => {
          if (!made.has(item.record.id)) return true
          answers[index] = { _tag: "Created" }
          return false
        })
        if (taken.length === 0) return
        const records = taken.map(({ index, item }) => ({ index, item: item.record }))
        const late = yield* db.inTransaction(
          Effect.tap(enqueuing.createTaken(records), (created) =>
            publishCreated(
              taken.map(({ item }) => item),
              taken.map(({ index }) => created.get(index)!)
            )
          )
        )
        for (const [index, answer] of late) answers[index] = answer
      })
      return Effect.as(
        Effect.forEach(
          distinctBatches(items, ({ record }) => record.id),
          round,
          { discard: true }
        ),
        answers
      )
    })

  // #endregion

  // #region Claim

  const claimInOne = Effect.fnUntraced(function* (
    one: singleStatement.SingleStatements,
    asked: Parameters<singleStatement.SingleStatements["claim"]>[0]
  ): Effect.fn.Return<ReadonlyArray<ClaimedMessage>, StoreError> {
    if (asked.isRetry === true) {
      const held = yield* db.retryOnDeadlock(one.reclaim(asked))
      const max = asked.max - held.length
      return max <= 0 ? held : [...held, ...(yield* claimInOne(one, { ...asked, max, isRetry: false }))]
    }
    let claimed = yield* db.retryOnDeadlock(one.claim(asked, true))
    if (claimed === undefined) {
      yield* db.inTransaction(messages.promote(asked.queues, asked.max))
      claimed = (yield* db.retryOnDeadlock(one.claim(asked, false))) ?? []
    }
    changes.notify(
      claimed.flatMap(({ delivery, run }) => (run === undefined ? [] : (delivery.id ?? []))),
      "step"
    )
    return claimed
  })

  // #endregion

  // #region Settle

  const followUp = Effect.fnUntraced(function* (
    items: ReadonlyArray<ToSettle>,
    answers: ReadonlyArray<Settled>
  ) {
    const done: Array<string> = []
    const releases: Array<Release> = []
    for (const [index, { handle, settlement }] of items.entries()) {
      const settled = answers[index]!
      if (settled === "Lost") continue
      const afterMillis = redeliveryDelay(settlement, settled)
      if (afterMillis === undefined) done.push(handle)
      else releases.push({ handle, afterMillis })
    }
    if (Arr.isReadonlyArrayNonEmpty(done)) yield* messages.ack(done)
    if (Arr.isReadonlyArrayNonEmpty(releases)) return yield* messages.release(releases)
    return undefined
  })
  const settleAll = (items: Batch<ToSettle>): Effect.Effect<ReadonlyArray<Settled>, StoreError> => {
    const settle = Effect.gen(function* () {
      const { answers, changed } = yield* settleRuns(Arr.map(items, ({ settlement }) => settlement))
      yield* changes.recordChanges(changed)
      const released: Released | undefined = yield* followUp(items, answers)
      return { answers, changed, released }
    })
    return Effect.map(db.inTransaction(settle), ({ answers, changed, released }) => {
      changes.notify(changed, "end")
      if (released !== undefined) readiness.notify(released.queues, released.firstMillis)
      return answers
    })
  }
  const settleInOne = Effect.fnUntraced(function* (
    { settle }: singleStatement.SingleStatements,
    items: Batch<ToSettle>
  ): Effect.fn.Return<ReadonlyArray<Settled>, StoreError> {
    const seen = new Set<string>()
    const plain = items.filter(({ settlement }) => {
      // the second of one task comes after the first
      const isFirst = !seen.has(settlement.id)
      seen.add(settlement.id)
      return isFirst && Settling.isPlain(settlement)
    })
    // in the order of their ids, as whoever changes several locks them
    plain.sort((one, other) => (one.settlement.id < other.settlement.id ? -1 : 1))
    const done = yield* db.retryOnDeadlock(settle(plain))
    changes.notify([...done], "end")
    const wasPlain = new Set(plain)
    const isDone = (item: ToSettle) => wasPlain.has(item) && done.has(item.settlement.id)
    const rest = items.filter((item) => !isDone(item))
    const answers = Arr.isReadonlyArrayNonEmpty(rest) ? yield* settleAll(rest) : []
    let next = 0
    return items.map((item) => (isDone(item) ? "Stored" : answers[next++]!))
  })

  // #endregion

  return {
    store,
    // in the caller's transaction, if there is one: whoever is to know of it is told after its commit
    enqueue: (items) =>
      Effect.tap(
        db.inCallerTransaction(one === undefined ? enqueueAll(items) : enqueueInOne(one, items)),
        (answers) => {
          const made = items.filter((_, index) => answers[index]!._tag === "Created")
          return made.length === 0
            ? Effect.void
            : db.afterCommit(() => {
                tellCreated(made.map(({ record }) => record))
                tellPublished(made.map(({ message }) => message))
              })
        }
      ),
    claim: one === undefined ? undefined : (asked) => db.outsideTransaction(claimInOne(one, asked)),
    settle: (items) => db.outsideTransaction(one === undefined ? settleAll(items) : settleInOne(one, items))
  }
}
