/**
 * The errors of a store: a call to the backend or to the broker failed, or there is no backend.
 */
import { Schema } from "effect"
import { describe } from "./internal/formatError.ts"

interface Failed {
  readonly taskId?: string
  readonly operation: string
  readonly retryable: boolean
  readonly cause: unknown
}

const messageOf = ({ cause, operation, retryable, taskId }: Failed): string => {
  const whose = taskId === undefined ? "" : ` for task ${taskId}`
  return `${operation} failed${whose}: ${describe(cause)}${retryable ? "" : "; trying again will not help"}`
}

/** A call to the backend failed, or its outcome is unknown. */
export class BackendError extends Schema.TaggedError<BackendError>("chicory/BackendError")("BackendError", {
  taskId: Schema.optionalKey(Schema.String),
  /** The store and what was asked of it. */
  operation: Schema.String,
  /** `false`: it would fail the same way again, however often it is tried (a wrong password, a corrupt file). */
  retryable: Schema.Boolean,
  cause: Schema.Defect()
}) {
  override get message(): string {
    return messageOf(this)
  }
}

/** The program needs a record, and was given `Backend.layerNotConfigured`. */
export class BackendNotConfigured extends Schema.TaggedError<BackendNotConfigured>(
  "chicory/BackendNotConfigured"
)("BackendNotConfigured", {
  taskId: Schema.optionalKey(Schema.String),
  operation: Schema.String
}) {
  override get message(): string {
    const whose = this.taskId === undefined ? "" : ` for task ${this.taskId}`
    return `${this.operation} needs a backend${whose}: provide one, such as Backend.layerMemory or SqliteStore.layer`
  }
}

/** What any use of the backend can fail with. */
export type ReadError = BackendError | BackendNotConfigured

/** A call to the broker failed, or its outcome is unknown. */
export class BrokerError extends Schema.TaggedError<BrokerError>("chicory/BrokerError")("BrokerError", {
  taskId: Schema.optionalKey(Schema.String),
  /** The store and what was asked of it. */
  operation: Schema.String,
  /** `false`: it would fail the same way again, however often it is tried (a wrong password, a corrupt file). */
  retryable: Schema.Boolean,
  cause: Schema.Defect()
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
