/**
 * What the engine does most, as one statement each, for databases in which a statement can have several parts that
 * write: one round trip, and one commit, for record and message, claim and start, outcome and acknowledgement.
 *
 * Such a statement does what is plain, and answers what it did. The rest goes the way of several statements.
 */
import { Effect } from "effect"
import type { ClaimedMessage, NewRecord, Settlement, StartDefaults } from "../../BackendDriver.ts"
import type { ClaimRequest, Envelope } from "../../BrokerDriver.ts"
import * as Enqueuing from "../backend/create.ts"
import * as Settling from "../backend/settle.ts"
import * as Starting from "../backend/start.ts"
import * as Messages from "../broker/Messages.ts"
import { type Database, toMillis, type StoreError } from "../Database.ts"
import type { Update } from "../dialect/Dialect.ts"
import * as Row from "../Row.ts"

/** The function that the first migration of PostgreSQL creates. */
const claimFunction = "claim_1"

/** A task: its record, and its message. */
export interface ToEnqueue {
  readonly record: NewRecord
  readonly message: Envelope
}

/** The statements. */
export interface SingleStatements {
  /** Creates and publishes what is new; answers the ids. Every id is there once. */
  readonly enqueue: (items: ReadonlyArray<ToEnqueue>) => Effect.Effect<ReadonlySet<string>, StoreError>
  /** The same, of tasks that should all be new; where one is not, it fails as a `UniqueViolation`, and nothing is done. */
  readonly enqueueAllNew: SingleStatements["enqueue"]
  /**
   * Claims, and starts what waits. `undefined`: nothing was done, since something became due that is to be made ready
   * before; it is not looked at where `looks` is `false`.
   */
  readonly claim: (
    claim: ClaimRequest & { readonly startDefaults: ReadonlyArray<StartDefaults> },
    looks: boolean
  ) => Effect.Effect<ReadonlyArray<ClaimedMessage> | undefined, StoreError>
  /** What a claim took and still holds, and which of it was started, with leases anew. */
  readonly reclaim: (claim: ClaimRequest) => Effect.Effect<ReadonlyArray<ClaimedMessage>, StoreError>
  /** Finishes runs, and removes their messages; answers the ids. Every id is there once. */
  readonly settle: (
    items: ReadonlyArray<{ readonly settlement: Settlement; readonly handle: string }>
  ) => Effect.Effect<ReadonlySet<string>, StoreError>
}

/**
 * What a claim answers: a row for each message, another for each of them that was started, which says how, by its
 * `seq`. `due`: one row, in which all else is NULL.
 */
interface ClaimedRow {
  readonly due: 0 | 1
}

type MessageRow = ClaimedRow & Messages.MessageRow
type StartedRow = ClaimedRow & Starting.StartedRow & { readonly seq: number }

const isStarted = (row: ClaimedRow): row is StartedRow => "fence" in row && row.fence !== null

const orNull = <A extends object>(shape: Row.Shape<A>) =>
  Object.fromEntries(
    Object.entries<Row.Check<unknown>>(shape).map(([column, check]) => [column, Row.orNull(check)])
  )

/** Over one database. */
export const make = (db: Database, update: (update: Update) => string): SingleStatements => {
  const { dialect } = db
  const { now } = dialect
  const tasks = db.table("tasks")
  const messages = db.table("messages")
  const readIds = db.reader<{ readonly id: string }>("tasks", { id: Row.text })
  const toSet = (rows: ReadonlyArray<object>) =>
    Effect.map(readIds(rows), (found): ReadonlySet<string> => new Set(found.map(({ id }) => id)))

  const { id: _, task: __, ...messageColumns } = Messages.columns
  const enqueuedColumns = { ...Enqueuing.columns, ...messageColumns }
  const toEnqueued = ({ message, record }: ToEnqueue): ReadonlyArray<unknown> => {
    const [, , ...rest] = Messages.toRow(message)
    return [...Enqueuing.toRow(record), ...rest]
  }
  const enqueueNew = db.batched(
    enqueuedColumns,
    (batch) => `WITH given AS MATERIALIZED (SELECT * FROM ${batch}),
      made AS (${Enqueuing.insertAllText(dialect, tasks, "given AS batch")})
      ${Messages.insertText(dialect, messages, "given AS batch")}`
  )
  const enqueue = db.batched(
    enqueuedColumns,
    (batch) => `WITH given AS MATERIALIZED (SELECT * FROM ${batch}),
      made AS (${Enqueuing.insertText(dialect, tasks, "given AS batch")}),
      sent AS (${Messages.insertText(dialect, messages, "given AS batch JOIN made USING (id)")})
      SELECT id FROM made`
  )

  const claimed = Messages.claimableColumns
  const claim = `SELECT * FROM ${db.table(claimFunction)} (?::boolean, ?::text[], ?::bigint, ?::bigint, ?, ?, ?::text[],
    ?::bigint[], ?::bigint[], ?::bigint[])`
  const readClaimed = db.reader<ClaimedRow>("messages", {
    ...orNull({ ...Messages.messageShape, ...Starting.shape }),
    due: Row.flag
  })
  const of = (table: string) => claimed.map((column) => `${table}.${column}`).join(", ")
  const claimedAgain = `WITH held AS (
      UPDATE ${messages} AS m SET wake_at = ${now} + ?::bigint
      WHERE ${dialect.inList("queue", "text")} AND ${Messages.isClaimed(dialect, "?::bigint", "?")}
      RETURNING ${of("m")}, m.claim AS token),
    started AS (
      UPDATE ${tasks} AS t SET lease_until = ${now} + ?::bigint
      FROM held WHERE t.id = held.id AND t.token = held.token AND t.state = 'STARTED'
      RETURNING held.seq, t.fence, t.attempt, t.retries, t.crashes)
    SELECT 0 AS due, ${of("held")}, NULL::bigint AS fence, NULL::bigint AS attempt, NULL::bigint AS retries,
      NULL::bigint AS crashes, ${now} AS now FROM held
    UNION ALL
    SELECT 0, started.seq, ${claimed
      .slice(1)
      .map(() => "NULL")
      .join(", ")}, fence, attempt, retries, crashes, 0 FROM started`
  const toClaimed = (rows: ReadonlyArray<ClaimedRow>, claim: string): ReadonlyArray<ClaimedMessage> => {
    const runs = new Map<number, Starting.StartedRow>()
    const taken: Array<MessageRow> = []
    for (const row of rows) {
      if (isStarted(row)) runs.set(row.seq, row)
      else taken.push(row as MessageRow)
    }
    return taken.sort(Messages.inClaimOrder).map((row) => {
      const delivery = Messages.toDelivery(row, claim)
      const run = runs.get(row.seq)
      return {
        delivery,
        run: run === undefined ? undefined : { token: delivery.handle, started: Starting.toStarted(run) }
      }
    })
  }

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
        WHERE m.seq = given.seq AND m.claim = given.claim)
      SELECT id FROM done`
  )

  return {
    enqueue: (items) => Effect.flatMap(enqueue(items.map(toEnqueued)), toSet),
    enqueueAllNew: (items) =>
      Effect.map(enqueueNew(items.map(toEnqueued)), () => new Set(items.map(({ record }) => record.id))),
    reclaim: (asked) => {
      const claim = Messages.claimSuffix(asked)
      const lease = toMillis(asked.leaseMillis)
      const held = db.run(claimedAgain, [lease, dialect.list(asked.queues), lease, claim, lease])
      return Effect.map(Effect.flatMap(held, readClaimed), (rows) =>
        toClaimed(rows, claim).slice(0, asked.max)
      )
    },
    claim: (asked, looks) =>
      Effect.suspend(() => {
        const { startDefaults } = asked
        const handles = Messages.claimSuffix(asked)
        const answer = db.run(claim, [
          looks,
          dialect.list([...new Set(asked.queues)]),
          asked.max,
          toMillis(asked.leaseMillis),
          handles,
          asked.worker,
          dialect.list(startDefaults.map(({ task }) => task)),
          dialect.list(startDefaults.map(({ leaseMillis }) => toMillis(leaseMillis))),
          dialect.list(startDefaults.map(({ retentionMillis }) => toMillis(retentionMillis))),
          dialect.list(
            startDefaults.map(({ deadLetterRetentionMillis }) => toMillis(deadLetterRetentionMillis))
          )
        ])
        return Effect.map(Effect.flatMap(answer, readClaimed), (rows) =>
          rows[0]?.due === 1 ? undefined : toClaimed(rows, handles)
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
