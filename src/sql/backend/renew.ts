/**
 * Renews the leases of runs and writes their progress, a batch in one statement.
 */
import { Effect } from "effect"
import type { Renew, Renewed } from "../../BackendDriver.ts"
import type { Batch } from "../../BrokerDriver.ts"
import type { BatchStatement } from "../batchStatements.ts"
import type { Database, StoreError } from "../Database.ts"
import * as Row from "../Row.ts"
import { toMillis } from "../toMillis.ts"
import { type BatchResult, byDistinctBatches, type DistinctBatchOperation } from "./BatchResult.ts"
import { cancelRequested, type CancelRequested } from "./TaskRow.ts"
import { matchById } from "./TaskRows.ts"

/** The columns of a batch of renewals. A progress of NULL leaves the stored one. */
const renewColumns = { id: "text", token: "text", lease: "integer", progress: "text" } as const

/** Prepares the update that renews open runs (N2), and returns their ids and cancel requests. */
export const makeRenewLeases = ({
  batchedUpdate,
  dialect: { now }
}: Database): BatchStatement<typeof renewColumns> =>
  batchedUpdate({
    table: "tasks",
    columns: renewColumns,
    set: {
      lease_until: `${now} + batch.lease`,
      check_at: `CASE WHEN t.at_most_once = 1 THEN ${now} + batch.lease ELSE t.check_at END`,
      progress: "COALESCE(batch.progress, t.progress)"
    },
    where: "t.id = batch.id AND t.token = batch.token AND t.state = 'STARTED'",
    key: matchById.key,
    returning: ["id", "cancel_requested"]
  })

/** Renews runs over one database. */
export const makeRenew = (
  db: Database
): ((batch: Batch<Renew>) => Effect.Effect<BatchResult<Renewed>, StoreError>) => {
  const renewLeases = makeRenewLeases(db)
  const readHeld = db.reader<{ readonly id: string; readonly cancel_requested: CancelRequested }>("tasks", {
    id: Row.text,
    cancel_requested: cancelRequested
  })
  const renew: DistinctBatchOperation<Renew, Renewed> = (items, answers, changed) =>
    Effect.map(
      Effect.flatMap(
        renewLeases(
          items.map(({ item }) => ({
            id: item.id,
            token: item.token,
            lease: toMillis(item.leaseMillis),
            progress: item.progress
          }))
        ),
        readHeld
      ),
      (rows) => {
        const held = new Map(rows.map((row) => [row.id, row.cancel_requested]))
        for (const { index, item } of items) {
          const requested = held.get(item.id)
          // N1 where the update did not find the run
          answers[index] = requested === undefined ? "Lost" : requested === 1 ? "CancelRequested" : "Held"
          if (requested !== undefined && item.progress !== undefined) changed.push(item.id)
        }
      }
    )
  return byDistinctBatches(renew)
}
