/** A task as the memory store holds it. */
import type { Types } from "effect"
import type { TaskRecord } from "../BackendDriver.ts"
import type { TaskFacts } from "../internal/task/transitions.ts"
import { type Expiring, timeAfter } from "./Expiring.ts"

/** The record, the facts that decisions depend on, and what only the store reads. */
export interface TaskRow extends Types.Mutable<TaskRecord>, Types.Mutable<TaskFacts>, Expiring {
  state: TaskRecord["state"]
  /** The scoped idempotency key. */
  key: string | undefined
  /** Empty while it is not known. */
  payloadHash: string
  published: boolean
  fence: number
  retention: number | undefined
  deadLetterRetention: number | undefined
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
  ended: null,
  startedAt: null,
  finishedAt: null,
  expiresAt: null,
  token: null,
  leaseUntil: null,
  atMostOnce: false,
  dueAt: null,
  message: undefined
})

/** Makes the row of a waiting task that nothing is known of but its name. */
export const make = (id: string, task: string, generation: number): TaskRow => ({
  ...newGeneration(generation),
  id,
  task,
  enqueuedAt: null,
  key: undefined,
  payloadHash: "",
  published: true,
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

/** Returns when the store has to look at a row: its retention is over, it expires, or its at-most-once lease ends. */
export const deadlineOf = (row: TaskRow): number => {
  if (row.finishedAt !== null) return timeAfter(row.finishedAt, row.retention)
  if (row.state === "STARTED") return row.atMostOnce ? (row.leaseUntil ?? Infinity) : Infinity
  const reservedUntil =
    row.published || row.enqueuedAt === null ? Infinity : timeAfter(row.enqueuedAt, row.retention)
  return Math.min(row.expiresAt ?? Infinity, reservedUntil)
}

/** Copies the record out of a row. */
export const toRecord = (row: TaskRow): TaskRecord => ({
  id: row.id,
  task: row.task,
  state: row.state,
  generation: row.generation,
  attempt: row.attempt,
  retries: row.retries,
  crashes: row.crashes,
  exit: row.exit,
  progress: row.progress,
  worker: row.worker,
  cancelRequested: row.cancelRequested,
  ended: row.ended,
  enqueuedAt: row.enqueuedAt,
  startedAt: row.startedAt,
  finishedAt: row.finishedAt,
  expiresAt: row.expiresAt
})
