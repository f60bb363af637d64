/**
 * Claims messages.
 */
import { Effect } from "effect"
import type { Batch, ClaimRequest, Delivery, SetAsideClaim } from "../../BrokerDriver.ts"
import * as Lanes from "../../internal/driver/lanes.ts"
import { maxMessageBytes } from "../../internal/driver/maxMessageBytes.ts"
import { countFitting, RowLimit, shareOf } from "../answerSize.ts"
import type { Database, StoreError } from "../Database.ts"
import * as Row from "../Row.ts"
import { toMillis } from "../toMillis.ts"
import type { SqlLanes } from "./lanes.ts"
import {
  answerBytes,
  byClaimOrder,
  CLAIM_ORDER,
  CLAIMED,
  handlePrefix,
  heldBetween,
  isHeld,
  type MessageRow,
  PARKED,
  READY,
  seqOf,
  shape,
  toDelivery
} from "./MessageRow.ts"

/** How many messages a claim makes ready at most, besides as many as it claims. */
const PROMOTE_LIMIT = 2000

/** What a claim took. */
export interface Claimed {
  readonly deliveries: ReadonlyArray<Delivery>
  /** Whether it left messages that are due, because of their size. */
  readonly leftSome: boolean
}

/** A message that a claim took, and that is ready again. */
export interface PutBack {
  readonly id: string
  readonly handle: string
}

/** What a repeated claim still holds. */
export interface Reclaimed {
  readonly deliveries: ReadonlyArray<Delivery>
  /** What it held beyond that. */
  readonly putBack: ReadonlyArray<PutBack>
}

/** The steps of a claim. All of them need a transaction. */
export interface ClaimOperations {
  /** Makes ready the messages whose delay or lease is over, and removes parked ones that outlived their retention. */
  readonly promote: (queues: Batch<string>, max: number) => Effect.Effect<void, StoreError>
  /** Claims messages that are ready, for an answer that has `taken` bytes already. Default 0. The queues may be lanes. */
  readonly claim: (claim: ClaimRequest, taken?: number) => Effect.Effect<Claimed, StoreError>
  /** Claims messages of a lane that have waited long enough. */
  readonly claimLane: (claim: SetAsideClaim) => Effect.Effect<ReadonlyArray<Delivery>, StoreError>
  /**
   * Returns the messages that an earlier attempt of the same claim holds, and renews their leases. Those that exceed an
   * answer or `max` are ready again.
   */
  readonly reclaim: (claim: ClaimRequest) => Effect.Effect<Reclaimed, StoreError>
  /** Makes claimed messages ready again, as if they had not been claimed. */
  readonly putBack: (handles: ReadonlyArray<string>) => Effect.Effect<void, StoreError>
  /**
   * Puts back what attempts of the same claim took besides those deliveries, and returns it. An earlier attempt that was given
   * up may have been carried out after a later one began.
   */
  readonly putBackOthers: (
    claim: ClaimRequest,
    deliveries: ReadonlyArray<Delivery>
  ) => Effect.Effect<ReadonlyArray<PutBack>, StoreError>
}

/** Returns how many characters the bodies have, about as many as bytes. */
export const sizeOf = (deliveries: ReadonlyArray<Pick<Delivery, "body">>): number =>
  deliveries.reduce((sum, { body }) => sum + body.length, 0)

/** The columns of a message, with its body if that has at most as many bytes as the parameter says. */
const COLUMNS = `seq, id, task, incarnation, generation, queue, priority, due_at, waits_since,
    OCTET_LENGTH(body) AS size, CASE WHEN OCTET_LENGTH(body) <= ? THEN body END AS body`

/** Claims over one database. */
export const makeClaim = (
  { deleteByKeys, dialect, reader, run, table }: Database,
  lanes: SqlLanes
): ClaimOperations => {
  const { byIndex, forUpdate, inList, list, now, skipLocked } = dialect
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
  const selectWaiting = `SELECT ${COLUMNS}, ${now} AS now FROM ${messages}
    WHERE state = ${READY} AND queue = ? AND COALESCE(waits_since, due_at) <= ${now} - ? ${CLAIM_ORDER} LIMIT ? ${skipLocked}`
  const take = `UPDATE ${messages}
    SET state = ${CLAIMED}, wake_at = ${now} + ?, claim = ${dialect.concat("?", "seq")}
    WHERE ${inList("seq", "integer")}`
  const selectHeld = `SELECT ${COLUMNS}, ${now} AS now FROM ${byIndex(messages, "messages_claim")}
    WHERE ${isHeld(dialect)} ${forUpdate}`
  const selectHandles = `SELECT id, claim FROM ${byIndex(messages, "messages_claim")} WHERE ${isHeld(dialect)} ${forUpdate}`
  const readHandles = reader<{ readonly id: string; readonly claim: string }>("messages", {
    id: Row.text,
    claim: Row.text
  })
  const makeUnclaimed = `UPDATE ${messages} SET state = ${READY}, wake_at = NULL, claim = NULL
    WHERE ${inList("seq", "integer")} AND ${inList("claim", "text")}`
  const renewHeld = `UPDATE ${messages} SET wake_at = ${now} + ? WHERE ${inList("seq", "integer")}`

  const selectBodies = `SELECT seq, body FROM ${messages} WHERE ${inList("seq", "integer")}`
  const readBodies = reader<{ readonly seq: number; readonly body: string | Uint8Array }>("messages", {
    seq: Row.integer,
    body: Row.bytes
  })
  const limit = new RowLimit()

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

  /** Returns the deliveries of claimed messages, whose bodies are read where a statement withheld them. */
  const deliver = Effect.fnUntraced(function* (
    rows: ReadonlyArray<MessageRow>,
    prefix: string
  ): Effect.fn.Return<ReadonlyArray<Delivery>, StoreError> {
    const withheld = rows.filter(({ body, size }) => body === null && size <= maxMessageBytes)
    if (withheld.length === 0) return rows.map((row) => toDelivery(row, prefix))
    const bodies = new Map<number, string | Uint8Array>()
    const read = yield* Effect.flatMap(run(selectBodies, [seqs(withheld)]), readBodies)
    for (const { body, seq } of read) bodies.set(seq, body)
    return rows.map((row) => toDelivery({ ...row, body: row.body ?? bodies.get(row.seq) ?? null }, prefix))
  })

  /** Takes messages that are ready, in the order of claims, and returns their deliveries. */
  const takeRows = Effect.fnUntraced(function* (
    request: ClaimRequest,
    rows: ReadonlyArray<MessageRow>
  ): Effect.fn.Return<ReadonlyArray<Delivery>, StoreError> {
    if (rows.length === 0) return []
    const prefix = handlePrefix(request)
    yield* run(take, [toMillis(request.leaseMillis), prefix, seqs(rows)])
    return yield* deliver(yield* lanes.moveToQueues(rows), prefix)
  })

  const claim = Effect.fnUntraced(function* (
    request: ClaimRequest,
    taken = 0
  ): Effect.fn.Return<Claimed, StoreError> {
    const queues = new Set(request.queues)
    const asked = limit.of(request.max)
    const share = Math.min(shareOf(asked * queues.size, taken), maxMessageBytes)
    const found = yield* Effect.forEach(queues, (queue) =>
      Effect.flatMap(run(selectReady, [share, queue, asked]), readMessages)
    )
    const ready = found.length === 1 ? found[0]! : found.flat().sort(byClaimOrder).slice(0, asked)
    if (ready.length === 0) return { deliveries: [], leftSome: false }
    const rows = ready.slice(0, countFitting(ready.map(answerBytes), taken))
    limit.adapt(ready.length, rows.length)
    const leftSome = rows.length < ready.length || (asked < request.max && rows.length === asked)
    return { deliveries: yield* takeRows(request, rows), leftSome }
  })

  const claimLane = Effect.fnUntraced(function* ({
    leaseMillis,
    max,
    minWaitedMillis,
    queue,
    task,
    worker
  }: SetAsideClaim): Effect.fn.Return<ReadonlyArray<Delivery>, StoreError> {
    yield* lanes.followIndexes
    const lane = Lanes.encode({ queue, task })
    const asked = limit.of(max)
    const share = Math.min(shareOf(asked), maxMessageBytes)
    const found = yield* Effect.flatMap(
      run(selectWaiting, [share, lane, toMillis(minWaitedMillis), asked]),
      readMessages
    )
    const rows = found.slice(0, countFitting(found.map(answerBytes)))
    limit.adapt(found.length, rows.length)
    return yield* takeRows({ queues: [lane], max, leaseMillis, worker }, rows)
  })

  const putBack = (handles: ReadonlyArray<string>): Effect.Effect<void, StoreError> =>
    Effect.asVoid(run(makeUnclaimed, [list(handles.map(seqOf)), list(handles)]))

  const reclaim = Effect.fnUntraced(function* (
    request: ClaimRequest
  ): Effect.fn.Return<Reclaimed, StoreError> {
    const prefix = handlePrefix(request)
    const found = yield* Effect.flatMap(run(selectHeld, [0, ...heldBetween(prefix)]), readMessages)
    const held = found.toSorted(byClaimOrder)
    const count = Math.min(request.max, countFitting(held.map(answerBytes)))
    const rows = held.slice(0, count)
    const others = held.slice(count).map(({ id, seq }) => ({ id, handle: `${prefix}${seq}` }))
    if (rows.length > 0) yield* run(renewHeld, [toMillis(request.leaseMillis), seqs(rows)])
    if (others.length > 0) yield* putBack(others.map(({ handle }) => handle))
    return { deliveries: yield* deliver(rows, prefix), putBack: others }
  })

  const putBackOthers: ClaimOperations["putBackOthers"] = (request, deliveries) =>
    Effect.flatMap(run(selectHandles, heldBetween(handlePrefix(request))), readHandles).pipe(
      Effect.flatMap((rows) => {
        const delivered = new Set(deliveries.map(({ handle }) => handle))
        const others = rows.flatMap(({ claim, id }) => (delivered.has(claim) ? [] : { id, handle: claim }))
        return others.length === 0
          ? Effect.succeed([])
          : Effect.as(putBack(others.map(({ handle }) => handle)), others)
      })
    )

  return { promote, claim, claimLane, reclaim, putBack, putBackOthers }
}
