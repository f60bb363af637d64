import type { DeadLetter } from "../../BackendDriver.ts"
import type { Dialect } from "../dialect/Dialect.ts"
import * as Row from "../Row.ts"

/** A row of the table of dead letters. A parked message has no task. */
export interface DeadLetterRow {
  /** Grows with every dead letter, also after the newest was removed: the order of pages. */
  readonly pk: number
  readonly id: string
  readonly task_id: string | null
  readonly task: string | null
  readonly incarnation: string
  readonly generation: number
  readonly queue: string
  readonly reason: string
  readonly worker: string | null
  readonly attempts: number
  readonly at: number
  readonly task_retention: number | null
  readonly fence: number
  readonly outcome: string | null
  readonly body: string | Uint8Array
}

/** The checks of those columns. */
export const shape: Row.Shape<DeadLetterRow> = {
  pk: Row.integer,
  id: Row.text,
  task_id: Row.orNull(Row.text),
  task: Row.orNull(Row.text),
  incarnation: Row.text,
  generation: Row.integer,
  queue: Row.text,
  reason: Row.text,
  worker: Row.orNull(Row.text),
  attempts: Row.integer,
  at: Row.integer,
  task_retention: Row.orNull(Row.integer),
  fence: Row.integer,
  outcome: Row.orNull(Row.text),
  body: Row.bytes
}

/** The names of those columns, for a `SELECT`. */
export const columns: string = Object.keys(shape).join(", ")

/** The condition that the retention of a dead letter is not over. */
export const isRetained = ({ now }: Dialect): string => `(remove_at IS NULL OR remove_at > ${now})`

/** Returns the dead letter of a row. */
export const toDeadLetter = (row: DeadLetterRow, { fromBody }: Dialect): DeadLetter => ({
  id: row.id,
  taskId: row.task_id,
  task: row.task,
  incarnation: row.incarnation,
  generation: row.generation,
  queue: row.queue,
  reason: row.reason,
  exit: row.outcome,
  worker: row.worker,
  body: fromBody(row.body),
  attempts: row.attempts,
  at: row.at,
  order: row.pk
})
