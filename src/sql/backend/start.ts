/**
 * Starts runs: decides, in one atomic step, whether a message that was delivered may run.
 */
import { Effect } from "effect"
import type { Start, Started } from "../../BackendDriver.ts"
import type { Batch } from "../../BrokerDriver.ts"
import { type Database, toMillis, type StoreError } from "../Database.ts"
import * as Row from "../Row.ts"
import { type BatchResult, byDistinctBatches, type DistinctBatchOperation } from "./BatchResult.ts"
import * as Leasing from "./renew.ts"
import * as TaskRows from "./TaskRows.ts"

/** What a run starts with. */
export interface StartedRow {
  readonly fence: number
  readonly attempt: number
  readonly retries: number
  readonly crashes: number
}

/** The checks of it. */
export const shape: Row.Shape<StartedRow> = {
  fence: Row.integer,
  attempt: Row.integer,
  retries: Row.integer,
  crashes: Row.integer
}

/** The leave to run. */
export const toStarted = ({ attempt, crashes, fence, retries }: StartedRow): Started => ({
  _tag: "Run",
  fence,
  attempt,
  retries,
  crashes
})

/** What a start comes to: an answer, and what to write. */
type StartDecision =
  | { readonly _tag: "Drop" }
  | { readonly _tag: "Busy"; readonly millis: number }
  | { readonly _tag: "Again" }
  | { readonly _tag: "End"; readonly ended: TaskRows.TaskToEnd["ended"]; readonly crashes: number }
  | { readonly _tag: "Run"; readonly crashed: boolean }

const decideStart = (record: TaskRows.TaskRow, start: Start, now: number): StartDecision => {
  const { crashes } = record
  if (record.state === "STARTED" && record.token === start.token) return { _tag: "Again" }
  if (TaskRows.isFinal(record) || start.generation < record.generation) return { _tag: "Drop" }
  if (TaskRows.isWaiting(record)) {
    const ended = TaskRows.lapsed(record, now)
    if (ended !== undefined) return { _tag: "End", ended, crashes }
    const wait = (record.due_at ?? now) - now
    return wait > 0 ? { _tag: "Busy", millis: wait } : { _tag: "Run", crashed: false }
  }
  const held = (record.lease_until ?? now) - now
  if (held > 0) return { _tag: "Busy", millis: held }
  const lapsed = TaskRows.lapsed(record, now)
  if (lapsed !== undefined) return { _tag: "End", ended: lapsed, crashes }
  if (record.cancel_requested === 1) return { _tag: "End", ended: "Cancelled", crashes: crashes + 1 }
  return crashes + 1 >= start.maxCrashes
    ? { _tag: "End", ended: "WorkerLost", crashes: crashes + 1 }
    : { _tag: "Run", crashed: true }
}

/** What a start writes to the row `t` of a task, from a row that says the terms of the run. */
export const assignments = (now: string, run: string): Readonly<Record<string, string>> => ({
  state: "'STARTED'",
  published: "1",
  attempt: "t.attempt + 1",
  fence: "t.fence + 1",
  token: `${run}.token`,
  worker: `${run}.worker`,
  started_at: `COALESCE(t.started_at, ${now})`,
  due_at: "NULL",
  remove_at: "NULL",
  lease_until: `${now} + ${run}.lease`,
  retention: `${run}.retention`,
  check_at: `COALESCE(t.check_at, ${now} + ${run}.retention)`,
  letter_retention: `${run}.letters`
})

/** A task that waits, and may start at once: what most starts find. */
export const isStartable = (now: string, generation: string): string =>
  `t.generation = ${generation} AND t.state IN ('PENDING', 'RETRY') AND t.remove_at IS NULL
    AND (t.due_at IS NULL OR t.due_at <= ${now}) AND (t.expires_at IS NULL OR t.expires_at > ${now})`

/** Starts, over one database. Belongs into a transaction. */
export const make = (
  db: Database,
  records: TaskRows.TaskRows
): ((batch: Batch<Start>) => Effect.Effect<BatchResult<Started>, StoreError>) => {
  const { dialect } = db
  const tasks = db.table("tasks")

  // another worker may have been first
  const insertMissing = db.batched(
    { id: "text", task: "text", generation: "integer", expires_at: "integer", check_at: "integer" },
    (batch) =>
      dialect.insertNew({
        table: tasks,
        columns: ["id", "task", "payload_hash", "published", "state", "generation", "expires_at", "check_at"],
        select: `SELECT batch.id, batch.task, '', 1, 'PENDING', batch.generation, batch.expires_at, batch.check_at
          FROM ${batch} WHERE batch.id IS NOT NULL`
      })
  )
  const starting = (where: string) =>
    db.updating({
      table: "tasks",
      columns: {
        id: "text",
        generation: "integer",
        token: "text",
        worker: "text",
        queue: "text",
        body: "text",
        crashes: "integer",
        at_most_once: "integer",
        lease: "integer",
        retention: "integer",
        letters: "integer"
      },
      set: {
        ...assignments(dialect.now, "batch"),
        crashes: "t.crashes + batch.crashes",
        queue: "batch.queue",
        body: "batch.body",
        at_most_once: "batch.at_most_once",
        check_at: `CASE WHEN batch.at_most_once = 1 THEN ${dialect.now} + batch.lease
          ELSE COALESCE(t.check_at, ${dialect.now} + batch.retention) END`
      },
      where,
      key: ["id", "text"],
      returning: ["id", "fence", "attempt", "retries", "crashes"]
    })
  const startDecided = starting("t.id = batch.id")
  // what most starts come to, without a look before
  const startWaiting = starting(`t.id = batch.id AND ${isStartable(dialect.now, "batch.generation")}`)
  const toStart = (start: Start, crashes: number): ReadonlyArray<unknown> => {
    const isKept = start.deliveryMode === "at-most-once"
    return [
      start.id,
      start.generation,
      start.token,
      start.worker,
      isKept ? start.queue : null,
      isKept ? dialect.toBody(start.body) : null,
      crashes,
      isKept ? 1 : 0,
      toMillis(start.leaseMillis),
      toMillis(start.retentionMillis),
      toMillis(start.deadLetterRetentionMillis)
    ]
  }
  const readStarted = db.reader<StartedRow & { readonly id: string }>("tasks", { id: Row.text, ...shape })
  const updateLease = Leasing.makeUpdate(db)
  const unkept = { store: db.store, table: db.tableName("tasks"), column: "id" }

  const round =
    (ended: Array<string>): DistinctBatchOperation<Start, Started> =>
    (items, answers, changed) =>
      Effect.gen(function* () {
        const run = Effect.fnUntraced(function* (rows: ReadonlyArray<object>) {
          const byId = new Map((yield* readStarted(rows)).map((row) => [row.id, row]))
          return items.filter(({ index, item }) => {
            const row = byId.get(item.id)
            if (row === undefined) return answers[index] === undefined
            answers[index] = toStarted(row)
            changed.push(item.id)
            return false
          })
        })
        const rest = yield* run(yield* startWaiting(items.map(({ item }) => toStart(item, 0))))
        if (rest.length === 0) return

        const ids = rest.map(({ item }) => item.id)
        const locked = yield* records.selectForUpdate(ids)
        const { now } = locked
        let found = locked.rows
        const missing = rest.filter(({ item }) => !found.has(item.id))
        if (missing.length > 0) {
          yield* insertMissing(
            missing.map(({ item }) => {
              const expiresAt = TaskRows.timeAfter(now, item.expiresMillis)
              const check = TaskRows.earliest(expiresAt, TaskRows.timeAfter(now, item.retentionMillis))
              return [item.id, item.task, item.generation, expiresAt, check]
            })
          )
          found = (yield* records.selectForUpdate(ids)).rows
        }
        const endings: Array<TaskRows.TaskToEnd> = []
        const openings: Array<TaskRows.TaskToOpen> = []
        const runs: Array<ReadonlyArray<unknown>> = []
        const again: Array<ReadonlyArray<unknown>> = []
        for (const { index, item } of rest) {
          const record = found.get(item.id)
          // the database has made another id of it
          if (record === undefined) return yield* new Row.CorruptRow({ ...unkept, value: item.id })
          const decision = decideStart(record, item, now)
          switch (decision._tag) {
            case "Drop":
            case "Busy":
              answers[index] = decision
              break
            case "Again":
              again.push([record.id, item.token, toMillis(item.leaseMillis), null])
              answers[index] = toStarted(record)
              break
            case "End":
              endings.push({ row: record, ended: decision.ended, crashes: decision.crashes, message: item })
              answers[index] = { _tag: "Drop" }
              ended.push(item.id)
              break
            case "Run":
              if (item.generation > record.generation) {
                openings.push({ row: record, generation: item.generation })
                runs.push(toStart(item, 0))
              } else {
                runs.push(toStart(item, decision.crashed ? 1 : 0))
              }
          }
        }
        yield* records.end(endings, now)
        yield* records.open(openings, now)
        yield* updateLease(again)
        yield* run(yield* startDecided(runs))
      })

  return (batch) =>
    Effect.suspend(() => {
      const ended: Array<string> = []
      return Effect.map(byDistinctBatches(round(ended))(batch), (changed) => ({ ...changed, ended }))
    })
}
