/**
 * A row of the table of tasks, as far as decisions need it.
 */
import type { StoreDecidedEnd } from "../../BackendDriver.ts"
import type { TaskFacts } from "../../internal/task/transitions.ts"
import { isTerminal, type TaskState } from "../../TaskState.ts"
import * as Row from "../Row.ts"

/** The columns that decisions need. Times are epoch milliseconds, durations are milliseconds. */
export interface TaskRow {
  readonly id: string
  readonly task: string
  readonly payload_hash: string
  readonly published: 0 | 1
  readonly state: TaskState
  readonly generation: number
  readonly attempt: number
  readonly retries: number
  readonly crashes: number
  readonly fence: number
  readonly token: string | null
  readonly at_most_once: 0 | 1
  readonly cancel_requested: 0 | 1
  readonly ended: StoreDecidedEnd | null
  readonly expires_at: number | null
  readonly due_at: number | null
  readonly lease_until: number | null
  readonly retention: number | null
  readonly remove_at: number | null
}

const integerOrNull = Row.orNull(Row.integer)

/** The checks of those columns. */
export const shape: Row.Shape<TaskRow> = {
  id: Row.text,
  task: Row.text,
  payload_hash: Row.text,
  published: Row.flag,
  state: Row.oneOf("PENDING", "STARTED", "RETRY", "SUCCESS", "FAILURE"),
  generation: Row.integer,
  attempt: Row.integer,
  retries: Row.integer,
  crashes: Row.integer,
  fence: Row.integer,
  token: Row.orNull(Row.text),
  at_most_once: Row.flag,
  cancel_requested: Row.flag,
  ended: Row.orNull(Row.oneOf("Expired", "WorkerLost", "Cancelled", "Forgotten")),
  expires_at: integerOrNull,
  due_at: integerOrNull,
  lease_until: integerOrNull,
  retention: integerOrNull,
  remove_at: integerOrNull
}

/** The names of those columns, for a `SELECT`. */
export const columns: string = Object.keys(shape).join(", ")

/** Returns the facts that the rules of the state machine decide by. */
export const toFacts = (row: TaskRow): TaskFacts => ({
  state: row.state,
  generation: row.generation,
  crashes: row.crashes,
  token: row.token,
  leaseUntil: row.lease_until,
  atMostOnce: row.at_most_once === 1,
  cancelRequested: row.cancel_requested === 1,
  expiresAt: row.expires_at,
  dueAt: row.due_at,
  ended: row.ended
})

/** Returns whether the task has ended. */
export const isFinal = (row: TaskRow): boolean => isTerminal(row.state)

/** Returns whether the retention of the record is over: it counts as removed, and the next change removes it. */
export const isOutlived = (row: TaskRow, now: number): boolean =>
  row.remove_at !== null && row.remove_at <= now

/** Returns the id of the dead letter that the current generation of a task leaves. */
export const deadLetterId = (row: TaskRow): string => `${row.id}:${row.generation}`
