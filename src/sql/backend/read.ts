/**
 * Reads records. Tasks that have lapsed are ended first, so that no waiter waits for them.
 */
import { Effect } from "effect"
import type { TaskRecord } from "../../BackendDriver.ts"
import type { Batch } from "../../BrokerDriver.ts"
import { type ForcedEnd, lapse } from "../../internal/task/transitions.ts"
import type { Database, StoreError } from "../Database.ts"
import * as Row from "../Row.ts"
import type { BatchResult } from "./BatchResult.ts"
import { columns, isOutlived, shape, type TaskRow, toFacts } from "./TaskRow.ts"
import type { TaskRows, TaskToEnd } from "./TaskRows.ts"

/** The records that were read. */
export interface FoundRecords {
  /** The records in the order of the ids. Those that have lapsed (L1–L3) are shown as they will have ended. */
  readonly records: ReadonlyArray<TaskRecord | undefined>
  /** The ids of records that have lapsed: they are to be ended, and read again. */
  readonly lapsed: ReadonlyArray<string>
}

/** Reads records. */
export interface ReadOperations {
  readonly read: (ids: Batch<string>) => Effect.Effect<FoundRecords, StoreError>
  /** Ends the tasks among the ids that have lapsed. Needs a transaction. */
  readonly endLapsed: (ids: ReadonlyArray<string>) => Effect.Effect<BatchResult<never>, StoreError>
}

interface FullTaskRow extends TaskRow {
  readonly now: number
  readonly outcome: string | null
  readonly progress: string | null
  readonly worker: string | null
  readonly enqueued_at: number
  readonly started_at: number | null
  readonly finished_at: number | null
}

const textOrNull = Row.orNull(Row.text)
const integerOrNull = Row.orNull(Row.integer)

const fullShape: Row.Shape<FullTaskRow> = {
  ...shape,
  now: Row.integer,
  outcome: textOrNull,
  progress: textOrNull,
  worker: textOrNull,
  enqueued_at: Row.integer,
  started_at: integerOrNull,
  finished_at: integerOrNull
}

const toRecord = (row: FullTaskRow): TaskRecord => ({
  id: row.id,
  task: row.task,
  state: row.state,
  incarnation: row.incarnation,
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

const toEndedRecord = (row: FullTaskRow, ended: ForcedEnd): TaskRecord => ({
  ...toRecord(row),
  state: "FAILURE",
  ended,
  finishedAt: row.now
})

/** Reads records over one database. */
export const makeRead = ({ dialect, reader, run, table }: Database, taskRows: TaskRows): ReadOperations => {
  const readRows = reader<FullTaskRow>("tasks", fullShape)
  const select = `SELECT ${columns}, ${dialect.now} AS now, outcome, progress, worker, enqueued_at, started_at, finished_at
    FROM ${table("tasks")} WHERE ${dialect.inList("id", "text")}`

  return {
    read: (ids) =>
      Effect.map(Effect.flatMap(run(select, [dialect.list(ids)]), readRows), (rows) => {
        const found = new Map<string, TaskRecord>()
        const lapsed: Array<string> = []
        for (const row of rows) {
          if (isOutlived(row, row.now)) continue
          const ended = lapse(toFacts(row), row.now)
          if (ended !== undefined) lapsed.push(row.id)
          if (ended === undefined) found.set(row.id, toRecord(row))
          // the end removes a forgotten task (F3)
          else if (row.ended !== "Forgotten") found.set(row.id, toEndedRecord(row, ended))
        }
        return { records: ids.map((id) => found.get(id)), lapsed }
      }),
    endLapsed: (ids) =>
      Effect.flatMap(taskRows.selectForUpdate(ids), ({ now, rows }) => {
        const endings: Array<TaskToEnd> = []
        for (const row of rows.values()) {
          const ended = lapse(toFacts(row), now)
          if (ended !== undefined) endings.push({ row, ended, crashes: row.crashes })
        }
        return Effect.as(taskRows.end(endings, now), {
          answers: [],
          changed: endings.map(({ row }) => row.id)
        })
      })
  }
}
