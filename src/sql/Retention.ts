/**
 * Ends what lapsed, and removes what nobody needs any more. Each part is a transaction of its own, so that no writer
 * waits for long.
 */
import { Effect } from "effect"
import type { Database, StoreError } from "./Database.ts"
import * as Row from "./Row.ts"

/** The operation. */
export interface Retention {
  /** The ids that lapsed, at most so many of each kind. */
  readonly lapsed: (limit: number) => Effect.Effect<ReadonlyArray<string>, StoreError>
  /** Removes at most so many of each kind, and answers how many in all. */
  readonly remove: (limit: number) => Effect.Effect<number, StoreError>
}

/** Over one database. */
export const make = (db: Database): Retention => {
  const { dialect } = db
  const tasks = db.table("tasks")
  const selectLapsed = [
    `SELECT id FROM ${tasks} WHERE expires_at <= ${dialect.now} AND state IN ('PENDING', 'RETRY') LIMIT ?`,
    `SELECT id FROM ${tasks} WHERE lease_until <= ${dialect.now} AND at_most_once = 1 LIMIT ?`
  ]
  const outlived = (table: string, key: string, condition: string) =>
    `DELETE FROM ${table} WHERE ${key} IN (SELECT ${key} FROM ${table} WHERE ${condition} LIMIT ?) RETURNING 1 AS one`
  const removals = [
    outlived(tasks, "pk", `remove_at <= ${dialect.now}`),
    outlived(db.table("dead_letters"), "pk", `remove_at <= ${dialect.now}`),
    outlived(db.table("workers"), "id", `until <= ${dialect.now}`)
  ]
  const readIds = db.reader<{ readonly id: string }>("tasks", { id: Row.text })

  return {
    lapsed: (limit) =>
      Effect.map(
        Effect.forEach(selectLapsed, (select) => Effect.flatMap(db.run(select, [limit]), readIds)),
        (found) => found.flat().map(({ id }) => id)
      ),
    remove: (limit) =>
      Effect.map(
        Effect.forEach(removals, (removal) => db.run(removal, [limit])),
        (removed) => removed.reduce((sum, rows) => sum + rows.length, 0)
      )
  }
}
