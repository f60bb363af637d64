/**
 * Ends the tasks of messages that were removed from their queues: at once where they wait, and otherwise when their runs
 * do not end them.
 */
import { Effect } from "effect"
import type { Batch, PurgedMessage } from "../../BrokerDriver.ts"
import { decideWithdraw } from "../../internal/task/transitions.ts"
import type { Database, StoreError } from "../Database.ts"
import type { BatchResult } from "./BatchResult.ts"
import { toFacts } from "./TaskRow.ts"
import { checkAtLeaseEnd, type TaskRows, type TaskToEnd } from "./TaskRows.ts"

/** Withdraws messages over one database. Needs a transaction. */
export const makeWithdraw = (
  { dialect, run, table }: Database,
  taskRows: TaskRows
): ((messages: Batch<PurgedMessage>) => Effect.Effect<BatchResult<never>, StoreError>) => {
  // W2; a cancel request stays one
  const markWithdrawn = `UPDATE ${table("tasks")} SET cancel_requested = 2, ${checkAtLeaseEnd}
    WHERE ${dialect.inList("id", "text")} AND cancel_requested = 0`

  return Effect.fnUntraced(function* (
    messages: Batch<PurgedMessage>
  ): Effect.fn.Return<BatchResult<never>, StoreError> {
    const { now, rows } = yield* taskRows.selectForUpdate(messages.map(({ id }) => id))
    const endings = new Map<string, TaskToEnd>()
    const marked = new Set<string>()
    for (const message of messages) {
      const row = rows.get(message.id)
      const decision = decideWithdraw(row === undefined ? undefined : toFacts(row), message, now)
      if (row === undefined || decision === "Nothing") continue
      if (decision === "Mark") marked.add(row.id)
      else endings.set(row.id, { row, ended: decision, crashes: row.crashes })
    }
    yield* taskRows.end([...endings.values()], now)
    if (marked.size > 0) yield* run(markWithdrawn, [dialect.list([...marked])])
    return { answers: [], changed: [...endings.keys()] }
  })
}
