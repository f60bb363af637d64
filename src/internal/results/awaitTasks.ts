/** Waits for tasks as `GetOptions` say: reads the options, and makes the errors that users see. */
import { Duration, Effect, Queue, Stream } from "effect"
import type { Backend } from "../../Backend.ts"
import type { GetOptions } from "../../GetOptions.ts"
import { BackendError, BackendNotConfigured, type ReadError } from "../../StoreError.ts"
import { TimeoutError } from "../../TimeoutError.ts"
import { durationOrZero, positiveDuration } from "../options.ts"
import { awaitTerminal, type TerminalRecord, type TimeoutInfo } from "./awaitTerminal.ts"

const toDurations = (options: GetOptions | undefined) => {
  const timeout = options?.timeout ?? Duration.infinity
  const isEndless = Duration.fromInputUnsafe(timeout).value._tag === "Infinity"
  return {
    timeout: isEndless ? undefined : durationOrZero("AsyncResult: timeout", timeout),
    pollInterval:
      options?.pollInterval === undefined
        ? undefined
        : positiveDuration("AsyncResult: pollInterval", options.pollInterval)
  }
}

const toTimeoutError =
  (options: GetOptions | undefined) =>
  ({ cause, state, taskId }: TimeoutInfo): TimeoutError =>
    new TimeoutError({
      taskId,
      timeout: Duration.fromInputUnsafe(options?.timeout ?? Duration.infinity),
      state,
      ...(cause === undefined ? {} : { cause })
    })

/** Waits until `onTerminal`, called once for each task as it ends, returns `true`, or until every task has ended. */
export const awaitTasks = (
  ids: ReadonlyArray<string>,
  options: GetOptions | undefined,
  onTerminal: (ended: TerminalRecord) => boolean
): Effect.Effect<void, TimeoutError | ReadError, Backend> =>
  Effect.suspend(() =>
    awaitTerminal({ ids, ...toDurations(options), onTimeout: toTimeoutError(options), onTerminal })
  )

/** Emits the records of tasks as they end, in one shared wait. */
export const terminalRecords = (
  ids: ReadonlyArray<string>,
  options: GetOptions | undefined
): Stream.Stream<TerminalRecord, TimeoutError | ReadError, Backend> =>
  Stream.callback((queue) =>
    awaitTasks(ids, options, (ended) => {
      Queue.offerUnsafe(queue, ended)
      return false
    }).pipe(
      Effect.matchCauseEffect({
        onFailure: (cause) => Queue.failCause(queue, cause),
        onSuccess: () => Queue.end(queue)
      })
    )
  )

/** Returns the error with the id of the task that the call was about, if it is one of the backend without an id. */
export const withTaskId =
  (taskId: string) =>
  <E>(error: E): E => {
    if (error instanceof BackendError && error.taskId === undefined) {
      const { cause, operation, retryable } = error
      return new BackendError({ taskId, operation, retryable, cause }) as E & BackendError
    }
    if (error instanceof BackendNotConfigured && error.taskId === undefined) {
      return new BackendNotConfigured({ taskId, operation: error.operation }) as E & BackendNotConfigured
    }
    return error
  }
