/**
 * Reads of records. What cannot finish any more is ended first, so that nobody waits for it.
 */
import { Effect } from "effect"
import type { TaskRecord } from "../../BackendDriver.ts"
import type { Batch } from "../../BrokerDriver.ts"
import type { TaskState } from "../../TaskState.ts"
import type { Database, StoreError } from "../Database.ts"
import * as Row from "../Row.ts"
import type { BatchResult } from "./BatchResult.ts"
import * as TaskRows from "./TaskRows.ts"

/** The operations. */
export interface ReadOperations {
  /** Records by their ids, in order, and those among them that have to be ended first. */
  readonly read: (ids: Batch<string>) => Effect.Effect<Read, StoreError>
  /** Ends those of the ids that lapsed. Belongs into a transaction. */
  readonly endLapsed: (ids: ReadonlyArray<string>) => Effect.Effect<BatchResult<never>, StoreError>
}

/** What was read. */
export interface Read {
  readonly records: ReadonlyArray<TaskRecord | undefined>
  readonly lapsed: ReadonlyArray<string>
}

interface FullTaskRow extends TaskRows.TaskRow {
  readonly now: number
  readonly outcome: string | null
  readonly progress: string | null
  readonly worker: string | null
  readonly enqueued_at: number | null
  readonly started_at: number | null
  readonly finished_at: number | null
}

const toRecord = (row: FullTaskRow): TaskRecord => ({
  id: row.id,
  task: row.task,
  state: row.state satisfies TaskState,
  generation: row.generation,
  attempt: row.attempt,
  retries: row.retries,
  crashes: row.crashes,
  exit: row.outcome,
  progress: row.progress,
  worker: row.worker,
  cancelRequested: row.cancel_requested === 1,
  ended: row.ended,
  enqueuedAt: row.enqueued_at,
  startedAt: row.started_at,
  finishedAt: row.finished_at,
  expiresAt: row.expires_at
})

/** Over one database. */
export const make = (db: Database, records: TaskRows.TaskRows): ReadOperations => {
  const { dialect } = db
  const textOrNull = Row.orNull(Row.text)
  const integerOrNull = Row.orNull(Row.integer)
  const readRows = db.reader<FullTaskRow>("tasks", {
    ...TaskRows.shape,
    now: Row.integer,
    outcome: textOrNull,
    progress: textOrNull,
    worker: textOrNull,
    enqueued_at: integerOrNull,
    started_at: integerOrNull,
    finished_at: integerOrNull
  })
  const select = `SELECT ${TaskRows.columns}, ${dialect.now} AS now, outcome, progress, worker, enqueued_at,
    started_at, finished_at FROM ${db.table("tasks")} WHERE ${dialect.inList("id", "text")}`

  return {
    read: (ids) =>
      Effect.map(Effect.flatMap(db.run(select, [dialect.list(ids)]), readRows), (rows) => {
        const found = new Map<string, TaskRecord>()
        const lapsed: Array<string> = []
        for (const row of rows) {
          if (row.remove_at !== null && row.remove_at <= row.now) continue
          if (TaskRows.lapsed(row, row.now) !== undefined) lapsed.push(row.id)
          found.set(row.id, toRecord(row))
        }
        return { records: ids.map((id) => found.get(id)), lapsed }
      }),
    endLapsed: (ids) =>
      Effect.flatMap(records.selectForUpdate(ids), ({ now, rows: found }) => {
        const endings: Array<TaskRows.TaskToEnd> = []
        for (const record of found.values()) {
          const ended = TaskRows.lapsed(record, now)
          if (ended !== undefined) endings.push({ row: record, ended, crashes: record.crashes })
        }
        return Effect.as(records.end(endings, now), {
          answers: [],
          changed: endings.map(({ row: record }) => record.id)
        })
      })
  }
}
