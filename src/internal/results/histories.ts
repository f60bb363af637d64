/** Reads the histories of tasks, of those alone whose records show that they were retried. */
import { Effect, Stream } from "effect"
import { Backend } from "../../Backend.ts"
import type { TaskRecord } from "../../BackendDriver.ts"
import { isRetryable, type ReadError } from "../../StoreError.ts"
import { backoff } from "../backoff.ts"
import type { BackendService } from "../driver/BackendService.ts"

/** A record, and the history of its task; `undefined`: there is none. */
export interface RecordWithHistory {
  readonly record: TaskRecord
  readonly history: string | undefined
}

const readHistory = (
  { readHistory }: BackendService,
  record: TaskRecord
): Effect.Effect<string | undefined, ReadError> =>
  record.retries === 0 || readHistory === undefined ? Effect.undefined : readHistory.one(record.id)

/** Reads the record of a task, and then its history; `undefined`: there is no record. */
export const readWithHistory = (
  taskId: string
): Effect.Effect<RecordWithHistory | undefined, ReadError, Backend> =>
  Backend.use((backend) =>
    Effect.flatMap(backend.read.one(taskId), (record) =>
      record === undefined
        ? Effect.undefined
        : Effect.map(readHistory(backend, record), (history) => ({ record, history }))
    )
  )

/** Whether the history of both records is the same: every retry changes it, and no other change does. */
const haveSameHistory = (one: TaskRecord, other: TaskRecord): boolean =>
  one.incarnation === other.incarnation &&
  one.generation === other.generation &&
  one.retries === other.retries

/** Adds the history to each record of one task. It is read once for each retry; retryable errors are retried. */
export const addHistories = (
  backend: BackendService,
  records: Stream.Stream<TaskRecord, ReadError>
): Stream.Stream<RecordWithHistory, ReadError> =>
  Stream.mapAccumEffect(
    records,
    () => undefined as RecordWithHistory | undefined,
    (last, record) => {
      if (last !== undefined && haveSameHistory(last.record, record)) {
        const next = { record, history: last.history }
        return Effect.succeed([next, [next]] as const)
      }
      const read = Effect.retry(readHistory(backend, record), { schedule: backoff, while: isRetryable })
      return Effect.map(read, (history) => {
        const next = { record, history }
        return [next, [next]] as const
      })
    }
  )
