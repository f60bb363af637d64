/**
 * Starts runs: decides in one atomic step whether a delivered message may run.
 */
import { Effect } from "effect"
import type { Start, Started } from "../../BackendDriver.ts"
import type { Batch } from "../../BrokerDriver.ts"
import { decideStart, type TaskFacts } from "../../internal/task/transitions.ts"
import type { Database, StoreError } from "../Database.ts"
import type { BatchRow } from "../dialect/Dialect.ts"
import type { Indexed } from "../distinctBatches.ts"
import * as Row from "../Row.ts"
import { toMillis } from "../toMillis.ts"
import { type BatchResult, byDistinctBatches } from "./BatchResult.ts"
import { makeRenewLeases } from "./renew.ts"
import { toFacts } from "./TaskRow.ts"
import type { Snapshot, TaskRows, TaskToEnd, TaskToOpen } from "./TaskRows.ts"

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

/** The answer to a start that may run. */
type StartedRun = Extract<Started, { readonly _tag: "Run" }>

/** Returns the answer to a start that may run. */
export const toStarted = ({ attempt, crashes, fence, retries }: StartedRow): StartedRun => ({
  _tag: "Run",
  fence,
  attempt,
  retries,
  crashes
})

/** The columns of a batch of runs. `crashes` is what the start adds to those that were counted. */
const runColumns = {
  id: "text",
  task: "text",
  incarnation: "text",
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

/** Returns the row of such a batch. The message of an at-most-once run is gone, so the record keeps its queue and body. */
const toRunRow = (start: Start, crashes: number): BatchRow<typeof runColumns> => {
  const isAtMostOnce = start.deliveryMode === "at-most-once"
  return {
    id: start.id,
    task: start.task,
    incarnation: start.incarnation,
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
      body_queue: "batch.queue",
      body: "batch.body",
      at_most_once: "batch.at_most_once",
      // the clock of the database may have been set back, or be that of another server
      started_at: `COALESCE(t.started_at, CASE WHEN t.enqueued_at > ${now} THEN t.enqueued_at ELSE ${now} END)`,
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
  const { now } = db.dialect
  return {
    /** S10, where the task waits and the message is of its generation: what most starts find. */
    startWaiting: makeUpdateStarted(
      db,
      `t.id = batch.id AND t.task = batch.task AND t.incarnation = batch.incarnation
        AND t.generation = batch.generation AND t.state IN ('PENDING', 'RETRY')
        AND (t.remove_at IS NULL OR t.remove_at > ${now})
        AND (t.state = 'PENDING' OR t.due_at IS NULL OR t.due_at <= ${now})
        AND (t.expires_at IS NULL OR t.expires_at > ${now})`
    ),
    /** S10, after a decision over the locked row. */
    startDecided: makeUpdateStarted(db, "t.id = batch.id"),
    /** S1 */
    renewLeases: makeRenewLeases(db),
    readStarted: db.reader<StartedRow & { readonly id: string }>("tasks", { id: Row.text, ...startedShape })
  }
}

/** What decisions over locked rows come to. */
interface StartPlan {
  readonly endings: Array<TaskToEnd>
  readonly openings: Array<TaskToOpen>
  readonly runs: Array<BatchRow<typeof runColumns>>
  /** The workers of the lapsed runs that these follow, by task id. */
  readonly lostWorkers: Map<string, string>
  /** Requests that repeat that of the open run. */
  readonly repeated: Array<Start>
}

/** Decides a batch over locked rows, and sets the answers that need no further statement. */
const plan = (
  items: ReadonlyArray<Indexed<Start>>,
  { now, rows }: Snapshot,
  answers: Array<Started>
): StartPlan => {
  const result: StartPlan = { endings: [], openings: [], runs: [], lostWorkers: new Map(), repeated: [] }
  for (const { index, item } of items) {
    const row = rows.get(item.id)
    const decision = decideStart(row === undefined ? undefined : toFacts(row), item, now)
    if (row === undefined) {
      answers[index] = { _tag: "NoRecord" }
      continue
    }
    switch (decision._tag) {
      case "NoRecord":
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
        answers[index] = {
          _tag: "Drop",
          ended: {
            reason: decision.ended,
            attempt: row.attempt,
            crashes: decision.crashes,
            worker: row.worker
          }
        }
        break
      case "Run":
        if (decision.opens === undefined) {
          const crashes = decision.crashes - row.crashes
          if (crashes > 0) result.lostWorkers.set(item.id, row.worker ?? "unknown")
          result.runs.push(toRunRow(item, crashes))
        } else {
          // opening the generation sets the crashes to zero
          result.openings.push({ row, generation: decision.opens, reserved: null })
          result.runs.push(toRunRow(item, 0))
        }
    }
  }
  return result
}

/** A run that a request of a batch has opened. */
interface OpenedRun {
  readonly start: Start
  /** What a repetition of the start is answered. */
  readonly started: StartedRun
}

/**
 * Answers a request for a task of which the same batch has opened a run. It is decided at the moment of that start (S1,
 * S3, S6): the lease cannot be over, however long the batch takes, since nobody has the run yet.
 */
const answerCopy = ({ start, started }: OpenedRun, request: Start): Started => {
  const { generation, incarnation, leaseMillis, task, token } = start
  const opened: TaskFacts = {
    task,
    state: "STARTED",
    incarnation,
    generation,
    crashes: 0,
    token,
    leaseUntil: Infinity,
    atMostOnce: false,
    cancelRequested: false,
    withdrawn: false,
    expiresAt: null,
    dueAt: null,
    ended: null
  }
  const decision = decideStart(opened, request, 0)
  if (decision._tag === "Repeat") return started
  return decision._tag === "Drop" ? decision : { _tag: "Busy", millis: leaseMillis }
}

/** Starts runs over one database. Needs a transaction. */
export const makeStart = (
  db: Database,
  taskRows: TaskRows
): ((batch: Batch<Start>) => Effect.Effect<BatchResult<Started>, StoreError>) => {
  const { readStarted, renewLeases, startDecided, startWaiting } = makeStatements(db)

  const start = Effect.fnUntraced(function* (
    all: ReadonlyArray<Indexed<Start>>,
    answers: Array<Started>,
    changed: Array<string>,
    ended: Array<string>,
    opened: Map<string, OpenedRun>
  ): Effect.fn.Return<void, StoreError> {
    const items = all.filter(({ index, item }) => {
      const run = opened.get(item.id)
      if (run === undefined) return true
      answers[index] = answerCopy(run, item)
      return false
    })
    if (items.length === 0) return
    const answerStarted = (
      started: ReadonlyArray<StartedRow & { readonly id: string }>,
      lostWorkers?: ReadonlyMap<string, string>
    ) => {
      const byId = new Map(started.map((row) => [row.id, row]))
      for (const { index, item } of items) {
        const row = byId.get(item.id)
        if (row === undefined) continue
        const started = toStarted(row)
        const lostWorker = lostWorkers?.get(item.id)
        answers[index] = lostWorker === undefined ? started : { ...started, lostWorker }
        opened.set(item.id, { start: item, started })
        changed.push(item.id)
      }
    }

    answerStarted(yield* readStarted(yield* startWaiting(items.map(({ item }) => toRunRow(item, 0)))))
    const rest = items.filter(({ index }) => answers[index] === undefined)
    if (rest.length === 0) return

    const snapshot = yield* taskRows.selectForUpdate(rest.map(({ item }) => item.id))
    const { endings, lostWorkers, openings, repeated, runs } = plan(rest, snapshot, answers)
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
    answerStarted(yield* readStarted(yield* startDecided(runs)), lostWorkers)
  })

  return (batch) =>
    Effect.suspend(() => {
      const ended: Array<string> = []
      const opened = new Map<string, OpenedRun>()
      const run = byDistinctBatches<Start, Started>((items, answers, changed) =>
        start(items, answers, changed, ended, opened)
      )
      return Effect.map(run(batch), (result) => ({ ...result, ended }))
    })
}
