/** Reads `GetOptions`, and makes the errors of a wait that users see. */
import { Clock, Duration, type Fiber } from "effect"
import type { TaskRecord } from "../../BackendDriver.ts"
import type { GetOptions } from "../../GetOptions.ts"
import { BackendError, BackendNotConfigured } from "../../StoreError.ts"
import { TimeoutError } from "../../TimeoutError.ts"
import { durationOrZero } from "../options.ts"

/** How often tasks are polled where the backend gives no hints and the caller sets no interval. */
export const DEFAULT_POLL_INTERVAL = Duration.millis(100)
/** The shortest interval: without one, a wait would be a loop of reads. */
const MIN_POLL_INTERVAL = Duration.millis(1)
/** How long the read at the deadline may take. */
export const FINAL_READ_TIMEOUT = Duration.seconds(1)

/** The options of a wait. */
export interface WaitOptions {
  /** `undefined`: the wait has no deadline. */
  readonly timeout: Duration.Duration | undefined
  readonly pollInterval: Duration.Duration | undefined
  /** Makes the error of a task that has not ended at the deadline, with what was read of it last. */
  readonly toTimeoutError: (
    taskId: string,
    record: TaskRecord | undefined,
    lastError: BackendError | undefined
  ) => TimeoutError
}

/** Reads the options of a wait. */
export const readOptions = (options: GetOptions | undefined): WaitOptions => {
  const timeout = options?.timeout ?? Duration.infinity
  const pollInterval = options?.pollInterval
  const isEndless = Duration.fromInputUnsafe(timeout).value._tag === "Infinity"
  return {
    timeout: isEndless ? undefined : durationOrZero("AsyncResult: timeout", timeout),
    pollInterval:
      pollInterval === undefined
        ? undefined
        : Duration.max(MIN_POLL_INTERVAL, durationOrZero("AsyncResult: pollInterval", pollInterval)),
    toTimeoutError: (taskId, record, cause) =>
      new TimeoutError({
        taskId,
        timeout: Duration.fromInputUnsafe(timeout),
        state: record?.state ?? "PENDING",
        ...(cause === undefined ? {} : { cause })
      })
  }
}

/** Returns the monotonic nanoseconds at which a timeout that begins now is over. */
export const deadlineAfter = (
  fiber: Fiber.Fiber<unknown, unknown>,
  timeout: Duration.Duration | undefined
): bigint | undefined =>
  timeout === undefined
    ? undefined
    : fiber.getRef(Clock.Clock).monotonicTimeNanosUnsafe() +
      BigInt(Math.ceil(Duration.toMillis(timeout))) * 1_000_000n

/**
 * Returns the error of a task that has not ended, of a wait inside a transaction of the store. A wait would hold the
 * transaction open, and not end for a task that the transaction enqueued.
 */
export const waitRefused = (backend: string): BackendError =>
  new BackendError({
    operation: `${backend} backend: wait`,
    retryable: false,
    cause: new Error(
      "the task has not ended, and its end cannot be awaited inside an open transaction of the SqlClient: " +
        "wait after the commit, or read its state"
    )
  })

/** Whether a wait with these options is one read. */
export const isOneRead = ({ timeout }: WaitOptions): boolean =>
  timeout !== undefined && Duration.isZero(timeout)

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
