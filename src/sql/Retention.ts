/**
 * What lapsed, and what nobody needs any more, a few rows at a time, so that no writer waits for long.
 */
import { Effect } from "effect"
import type { Database, StoreError } from "./Database.ts"
import * as Row from "./Row.ts"

/** The operation. */
export interface Retention {
  /** The ids that lapsed, at most so many of each kind. */
  readonly lapsed: (limit: number) => Effect.Effect<ReadonlyArray<string>, StoreError>
  /** Removes at most so many of each kind, and answers how many in all: none, where another process is at it. */
  readonly remove: (limit: number) => Effect.Effect<number, StoreError>
}

/** Over one database. */
export const make = (db: Database): Retention => {
  const { dialect } = db
  const tasks = db.table("tasks")
  // in order, so that a planner sees that an index is what finds them
  const selectLapsed = [
    `SELECT id FROM ${tasks} WHERE expires_at <= ${dialect.now} AND finished_at IS NULL
      AND state IN ('PENDING', 'RETRY') ORDER BY expires_at LIMIT ?`,
    `SELECT id FROM ${tasks} WHERE lapse_at <= ${dialect.now} ORDER BY lapse_at LIMIT ?`
  ]
  const readIds = db.reader<{ readonly id: string }>("tasks", { id: Row.text })
  // of rows that nobody else is at
  const outlived = (name: string, column: string) => {
    const table = db.table(name)
    const select = `SELECT id FROM ${table} WHERE ${column} <= ${dialect.now}
      ORDER BY ${column} LIMIT ? ${dialect.skipLocked}`
    const remove = `DELETE FROM ${table} WHERE ${dialect.among("id", "text")}`
    return (limit: number) =>
      Effect.flatMap(Effect.flatMap(db.run(select, [limit]), readIds), (rows) =>
        rows.length === 0
          ? Effect.succeed(0)
          : Effect.as(db.run(remove, [dialect.list(rows.map(({ id }) => id))]), rows.length)
      )
  }
  const removals = [
    outlived("tasks", "remove_at"),
    outlived("dead_letters", "remove_at"),
    outlived("workers", "until")
  ]
  const removeAll = (limit: number) =>
    Effect.map(
      Effect.forEach(removals, (removal) => removal(limit)),
      (removed) => removed.reduce((sum, count) => sum + count, 0)
    )

  return {
    lapsed: (limit) =>
      Effect.map(
        Effect.forEach(selectLapsed, (select) => Effect.flatMap(db.run(select, [limit]), readIds)),
        (found) => found.flat().map(({ id }) => id)
      ),
    remove: (limit) => db.transaction(db.exclusively("retention", removeAll(limit), 0))
  }
}
