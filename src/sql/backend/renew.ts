/** Holds the leases of runs, of all of a batch in one statement. */
import { Effect } from "effect"
import type { Renew, Renewed } from "../../BackendDriver.ts"
import type { Batch } from "../../BrokerDriver.ts"
import { type BatchStatement, type Database, toMillis, type StoreError } from "../Database.ts"
import * as Row from "../Row.ts"
import { type BatchResult, byDistinctBatches, type DistinctBatchOperation } from "./BatchResult.ts"
import * as TaskRows from "./TaskRows.ts"

/** Holds leases anew, of runs that are open: rows of id, token, lease, and progress or NULL. Answers what it held. */
export const makeUpdate = ({ dialect: { now }, updating }: Database): BatchStatement =>
  updating({
    table: "tasks",
    columns: { id: "text", token: "text", lease: "integer", progress: "text" },
    set: {
      lease_until: `${now} + batch.lease`,
      check_at: `CASE WHEN t.at_most_once = 1 THEN ${now} + batch.lease ELSE t.check_at END`,
      progress: "COALESCE(batch.progress, t.progress)"
    },
    where: "t.id = batch.id AND t.token = batch.token AND t.state = 'STARTED'",
    key: TaskRows.matchById.key,
    returning: ["id", "cancel_requested"]
  })

/** Renews, over one database. */
export const make = (
  db: Database
): ((batch: Batch<Renew>) => Effect.Effect<BatchResult<Renewed>, StoreError>) => {
  const update = makeUpdate(db)
  const readHeld = db.reader<{ readonly id: string; readonly cancel_requested: 0 | 1 }>("tasks", {
    id: Row.text,
    cancel_requested: Row.flag
  })
  const round: DistinctBatchOperation<Renew, Renewed> = (items, answers, changed) =>
    Effect.map(
      Effect.flatMap(
        update(items.map(({ item }) => [item.id, item.token, toMillis(item.leaseMillis), item.progress])),
        readHeld
      ),
      (rows) => {
        const held = new Map(rows.map((row) => [row.id, row.cancel_requested]))
        for (const { index, item } of items) {
          const requested = held.get(item.id)
          answers[index] = requested === undefined ? "Lost" : requested === 1 ? "CancelRequested" : "Held"
          if (requested !== undefined && item.progress !== undefined) changed.push(item.id)
        }
      }
    )

  return byDistinctBatches(round)
}
