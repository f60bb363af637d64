/**
 * Messages and their claims.
 *
 * A message that is due lies in one small index, in the order in which it is claimed; one that is delayed or claimed
 * lies in another, by the time at which it becomes due (again). Every claim first moves what became due.
 */
import { Effect } from "effect"
import type { Batch } from "../BackendDriver.ts"
import type { Driver as BrokerDriver, Counts, Delivery, Envelope, Release } from "../BrokerDriver.ts"
import { type Database, millis, type StoreError } from "./Database.ts"
import * as Row from "./Row.ts"

/** The states of a message, as they are stored. */
const READY = 0
const DELAYED = 1
const CLAIMED = 2
const PARKED = 3

/** How many messages a claim moves at most, for each that it claims. */
const PROMOTED = 2000

/** What a worker can expect. */
export interface Outlook {
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
  readonly outlook: (queues: Batch<string>) => Effect.Effect<Outlook, StoreError>
  /** Makes ready what became due, before a claim. Belongs into the claim's transaction. */
  readonly promote: (queues: Batch<string>, max: number) => Effect.Effect<void, StoreError>
  /** Belongs into a transaction. */
  readonly claim: (
    options: Parameters<BrokerDriver["claim"]>[0]
  ) => Effect.Effect<ReadonlyArray<Delivery>, StoreError>
  /** Belongs into a transaction. */
  readonly renew: (
    handles: Batch<string>,
    leaseMillis: number
  ) => Effect.Effect<ReadonlyArray<boolean>, StoreError>
  readonly ack: (handles: Batch<string>) => Effect.Effect<ReadonlyArray<boolean>, StoreError>
  /** Belongs into a transaction. Answers the queues, and when the first of the messages is due. */
  readonly release: (releases: Batch<Release>) => Effect.Effect<Released, StoreError>
  /** Belongs into a transaction. */
  readonly reject: (
    rejections: Batch<{ readonly handle: string; readonly reason: string }>
  ) => Effect.Effect<void, StoreError>
  readonly counts: (queues: Batch<string>) => Effect.Effect<ReadonlyArray<Counts>, StoreError>
  readonly purge: (queue: string, limit: number) => Effect.Effect<ReadonlyArray<string>, StoreError>
}

/** What was put back. */
export interface Released {
  readonly queues: ReadonlySet<string>
  readonly firstMillis: number
}

interface Claimable {
  readonly seq: number
  readonly id: string
  readonly task: string
  readonly queue: string
  readonly due_at: number
  readonly now: number
  readonly body: string | Uint8Array
}

interface Held {
  readonly seq: number
  readonly queue: string
  readonly claim: string
}

/** A handle is the claim of its message, `<seq>:<uuid>`; one that no claim of this store made has no seq. */
const seqOf = (handle: string): number => {
  const seq = Number.parseInt(handle, 10)
  return Number.isSafeInteger(seq) ? seq : -1
}

/** Over one database. */
export const make = (db: Database): Messages => {
  const { dialect } = db
  const messages = db.table("messages")

  const insert = db.batched(
    ["id", "task", "queue", "priority", "delay", "body"],
    (batch) =>
      `INSERT INTO ${messages} (queue, priority, state, due_at, wake_at, id, task, body)
      SELECT batch.queue, batch.priority, CASE WHEN batch.delay > 0 THEN ${DELAYED} ELSE ${READY} END,
        ${dialect.now} + batch.delay, CASE WHEN batch.delay > 0 THEN ${dialect.now} + batch.delay END,
        batch.id, batch.task, batch.body
      FROM ${batch} WHERE batch.id IS NOT NULL`
  )

  const selectOutlook = `SELECT
      (SELECT ${dialect.now}) AS now,
      EXISTS (SELECT 1 FROM ${messages} WHERE state = ${READY} AND ${dialect.among("queue")}) AS ready,
      EXISTS (SELECT 1 FROM ${messages} WHERE wake_at <= ${dialect.now} AND ${dialect.among("queue")}) AS due,
      (SELECT MIN((SELECT m.wake_at FROM ${messages} AS m WHERE m.wake_at > ${dialect.now} AND m.queue = each.value
        ORDER BY m.wake_at LIMIT 1)) FROM ${dialect.elements}) AS next`
  const readOutlook = db.reader<{
    readonly now: number
    readonly ready: 0 | 1
    readonly due: 0 | 1
    readonly next: number | null
  }>("messages", { now: Row.integer, ready: Row.flag, due: Row.flag, next: Row.orNull(Row.integer) })

  const promote = `UPDATE ${messages} SET state = ${READY}, wake_at = NULL, claim = NULL, worker = NULL
    WHERE seq IN (SELECT seq FROM ${messages} WHERE ${dialect.among("queue")} AND wake_at <= ${dialect.now}
      ORDER BY wake_at LIMIT ?)`
  const readClaimable = db.reader<Claimable>("messages", {
    seq: Row.integer,
    id: Row.text,
    task: Row.text,
    queue: Row.text,
    due_at: Row.integer,
    now: Row.integer,
    body: Row.bytes
  })
  const claimOf = (queues: number): string => {
    const columns = "seq, id, task, queue, priority, due_at, body"
    const inOrder = "ORDER BY priority DESC, due_at, seq LIMIT ?"
    const ofQueue = `FROM ${messages} WHERE state = ${READY} AND queue = ? ${inOrder}`
    const now = `(SELECT ${dialect.now}) AS now`
    if (queues === 1) return `SELECT ${columns}, ${now} ${ofQueue}`
    const each = Array.from({ length: queues }, () => `SELECT * FROM (SELECT ${columns} ${ofQueue})`)
    return `SELECT ${columns}, ${now} FROM (${each.join(" UNION ALL ")}) ${inOrder}`
  }
  const claimTexts = new Map<number, string>()
  const claimText = (queues: number): string => {
    let text = claimTexts.get(queues)
    if (text === undefined) claimTexts.set(queues, (text = claimOf(queues)))
    return text
  }
  const take = `UPDATE ${messages} SET state = ${CLAIMED}, wake_at = ${dialect.now} + ?, claim = seq || ?, worker = ?
    WHERE ${dialect.among("seq")}`

  const selectHeld = `SELECT seq, queue, claim FROM ${messages} WHERE ${dialect.among("seq")} AND state = ${CLAIMED}`
  const readHeld = db.reader<Held>("messages", { seq: Row.integer, queue: Row.text, claim: Row.text })
  const renewRows = `UPDATE ${messages} SET wake_at = ${dialect.now} + ? WHERE ${dialect.among("seq")}`
  const ackRows = `DELETE FROM ${messages} WHERE ${dialect.among("seq")} AND state = ${CLAIMED}
    AND ${dialect.among("claim")} RETURNING seq`
  const readSeq = db.reader<{ readonly seq: number }>("messages", { seq: Row.integer })
  const releaseRows = db.updating({
    table: "messages",
    columns: ["seq", "delay", "keep", "body"],
    set: `state = CASE WHEN batch.delay > 0 THEN ${DELAYED} ELSE ${READY} END,
      wake_at = CASE WHEN batch.delay > 0 THEN ${dialect.now} + batch.delay END,
      due_at = CASE WHEN batch.keep = 1 THEN t.due_at ELSE ${dialect.now} + batch.delay END,
      claim = NULL, worker = NULL, body = COALESCE(batch.body, t.body)`,
    where: "t.seq = batch.seq",
    returning: "seq"
  })
  const rejectRows = db.updating({
    table: "messages",
    columns: ["seq", "reason"],
    set: `state = ${PARKED}, wake_at = NULL, claim = NULL, worker = NULL, reason = batch.reason`,
    where: "t.seq = batch.seq",
    returning: "seq"
  })
  const selectCounts = `SELECT
      (SELECT COUNT(*) FROM ${messages} WHERE state = ${READY} AND queue = ?)
        + (SELECT COUNT(*) FROM ${messages} WHERE queue = ? AND wake_at <= ${dialect.now}) AS ready,
      (SELECT COUNT(*) FROM ${messages} WHERE queue = ? AND wake_at > ${dialect.now} AND state = ${DELAYED}) AS delayed,
      (SELECT COUNT(*) FROM ${messages} WHERE queue = ? AND wake_at > ${dialect.now} AND state = ${CLAIMED}) AS claimed`
  const readCounts = db.reader<Counts>("messages", {
    ready: Row.integer,
    delayed: Row.integer,
    claimed: Row.integer
  })
  const purgeRows = `DELETE FROM ${messages} WHERE seq IN (
      SELECT seq FROM (SELECT seq FROM ${messages} WHERE state = ${READY} AND queue = ? LIMIT ?)
      UNION ALL
      SELECT seq FROM (SELECT seq FROM ${messages}
        WHERE queue = ? AND wake_at IS NOT NULL AND (state = ${DELAYED} OR wake_at <= ${dialect.now}) LIMIT ?)
      LIMIT ?) RETURNING id`
  const readIds = db.reader<{ readonly id: string }>("messages", { id: Row.text })

  const held = (handles: ReadonlyArray<string>) =>
    Effect.map(
      Effect.flatMap(db.run(selectHeld, [dialect.list(handles.map(seqOf))]), readHeld),
      (rows) => new Map(rows.map((row) => [row.claim, row]))
    )

  return {
    publish: (batch) =>
      Effect.asVoid(
        insert(
          batch.map((message) => [
            message.id,
            message.task,
            message.queue,
            Math.round(message.priority),
            millis(message.delayMillis),
            message.body
          ])
        )
      ),
    outlook: (queues) =>
      Effect.map(
        Effect.flatMap(
          db.run(
            selectOutlook,
            Array.from({ length: 3 }, () => dialect.list(queues))
          ),
          readOutlook
        ),
        ([row]) => ({
          ready: row!.ready === 1,
          due: row!.due === 1,
          nextMillis: row!.next === null ? undefined : row!.next - row!.now
        })
      ),
    promote: (queues, max) => Effect.asVoid(db.run(promote, [dialect.list(queues), PROMOTED + max])),
    claim: ({ leaseMillis, max, queues: asked, worker }) =>
      Effect.gen(function* () {
        const queues = [...new Set(asked)]
        const params = queues.flatMap((queue): ReadonlyArray<unknown> => [queue, max])
        if (queues.length > 1) params.push(max)
        const rows = yield* Effect.flatMap(db.run(claimText(queues.length), params), readClaimable)
        if (rows.length === 0) return []
        const claim = `:${crypto.randomUUID()}`
        yield* db.run(take, [millis(leaseMillis), claim, worker, dialect.list(rows.map((row) => row.seq))])
        return rows.map((row): Delivery => ({
          handle: `${row.seq}${claim}`,
          id: row.id,
          task: row.task,
          queue: row.queue,
          ageMillis: Math.max(row.now - row.due_at, 0),
          body: row.body
        }))
      }),
    renew: (handles, leaseMillis) =>
      Effect.flatMap(held(handles), (found) => {
        const seqs = handles.flatMap((handle) => found.get(handle)?.seq ?? [])
        const answers = handles.map((handle) => found.has(handle))
        return seqs.length === 0
          ? Effect.succeed(answers)
          : Effect.as(db.run(renewRows, [millis(leaseMillis), dialect.list(seqs)]), answers)
      }),
    ack: (handles) =>
      Effect.map(
        Effect.flatMap(db.run(ackRows, [dialect.list(handles.map(seqOf)), dialect.list(handles)]), readSeq),
        (rows) => {
          const removed = new Set(rows.map((row) => row.seq))
          return handles.map((handle) => removed.delete(seqOf(handle)))
        }
      ),
    release: (releases) =>
      Effect.flatMap(held(releases.map(({ handle }) => handle)), (found) => {
        const queues = new Set<string>()
        let firstMillis = Infinity
        const rows: Array<ReadonlyArray<unknown>> = []
        for (const { afterMillis, body, handle, keepDue } of releases) {
          const row = found.get(handle)
          // the first of two releases counts
          if (row === undefined || !found.delete(handle)) continue
          queues.add(row.queue)
          firstMillis = Math.min(firstMillis, afterMillis)
          rows.push([row.seq, millis(afterMillis), keepDue === true, body])
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
          ([counts]) => ({ ready: counts!.ready, delayed: counts!.delayed, claimed: counts!.claimed })
        )
      ),
    purge: (queue, limit) =>
      Effect.map(Effect.flatMap(db.run(purgeRows, [queue, limit, queue, limit, limit]), readIds), (rows) =>
        rows.map(({ id }) => id)
      )
  }
}
