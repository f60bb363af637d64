/** How waiters retry a read that failed. `AsyncResult` exports it. */
import { Context, type Schedule } from "effect"
import type { BackendError } from "../../StoreError.ts"
import { backoff } from "../backoff.ts"

/**
 * Reference to the schedule by which waiting functions retry a read that failed with a retryable `BackendError`.
 *
 * **Details**
 *
 * By default a read is retried after 50 milliseconds at first, then after up to 2 seconds, without end: the `timeout`
 * bounds the wait. When a schedule that is provided here ends, the wait fails with the `BackendError`.
 *
 * @category references
 * @since 0.1.0
 */
export const ReadRetry: Context.Reference<Schedule.Schedule<unknown, BackendError>> = Context.Reference<
  Schedule.Schedule<unknown, BackendError>
>("chicory/AsyncResult/ReadRetry", { defaultValue: () => backoff })
