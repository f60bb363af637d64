/** Follows the record of one task, for `AsyncResult.changes`. */
import { Cause, Effect, Queue, Schedule, Stream } from "effect"
import type { TaskRecord } from "../../BackendDriver.ts"
import { isRetryable, type ReadError } from "../../StoreError.ts"
import { isTerminal } from "../../TaskState.ts"
import { backoff } from "../backoff.ts"
import type { BackendService } from "../driver/BackendService.ts"
import { CurrentRun } from "../task/CurrentRun.ts"
import { addHistories, type RecordWithHistory } from "./histories.ts"
import { terminalOf } from "./terminalRecord.ts"
import { DEFAULT_POLL_INTERVAL, waitRefused } from "./waitOptions.ts"

/** Two reads with the same fingerprint are the same to users. */
const fingerprint = (record: TaskRecord): string =>
  `${record.generation} ${record.state} ${record.attempt} ${record.ended ?? ""} ${record.progress ?? ""}`

/** Emits what each read finds. Retryable errors are retried; a burst of reads is reduced to the last 16. */
const reads = (backend: BackendService, taskId: string): Stream.Stream<TaskRecord | undefined, ReadError> => {
  const { subscriptions } = backend
  if (subscriptions === undefined) {
    return Stream.fromEffectSchedule(
      Effect.retry(backend.read.one(taskId), { schedule: backoff, while: isRetryable }),
      Schedule.spaced(DEFAULT_POLL_INTERVAL)
    )
  }
  return Stream.callback(
    (queue) =>
      Effect.acquireRelease(
        Effect.sync(() =>
          subscriptions.subscribe([taskId], {
            waitsFor: "change",
            onRecord: (_, record) => void Queue.offerUnsafe(queue, record),
            onError: (error) => {
              if (!isRetryable(error)) Queue.failCauseUnsafe(queue, Cause.fail(error))
            }
          })
        ),
        (subscription) => Effect.sync(() => subscription.end())
      ),
    { bufferSize: 16, strategy: "sliding" }
  )
}

/** Frees the slot of the consumer's worker, if it is a handler, while it waits for the next element. */
const pullWithoutSlot = <A, E>(stream: Stream.Stream<A, E>): Stream.Stream<A, E> =>
  Stream.unwrap(
    Effect.withFiber((fiber) => {
      const run = fiber.getRef(CurrentRun)
      if (run === undefined) return Effect.succeed(stream)
      // the fibers that make the elements do not belong to the handler
      const apart = Stream.provideService(stream, CurrentRun, undefined)
      return Effect.succeed(Stream.transformPull(apart, (pull) => Effect.succeed(run.withoutSlot(pull))))
    })
  )

/** The same in a transaction of the store: emits one read, and then fails. */
const readsInTransaction = (backend: BackendService, taskId: string) =>
  Stream.concat(Stream.fromEffect(backend.read.one(taskId)), Stream.fail(waitRefused(backend.name)))

/** Emits every record that differs from the last one, until the terminal one, with the history of its task. */
export const recordChanges = (
  backend: BackendService,
  taskId: string
): Stream.Stream<RecordWithHistory, ReadError> => addHistories(backend, distinctRecords(backend, taskId))

const distinctRecords = (backend: BackendService, taskId: string): Stream.Stream<TaskRecord, ReadError> =>
  Stream.unwrap(
    Effect.withFiber(({ context }) =>
      Effect.succeed(
        backend.read.isUnbatched(context)
          ? readsInTransaction(backend, taskId)
          : pullWithoutSlot(reads(backend, taskId))
      )
    )
  ).pipe(
    Stream.mapAccum(
      () => undefined as TaskRecord | undefined,
      (last, record) => {
        const ended = terminalOf(last, record)
        const seen: TaskRecord | undefined =
          ended?.forgotten === true
            ? { ...ended.record, state: "FAILURE", exit: null, ended: "Forgotten" }
            : record
        return [seen, seen === undefined ? [] : [seen]] as const
      }
    ),
    Stream.changesWith((a, b) => fingerprint(a) === fingerprint(b)),
    Stream.takeUntil((record) => isTerminal(record.state))
  )
