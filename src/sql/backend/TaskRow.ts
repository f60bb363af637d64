/**
 * A row of the table of tasks, as far as decisions need it.
 */
import type { StoreDecidedEnd } from "../../BackendDriver.ts"
import type { TaskFacts } from "../../internal/task/transitions.ts"
import { isTerminal, type TaskState } from "../../TaskState.ts"
import * as Row from "../Row.ts"

/** Whether the end of the open run ends its task: 0 no; 1 a cancel was requested; 2 its message was withdrawn. */
export type CancelRequested = 0 | 1 | 2

/** Accepts a value of that column. */
export const cancelRequested = (value: unknown): value is CancelRequested =>
  value === 0 || value === 1 || value === 2

/** The columns of a record, and those by which its state is decided. Times are epoch milliseconds. */
export interface StateRow {
  readonly id: string
  readonly task: string
  readonly incarnation: string
  readonly state: TaskState
  readonly generation: number
  readonly attempt: number
  readonly retries: number
  readonly crashes: number
  readonly token: string | null
  readonly at_most_once: 0 | 1
  readonly cancel_requested: CancelRequested
  readonly ended: StoreDecidedEnd | null
  readonly expires_at: number | null
  readonly due_at: number | null
  readonly lease_until: number | null
  readonly remove_at: number | null
}

/** The columns that all decisions need. Durations are milliseconds. */
export interface TaskRow extends StateRow {
  readonly payload_hash: string
  readonly published: 0 | 1
  readonly fence: number
  readonly retention: number | null
  readonly worker: string | null
}

const integerOrNull = Row.orNull(Row.integer)

/** The checks of the columns of `StateRow`. */
export const stateShape: Row.Shape<StateRow> = {
  id: Row.text,
  task: Row.text,
  incarnation: Row.text,
  state: Row.oneOf("PENDING", "STARTED", "RETRY", "SUCCESS", "FAILURE"),
  generation: Row.integer,
  attempt: Row.integer,
  retries: Row.integer,
  crashes: Row.integer,
  token: Row.orNull(Row.text),
  at_most_once: Row.flag,
  cancel_requested: cancelRequested,
  ended: Row.orNull(Row.oneOf("Expired", "WorkerLost", "Cancelled", "Forgotten")),
  expires_at: integerOrNull,
  due_at: integerOrNull,
  lease_until: integerOrNull,
  remove_at: integerOrNull
}

/** The checks of the columns of `TaskRow`. */
export const shape: Row.Shape<TaskRow> = {
  ...stateShape,
  payload_hash: Row.text,
  published: Row.flag,
  fence: Row.integer,
  retention: integerOrNull,
  worker: Row.orNull(Row.text)
}

/** The names of those columns, for a `SELECT`. */
export const columns: string = Object.keys(shape).join(", ")

/** Returns the facts that the rules of the state machine decide by. */
export const toFacts = (row: StateRow): TaskFacts => ({
  task: row.task,
  state: row.state,
  incarnation: row.incarnation,
  generation: row.generation,
  crashes: row.crashes,
  token: row.token,
  leaseUntil: row.lease_until,
  atMostOnce: row.at_most_once === 1,
  cancelRequested: row.cancel_requested === 1,
  withdrawn: row.cancel_requested === 2,
  expiresAt: row.expires_at,
  dueAt: row.due_at,
  ended: row.ended
})

/** Returns whether the task has ended. */
export const isFinal = (row: TaskRow): boolean => isTerminal(row.state)

/** Returns whether the retention of the record is over: it counts as removed, and the next change removes it. */
export const isOutlived = (row: StateRow, now: number): boolean =>
  row.remove_at !== null && row.remove_at <= now
