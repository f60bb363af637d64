/**
 * What others do to a task: cancel it, forget it.
 */
import { Effect } from "effect"
import type { CancelAnswer } from "../../BackendDriver.ts"
import type { Batch } from "../../BrokerDriver.ts"
import type { Database, StoreError } from "../Database.ts"
import type { Changed } from "./BatchResult.ts"
import * as Records from "./TaskRows.ts"

/** The operations. Each belongs into a transaction. */
export interface Stopping {
  readonly cancel: (ids: Batch<string>) => Effect.Effect<Changed<CancelAnswer>, StoreError>
  readonly forget: (ids: Batch<string>) => Effect.Effect<Changed<void>, StoreError>
}

/** Over one database. */
export const make = (db: Database, records: Records.Records): Stopping => {
  const { dialect } = db
  const tasks = db.table("tasks")
  const requestRows = `UPDATE ${tasks} SET cancel_requested = 1 WHERE ${dialect.among("id", "text")}`
  const forgetRows = `UPDATE ${tasks} SET ended = 'Forgotten', idempotency_key = NULL
    WHERE ${dialect.among("id", "text")}`
  const idsOf = (found: ReadonlyArray<Records.Current>) => [dialect.list(found.map((record) => record.id))]

  return {
    cancel: (ids) =>
      Effect.gen(function* () {
        const { now, records: found } = yield* records.lock(ids)
        const endings: Array<Records.Ending> = []
        const requested: Array<Records.Current> = []
        const seen = new Set<string>()
        const answers = ids.map((id): CancelAnswer => {
          const record = found.get(id)
          if (record === undefined) return "Unknown"
          const first = !seen.has(id)
          seen.add(id)
          if (record.state === "STARTED") {
            if (first) requested.push(record)
            return "Requested"
          }
          if (Records.isFinal(record) || !first) return "AlreadyDone"
          const ended = Records.lapsed(record, now) ?? "Cancelled"
          endings.push({ record, ended, crashes: record.crashes })
          return ended === "Cancelled" ? "Cancelled" : "AlreadyDone"
        })
        yield* records.end(endings, now)
        if (requested.length > 0) yield* db.run(requestRows, idsOf(requested))
        return {
          answers,
          changed: [...requested, ...endings.map((ending) => ending.record)].map(({ id }) => id)
        }
      }),
    forget: (ids) =>
      Effect.gen(function* () {
        const found = [...(yield* records.lock(ids)).records.values()]
        const open = found.filter((record) => !Records.isFinal(record))
        yield* records.remove(found.filter(Records.isFinal))
        if (open.length > 0) yield* db.run(forgetRows, idsOf(open))
        return { answers: ids.map(() => undefined), changed: found.map((record) => record.id) }
      })
  }
}
