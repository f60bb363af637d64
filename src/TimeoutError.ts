/**
 * The error of a wait that took too long. `AsyncResult` exports it.
 *
 * @since 0.1.0
 */
import { Schema } from "effect"
import { Defect } from "./internal/defectCodec.ts"
import { formatError } from "./internal/formatError.ts"
import { TaskState } from "./TaskState.ts"

/**
 * Error of a wait whose `timeout` passed before the task ended. The task itself is unchanged.
 *
 * **Gotchas**
 *
 * Its tag is that of Effect's own `Cause.TimeoutError`. Where both can occur, `Cause.isTimeoutError` tells them apart.
 *
 * @category errors
 * @since 0.1.0
 */
export class TimeoutError extends Schema.TaggedError<TimeoutError>("chicory/TimeoutError")("TimeoutError", {
  /** The task; of several, the first that had not ended. */
  taskId: Schema.String,
  timeout: Schema.DurationFromMillis,
  /** The state in which the task was last read; `PENDING` if it was not found. */
  state: TaskState,
  /** The last error of the backend during the wait, if there was one. */
  cause: Schema.optionalKey(Defect)
}) {
  override get message(): string {
    const lastError = this.cause === undefined ? "" : `; the last read failed: ${formatError(this.cause)}`
    return `task ${this.taskId} did not end within ${String(this.timeout)} (last seen ${this.state})${lastError}`
  }
}
