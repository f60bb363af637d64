/** A task as the memory store holds it. */
import type { Types } from "effect"
import type { TaskRecord } from "../BackendDriver.ts"
import { endsWithRun, type TaskFacts } from "../internal/task/transitions.ts"
import { type Expiring, timeAfter } from "./Expiring.ts"

/** The record, the facts that decisions depend on, and what only the store reads. */
export interface TaskRow extends Types.Mutable<TaskRecord>, Types.Mutable<TaskFacts>, Expiring {
  state: TaskRecord["state"]
  queue: string
  dueAt: number | null
  /** The scoped idempotency key. */
  key: string | undefined
  /** Empty while it is not known. */
  payloadHash: string
  /** When a reservation is removed; `undefined` once its message is known to be published. */
  reservedUntil: number | undefined
  fence: number
  retention: number | undefined
  deadLetterRetention: number | undefined
  /** The failures of the attempts that were retried; `undefined`: none. */
  history: string | undefined
  /** The message of an open at-most-once run, for its dead letter. */
  message: { readonly queue: string; readonly body: string | Uint8Array } | undefined
}

/** The part of a row that is new in every generation. */
const newGeneration = (generation: number) => ({
  state: "PENDING" as const,
  generation,
  attempt: 0,
  retries: 0,
  crashes: 0,
  exit: null,
  progress: null,
  worker: null,
  cancelRequested: false,
  withdrawn: false,
  ended: null,
  startedAt: null,
  finishedAt: null,
  expiresAt: null,
  token: null,
  leaseUntil: null,
  atMostOnce: false,
  dueAt: null,
  history: undefined,
  message: undefined
})

/** Makes the row of a task that waits since now. */
export const make = (
  { id, incarnation, queue, task }: Pick<TaskRow, "id" | "task" | "incarnation" | "queue">,
  generation: number,
  now: number
): TaskRow => ({
  ...newGeneration(generation),
  id,
  task,
  incarnation,
  queue,
  enqueuedAt: now,
  key: undefined,
  payloadHash: "",
  reservedUntil: undefined,
  fence: 0,
  retention: undefined,
  deadLetterRetention: undefined,
  deadline: Infinity,
  position: -1
})

/** Opens a generation: the task waits, enqueued now, with nothing counted and no expiry. */
export const openGeneration = (row: TaskRow, generation: number, now: number): void => {
  Object.assign(row, newGeneration(generation), { enqueuedAt: now })
}

/** Ends the open run of a row. */
export const closeRun = (row: TaskRow): void => {
  row.leaseUntil = null
  row.message = undefined
}

/** Returns when the store has to look at a row: its retention is over, it expires, or its lease ends and with it the task. */
export const deadlineOf = (row: TaskRow): number => {
  if (row.finishedAt !== null) return timeAfter(row.finishedAt, row.retention)
  if (row.state === "STARTED") {
    return row.atMostOnce || endsWithRun(row) ? (row.leaseUntil ?? Infinity) : Infinity
  }
  return Math.min(row.expiresAt ?? Infinity, row.reservedUntil ?? Infinity)
}

/** Copies the record out of a row. */
export const toRecord = (row: TaskRow): TaskRecord => ({
  id: row.id,
  task: row.task,
  state: row.state,
  incarnation: row.incarnation,
  generation: row.generation,
  attempt: row.attempt,
  retries: row.retries,
  crashes: row.crashes,
  queue: row.queue,
  exit: row.exit,
  progress: row.progress,
  worker: row.worker,
  cancelRequested: row.cancelRequested,
  ended: row.ended,
  enqueuedAt: row.enqueuedAt,
  startedAt: row.startedAt,
  finishedAt: row.finishedAt,
  expiresAt: row.expiresAt,
  dueAt: row.dueAt
})
