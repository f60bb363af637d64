/**
 * Starts runs: decides in one atomic step whether a delivered message may run.
 */
import { Effect } from "effect"
import type { Start, Started } from "../../BackendDriver.ts"
import type { Batch } from "../../BrokerDriver.ts"
import { decideStart } from "../../internal/task/transitions.ts"
import type { Database, StoreError } from "../Database.ts"
import type { BatchRow } from "../dialect/Dialect.ts"
import type { Indexed } from "../distinctBatches.ts"
import * as Row from "../Row.ts"
import { toMillis } from "../toMillis.ts"
import { type BatchResult, byDistinctBatches } from "./BatchResult.ts"
import { makeRenewLeases } from "./renew.ts"
import { type TaskRow, toFacts } from "./TaskRow.ts"
import type { Snapshot, TaskRows, TaskToEnd, TaskToOpen } from "./TaskRows.ts"
import { earliest, timeAfter } from "./times.ts"

/** The columns of a started task that its run is given. */
export interface StartedRow {
  readonly fence: number
  readonly attempt: number
  readonly retries: number
  readonly crashes: number
}

/** The checks of those columns. */
export const startedShape: Row.Shape<StartedRow> = {
  fence: Row.integer,
  attempt: Row.integer,
  retries: Row.integer,
  crashes: Row.integer
}

/** Returns the answer to a start that may run. */
export const toStarted = ({ attempt, crashes, fence, retries }: StartedRow): Started => ({
  _tag: "Run",
  fence,
  attempt,
  retries,
  crashes
})

/** The columns of a batch of runs. `crashes` is what the start adds to those that were counted. */
const runColumns = {
  id: "text",
  generation: "integer",
  token: "text",
  worker: "text",
  queue: "text",
  body: "body",
  crashes: "integer",
  at_most_once: "integer",
  lease: "integer",
  retention: "integer",
  letter_retention: "integer"
} as const

/** Returns the row of such a batch. The message of an at-most-once run is gone, so the record keeps its body. */
const toRunRow = (start: Start, crashes: number): BatchRow<typeof runColumns> => {
  const isAtMostOnce = start.deliveryMode === "at-most-once"
  return {
    id: start.id,
    generation: start.generation,
    token: start.token,
    worker: start.worker,
    queue: isAtMostOnce ? start.queue : null,
    body: isAtMostOnce ? start.body : null,
    crashes,
    at_most_once: isAtMostOnce ? 1 : 0,
    lease: toMillis(start.leaseMillis),
    retention: toMillis(start.retentionMillis),
    letter_retention: toMillis(start.deadLetterRetentionMillis)
  }
}

const makeUpdateStarted = ({ batchedUpdate, dialect: { now } }: Database, where: string) =>
  batchedUpdate({
    table: "tasks",
    columns: runColumns,
    set: {
      state: "'STARTED'",
      published: "1",
      attempt: "t.attempt + 1",
      fence: "t.fence + 1",
      crashes: "t.crashes + batch.crashes",
      token: "batch.token",
      worker: "batch.worker",
      queue: "batch.queue",
      body: "batch.body",
      at_most_once: "batch.at_most_once",
      started_at: `COALESCE(t.started_at, ${now})`,
      due_at: "NULL",
      remove_at: "NULL",
      lease_until: `${now} + batch.lease`,
      retention: "batch.retention",
      letter_retention: "batch.letter_retention",
      check_at: `CASE WHEN batch.at_most_once = 1 THEN ${now} + batch.lease
        ELSE COALESCE(t.check_at, ${now} + batch.retention) END`
    },
    where,
    key: ["id", "text"],
    returning: ["id", "fence", "attempt", "retries", "crashes"]
  })

/** Prepares the statements of a start. */
const makeStatements = (db: Database) => {
  const { dialect } = db
  const { now } = dialect
  return {
    /** S10, where the task waits and is not of another generation: what most starts find. */
    startWaiting: makeUpdateStarted(
      db,
      `t.id = batch.id AND t.generation = batch.generation AND t.state IN ('PENDING', 'RETRY')
        AND t.remove_at IS NULL AND (t.due_at IS NULL OR t.due_at <= ${now})
        AND (t.expires_at IS NULL OR t.expires_at > ${now})`
    ),
    /** S10, after a decision over the locked row. */
    startDecided: makeUpdateStarted(db, "t.id = batch.id"),
    /** S1 */
    renewLeases: makeRenewLeases(db),
    /** Skips records that another worker has inserted meanwhile. */
    insertMissing: db.batched(
      { id: "text", task: "text", generation: "integer", expires_at: "integer", check_at: "integer" },
      (batch) =>
        `${dialect.insertIgnore} ${db.table("tasks")} (
          id, task, payload_hash, published, state, generation, expires_at, check_at
        )
        SELECT batch.id, batch.task, '', 1, 'PENDING', batch.generation, batch.expires_at, batch.check_at
        FROM ${batch} WHERE batch.id IS NOT NULL
        ${dialect.onConflictDoNothing}`
    ),
    readStarted: db.reader<StartedRow & { readonly id: string }>("tasks", { id: Row.text, ...startedShape })
  }
}

/** What decisions over locked rows come to. */
interface StartPlan {
  readonly endings: Array<TaskToEnd>
  readonly openings: Array<TaskToOpen>
  readonly runs: Array<BatchRow<typeof runColumns>>
  /** Requests that repeat that of the open run. */
  readonly repeated: Array<Start>
}

/** Decides a batch over locked rows, and sets the answers that need no further statement. */
const plan = (
  items: ReadonlyArray<Indexed<Start> & { readonly row: TaskRow }>,
  now: number,
  answers: Array<Started>
): StartPlan => {
  const result: StartPlan = { endings: [], openings: [], runs: [], repeated: [] }
  for (const { index, item, row } of items) {
    const decision = decideStart(toFacts(row), item, now)
    switch (decision._tag) {
      case "Drop":
      case "Busy":
        answers[index] = decision
        break
      case "Repeat":
        result.repeated.push(item)
        answers[index] = toStarted(row)
        break
      case "End":
        result.endings.push({ row, ended: decision.ended, crashes: decision.crashes, message: item })
        answers[index] = { _tag: "Drop" }
        break
      case "Run":
        if (decision.opens === undefined) {
          result.runs.push(toRunRow(item, decision.crashes - row.crashes))
        } else {
          // opening the generation sets the crashes to zero
          result.openings.push({ row, generation: decision.opens })
          result.runs.push(toRunRow(item, 0))
        }
    }
  }
  return result
}

/** Starts runs over one database. Needs a transaction. */
export const makeStart = (
  db: Database,
  taskRows: TaskRows
): ((batch: Batch<Start>) => Effect.Effect<BatchResult<Started>, StoreError>) => {
  const { insertMissing, readStarted, renewLeases, startDecided, startWaiting } = makeStatements(db)

  /** Reads the rows of starts under a lock, after it has created those that are missing. */
  const findRows = Effect.fnUntraced(function* (
    items: ReadonlyArray<Indexed<Start>>
  ): Effect.fn.Return<Snapshot, StoreError> {
    const ids = items.map(({ item }) => item.id)
    const { now, rows } = yield* taskRows.selectForUpdate(ids)
    const missing = items.filter(({ item }) => !rows.has(item.id))
    if (missing.length === 0) return { now, rows }
    yield* insertMissing(
      missing.map(({ item }) => {
        const expires_at = timeAfter(now, item.expiresMillis)
        const check_at = earliest(expires_at, timeAfter(now, item.retentionMillis))
        return { id: item.id, task: item.task, generation: item.generation, expires_at, check_at }
      })
    )
    return { now, rows: (yield* taskRows.selectForUpdate(ids)).rows }
  })

  /** Returns the row of a task. It is missing only if the database altered the id that was inserted. */
  const rowOf = ({ rows }: Snapshot, id: string) => {
    const row = rows.get(id)
    return row === undefined
      ? Effect.fail(
          new Row.CorruptRow({ store: db.store, table: db.tableName("tasks"), column: "id", value: id })
        )
      : Effect.succeed(row)
  }

  const start = Effect.fnUntraced(function* (
    items: ReadonlyArray<Indexed<Start>>,
    answers: Array<Started>,
    changed: Array<string>,
    ended: Array<string>
  ): Effect.fn.Return<void, StoreError> {
    const answerStarted = (started: ReadonlyArray<StartedRow & { readonly id: string }>) => {
      const byId = new Map(started.map((row) => [row.id, row]))
      for (const { index, item } of items) {
        const row = byId.get(item.id)
        if (row === undefined) continue
        answers[index] = toStarted(row)
        changed.push(item.id)
      }
    }

    answerStarted(yield* readStarted(yield* startWaiting(items.map(({ item }) => toRunRow(item, 0)))))
    const rest = items.filter(({ index }) => answers[index] === undefined)
    if (rest.length === 0) return

    const snapshot = yield* findRows(rest)
    const located: Array<Indexed<Start> & { readonly row: TaskRow }> = []
    for (const { index, item } of rest) {
      located.push({ index, item, row: yield* rowOf(snapshot, item.id) })
    }
    const { endings, openings, repeated, runs } = plan(located, snapshot.now, answers)
    for (const { row } of endings) ended.push(row.id)
    yield* taskRows.end(endings, snapshot.now)
    yield* taskRows.open(openings, snapshot.now)
    yield* renewLeases(
      repeated.map(({ id, leaseMillis, token }) => ({
        id,
        token,
        lease: toMillis(leaseMillis),
        progress: null
      }))
    )
    answerStarted(yield* readStarted(yield* startDecided(runs)))
  })

  return (batch) =>
    Effect.suspend(() => {
      const ended: Array<string> = []
      const run = byDistinctBatches<Start, Started>((items, answers, changed) =>
        start(items, answers, changed, ended)
      )
      return Effect.map(run(batch), (result) => ({ ...result, ended }))
    })
}
