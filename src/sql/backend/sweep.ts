/**
 * Ends what lapsed, and removes what nobody needs any more, a few rows at a time, by one process at a time.
 *
 * A task has one time at which it has to be looked at, which is indexed: not when it is to be removed, but when it may
 * have expired or outlived its retention at the soonest. It is known when the task is enqueued, and so neither a start
 * nor an end rewrites an index. A task that is looked at too soon is given the time at which to look again.
 */
import { Effect } from "effect"
import type { Database, StoreError } from "../Database.ts"
import * as Row from "../Row.ts"
import type { BatchResult } from "./BatchResult.ts"
import * as TaskRows from "./TaskRows.ts"

/** How often a task is looked at, at most, that goes on for longer than results are kept. */
const SOONEST_MILLIS = 1000
/** When to look again at a task that has no other time. */
const OTHERWISE_MILLIS = 24 * 60 * 60 * 1000

/** What a sweep came to. */
export interface Swept {
  /** What it ended or removed. */
  readonly count: number
  /** The tasks that it looked at, most of them perhaps too soon: as many as it may, and there are more. */
  readonly looked: number
}

/** One sweep, of at most so many of each kind. Belongs into a transaction. */
export type Sweep = (limit: number) => Effect.Effect<BatchResult<Swept>, StoreError>

/** When something may have become of a record, and not sooner. */
const nextCheck = (record: TaskRows.TaskRow, now: number): number => {
  if (TaskRows.isFinal(record)) return record.remove_at ?? now + OTHERWISE_MILLIS
  const lapse = TaskRows.isWaiting(record)
    ? record.expires_at
    : record.at_most_once === 1
      ? record.lease_until
      : null
  const times = [lapse, record.remove_at, TaskRows.timeAfter(now, record.retention)].filter(
    (time) => time !== null
  )
  return times.length === 0 ? now + OTHERWISE_MILLIS : Math.max(Math.min(...times), now + SOONEST_MILLIS)
}

/** Over one database. */
export const make = (db: Database, records: TaskRows.TaskRows): Sweep => {
  const { dialect } = db
  const readIds = db.reader<{ readonly id: string }>("tasks", { id: Row.text })
  // of rows that nobody else is at; in order, so that a planner sees that an index is what finds them
  const overdue = (name: string, column: string) => {
    const select = `SELECT id FROM ${db.table(name)} WHERE ${column} <= ${dialect.now}
      ORDER BY ${column} LIMIT ? ${dialect.skipLocked}`
    return (limit: number) =>
      Effect.map(Effect.flatMap(db.run(select, [limit]), readIds), (rows) => rows.map(({ id }) => id))
  }
  const tasksToCheck = overdue("tasks", "check_at")
  const outlived = (name: string, column: string, key: string) => {
    const find = overdue(name, column)
    const remove = db.removing({ table: name, key: ["id", "text"], index: key })
    return (limit: number) =>
      Effect.flatMap(find(limit), (ids) => Effect.map(remove(ids), (removed) => removed.length))
  }
  const lettersOutlived = outlived("dead_letters", "remove_at", "dead_letters_id")
  const workersOutlived = outlived("workers", "until", "PRIMARY")

  const nothing: BatchResult<Swept> = { answers: [{ count: 0, looked: 0 }], changed: [] }
  const checkTasks = (limit: number) =>
    Effect.gen(function* () {
      const ids = yield* tasksToCheck(limit)
      if (ids.length === 0) return { count: 0, looked: 0, changed: [] }
      // whatever outlived its retention is removed by being looked at
      const { now, rows: found } = yield* records.selectForUpdate(ids)
      const endings: Array<TaskRows.TaskToEnd> = []
      const checks: Array<{ readonly record: TaskRows.TaskRow; readonly at: number }> = []
      for (const record of found.values()) {
        const ended = TaskRows.lapsed(record, now)
        if (ended === undefined) checks.push({ record, at: nextCheck(record, now) })
        else endings.push({ row: record, ended, crashes: record.crashes })
      }
      yield* records.end(endings, now)
      yield* records.scheduleChecks(checks)
      return {
        count: ids.length - checks.length,
        looked: ids.length,
        changed: endings.map(({ row: record }) => record.id)
      }
    })

  return (limit) =>
    db.withLock(
      "retention",
      Effect.gen(function* (): Effect.fn.Return<BatchResult<Swept>, StoreError> {
        const { changed, count, looked } = yield* checkTasks(limit)
        const letters = yield* lettersOutlived(limit)
        const workers = yield* workersOutlived(limit)
        return { answers: [{ count: count + letters + workers, looked }], changed }
      }),
      nothing
    )
}
