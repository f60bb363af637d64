/**
 * Cancels tasks: ends those that wait, and requests the end of those that run.
 */
import { Effect } from "effect"
import type { CancelAnswer } from "../../BackendDriver.ts"
import type { Batch } from "../../BrokerDriver.ts"
import { decideCancel } from "../../internal/task/transitions.ts"
import type { Database, StoreError } from "../Database.ts"
import type { BatchResult } from "./BatchResult.ts"
import { type TaskRow, toFacts } from "./TaskRow.ts"
import { checkAtLeaseEnd, type TaskRows, type TaskToEnd } from "./TaskRows.ts"

/** Cancels tasks over one database. Needs a transaction. */
export const makeCancel = (
  { dialect, run, table }: Database,
  taskRows: TaskRows
): ((ids: Batch<string>) => Effect.Effect<BatchResult<CancelAnswer>, StoreError>) => {
  // C2
  const requestCancel = `UPDATE ${table("tasks")} SET cancel_requested = 1, ${checkAtLeaseEnd}
    WHERE ${dialect.inList("id", "text")}`

  return Effect.fnUntraced(function* (
    ids: Batch<string>
  ): Effect.fn.Return<BatchResult<CancelAnswer>, StoreError> {
    const { now, rows } = yield* taskRows.selectForUpdate(ids)
    const endings: Array<TaskToEnd> = []
    const requested: Array<TaskRow> = []
    const seen = new Set<string>()
    const answers = ids.map((id): CancelAnswer => {
      const row = rows.get(id)
      if (row === undefined) return "Unknown"
      const isRepeated = seen.has(id)
      seen.add(id)
      const decision = decideCancel(toFacts(row), now)
      if (decision === "Request") {
        if (!isRepeated) requested.push(row)
        return "Requested"
      }
      if (decision === "AlreadyDone" || isRepeated) return "AlreadyDone"
      endings.push({ row, ended: decision, crashes: row.crashes })
      // a task that expired before was done already
      return decision === "Cancelled" ? "Cancelled" : "AlreadyDone"
    })
    yield* taskRows.end(endings, now)
    if (requested.length > 0) yield* run(requestCancel, [dialect.list(requested.map(({ id }) => id))])
    return {
      answers,
      changed: [...requested, ...endings.map(({ row }) => row)].map(({ id }) => id)
    }
  })
}
