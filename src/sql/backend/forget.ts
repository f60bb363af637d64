/**
 * Forgets tasks: removes the records of those that have ended, and marks the others for removal at their end.
 */
import { Effect } from "effect"
import type { Batch } from "../../BrokerDriver.ts"
import { decideForget } from "../../internal/task/transitions.ts"
import type { Database, StoreError } from "../Database.ts"
import type { BatchResult } from "./BatchResult.ts"
import type { TaskRows } from "./TaskRows.ts"

/** Forgets tasks over one database. Needs a transaction. */
export const makeForget = (
  { dialect, run, table }: Database,
  taskRows: TaskRows
): ((ids: Batch<string>) => Effect.Effect<BatchResult<void>, StoreError>) => {
  // F2
  const markForgotten = `UPDATE ${table("tasks")} SET ended = 'Forgotten', idempotency_key = NULL
    WHERE ${dialect.inList("id", "text")}`

  return (ids) =>
    Effect.flatMap(taskRows.selectForUpdate(ids), ({ rows }) => {
      const found = [...rows.values()]
      const open = found.filter((row) => decideForget(row) === "Mark")
      return Effect.gen(function* () {
        yield* taskRows.remove(found.filter((row) => decideForget(row) === "Remove"))
        if (open.length > 0) yield* run(markForgotten, [dialect.list(open.map(({ id }) => id))])
        return { answers: ids.map(() => undefined), changed: found.map(({ id }) => id) }
      })
    })
}
