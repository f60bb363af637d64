/**
 * The errors of stores: a call to the backend or to the broker failed, or the program has no backend.
 *
 * @since 0.1.0
 * @module
 */
import { Schema } from "effect"
import { Defect } from "./internal/defectCodec.ts"
import { formatError } from "./internal/formatError.ts"

interface FailedCall {
  readonly taskId?: string
  readonly operation: string
  readonly retryable: boolean
  readonly cause: unknown
}

const messageOf = ({ cause, operation, retryable, taskId }: FailedCall): string => {
  const task = taskId === undefined ? "" : ` for task ${taskId}`
  return `${operation} failed${task}: ${formatError(cause)}${retryable ? "" : "; trying again will not help"}`
}

/**
 * Error of a call to the backend that failed, or whose outcome is unknown.
 *
 * **Details**
 *
 * A call that timed out, or whose connection broke, may have been applied. `retryable` is `false` where the same call
 * would fail again however often it is repeated, such as for a refused password or a corrupt file.
 *
 * @see {@link BrokerError} for calls to the broker
 *
 * @category errors
 * @since 0.1.0
 */
export class BackendError extends Schema.TaggedError<BackendError>("chicory/BackendError")("BackendError", {
  /** The task that the call was about, where it was about one. */
  taskId: Schema.optionalKey(Schema.String),
  /** The store and the operation, such as `redis backend: read`. */
  operation: Schema.String,
  /** Whether the same call may succeed later. */
  retryable: Schema.Boolean,
  /** The error of the store. */
  cause: Defect
}) {
  override get message(): string {
    return messageOf(this)
  }
}

/**
 * Error of an operation that needs a record in a program with `Backend.layerNotConfigured`.
 *
 * @category errors
 * @since 0.1.0
 */
export class BackendNotConfigured extends Schema.TaggedError<BackendNotConfigured>(
  "chicory/BackendNotConfigured"
)("BackendNotConfigured", {
  /** The task that the operation was about, where it was about one. */
  taskId: Schema.optionalKey(Schema.String),
  operation: Schema.String
}) {
  override get message(): string {
    const task = this.taskId === undefined ? "" : ` for task ${this.taskId}`
    return `${this.operation} needs a backend${task}: provide one, such as Backend.layerMemory or SqliteStore.layer`
  }
}

/**
 * The errors of any use of the backend.
 *
 * @category errors
 * @since 0.1.0
 */
export type ReadError = BackendError | BackendNotConfigured

/**
 * Error of a call to the broker that failed, or whose outcome is unknown.
 *
 * **Details**
 *
 * A call that timed out, or whose connection broke, may have been applied. `retryable` is `false` where the same call
 * would fail again however often it is repeated, such as for a refused password or a corrupt file.
 *
 * @see {@link BackendError} for calls to the backend
 *
 * @category errors
 * @since 0.1.0
 */
export class BrokerError extends Schema.TaggedError<BrokerError>("chicory/BrokerError")("BrokerError", {
  /** The task that the call was about, where it was about one. */
  taskId: Schema.optionalKey(Schema.String),
  /** The store and the operation, such as `rabbitmq broker: publish`. */
  operation: Schema.String,
  /** Whether the same call may succeed later. */
  retryable: Schema.Boolean,
  /** The error of the store. */
  cause: Defect
}) {
  override get message(): string {
    return messageOf(this)
  }
}

/**
 * Returns whether the same call may succeed later. `BackendNotConfigured` is never retryable.
 *
 * @internal
 */
export const isRetryable = (error: ReadError | BrokerError): boolean =>
  error._tag !== "BackendNotConfigured" && error.retryable
