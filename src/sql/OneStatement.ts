/**
 * What the engine does most, as one statement each, for databases in which a statement can have several parts that
 * write: one round trip, and one commit, for record and message, claim and start, outcome and acknowledgement.
 *
 * Such a statement does what is plain, and answers what it did. The rest goes the way of several statements.
 */
import { Effect } from "effect"
import type { Claimed, NewRecord, Settlement, Terms } from "../BackendDriver.ts"
import type { Claim, Envelope } from "../BrokerDriver.ts"
import { type BatchStatement, type Database, millis, type StoreError } from "./Database.ts"
import { assignments, type Update } from "./Dialect.ts"
import * as Enqueuing from "./Enqueuing.ts"
import * as Messages from "./Messages.ts"
import * as Row from "./Row.ts"
import * as Settling from "./Settling.ts"
import * as Starting from "./Starting.ts"

/** The statements. */
export interface OneStatement {
  /** Creates and publishes what is new; answers the ids. Every id is there once. */
  readonly enqueue: (
    items: ReadonlyArray<{ readonly record: NewRecord; readonly message: Envelope }>
  ) => Effect.Effect<ReadonlySet<string>, StoreError>
  /**
   * Claims, and starts what waits. `undefined`: nothing was done, since something became due that is to be made ready
   * before; it is not looked at where `looks` is `false`.
   */
  readonly claim: (
    claim: Claim & { readonly terms: ReadonlyArray<Terms> },
    looks: boolean
  ) => Effect.Effect<ReadonlyArray<Claimed> | undefined, StoreError>
  /** What a claim took and still holds, and which of it was started, with leases anew. */
  readonly claimed: (claim: Claim) => Effect.Effect<ReadonlyArray<Claimed>, StoreError>
  /** Finishes runs, and removes their messages; answers the ids. Every id is there once. */
  readonly settle: (
    items: ReadonlyArray<{ readonly settlement: Settlement; readonly handle: string }>
  ) => Effect.Effect<ReadonlySet<string>, StoreError>
}

/** What a claim answers: at least one row, in which all but `due` is NULL where nothing was taken. */
interface ClaimedRow extends Starting.StartedRow, Messages.Claimable {
  readonly due: 0 | 1
  readonly isStarted: 0 | 1
}

const orNull = <A extends object>(shape: Row.Shape<A>) =>
  Object.fromEntries(
    Object.entries<Row.Check<unknown>>(shape).map(([column, check]) => [column, Row.orNull(check)])
  )

/** Over one database. */
export const make = (db: Database, update: (update: Update) => string): OneStatement => {
  const { dialect } = db
  const { now } = dialect
  const tasks = db.table("tasks")
  const messages = db.table("messages")
  const readIds = db.reader<{ readonly id: string }>("tasks", { id: Row.text })
  const toSet = (rows: ReadonlyArray<object>) =>
    Effect.map(readIds(rows), (found): ReadonlySet<string> => new Set(found.map(({ id }) => id)))

  const { id: _, task: __, ...messageColumns } = Messages.columns
  const enqueue = db.batched(
    { ...Enqueuing.columns, ...messageColumns },
    (batch) => `WITH given AS MATERIALIZED (SELECT * FROM ${batch}),
      made AS (${Enqueuing.insertText(dialect, tasks, "given AS batch")}),
      sent AS (${Messages.insertText(dialect, messages, "given AS batch JOIN made USING (id)")})
      SELECT id FROM made`
  )

  const termsColumns = {
    terms_task: "text",
    lease: "integer",
    retention: "integer",
    letters: "integer"
  } as const
  const claimed = Messages.claimableColumns
  const claimText = (queues: number, looks: boolean) => (batch: string) => {
    const due = `EXISTS (SELECT 1 FROM ${messages} WHERE wake_at <= ${now} AND ${dialect.among("queue", "text")})`
    const pick = `SELECT seq, priority, due_at FROM ${messages}
      WHERE state = ${Messages.READY} AND queue = ? AND (SELECT due FROM looked) = 0
      ${Messages.inOrder} LIMIT ? ${dialect.skipLocked}`
    const picks = Array.from({ length: queues }, () => `SELECT * FROM (${pick}) AS of_one`)
    return `WITH terms AS MATERIALIZED (SELECT * FROM ${batch}),
      looked AS MATERIALIZED (SELECT CASE WHEN ${looks ? due : "false"} THEN 1 ELSE 0 END AS due),
      picked AS MATERIALIZED (${
        queues === 1
          ? pick
          : `SELECT * FROM (${picks.join(" UNION ALL ")}) AS of_all ${Messages.inOrder} LIMIT ?`
      }),
      taken AS (
        UPDATE ${messages} AS m SET state = ${Messages.CLAIMED}, wake_at = ${now} + ?::bigint,
          claim = ${dialect.concat("m.seq", "?")}, worker = ?
        FROM picked WHERE m.seq = picked.seq
        RETURNING ${claimed.map((column) => `m.${column}`).join(", ")}, m.claim AS token, m.worker),
      run AS (
        SELECT taken.seq, taken.id, taken.generation, token, worker, lease, retention, letters
        FROM taken JOIN terms ON terms_task = taken.task),
      started AS (
        UPDATE ${tasks} AS t SET ${assignments(Starting.assignments(now, "run"))}
        FROM run WHERE t.id = run.id AND ${Starting.isStartable(now, "run.generation")}
        RETURNING run.seq, t.fence, t.attempt, t.retries, t.crashes)
      SELECT looked.due, got.*, ${now} AS now FROM looked LEFT JOIN (
        SELECT ${claimed.map((column) => `taken.${column}`).join(", ")}, fence, attempt, retries, crashes,
          CASE WHEN fence IS NULL THEN 0 ELSE 1 END AS "isStarted"
        FROM taken LEFT JOIN started ON started.seq = taken.seq
      ) AS got ON true ${Messages.inOrder}`
  }
  const readClaimed = db.reader<ClaimedRow>("messages", {
    ...orNull({ ...Messages.claimable, ...Starting.shape, isStarted: Row.flag }),
    due: Row.flag,
    now: Row.integer
  } as Row.Shape<ClaimedRow>)
  const claims = new Map<string, BatchStatement>()
  const claimOf = (queues: number, looks: boolean): BatchStatement => {
    const name = `${queues} ${looks}`
    let statement = claims.get(name)
    if (statement === undefined) {
      claims.set(name, (statement = db.batched(termsColumns, claimText(queues, looks))))
    }
    return statement
  }

  const claimedAgain = `WITH held AS (
      UPDATE ${messages} AS m SET wake_at = ${now} + ?::bigint
      WHERE ${dialect.among("queue", "text")} AND ${Messages.isClaimed(dialect, "?::bigint", "?")}
      RETURNING ${claimed.map((column) => `m.${column}`).join(", ")}, m.claim AS token),
    started AS (
      UPDATE ${tasks} AS t SET lease_until = ${now} + ?::bigint
      FROM held WHERE t.id = held.id AND t.token = held.token AND t.state = 'STARTED'
      RETURNING held.seq, t.fence, t.attempt, t.retries, t.crashes)
    SELECT 0 AS due, held.*, fence, attempt, retries, crashes,
      CASE WHEN fence IS NULL THEN 0 ELSE 1 END AS "isStarted", ${now} AS now
    FROM held LEFT JOIN started ON started.seq = held.seq ${Messages.inOrder}`
  const toClaimed = (rows: ReadonlyArray<ClaimedRow>, claim: string): ReadonlyArray<Claimed> =>
    rows.map((row) => {
      const delivery = Messages.toDelivery(row, claim)
      return {
        delivery,
        run: row.isStarted === 1 ? { token: delivery.handle, started: Starting.toStarted(row) } : undefined
      }
    })

  const settle = db.batched(
    { ...Settling.columns, seq: "integer", claim: "text" },
    (batch) => `WITH given AS MATERIALIZED (SELECT * FROM ${batch}),
      done AS (${update({
        table: tasks,
        batch: "given AS batch",
        set: Settling.assignments(now),
        where: Settling.isOpen,
        key: "id",
        returning: ["id"]
      })}),
      gone AS (DELETE FROM ${messages} AS m USING given JOIN done ON done.id = given.id
        WHERE m.seq = given.seq AND m.claim = given.claim AND m.state = ${Messages.CLAIMED})
      SELECT id FROM done`
  )

  return {
    enqueue: (items) =>
      Effect.flatMap(
        enqueue(
          items.map(({ message, record }) => {
            const [, , ...rest] = Messages.toRow(message)
            return [...Enqueuing.toRow(record), ...rest]
          })
        ),
        toSet
      ),
    claimed: (asked) => {
      const claim = Messages.claimOf(asked)
      const lease = millis(asked.leaseMillis)
      const held = db.run(claimedAgain, [lease, dialect.list(asked.queues), lease, claim, lease])
      return Effect.map(Effect.flatMap(held, readClaimed), (rows) => toClaimed(rows, claim))
    },
    claim: (asked, looks) =>
      Effect.suspend(() => {
        const { leaseMillis, max, terms, worker } = asked
        const queues = [...new Set(asked.queues)]
        const claim = Messages.claimOf(asked)
        const rows: ReadonlyArray<ReadonlyArray<unknown>> = terms.map((term) => [
          term.task,
          millis(term.leaseMillis),
          millis(term.retentionMillis),
          millis(term.letterRetentionMillis)
        ])
        const params: Array<unknown> = looks ? [dialect.list(queues)] : []
        for (const queue of queues) params.push(queue, max)
        if (queues.length > 1) params.push(max)
        params.push(millis(leaseMillis), claim, worker)
        const found = claimOf(queues.length, looks)(
          rows.length === 0 ? [[null, null, null, null]] : rows,
          params
        )
        return Effect.map(Effect.flatMap(found, readClaimed), (claimed) =>
          claimed[0]!.due === 1
            ? undefined
            : toClaimed(
                claimed.filter(({ seq }) => seq !== null),
                claim
              )
        )
      }),
    settle: (items) =>
      Effect.flatMap(
        settle(
          items.map(({ handle, settlement }) => [
            ...Settling.toFinal(settlement),
            Messages.seqOf(handle),
            handle
          ])
        ),
        toSet
      )
  }
}
