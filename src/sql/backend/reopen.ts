/**
 * Reopens the tasks of dead letters for a new generation, the first step of a replay.
 */
import { Effect } from "effect"
import type { Reopened } from "../../BackendDriver.ts"
import type { Batch } from "../../BrokerDriver.ts"
import { decideReopen } from "../../internal/task/transitions.ts"
import type { Database, StoreError } from "../Database.ts"
import type { BatchRow } from "../dialect/Dialect.ts"
import { distinctBatches } from "../distinctBatches.ts"
import * as Row from "../Row.ts"
import { toMillis } from "../toMillis.ts"
import type { BatchResult } from "./BatchResult.ts"
import { isReservation } from "./create.ts"
import { columns, type DeadLetterRow, isRetained, shape, toDeadLetter } from "./DeadLetterRow.ts"
import type { TaskRow } from "./TaskRow.ts"
import { matchById, type TaskRows, type TaskToOpen } from "./TaskRows.ts"
import { earliest, latest, timeAfter } from "./times.ts"

const missingColumns = {
  id: "text",
  task: "text",
  incarnation: "text",
  queue: "text",
  generation: "integer",
  fence: "integer",
  at: "integer",
  retention: "integer",
  reserved_until: "integer",
  check_at: "integer"
} as const

type TaskDeadLetterRow = DeadLetterRow & { readonly task_id: string }

/** Returns the dead letters of tasks, those of a task in the order of their generations. */
const deadLettersOfTasks = (rows: ReadonlyArray<DeadLetterRow>): ReadonlyArray<TaskDeadLetterRow> =>
  rows
    .filter((row): row is TaskDeadLetterRow => row.task_id !== null)
    .toSorted((one, other) => one.generation - other.generation)

/** What became of the tasks of dead letters. */
interface ReopenResult {
  /** The ids of the tasks that were opened. */
  readonly opened: Array<string>
  /** The ids of the dead letters that were refused (R4). */
  readonly refused: Set<string>
}

/** Prepares the statement that creates records (R1); returns the ids of those that it created. */
const makeCreateMissing = ({ batched, dialect, reader, table }: Database) => {
  const insert = batched(
    missingColumns,
    (batch) =>
      `${dialect.insertIgnore} ${table("tasks")} (
        id, task, incarnation, queue, payload_hash, published, state, generation, fence, enqueued_at, retention, remove_at,
        check_at
      )
      SELECT batch.id, batch.task, batch.incarnation, batch.queue, '', 0, 'PENDING', batch.generation, batch.fence, batch.at,
        batch.retention, batch.reserved_until, batch.check_at
      FROM ${batch} WHERE batch.id IS NOT NULL
      ${dialect.onConflictDoNothing} RETURNING id`
  )
  const readIds = reader<{ readonly id: string }>("tasks", { id: Row.text })
  return (missing: ReadonlyArray<BatchRow<typeof missingColumns>>) =>
    Effect.map(Effect.flatMap(insert(missing), readIds), (created) => new Set(created.map(({ id }) => id)))
}

/** Opens the tasks of dead letters, no two of which are of the same task. */
const makeOpenTasks = (
  db: Database,
  taskRows: TaskRows
): ((
  deadLetters: ReadonlyArray<TaskDeadLetterRow>,
  reserved: number | null,
  result: ReopenResult
) => Effect.Effect<void, StoreError>) => {
  const createMissing = makeCreateMissing(db)
  const renewReservations = db.batchedUpdate({
    table: "tasks",
    columns: { id: "text", reserved_until: "integer" },
    set: { remove_at: "batch.reserved_until" },
    ...matchById
  })
  const openTasks = Effect.fnUntraced(function* (
    deadLetters: ReadonlyArray<TaskDeadLetterRow>,
    reserved: number | null,
    result: ReopenResult
  ): Effect.fn.Return<void, StoreError> {
    const { now, rows } = yield* taskRows.selectForUpdate(deadLetters.map((row) => row.task_id))
    const reservedUntil = timeAfter(now, reserved)
    const openings: Array<TaskToOpen> = []
    const renewals: Array<TaskRow> = []
    const missing: Array<TaskDeadLetterRow> = []
    for (const deadLetter of deadLetters) {
      const row = rows.get(deadLetter.task_id)
      const decision = decideReopen(row, deadLetter)
      if (row === undefined) missing.push(deadLetter)
      else if (decision === "Refuse") result.refused.add(deadLetter.id)
      else if (decision === "Open") openings.push({ row, generation: deadLetter.generation + 1, reserved })
      else if (decision === "Renew" && isReservation(row)) renewals.push(row)
    }
    yield* taskRows.open(openings, now)
    yield* renewReservations(
      renewals.map(({ id, remove_at }) => ({ id, reserved_until: latest(remove_at, reservedUntil) }))
    )
    const created = yield* createMissing(
      missing.map(
        ({ fence, generation, incarnation, queue, task, task_id: id, task_retention: retention }) => ({
          id,
          task,
          incarnation,
          queue,
          generation: generation + 1,
          fence,
          at: now,
          retention,
          reserved_until: reservedUntil,
          check_at: earliest(reservedUntil, timeAfter(now, retention))
        })
      )
    )
    result.opened.push(...openings.map(({ row }) => row.id), ...created)
    // again, where a record was created in the meantime
    const taken = missing.filter(({ task_id }) => !created.has(task_id))
    if (taken.length > 0) yield* openTasks(taken, reserved, result)
  })
  return openTasks
}

/** Reopens tasks over one database. Needs a transaction. */
export const makeReopen = (
  db: Database,
  taskRows: TaskRows
): ((
  ids: Batch<string>,
  reservedMillis: number
) => Effect.Effect<BatchResult<Reopened | undefined>, StoreError>) => {
  const { dialect, reader, run, table } = db
  const read = reader<DeadLetterRow>("dead_letters", shape)
  const select = `SELECT ${columns} FROM ${table("dead_letters")}
    WHERE ${dialect.inList("id", "text")} AND ${isRetained(dialect)}`
  const openTasks = makeOpenTasks(db, taskRows)

  return Effect.fnUntraced(function* (
    ids: Batch<string>,
    reservedMillis: number
  ): Effect.fn.Return<BatchResult<Reopened | undefined>, StoreError> {
    const found = yield* read(yield* run(select, [dialect.list([...new Set(ids)])]))
    const result: ReopenResult = { opened: [], refused: new Set() }
    for (const batch of distinctBatches(deadLettersOfTasks(found), (row) => row.task_id)) {
      yield* openTasks(
        batch.map(({ item }) => item),
        toMillis(reservedMillis),
        result
      )
    }
    const reopened = new Map(
      found.map((row) => [
        row.id,
        { letter: toDeadLetter(row, dialect), replayable: !result.refused.has(row.id) }
      ])
    )
    return { answers: ids.map((id) => reopened.get(id)), changed: result.opened }
  })
}
