/**
 * What others do to a task: cancel it, forget it.
 */
import { Effect } from "effect"
import type { CancelAnswer } from "../../BackendDriver.ts"
import type { Batch } from "../../BrokerDriver.ts"
import type { Database, StoreError } from "../Database.ts"
import type { BatchResult } from "./BatchResult.ts"
import * as TaskRows from "./TaskRows.ts"

/** The operations. Each belongs into a transaction. */
export interface CancelOperations {
  readonly cancel: (ids: Batch<string>) => Effect.Effect<BatchResult<CancelAnswer>, StoreError>
  readonly forget: (ids: Batch<string>) => Effect.Effect<BatchResult<void>, StoreError>
}

/** Over one database. */
export const make = (db: Database, records: TaskRows.TaskRows): CancelOperations => {
  const { dialect } = db
  const tasks = db.table("tasks")
  const requestRows = `UPDATE ${tasks} SET cancel_requested = 1 WHERE ${dialect.inList("id", "text")}`
  const forgetRows = `UPDATE ${tasks} SET ended = 'Forgotten', idempotency_key = NULL
    WHERE ${dialect.inList("id", "text")}`
  const idsOf = (found: ReadonlyArray<TaskRows.TaskRow>) => [dialect.list(found.map((record) => record.id))]

  return {
    cancel: (ids) =>
      Effect.gen(function* () {
        const { now, rows: found } = yield* records.selectForUpdate(ids)
        const endings: Array<TaskRows.TaskToEnd> = []
        const requested: Array<TaskRows.TaskRow> = []
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
          if (TaskRows.isFinal(record) || !first) return "AlreadyDone"
          const ended = TaskRows.lapsed(record, now) ?? "Cancelled"
          endings.push({ row: record, ended, crashes: record.crashes })
          return ended === "Cancelled" ? "Cancelled" : "AlreadyDone"
        })
        yield* records.end(endings, now)
        if (requested.length > 0) yield* db.run(requestRows, idsOf(requested))
        return {
          answers,
          changed: [...requested, ...endings.map((ending) => ending.row)].map(({ id }) => id)
        }
      }),
    forget: (ids) =>
      Effect.gen(function* () {
        const found = [...(yield* records.selectForUpdate(ids)).rows.values()]
        const open = found.filter((record) => !TaskRows.isFinal(record))
        yield* records.remove(found.filter(TaskRows.isFinal))
        if (open.length > 0) yield* db.run(forgetRows, idsOf(open))
        return { answers: ids.map(() => undefined), changed: found.map((record) => record.id) }
      })
  }
}
