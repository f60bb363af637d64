/**
 * Reopens the tasks of dead letters for a new generation, the first step of a replay.
 */
import { Effect } from "effect"
import type { DeadLetter } from "../../BackendDriver.ts"
import type { Batch } from "../../BrokerDriver.ts"
import { decideReopen } from "../../internal/task/transitions.ts"
import type { Database, StoreError } from "../Database.ts"
import type { BatchRow } from "../dialect/Dialect.ts"
import { distinctBatches } from "../distinctBatches.ts"
import type { BatchResult } from "./BatchResult.ts"
import { columns, type DeadLetterRow, isRetained, shape, toDeadLetter } from "./DeadLetterRow.ts"
import type { TaskRows, TaskToOpen } from "./TaskRows.ts"

const missingColumns = {
  id: "text",
  task: "text",
  generation: "integer",
  fence: "integer",
  at: "integer",
  retention: "integer"
} as const

type TaskDeadLetterRow = DeadLetterRow & { readonly task_id: string }

/** Returns the dead letters of tasks, those of a task in the order of their generations. */
const deadLettersOfTasks = (rows: ReadonlyArray<DeadLetterRow>): ReadonlyArray<TaskDeadLetterRow> =>
  rows
    .filter((row): row is TaskDeadLetterRow => row.task_id !== null)
    .toSorted((one, other) => one.generation - other.generation)

/** Reopens tasks over one database. Needs a transaction. */
export const makeReopen = (
  { batched, dialect, reader, run, table }: Database,
  taskRows: TaskRows
): ((ids: Batch<string>) => Effect.Effect<BatchResult<DeadLetter | undefined>, StoreError>) => {
  const read = reader<DeadLetterRow>("dead_letters", shape)
  const select = `SELECT ${columns} FROM ${table("dead_letters")}
    WHERE ${dialect.inList("id", "text")} AND ${isRetained(dialect)}`
  // R1
  const insertMissing = batched(
    missingColumns,
    (batch) =>
      `${dialect.insertIgnore} ${table("tasks")} (
        id, task, payload_hash, published, state, generation, fence, enqueued_at, retention, check_at
      )
      SELECT batch.id, batch.task, '', 1, 'PENDING', batch.generation, batch.fence, batch.at, batch.retention,
        batch.at + batch.retention
      FROM ${batch} WHERE batch.id IS NOT NULL
      ${dialect.onConflictDoNothing}`
  )

  /** Opens tasks, each of which has one dead letter in the batch; returns the ids of those that it opened. */
  const openTasks = Effect.fnUntraced(function* (
    deadLetters: ReadonlyArray<TaskDeadLetterRow>
  ): Effect.fn.Return<ReadonlyArray<string>, StoreError> {
    const { now, rows } = yield* taskRows.selectForUpdate(deadLetters.map((row) => row.task_id))
    const openings: Array<TaskToOpen> = []
    const missing: Array<BatchRow<typeof missingColumns>> = []
    for (const { fence, generation: deadGeneration, task, task_id, task_retention } of deadLetters) {
      const row = rows.get(task_id)
      const generation = deadGeneration + 1
      if (row === undefined) {
        missing.push({ id: task_id, task, generation, fence, at: now, retention: task_retention })
      } else if (decideReopen(row, deadGeneration) === "Open") {
        openings.push({ row, generation })
      }
    }
    yield* taskRows.open(openings, now)
    yield* insertMissing(missing)
    return [...openings.map(({ row }) => row.id), ...missing.map(({ id }) => id!)]
  })

  return Effect.fnUntraced(function* (
    ids: Batch<string>
  ): Effect.fn.Return<BatchResult<DeadLetter | undefined>, StoreError> {
    const found = yield* read(yield* run(select, [dialect.list([...new Set(ids)])]))
    const changed: Array<string> = []
    for (const batch of distinctBatches(deadLettersOfTasks(found), (row) => row.task_id)) {
      changed.push(...(yield* openTasks(batch.map(({ item }) => item))))
    }
    const deadLetters = new Map(found.map((row) => [row.id, toDeadLetter(row, dialect)]))
    return { answers: ids.map((id) => deadLetters.get(id)), changed }
  })
}
