/**
 * Messages and their claims.
 *
 * A message that is due lies in one small index, in the order in which it is claimed; one that is delayed or claimed
 * lies in another, by the time at which it becomes due (again). Every claim first moves what became due.
 */
import { Effect } from "effect"
import type { ClaimRequest, QueueCounts, Delivery, Envelope, Release, Batch } from "../../BrokerDriver.ts"
import { type Database, distinctBatches, toMillis, type StoreError } from "../Database.ts"
import type { Dialect } from "../dialect/Dialect.ts"
import * as Row from "../Row.ts"

/** The states of a message, as they are stored. */
export const READY = 0
const DELAYED = 1
export const CLAIMED = 2
const PARKED = 3

/** How many messages a claim moves at most, for each that it claims. */
const PROMOTED = 2000

/** What a worker can expect. */
export interface QueueStatus {
  /** Something is ready. */
  readonly ready: boolean
  /** Something became due, and is to be made ready. */
  readonly due: boolean
  /** Until something more becomes due; `undefined`: nothing will by itself. */
  readonly nextMillis: number | undefined
}

/** The operations. */
export interface Messages {
  readonly publish: (messages: Batch<Envelope>) => Effect.Effect<void, StoreError>
  readonly status: (queues: Batch<string>) => Effect.Effect<QueueStatus, StoreError>
  /** Makes ready what became due, before a claim. Belongs into a transaction. */
  readonly promote: (queues: Batch<string>, max: number) => Effect.Effect<void, StoreError>
  /** Belongs into a transaction. */
  readonly claim: (claim: ClaimRequest) => Effect.Effect<ReadonlyArray<Delivery>, StoreError>
  /** What a claim took and still holds, with its lease anew. Belongs into a transaction. */
  readonly reclaim: (claim: ClaimRequest) => Effect.Effect<ReadonlyArray<Delivery>, StoreError>
  readonly renew: (
    handles: Batch<string>,
    leaseMillis: number
  ) => Effect.Effect<ReadonlyArray<boolean>, StoreError>
  /** Belongs into a transaction. */
  readonly ack: (handles: Batch<string>) => Effect.Effect<ReadonlyArray<boolean>, StoreError>
  /** Belongs into a transaction. Answers the queues, and when the first of the messages is due. */
  readonly release: (releases: Batch<Release>) => Effect.Effect<Released, StoreError>
  /** Belongs into a transaction. */
  readonly reject: (
    rejections: Batch<{ readonly handle: string; readonly reason: string }>
  ) => Effect.Effect<void, StoreError>
  readonly counts: (queues: Batch<string>) => Effect.Effect<ReadonlyArray<QueueCounts>, StoreError>
  /** Belongs into a transaction. */
  readonly purge: (queue: string, limit: number) => Effect.Effect<ReadonlyArray<string>, StoreError>
}

/** What was put back. */
export interface Released {
  readonly queues: ReadonlySet<string>
  readonly firstMillis: number
}

/** A message that can be claimed. */
export interface MessageRow {
  readonly seq: number
  readonly id: string
  readonly task: string
  readonly generation: number
  readonly queue: string
  readonly priority: number
  readonly due_at: number
  readonly now: number
  readonly body: string | Uint8Array
}

/** The checks of it. */
export const messageShape: Row.Shape<MessageRow> = {
  seq: Row.integer,
  id: Row.text,
  task: Row.text,
  generation: Row.integer,
  queue: Row.text,
  priority: Row.integer,
  due_at: Row.integer,
  now: Row.integer,
  body: Row.bytes
}

/** Its columns in the table. */
export const claimableColumns = [
  "seq",
  "id",
  "task",
  "generation",
  "queue",
  "priority",
  "due_at",
  "body"
] as const

/** The order in which messages are claimed. */
export const inOrder = "ORDER BY priority DESC, due_at, seq"

/** The same, of rows. */
export const inClaimOrder = (a: MessageRow, b: MessageRow): number =>
  b.priority - a.priority || a.due_at - b.due_at || a.seq - b.seq

/** What the handles of a claim's messages have in common. */
export const claimSuffix = ({ claimId }: ClaimRequest): string => `:${claimId ?? crypto.randomUUID()}`

/** A message as it is given out. */
export const toDelivery = (row: MessageRow, claim: string): Delivery => ({
  handle: `${row.seq}${claim}`,
  id: row.id,
  task: row.task,
  generation: row.generation,
  queue: row.queue,
  ageMillis: Math.max(row.now - row.due_at, 0),
  body: row.body
})

/** A message that is held by a claim, of that lease and with that in its handles. */
export const isClaimed = ({ concat, now }: Dialect, lease: string, claim: string): string =>
  `wake_at > ${now} AND wake_at <= ${now} + ${lease} AND state = ${CLAIMED} AND claim = ${concat("seq", claim)}`

/** The columns of a batch of messages. */
export const columns = {
  id: "text",
  task: "text",
  generation: "integer",
  queue: "text",
  priority: "integer",
  delay: "integer",
  body: "text"
} as const

/** A row of that batch. */
export const toRow = (message: Envelope): ReadonlyArray<unknown> => [
  message.id,
  message.task,
  message.generation ?? 0,
  message.queue,
  Math.round(message.priority),
  toMillis(message.delayMillis),
  message.body
]

/** Inserts the rows of a batch. */
export const insertText = ({ now }: Dialect, messages: string, batch: string): string =>
  `INSERT INTO ${messages} (queue, priority, state, due_at, wake_at, id, task, generation, body)
  SELECT batch.queue, batch.priority, CASE WHEN batch.delay > 0 THEN ${DELAYED} ELSE ${READY} END,
    ${now} + batch.delay, CASE WHEN batch.delay > 0 THEN ${now} + batch.delay END,
    batch.id, batch.task, batch.generation, batch.body
  FROM ${batch} WHERE batch.id IS NOT NULL`

interface Held {
  readonly seq: number
  readonly queue: string
  readonly claim: string
}

/** A handle is the claim of its message, `<seq>:<uuid>`; one that no claim of this store made has no seq. */
export const seqOf = (handle: string): number => {
  const seq = Number.parseInt(handle, 10)
  return Number.isSafeInteger(seq) ? seq : -1
}

/** Over one database. */
export const make = (db: Database): Messages => {
  const { dialect } = db
  const messages = db.table("messages")

  const insert = db.batched(columns, (batch) => insertText(dialect, messages, batch))

  const selectOutlook = `SELECT
      ${dialect.now} AS now,
      CASE WHEN EXISTS (SELECT 1 FROM ${messages} WHERE state = ${READY} AND queue = ?) THEN 1 ELSE 0 END AS ready,
      CASE WHEN EXISTS (SELECT 1 FROM ${messages} WHERE wake_at <= ${dialect.now} AND queue = ?) THEN 1 ELSE 0 END AS due,
      (SELECT wake_at FROM ${messages} WHERE wake_at > ${dialect.now} AND queue = ? ORDER BY wake_at LIMIT 1) AS next`
  const readOutlook = db.reader<{
    readonly now: number
    readonly ready: 0 | 1
    readonly due: 0 | 1
    readonly next: number | null
  }>("messages", { now: Row.integer, ready: Row.flag, due: Row.flag, next: Row.orNull(Row.integer) })

  const selectDue = `SELECT seq FROM ${messages} WHERE queue = ? AND wake_at <= ${dialect.now}
    ORDER BY wake_at LIMIT ? ${dialect.skipLocked}`
  // a claim that ran out keeps its handle until somebody else claims
  const makeReady = `UPDATE ${messages} SET state = ${READY}, wake_at = NULL
    WHERE ${dialect.inList("seq", "integer")}`
  const selectClaimable = `SELECT ${claimableColumns.join(", ")}, ${dialect.now} AS now FROM ${messages}
    WHERE state = ${READY} AND queue = ? ${inOrder} LIMIT ? ${dialect.skipLocked}`
  const readClaimable = db.reader<MessageRow>("messages", messageShape)
  const selectClaimed = `SELECT ${claimableColumns.join(", ")}, ${dialect.now} AS now FROM ${messages}
    WHERE queue = ? AND ${isClaimed(dialect, "?", "?")} ${dialect.forUpdate}`
  const take = `UPDATE ${messages} SET state = ${CLAIMED}, wake_at = ${dialect.now} + ?, claim = ${dialect.concat("seq", "?")}
    WHERE ${dialect.inList("seq", "integer")}`

  const selectHeld = `SELECT seq, queue, claim FROM ${dialect.byIndex(messages)} WHERE ${dialect.inList("seq", "integer")}
    AND claim IS NOT NULL ORDER BY seq ${dialect.forUpdate}`
  const readHeld = db.reader<Held>("messages", { seq: Row.integer, queue: Row.text, claim: Row.text })
  const renewRows = `UPDATE ${messages} SET wake_at = ${dialect.now} + ? WHERE ${dialect.inList("seq", "integer")}`
  const renewHeld = db.updating({
    table: "messages",
    columns: { seq: "integer", claim: "text", lease: "integer" },
    set: { state: String(CLAIMED), wake_at: `${dialect.now} + batch.lease` },
    where: "t.seq = batch.seq AND t.claim = batch.claim",
    key: ["seq", "integer"],
    returning: ["claim"]
  })
  const readClaim = db.reader<{ readonly claim: string }>("messages", { claim: Row.text })
  const ackRows = db.removing<number>({
    table: "messages",
    key: ["seq", "integer"],
    and: dialect.inList("claim", "text")
  })
  const readSeq = db.reader<{ readonly seq: number }>("messages", { seq: Row.integer })
  const bySeq = { where: "t.seq = batch.seq", key: ["seq", "integer"], returning: ["seq"] } as const
  const releaseRows = db.updating({
    table: "messages",
    columns: { seq: "integer", delay: "integer", keep: "integer", body: "text" },
    set: {
      state: `CASE WHEN batch.delay > 0 THEN ${DELAYED} ELSE ${READY} END`,
      wake_at: `CASE WHEN batch.delay > 0 THEN ${dialect.now} + batch.delay END`,
      due_at: `CASE WHEN batch.keep = 1 THEN t.due_at ELSE ${dialect.now} + batch.delay END`,
      claim: "NULL",
      body: "COALESCE(batch.body, t.body)"
    },
    ...bySeq
  })
  const rejectRows = db.updating({
    table: "messages",
    columns: { seq: "integer", reason: "text" },
    set: { state: String(PARKED), wake_at: "NULL", claim: "NULL", reason: "batch.reason" },
    ...bySeq
  })
  const selectCounts = `SELECT
      (SELECT COUNT(*) FROM ${messages} WHERE state = ${READY} AND queue = ?)
        + (SELECT COUNT(*) FROM ${messages} WHERE queue = ? AND wake_at <= ${dialect.now}) AS n_ready,
      (SELECT COUNT(*) FROM ${messages} WHERE queue = ? AND wake_at > ${dialect.now} AND state = ${DELAYED}) AS n_delayed,
      (SELECT COUNT(*) FROM ${messages} WHERE queue = ? AND wake_at > ${dialect.now} AND state = ${CLAIMED}) AS n_claimed`
  const readCounts = db.reader<{
    readonly n_ready: number
    readonly n_delayed: number
    readonly n_claimed: number
  }>("messages", { n_ready: Row.integer, n_delayed: Row.integer, n_claimed: Row.integer })
  const purgeable = [
    `SELECT seq, id FROM ${messages} WHERE state = ${READY} AND queue = ? LIMIT ? ${dialect.skipLocked}`,
    `SELECT seq, id FROM ${messages} WHERE queue = ? AND wake_at IS NOT NULL
      AND (state = ${DELAYED} OR wake_at <= ${dialect.now}) LIMIT ? ${dialect.skipLocked}`
  ]
  const deleteRows = db.removing<number>({ table: "messages", key: ["seq", "integer"] })
  const readPurgeable = db.reader<{ readonly seq: number; readonly id: string }>("messages", {
    seq: Row.integer,
    id: Row.text
  })

  const held = (handles: ReadonlyArray<string>) =>
    Effect.map(
      Effect.flatMap(db.run(selectHeld, [dialect.list(handles.map(seqOf))]), readHeld),
      (rows) => new Map(rows.map((row) => [row.claim, row]))
    )

  return {
    publish: (batch) => Effect.asVoid(db.retryOnDeadlock(insert(batch.map(toRow)))),
    status: (queues) =>
      Effect.map(
        Effect.forEach(queues, (queue) =>
          Effect.flatMap(db.run(selectOutlook, [queue, queue, queue]), readOutlook)
        ),
        (outlooks) => {
          let ready = false
          let due = false
          let nextMillis: number | undefined
          for (const [row] of outlooks) {
            ready ||= row!.ready === 1
            due ||= row!.due === 1
            if (row!.next !== null) nextMillis = Math.min(row!.next - row!.now, nextMillis ?? Infinity)
          }
          return { ready, due, nextMillis }
        }
      ),
    promote: (queues, max) =>
      Effect.gen(function* () {
        for (const queue of queues) {
          const rows = yield* Effect.flatMap(db.run(selectDue, [queue, PROMOTED + max]), readSeq)
          if (rows.length > 0) yield* db.run(makeReady, [dialect.list(rows.map(({ seq }) => seq))])
        }
      }),
    reclaim: (asked) =>
      Effect.gen(function* () {
        const claim = claimSuffix(asked)
        const lease = toMillis(asked.leaseMillis)
        const found = yield* Effect.forEach(new Set(asked.queues), (queue) =>
          Effect.flatMap(db.run(selectClaimed, [queue, lease, claim]), readClaimable)
        )
        const rows = found.flat().sort(inClaimOrder).slice(0, asked.max)
        if (rows.length > 0) yield* db.run(renewRows, [lease, dialect.list(rows.map(({ seq }) => seq))])
        return rows.map((row) => toDelivery(row, claim))
      }),
    claim: (asked) =>
      Effect.gen(function* () {
        const { leaseMillis, max, queues } = asked
        const found = yield* Effect.forEach(new Set(queues), (queue) =>
          Effect.flatMap(db.run(selectClaimable, [queue, max]), readClaimable)
        )
        const rows = found.length === 1 ? found[0]! : found.flat().sort(inClaimOrder).slice(0, max)
        if (rows.length === 0) return []
        const claim = claimSuffix(asked)
        yield* db.run(take, [toMillis(leaseMillis), claim, dialect.list(rows.map((row) => row.seq))])
        return rows.map((row) => toDelivery(row, claim))
      }),
    renew: (handles, leaseMillis) =>
      Effect.map(
        Effect.flatMap(
          renewHeld([...new Set(handles)].map((handle) => [seqOf(handle), handle, toMillis(leaseMillis)])),
          readClaim
        ),
        (rows) => {
          const held = new Set(rows.map(({ claim }) => claim))
          return handles.map((handle) => held.has(handle))
        }
      ),
    ack: (handles) =>
      Effect.gen(function* () {
        const answers = handles.map(() => false)
        // The rows that a statement answers name messages, not claims. A claim that was taken over and the one that took
        // it over have one message: in a round of its own each has an answer of its own.
        for (const round of distinctBatches(handles, (handle) => `${seqOf(handle)}`)) {
          const claims = round.map(({ item }) => item)
          const removed = new Set(yield* ackRows(claims.map(seqOf), [dialect.list(claims)]))
          for (const { index, item } of round) answers[index] = removed.has(seqOf(item))
        }
        return answers
      }),
    release: (releases) =>
      Effect.flatMap(held(releases.map(({ handle }) => handle)), (found) => {
        const queues = new Set<string>()
        let firstMillis = Infinity
        const rows: Array<ReadonlyArray<unknown>> = []
        for (const { afterMillis, body, handle, preserveDueTime } of releases) {
          const row = found.get(handle)
          // the first of two releases counts
          if (row === undefined || !found.delete(handle)) continue
          queues.add(row.queue)
          firstMillis = Math.min(firstMillis, afterMillis)
          rows.push([row.seq, toMillis(afterMillis), preserveDueTime === true ? 1 : 0, body])
        }
        return Effect.as(releaseRows(rows), { queues, firstMillis })
      }),
    reject: (rejections) =>
      Effect.flatMap(held(rejections.map(({ handle }) => handle)), (found) => {
        const rows: Array<ReadonlyArray<unknown>> = []
        for (const { handle, reason } of rejections) {
          const row = found.get(handle)
          if (row !== undefined && found.delete(handle)) rows.push([row.seq, reason])
        }
        return Effect.asVoid(rejectRows(rows))
      }),
    counts: (queues) =>
      Effect.forEach(queues, (queue) =>
        Effect.map(
          Effect.flatMap(db.run(selectCounts, [queue, queue, queue, queue]), readCounts),
          ([counts]) => ({ ready: counts!.n_ready, delayed: counts!.n_delayed, claimed: counts!.n_claimed })
        )
      ),
    purge: (queue, limit) =>
      Effect.gen(function* () {
        const found: Array<{ readonly seq: number; readonly id: string }> = []
        for (const select of purgeable) {
          const left = limit - found.length
          if (left > 0) found.push(...(yield* Effect.flatMap(db.run(select, [queue, left]), readPurgeable)))
        }
        yield* deleteRows(found.map(({ seq }) => seq))
        return found.map(({ id }) => id)
      })
  }
}
