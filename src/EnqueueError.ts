/** Why a task could not be enqueued. */
import { Data, Schema } from "effect"
import type { BackendError, BackendNotConfigured, BrokerError } from "./StoreError.ts"

/** The key (or id) is taken: by the same task with another payload, or by another task. Nothing was enqueued. */
export class IdempotencyConflict extends Schema.TaggedError<IdempotencyConflict>(
  "chicory/IdempotencyConflict"
)("IdempotencyConflict", {
  /** The task that holds it. */
  taskId: Schema.String,
  /** The name of the task that was to be enqueued. */
  taskName: Schema.String,
  /** The key, or the id that was asked for. */
  key: Schema.String
}) {
  override get message(): string {
    return `task ${this.taskId} holds "${this.key}" with another payload or name: use another key, or forget that task`
  }
}

/** The payload does not encode with the task's schema, or is nested deeper than 1,000 levels. Nothing was enqueued. */
export class EncodeError extends Schema.TaggedError<EncodeError>("chicory/EncodeError")("EncodeError", {
  taskId: Schema.String,
  taskName: Schema.String,
  issue: Schema.String
}) {
  override get message(): string {
    return `the payload of ${this.taskName} does not encode: ${this.issue}`
  }
}

/** The encoded payload is too large. Nothing was enqueued. */
export class PayloadTooLarge extends Schema.TaggedError<PayloadTooLarge>("chicory/PayloadTooLarge")(
  "PayloadTooLarge",
  {
    taskId: Schema.String,
    taskName: Schema.String,
    bytes: Schema.Number,
    limit: Schema.Number
  }
) {
  override get message(): string {
    return `the payload of ${this.taskName} has ${this.bytes} bytes, of at most ${this.limit}: store it elsewhere and send its address`
  }
}

/** What was asked for is beyond this store or pairing. Nothing was enqueued. */
export class Unsupported extends Schema.TaggedError<Unsupported>("chicory/Unsupported")("Unsupported", {
  taskId: Schema.String,
  feature: Schema.String,
  store: Schema.String
}) {
  override get message(): string {
    return `the ${this.store} broker does not support ${this.feature}`
  }
}

/** What `delay` and `send` can fail with. */
export type EnqueueError =
  | EncodeError
  | PayloadTooLarge
  | IdempotencyConflict
  | Unsupported
  | BrokerError
  | BackendError
  | BackendNotConfigured

/** `delayAll` stopped on the way: these ids were accepted, in the order of their payloads. */
export class PartialEnqueue extends Data.TaggedError("PartialEnqueue")<{
  readonly accepted: ReadonlyArray<string>
  readonly error: EnqueueError
}> {
  override get message(): string {
    return `${this.accepted.length} tasks were enqueued, then: ${this.error.message}`
  }
}
