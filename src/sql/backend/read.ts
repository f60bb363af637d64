/**
 * Reads records. Tasks that have lapsed are ended first, so that no waiter waits for them.
 */
import { Effect } from "effect"
import type { TaskRecord } from "../../BackendDriver.ts"
import type { Batch } from "../../BrokerDriver.ts"
import { type ForcedEnd, lapse } from "../../internal/task/transitions.ts"
import { countFitting, RowLimit, shareOf } from "../answerSize.ts"
import type { Database, StoreError } from "../Database.ts"
import * as Row from "../Row.ts"
import type { BatchResult } from "./BatchResult.ts"
import { isOutlived, type StateRow, stateShape, toFacts } from "./TaskRow.ts"
import type { TaskRows, TaskToEnd } from "./TaskRows.ts"

/** The records that were read. */
export interface FoundRecords {
  /** The records of the first ids, in order, at least one. Those that have lapsed (L1–L3) are shown as they will have ended. */
  readonly records: ReadonlyArray<TaskRecord | undefined>
  /** The ids of records that have lapsed: they are to be ended, and read again. */
  readonly lapsed: ReadonlyArray<string>
}

/** Reads records. */
export interface ReadOperations {
  readonly read: (ids: Batch<string>) => Effect.Effect<FoundRecords, StoreError>
  readonly readHistory: (ids: Batch<string>) => Effect.Effect<ReadonlyArray<string | undefined>, StoreError>
  /** Ends the tasks among the ids that have lapsed. Needs a transaction. */
  readonly endLapsed: (ids: ReadonlyArray<string>) => Effect.Effect<BatchResult<never>, StoreError>
}

interface FullTaskRow extends StateRow {
  readonly now: number
  /** Bytes of `outcome` and `progress`. Both are NULL where they have more bytes than the statement may return. */
  readonly size: number
  readonly outcome: string | null
  readonly progress: string | null
  readonly queue: string | null
  readonly worker: string | null
  readonly enqueued_at: number
  readonly started_at: number | null
  readonly finished_at: number | null
}

const textOrNull = Row.orNull(Row.text)
const integerOrNull = Row.orNull(Row.integer)

const fullShape: Row.Shape<FullTaskRow> = {
  ...stateShape,
  now: Row.integer,
  size: Row.integer,
  outcome: textOrNull,
  progress: textOrNull,
  queue: textOrNull,
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
  queue: row.queue ?? undefined,
  exit: row.outcome,
  progress: row.progress,
  worker: row.worker,
  cancelRequested: row.cancel_requested === 1,
  ended: row.ended,
  enqueuedAt: row.enqueued_at,
  startedAt: row.started_at,
  finishedAt: row.finished_at,
  expiresAt: row.expires_at,
  dueAt: row.due_at
})

const toEndedRecord = (row: FullTaskRow, ended: ForcedEnd): TaskRecord => ({
  ...toRecord(row),
  state: "FAILURE",
  ended,
  dueAt: null,
  finishedAt: row.now
})

/** Prepares the statement that reads rows by their ids, and their texts if a row has at most `bytes` of them. */
const makeSelect = ({ dialect, reader, run, table }: Database) => {
  const readRows = reader<FullTaskRow>("tasks", fullShape)
  const size = "COALESCE(OCTET_LENGTH(outcome), 0) + COALESCE(OCTET_LENGTH(progress), 0)"
  const select = `SELECT ${Object.keys(stateShape).join(", ")}, ${dialect.now} AS now, ${size} AS size,
      CASE WHEN ${size} <= ? THEN outcome END AS outcome, CASE WHEN ${size} <= ? THEN progress END AS progress,
      queue, worker, enqueued_at, started_at, finished_at
    FROM ${table("tasks")} WHERE ${dialect.inList("id", "text")}`
  return (ids: ReadonlyArray<string>, bytes: number): Effect.Effect<ReadonlyArray<FullTaskRow>, StoreError> =>
    Effect.flatMap(run(select, [bytes, bytes, dialect.list(ids)]), readRows)
}

/** The rows of the first ids. */
interface FirstRows {
  readonly ids: ReadonlyArray<string>
  /** The rows of those ids, in no order. */
  readonly rows: ReadonlyArray<FullTaskRow>
}

/** Prepares the reading of the rows of the first ids, at least one, as many as make an answer. */
const makeReadFirst = (db: Database) => {
  const select = makeSelect(db)
  const limit = new RowLimit()

  /** Reads the texts that a statement withheld, of the first ids. */
  const readWithheld = Effect.fnUntraced(function* (
    all: ReadonlyArray<string>,
    found: ReadonlyArray<FullTaskRow>,
    share: number
  ): Effect.fn.Return<FirstRows, StoreError> {
    const rows = new Map(found.map((row) => [row.id, row]))
    const sizeOf = (id: string): number => rows.get(id)?.size ?? 0
    const ids = all.slice(0, countFitting(all.map(sizeOf)))
    limit.adapt(all.length, ids.length)
    const withheld = ids.filter((id) => sizeOf(id) > share)
    const largest = Math.max(share, ...withheld.map(sizeOf))
    const whole = withheld.length === 0 ? [] : yield* select(withheld, largest)
    for (const id of withheld) rows.delete(id)
    for (const row of whole) rows.set(row.id, row)
    // a text may have grown meanwhile
    const end = ids.findIndex((id) => sizeOf(id) > largest)
    if (end === 0) return yield* readFirst([ids[0]!])
    const first = end === -1 ? ids : ids.slice(0, end)
    return { ids: first, rows: first.flatMap((id) => rows.get(id) ?? []) }
  })

  const readFirst = (all: ReadonlyArray<string>): Effect.Effect<FirstRows, StoreError> =>
    Effect.suspend(() => {
      const ids = limit.of(all.length) < all.length ? all.slice(0, limit.of(all.length)) : all
      const share = shareOf(ids.length)
      return Effect.flatMap(select(ids, share), (rows) => {
        if (rows.some((row) => row.size > share)) return readWithheld(ids, rows, share)
        limit.adapt(ids.length, ids.length)
        return Effect.succeed({ ids, rows })
      })
    })
  return readFirst
}

/** Prepares the statement that reads histories. */
const makeReadHistory = ({ dialect, reader, run, table }: Database): ReadOperations["readHistory"] => {
  const read = reader<{ readonly id: string; readonly history: string | null }>("tasks", {
    id: Row.text,
    history: textOrNull
  })
  const select = `SELECT id, history FROM ${table("tasks")}
    WHERE ${dialect.inList("id", "text")} AND (remove_at IS NULL OR remove_at > ${dialect.now})`
  return (ids) =>
    Effect.map(Effect.flatMap(run(select, [dialect.list(ids)]), read), (rows) => {
      const found = new Map(rows.map(({ history, id }) => [id, history]))
      return ids.map((id) => found.get(id) ?? undefined)
    })
}

/** Reads records over one database. */
export const makeRead = (db: Database, taskRows: TaskRows): ReadOperations => {
  const readFirst = makeReadFirst(db)

  return {
    readHistory: makeReadHistory(db),
    read: (all) =>
      Effect.map(readFirst(all), ({ ids, rows }) => {
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
