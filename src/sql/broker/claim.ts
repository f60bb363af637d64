/**
 * Claims messages.
 */
import { Effect } from "effect"
import type { Batch, ClaimRequest, Delivery } from "../../BrokerDriver.ts"
import type { Database, StoreError } from "../Database.ts"
import * as Row from "../Row.ts"
import { toMillis } from "../toMillis.ts"
import {
  byClaimOrder,
  CLAIM_ORDER,
  CLAIMED,
  handleSuffix,
  isHeldBy,
  type MessageRow,
  PARKED,
  READY,
  shape,
  toDelivery
} from "./MessageRow.ts"

/** How many messages a claim makes ready at most, besides as many as it claims. */
const PROMOTE_LIMIT = 2000

/** The steps of a claim. All of them need a transaction. */
export interface ClaimOperations {
  /** Makes ready the messages whose delay or lease is over, and removes parked ones that outlived their retention. */
  readonly promote: (queues: Batch<string>, max: number) => Effect.Effect<void, StoreError>
  /** Claims messages that are ready. */
  readonly claim: (claim: ClaimRequest) => Effect.Effect<ReadonlyArray<Delivery>, StoreError>
  /** Returns the messages that an earlier attempt of the same claim holds, and renews their leases. */
  readonly reclaim: (claim: ClaimRequest) => Effect.Effect<ReadonlyArray<Delivery>, StoreError>
}

const COLUMNS = "seq, id, task, incarnation, generation, queue, priority, due_at, waits_since, body"

/** Claims over one database. */
export const makeClaim = ({ deleteByKeys, dialect, reader, run, table }: Database): ClaimOperations => {
  const { forUpdate, inList, list, now, skipLocked } = dialect
  const messages = table("messages")
  const readDue = reader<{ readonly seq: number; readonly state: number }>("messages", {
    seq: Row.integer,
    state: Row.integer
  })
  const readMessages = reader<MessageRow>("messages", shape)

  const selectDue = `SELECT seq, state FROM ${messages} WHERE queue = ? AND wake_at <= ${now}
    ORDER BY wake_at LIMIT ? ${skipLocked}`
  // the handle of a lapsed claim stays valid until another claim takes the message
  const makeReady = `UPDATE ${messages} SET state = ${READY}, wake_at = NULL WHERE ${inList("seq", "integer")}`
  const remove = deleteByKeys<number>({ table: "messages", key: ["seq", "integer"] })
  const selectReady = `SELECT ${COLUMNS}, ${now} AS now FROM ${messages}
    WHERE state = ${READY} AND queue = ? ${CLAIM_ORDER} LIMIT ? ${skipLocked}`
  const take = `UPDATE ${messages}
    SET state = ${CLAIMED}, wake_at = ${now} + ?, claim = ${dialect.concat("seq", "?")}
    WHERE ${inList("seq", "integer")}`
  const selectHeld = `SELECT ${COLUMNS}, ${now} AS now FROM ${messages}
    WHERE queue = ? AND ${isHeldBy(dialect, "?", "?")} ${forUpdate}`
  const renewHeld = `UPDATE ${messages} SET wake_at = ${now} + ? WHERE ${inList("seq", "integer")}`

  const seqs = (rows: ReadonlyArray<{ readonly seq: number }>) => list(rows.map(({ seq }) => seq))

  const promote = Effect.fnUntraced(function* (
    queues: Batch<string>,
    max: number
  ): Effect.fn.Return<void, StoreError> {
    for (const queue of queues) {
      const rows = yield* Effect.flatMap(run(selectDue, [queue, PROMOTE_LIMIT + max]), readDue)
      const due = rows.filter(({ state }) => state !== PARKED)
      if (due.length > 0) yield* run(makeReady, [seqs(due)])
      if (due.length < rows.length)
        yield* remove(rows.filter(({ state }) => state === PARKED).map(({ seq }) => seq))
    }
  })

  const claim = Effect.fnUntraced(function* (
    request: ClaimRequest
  ): Effect.fn.Return<ReadonlyArray<Delivery>, StoreError> {
    const { leaseMillis, max, queues } = request
    const found = yield* Effect.forEach(new Set(queues), (queue) =>
      Effect.flatMap(run(selectReady, [queue, max]), readMessages)
    )
    const rows = found.length === 1 ? found[0]! : found.flat().sort(byClaimOrder).slice(0, max)
    if (rows.length === 0) return []
    const suffix = handleSuffix(request)
    yield* run(take, [toMillis(leaseMillis), suffix, seqs(rows)])
    return rows.map((row) => toDelivery(row, suffix))
  })

  const reclaim = Effect.fnUntraced(function* (
    request: ClaimRequest
  ): Effect.fn.Return<ReadonlyArray<Delivery>, StoreError> {
    const suffix = handleSuffix(request)
    const lease = toMillis(request.leaseMillis)
    const found = yield* Effect.forEach(new Set(request.queues), (queue) =>
      Effect.flatMap(run(selectHeld, [queue, lease, suffix]), readMessages)
    )
    const rows = found.flat().sort(byClaimOrder).slice(0, request.max)
    if (rows.length > 0) yield* run(renewHeld, [lease, seqs(rows)])
    return rows.map((row) => toDelivery(row, suffix))
  })

  return { promote, claim, reclaim }
}
