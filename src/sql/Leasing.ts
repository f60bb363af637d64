/** Holds the leases of runs. */
import { Effect } from "effect"
import type { Batch, Renew, Renewed } from "../BackendDriver.ts"
import { type Changed, inRounds, type Round } from "./Changed.ts"
import type { BatchStatement, Database, StoreError } from "./Database.ts"
import * as Records from "./Records.ts"

/** Sets the ends of leases: rows of id, end, and progress or NULL. Belongs into a transaction. */
export const makeUpdate = ({ updating }: Database): BatchStatement =>
  updating({
    table: "tasks",
    columns: { id: "text", until: "integer", progress: "text" },
    set: {
      lease_until: "batch.until",
      check_at: "CASE WHEN t.at_most_once = 1 THEN batch.until ELSE t.check_at END",
      progress: "COALESCE(batch.progress, t.progress)"
    },
    ...Records.byId
  })

/** Renews, over one database. Belongs into a transaction. */
export const make = (
  db: Database,
  records: Records.Records
): ((batch: Batch<Renew>) => Effect.Effect<Changed<Renewed>, StoreError>) => {
  const update = makeUpdate(db)
  const round: Round<Renew, Renewed> = (items, answers, changed) =>
    Effect.gen(function* () {
      const { now, records: found } = yield* records.lock(items.map(({ item }) => item.id))
      const held: Array<ReadonlyArray<unknown>> = []
      for (const { index, item } of items) {
        const record = found.get(item.id)
        if (record === undefined || record.state !== "STARTED" || record.token !== item.token) {
          answers[index] = "Lost"
          continue
        }
        answers[index] = record.cancel_requested === 1 ? "CancelRequested" : "Held"
        held.push([record.id, Records.after(now, item.leaseMillis), item.progress])
        if (item.progress !== undefined) changed.push(item.id)
      }
      yield* update(held)
    })

  return inRounds(round)
}
