/**
 * Settles runs and acks or releases their messages in one step.
 */
import { Array as Arr, Effect } from "effect"
import type { Settled, Settlement } from "../../BackendDriver.ts"
import type { Batch, Release } from "../../BrokerDriver.ts"
import { redeliveryDelay } from "../../internal/driver/redeliveryDelay.ts"
import { type FinalSettlement, isPlain } from "../backend/settle.ts"
import type { BackendParts } from "../backend/SqlBackendDriver.ts"
import type { BrokerParts } from "../broker/SqlBrokerDriver.ts"
import type { StoreError } from "../Database.ts"
import { makeSettle as makeSettleStatement } from "./singleStatement.ts"

interface RunToSettle {
  readonly settlement: Settlement
  readonly handle: string
}

/** Settles a batch; returns an answer for each run. */
type Settle = (items: Batch<RunToSettle>) => Effect.Effect<ReadonlyArray<Settled>, StoreError>

/** Acks or releases the messages of settled runs; returns what it released. */
const makeFollowUp = ({ messages }: BrokerParts) =>
  Effect.fnUntraced(function* (items: ReadonlyArray<RunToSettle>, answers: ReadonlyArray<Settled>) {
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
    return Arr.isReadonlyArrayNonEmpty(releases) ? yield* messages.release(releases) : undefined
  })

/** Settles with several statements, in a transaction. */
const makeInTransaction = ({ db, notifier, settle }: BackendParts, broker: BrokerParts): Settle => {
  const followUp = makeFollowUp(broker)
  return (items) => {
    const settleAll = Effect.gen(function* () {
      const { answers, changed } = yield* settle(Arr.map(items, ({ settlement }) => settlement))
      yield* notifier.recordChanges(changed)
      const released = yield* followUp(items, answers)
      return { answers, changed, released }
    })
    return Effect.map(db.inTransaction(settleAll), ({ answers, changed, released }) => {
      notifier.notify(changed, "end")
      if (released !== undefined) broker.readySignal.notify(released.queues, released.firstMillis)
      return answers
    })
  }
}

type PlainRunToSettle = RunToSettle & { readonly settlement: FinalSettlement }

const isPlainRun = (item: RunToSettle): item is PlainRunToSettle => isPlain(item.settlement)

/** Returns the plain settlements, the first one of every task, in the order of the ids. */
const plainRuns = (items: ReadonlyArray<RunToSettle>): ReadonlyArray<PlainRunToSettle> => {
  const seen = new Set<string>()
  const plain: Array<PlainRunToSettle> = []
  for (const item of items) {
    const { id } = item.settlement
    if (!seen.has(id) && isPlainRun(item)) plain.push(item)
    seen.add(id)
  }
  // in the order of the ids, in which all transactions lock rows
  return plain.sort((one, other) => (one.settlement.id < other.settlement.id ? -1 : 1))
}

/** Settles plain outcomes with one statement, and the others with several more. */
const makeInSingleStatement = (backend: BackendParts, broker: BrokerParts): Settle => {
  const { db, notifier } = backend
  const settlePlain = makeSettleStatement(db)
  const settleRest = makeInTransaction(backend, broker)
  return Effect.fnUntraced(function* (
    items: Batch<RunToSettle>
  ): Effect.fn.Return<ReadonlyArray<Settled>, StoreError> {
    const plain = plainRuns(items)
    const settled = yield* db.retryOnDeadlock(settlePlain(plain))
    notifier.notify([...settled], "end")
    const done: ReadonlySet<RunToSettle> = new Set(
      plain.filter(({ settlement }) => settled.has(settlement.id))
    )
    const isSettled = (item: RunToSettle) => done.has(item)
    const rest = items.filter((item) => !isSettled(item))
    const answers = Arr.isReadonlyArrayNonEmpty(rest) ? yield* settleRest(rest) : []
    let next = 0
    return items.map((item) => (isSettled(item) ? "Stored" : answers[next++]!))
  })
}

/** Makes the operation. */
export const makeSettle = (backend: BackendParts, broker: BrokerParts): Settle => {
  const { db } = backend
  const settle = db.dialect.writableCtes
    ? makeInSingleStatement(backend, broker)
    : makeInTransaction(backend, broker)
  return (items) => db.outsideTransaction(settle(items))
}
