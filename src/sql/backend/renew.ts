/**
 * Renews the leases of runs and writes their progress, a batch in one statement.
 */
import { Effect } from "effect"
import type { Renew, Renewed } from "../../BackendDriver.ts"
import type { Batch } from "../../BrokerDriver.ts"
import type { BatchStatement } from "../batchStatements.ts"
import type { Database, StoreError } from "../Database.ts"
import type { Indexed } from "../distinctBatches.ts"
import * as Row from "../Row.ts"
import { toMillis } from "../toMillis.ts"
import { type BatchResult, byDistinctBatches, type DistinctBatchOperation } from "./BatchResult.ts"
import { cancelRequested, type CancelRequested } from "./TaskRow.ts"
import { matchById } from "./TaskRows.ts"

/** The columns of a batch of renewals. A progress of NULL leaves the stored one. */
const renewColumns = { id: "text", token: "text", lease: "integer", progress: "text" } as const

/**
 * Prepares the update that renews open runs (N2), and returns their ids and cancel requests. It waits for no row: another
 * transaction may hold one for longer than the leases of the batch last.
 */
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
    returning: ["id", "cancel_requested"],
    skipLocked: true
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
  const readTokens = db.reader<{ readonly id: string; readonly token: string | null }>("tasks", {
    id: Row.text,
    token: Row.orNull(Row.text)
  })
  const selectOpen = `SELECT id, token FROM ${db.table("tasks")}
    WHERE ${db.dialect.inList("id", "text")} AND state = 'STARTED'`
  /** Answers for runs that were not renewed: N3 where the run is still open, so that its row was locked; otherwise N1. */
  const answerOthers = (
    others: ReadonlyArray<Indexed<Renew>>,
    answers: Array<Renewed>
  ): Effect.Effect<void, StoreError> =>
    Effect.map(
      Effect.flatMap(db.run(selectOpen, [db.dialect.list(others.map(({ item }) => item.id))]), readTokens),
      (rows) => {
        const open = new Map(rows.map(({ id, token }) => [id, token]))
        for (const { index, item } of others) {
          answers[index] = open.get(item.id) === item.token ? "Unknown" : "Lost"
        }
      }
    )
  const renew: DistinctBatchOperation<Renew, Renewed> = (items, answers, changed) =>
    Effect.flatMap(
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
        const others = items.filter(({ index, item }) => {
          const requested = held.get(item.id)
          if (requested === undefined) return true
          answers[index] = requested === 1 ? "CancelRequested" : "Held"
          if (item.progress !== undefined) changed.push(item.id)
          return false
        })
        return others.length === 0 ? Effect.void : answerOthers(others, answers)
      }
    )
  return byDistinctBatches(renew)
}
