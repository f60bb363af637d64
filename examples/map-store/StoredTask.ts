/** What the Map store keeps: tasks, dead letters and workers. */
import type { DeadLetter, Start, TaskRecord, WorkerInfo } from "chicory/driver"

type Mutable<T> = { -readonly [K in keyof T]: T[K] }

/** A task as it is stored: the record, and what the store needs beside it. */
export interface StoredTask {
  readonly record: Mutable<TaskRecord>
  /** The idempotency key, scoped by the task's name. */
  key: string | undefined
  /** Empty while it is not known. */
  payloadHash: string
  /** When a reservation is removed; `Infinity` once its message is known to be published. */
  reservedUntil: number
  /** The message of the open run was removed from its queue. */
  withdrawn: boolean
  /** Counted from the end; `undefined`: for ever. */
  retentionMillis: number | undefined
  /** The number of the last run, over all generations. */
  fence: number
  /** The token of the last run. It stays after the run's settlement; `null` after an end that the store decided. */
  token: string | null
  /** The request of the open run. Another store keeps `queue` and `body` of at-most-once runs only. */
  run: Start | undefined
  leaseUntil: number
  /** The failures of the attempts that were retried in this generation; empty: none. */
  history: string
}

export interface StoredDeadLetter {
  readonly letter: DeadLetter
  readonly removeAt: number
  /** For a record that is missing when the dead letter is replayed. */
  readonly fence: number
  readonly retentionMillis: number | undefined
}

export interface StoredWorker {
  readonly info: WorkerInfo
  readonly removeAt: number
}

export const after = (now: number, millis: number | undefined): number => now + (millis ?? Infinity)

export const isFinal = ({ record: { state } }: StoredTask): boolean =>
  state === "SUCCESS" || state === "FAILURE"

/** The fields of a record at the start of a generation. */
export const opened = (generation: number, enqueuedAt: number) => ({
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
  enqueuedAt,
  startedAt: null,
  finishedAt: null,
  expiresAt: null,
  dueAt: null
})
