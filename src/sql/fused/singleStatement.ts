/**
 * The hot operations as one statement each, for databases in which a statement can write several tables (PostgreSQL; for an
 * enqueue also SQLite): one round trip and one commit for record and message, claim and start, outcome and acknowledgement.
 *
 * A statement handles the plain cases and returns which it handled. The others take several statements.
 */
import { Effect } from "effect"
import type { ClaimedMessage, NewRecord, StartDefaults } from "../../BackendDriver.ts"
import type { ClaimRequest, Envelope } from "../../BrokerDriver.ts"
import { maxReplySize } from "../../internal/defaults.ts"
import { maxMessageBytes } from "../../internal/driver/maxMessageBytes.ts"
import { newRecordColumns, toNewRecordRow } from "../backend/create.ts"
import { finalColumns, type FinalSettlement, toFinalRow } from "../backend/settle.ts"
import { type StartedRow, startedShape, toStarted } from "../backend/start.ts"
import { checkUntil } from "../backend/TaskRows.ts"
import {
  byClaimOrder,
  DELAYED,
  handlePrefix,
  heldBetween,
  isHeld,
  type MessageRow,
  READY,
  seqOf,
  shape as messageShape,
  toDelivery
} from "../broker/MessageRow.ts"
import { newMessageColumns, toNewMessageRow } from "../broker/publish.ts"
import type { Database, StoreError } from "../Database.ts"
import * as Row from "../Row.ts"
import { toMillis } from "../toMillis.ts"

/** A new task: its record and its message. */
export interface NewTask {
  readonly record: NewRecord
  readonly message: Envelope
}

/** A claim of messages, with the defaults of the tasks that it may start. */
export type FusedClaim = ClaimRequest & { readonly startDefaults: ReadonlyArray<StartDefaults> }

/** Creates records and publishes their messages; returns the ids of those that were new. No id occurs twice. */
export type EnqueueStatement = (
  tasks: ReadonlyArray<NewTask>
) => Effect.Effect<ReadonlySet<string>, StoreError>

/** The function that claims and starts, which the first migration of PostgreSQL creates. */
const CLAIM_FUNCTION = "claim_1"

/** The queue and the delay of a record are those of its message. */
const enqueueColumns = { ...newRecordColumns, ...newMessageColumns }

const toEnqueueRow = ({ message, record }: NewTask) => ({
  ...toNewRecordRow(record),
  ...toNewMessageRow(message)
})

/** Prepares the statement that enqueues tasks whose ids and keys may be taken; those that are taken are skipped. */
export const makeEnqueue = ({ batched, dialect: { now }, reader, table }: Database): EnqueueStatement => {
  const statement = batched(
    enqueueColumns,
    (batch) => `WITH
      given AS MATERIALIZED (SELECT * FROM ${batch}),
      created AS (
        INSERT INTO ${table("tasks")} (
          id, task, incarnation, queue, idempotency_key, payload_hash, published, state, enqueued_at, due_at, expires_at,
          retention, remove_at, check_at
        )
        SELECT id, task, incarnation, queue, idempotency_key, payload_hash,
          CASE WHEN reserved IS NULL THEN 1 ELSE 0 END, 'PENDING', ${now}, CASE WHEN delay > 0 THEN ${now} + delay END,
          ${now} + expires, retention, ${now} + reserved, ${now} + check_in
        FROM given WHERE id IS NOT NULL
        ON CONFLICT DO NOTHING RETURNING id
      ),
      published AS (
        INSERT INTO ${table("messages")} (
          queue, priority, state, due_at, wake_at, id, task, incarnation, generation, body
        )
        SELECT queue, priority, CASE WHEN delay > 0 THEN ${DELAYED} ELSE ${READY} END,
          ${now} + delay, CASE WHEN delay > 0 THEN ${now} + delay END, id, task, incarnation, generation, body
        FROM given JOIN created USING (id)
      )
      SELECT id FROM created`
  )
  const readIds = reader<{ readonly id: string }>("tasks", { id: Row.text })
  return (tasks) =>
    Effect.map(
      Effect.flatMap(statement(tasks.map(toEnqueueRow)), readIds),
      (created) => new Set(created.map(({ id }) => id))
    )
}

/**
 * Prepares the statement that enqueues tasks all of which should be new. If one is not, it fails with a
 * `UniqueViolation` and enqueues none.
 */
export const makeEnqueueAllNew = ({ batched, dialect: { now }, table }: Database): EnqueueStatement => {
  const statement = batched(
    enqueueColumns,
    (batch) => `WITH
      given AS MATERIALIZED (SELECT * FROM ${batch}),
      created AS (
        INSERT INTO ${table("tasks")} (
          id, task, incarnation, queue, idempotency_key, payload_hash, published, state, enqueued_at, due_at, expires_at,
          retention, remove_at, check_at
        )
        SELECT id, task, incarnation, queue, idempotency_key, payload_hash,
          CASE WHEN reserved IS NULL THEN 1 ELSE 0 END, 'PENDING', ${now}, CASE WHEN delay > 0 THEN ${now} + delay END,
          ${now} + expires, retention, ${now} + reserved, ${now} + check_in
        FROM given WHERE id IS NOT NULL
      )
      INSERT INTO ${table("messages")} (
        queue, priority, state, due_at, wake_at, id, task, incarnation, generation, body
      )
      SELECT queue, priority, CASE WHEN delay > 0 THEN ${DELAYED} ELSE ${READY} END,
        ${now} + delay, CASE WHEN delay > 0 THEN ${now} + delay END, id, task, incarnation, generation, body
      FROM given WHERE id IS NOT NULL`
  )
  return (tasks) =>
    Effect.map(statement(tasks.map(toEnqueueRow)), () => new Set(tasks.map(({ record }) => record.id)))
}

/**
 * Prepares the insert into the view `enqueue`, whose trigger creates the records and publishes the messages of tasks all of
 * which should be new. If one is not, it fails with a `UniqueViolation` and enqueues none.
 */
export const makeEnqueueByView = ({
  batched,
  table
}: Database): ((tasks: ReadonlyArray<NewTask>) => Effect.Effect<void, StoreError>) => {
  const columns = Object.keys(enqueueColumns).join(", ")
  const statement = batched(
    enqueueColumns,
    (batch) =>
      `INSERT INTO ${table("enqueue")} (${columns}) SELECT ${columns} FROM ${batch} WHERE batch.id IS NOT NULL`
  )
  return (tasks) => Effect.asVoid(statement(tasks.map(toEnqueueRow)))
}

/**
 * A row of a claim: one for each message, and another, with the same `seq`, for each of them that was started. With a `due`
 * that is not 0 it has no other columns.
 */
interface ClaimedRow {
  readonly due: 0 | typeof PROMOTE_FIRST | typeof LEFT_SOME
}

/** The only row: messages are to be made ready first. */
const PROMOTE_FIRST = 1
/** Messages that are due were left, because of their size. */
const LEFT_SOME = 2

const isStarted = (row: ClaimedRow): row is ClaimedRow & StartedRow & { readonly seq: number } =>
  "fence" in row && row.fence !== null

const claimedShape: Row.Shape<ClaimedRow> = {
  ...Object.fromEntries(
    Object.entries<Row.Check<unknown>>({ ...messageShape, ...startedShape }).map(([column, check]) => [
      column,
      Row.orNull(check)
    ])
  ),
  due: (value): value is ClaimedRow["due"] => value === 0 || value === PROMOTE_FIRST || value === LEFT_SOME
}

/** Joins the rows of messages and of their runs, in the order of claims. */
const toClaimed = (rows: ReadonlyArray<ClaimedRow>, prefix: string): ReadonlyArray<ClaimedMessage> => {
  const runs = new Map<number, StartedRow>()
  const messages: Array<ClaimedRow & MessageRow> = []
  for (const row of rows) {
    if (isStarted(row)) runs.set(row.seq, row)
    else if (row.due === 0) messages.push(row as ClaimedRow & MessageRow)
  }
  return messages.sort(byClaimOrder).map((row) => {
    const delivery = toDelivery(row, prefix)
    const run = runs.get(row.seq)
    return {
      delivery,
      run: run === undefined ? undefined : { token: delivery.handle, started: toStarted(run) }
    }
  })
}

/** What a claim took, and whether it left messages that are due, because of their size. */
export interface ClaimedMessages {
  readonly claimed: ReadonlyArray<ClaimedMessage>
  readonly leftSome: boolean
}

/**
 * Prepares the statement that claims messages and starts those of waiting tasks (S10), for an answer that has `taken` bytes
 * already. Where `checksDue` is set and a delay or a lease of the queues is over, it claims nothing and returns `undefined`:
 * the messages are to be made ready first.
 */
export const makeClaim = ({
  dialect: { list },
  reader,
  run,
  table
}: Database): ((
  request: FusedClaim,
  options: { readonly checksDue: boolean; readonly taken: number }
) => Effect.Effect<ClaimedMessages | undefined, StoreError>) => {
  const statement = `SELECT * FROM ${table(CLAIM_FUNCTION)} (?::boolean, ?::text[], ?::bigint, ?::bigint, ?::bigint, ?::bigint,
    ?::bigint, ?, ?, ?::text[], ?::bigint[], ?::bigint[], ?::bigint[])`
  const read = reader<ClaimedRow>("messages", claimedShape)
  return (request, { checksDue, taken }) =>
    Effect.suspend(() => {
      const { leaseMillis, max, queues, startDefaults, worker } = request
      const prefix = handlePrefix(request)
      const rows = run(statement, [
        checksDue,
        list([...new Set(queues)]),
        max,
        taken > 0 ? 0 : 1,
        Math.max(0, maxReplySize - taken),
        maxMessageBytes,
        toMillis(leaseMillis),
        prefix,
        worker,
        list(startDefaults.map(({ task }) => task)),
        list(startDefaults.map((start) => toMillis(start.leaseMillis))),
        list(startDefaults.map((start) => toMillis(start.retentionMillis))),
        list(startDefaults.map((start) => toMillis(start.deadLetterRetentionMillis)))
      ])
      return Effect.map(Effect.flatMap(rows, read), (found) =>
        found[0]?.due === PROMOTE_FIRST
          ? undefined
          : { claimed: toClaimed(found, prefix), leftSome: found[0]?.due === LEFT_SOME }
      )
    })
}

/**
 * Prepares the statement that returns the messages and runs that an earlier attempt of the same claim holds, and renews
 * their leases (N2). Those behind the first `max` come without their bodies.
 */
export const makeReclaim = ({
  dialect,
  reader,
  run,
  table
}: Database): ((request: ClaimRequest) => Effect.Effect<ReadonlyArray<ClaimedMessage>, StoreError>) => {
  const { now } = dialect
  const statement = `WITH
    held AS MATERIALIZED (
      SELECT seq, row_number() OVER (ORDER BY priority DESC, due_at, seq) AS place FROM (
        SELECT seq, priority, due_at FROM ${table("messages")} WHERE ${isHeld(dialect)} FOR UPDATE
      ) AS locked
    ),
    renewed AS (
      UPDATE ${table("messages")} AS m SET wake_at = ${now} + ?::bigint FROM held WHERE m.seq = held.seq
      RETURNING m.seq, m.id, m.task, m.incarnation, m.generation, m.queue, m.priority, m.due_at, m.waits_since,
        m.body, held.place, m.claim AS token
    ),
    started AS (
      UPDATE ${table("tasks")} AS t SET lease_until = ${now} + ?::bigint
      FROM renewed WHERE t.id = renewed.id AND t.token = renewed.token AND t.state = 'STARTED'
      RETURNING renewed.seq, t.fence, t.attempt, t.retries, t.crashes
    )
    SELECT 0 AS due, seq, id, task, incarnation, generation, queue, priority, due_at, waits_since,
      octet_length(body) AS size,
      CASE WHEN place <= ?::bigint AND octet_length(body) <= ${maxMessageBytes} THEN body END AS body,
      NULL::bigint AS fence, NULL::bigint AS attempt, NULL::bigint AS retries, NULL::bigint AS crashes, ${now} AS now
    FROM renewed
    UNION ALL
    SELECT 0, seq, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, fence, attempt, retries, crashes, 0 FROM started`
  const read = reader<ClaimedRow>("messages", claimedShape)
  return (request) => {
    const prefix = handlePrefix(request)
    const lease = toMillis(request.leaseMillis)
    const rows = run(statement, [...heldBetween(prefix), lease, lease, request.max])
    return Effect.map(Effect.flatMap(rows, read), (found) => toClaimed(found, prefix))
  }
}

/**
 * Prepares the statement that settles open runs with plain final outcomes (T3) and removes their messages; returns the
 * ids of those that it settled. No id occurs twice.
 */
export const makeSettle = ({
  batched,
  dialect: { now },
  reader,
  table
}: Database): ((
  items: ReadonlyArray<{ readonly settlement: FinalSettlement; readonly handle: string }>
) => Effect.Effect<ReadonlySet<string>, StoreError>) => {
  const statement = batched(
    { ...finalColumns, seq: "integer", claim: "text" },
    (batch) => `WITH
      given AS MATERIALIZED (SELECT * FROM ${batch}),
      settled AS (
        UPDATE ${table("tasks")} AS t
        SET state = given.state, outcome = given.outcome, finished_at = ${now}, retention = given.retention,
          remove_at = ${now} + given.retention, check_at = ${checkUntil(`${now} + given.retention`)},
          lease_until = NULL, body_queue = NULL, body = NULL
        FROM given
        WHERE t.id = given.id AND t.token = given.token AND t.state = 'STARTED' AND t.ended IS NULL
        RETURNING t.id
      ),
      acked AS (
        DELETE FROM ${table("messages")} AS m USING given JOIN settled ON settled.id = given.id
        WHERE m.seq = given.seq AND m.claim = given.claim
      )
      SELECT id FROM settled`
  )
  const readIds = reader<{ readonly id: string }>("tasks", { id: Row.text })
  return (items) =>
    Effect.map(
      Effect.flatMap(
        statement(
          items.map(({ handle, settlement: { id, outcome, token } }) => ({
            ...toFinalRow(id, token, outcome),
            seq: seqOf(handle),
            claim: handle
          }))
        ),
        readIds
      ),
      (settled) => new Set(settled.map(({ id }) => id))
    )
}
