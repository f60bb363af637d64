/**
 * Ends tasks that have lapsed, and removes rows whose retention is over: a few at a time, one process at a time.
 *
 * The time at which a task is to be checked is indexed: not the time of its removal, but the earliest at which it may
 * have expired or outlived its retention. It is known at the enqueue, so that neither a start nor an end of most tasks
 * rewrites an index. A task that is checked too early is given a new time, once: a task that waits for longer than its
 * retention has nothing to be checked for but its expiry, and an end sets the time of its removal.
 */
import { Effect } from "effect"
import type { Swept } from "../../BackendDriver.ts"
import { endsWithRun, isWaiting, lapse } from "../../internal/task/transitions.ts"
import type { Database, StoreError } from "../Database.ts"
import * as Row from "../Row.ts"
import type { BatchResult } from "./BatchResult.ts"
import { isFinal, type TaskRow, toFacts } from "./TaskRow.ts"
import type { TaskRows, TaskToEnd } from "./TaskRows.ts"
import { earliest } from "./times.ts"

/** The result of one step of a sweep. */
export interface SweepStep extends Swept {
  /** How many tasks it checked. If it reaches the limit, there may be more. */
  readonly checked: number
}

/** Sweeps at most `limit` rows of each kind. Needs a transaction. */
export type Sweep = (limit: number) => Effect.Effect<BatchResult<SweepStep>, StoreError>

/**
 * Returns the earliest time at which a task may lapse (L1–L3) or is to be removed; `null` if there is none before its
 * next change.
 */
const nextCheck = (row: TaskRow): number | null => {
  if (isFinal(row)) return row.remove_at
  if (isWaiting(row)) return earliest(row.expires_at, row.remove_at)
  const facts = toFacts(row)
  return facts.atMostOnce || endsWithRun(facts) ? row.lease_until : null
}

/** Returns a query for the ids of rows whose time in a column has come. */
const makeSelectDue = ({ dialect, reader, run, table }: Database, name: string, column: string) => {
  const readIds = reader<{ readonly id: string }>(name, { id: Row.text })
  // ordered, so that the planner uses the index of the column; skips rows that another transaction has locked
  const select = `SELECT id FROM ${table(name)} WHERE ${column} <= ${dialect.now}
    ORDER BY ${column} LIMIT ? ${dialect.skipLocked}`
  return (limit: number) =>
    Effect.map(Effect.flatMap(run(select, [limit]), readIds), (rows) => rows.map(({ id }) => id))
}

/** Returns a removal of rows whose time in a column has come. */
const makeRemoveDue = (
  db: Database,
  { column, index, table }: { readonly table: string; readonly column: string; readonly index: string }
) => {
  const selectDue = makeSelectDue(db, table, column)
  const remove = db.deleteByKeys<string>({ table, key: ["id", "text"], index })
  return (limit: number) =>
    Effect.flatMap(selectDue(limit), (ids) => Effect.map(remove(ids), (removed) => removed.length))
}

/** Sweeps over one database. */
export const makeSweep = (db: Database, taskRows: TaskRows): Sweep => {
  const selectTasksToCheck = makeSelectDue(db, "tasks", "check_at")
  const removeDeadLetters = makeRemoveDue(db, {
    table: "dead_letters",
    column: "remove_at",
    index: "dead_letters_id"
  })
  const removeWorkers = makeRemoveDue(db, { table: "workers", column: "until", index: "PRIMARY" })

  const checkTasks = Effect.fnUntraced(function* (limit: number) {
    const ids = yield* selectTasksToCheck(limit)
    if (ids.length === 0) return { handled: 0, lost: [], checked: 0, changed: [] }
    // removes those whose retention is over
    const { now, rows } = yield* taskRows.selectForUpdate(ids)
    const endings: Array<TaskToEnd> = []
    const checks: Array<{ readonly row: TaskRow; readonly at: number | null }> = []
    for (const row of rows.values()) {
      const ended = lapse(toFacts(row), now)
      if (ended === undefined) checks.push({ row, at: nextCheck(row) })
      else endings.push({ row, ended, crashes: row.crashes })
    }
    yield* taskRows.end(endings, now)
    yield* taskRows.scheduleChecks(checks)
    return {
      handled: ids.length - checks.length,
      lost: endings.flatMap(({ ended, row }) => (ended === "WorkerLost" ? [row.task] : [])),
      checked: ids.length,
      changed: endings.map(({ row }) => row.id)
    }
  })

  const otherwise: BatchResult<SweepStep> = {
    answers: [{ handled: 0, lost: [], checked: 0 }],
    changed: []
  }
  return (limit) =>
    db.withLock(
      "retention",
      Effect.gen(function* (): Effect.fn.Return<BatchResult<SweepStep>, StoreError> {
        const { changed, checked, handled, lost } = yield* checkTasks(limit)
        const deadLetters = yield* removeDeadLetters(limit)
        const workers = yield* removeWorkers(limit)
        return { answers: [{ handled: handled + deadLetters + workers, lost, checked }], changed }
      }),
      otherwise
    )
}
