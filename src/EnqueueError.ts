/**
 * The errors of `delay`, `delayAll` and `send`. `Task` exports all of them.
 *
 * @since 0.1.0
 * @module
 */
import { Data, Schema } from "effect"
import { Defect } from "./internal/defectCodec.ts"
import type { BackendError, BackendNotConfigured, BrokerError } from "./StoreError.ts"

/**
 * Error of an enqueue whose idempotency key, or whose id, belongs to a task with another payload or another name, or
 * whose id belongs to a forgotten task that has not ended. Nothing was enqueued.
 *
 * @category errors
 * @since 0.1.0
 */
export class IdempotencyConflict extends Schema.TaggedError<IdempotencyConflict>(
  "chicory/IdempotencyConflict"
)("IdempotencyConflict", {
  /** The task that holds the key or the id. */
  taskId: Schema.String,
  /** The name of the task that was to be enqueued. */
  taskName: Schema.String,
  /** The key, or else the id that was asked for. A key may come from the payload, so `message` does not have it. */
  key: Schema.String
}) {
  override get message(): string {
    return `task ${this.taskId} holds the key or the id of this enqueue with another payload or name, or was forgotten and has not ended: use another key, forget a task that has ended, or wait until a forgotten one has`
  }
}

/**
 * Error of a payload that does not encode with the task's schema, that is nested deeper than 1,000 levels, or for which
 * the task's `idempotencyKey` makes no key. Nothing was enqueued.
 *
 * **Details**
 *
 * A payload whose properties throw, and one that contains itself, do not encode. Neither does one for which the code of
 * the schema throws.
 *
 * @category errors
 * @since 0.1.0
 */
export class EncodeError extends Schema.TaggedError<EncodeError>("chicory/EncodeError")("EncodeError", {
  taskId: Schema.String,
  taskName: Schema.String,
  /** What the schema expects, and where. It has no value of the payload. */
  issue: Schema.String,
  /** What the code of the schema, or of `idempotencyKey`, threw, if it did. */
  cause: Schema.optionalKey(Defect)
}) {
  override get message(): string {
    return `the payload of ${this.taskName} does not encode: ${this.issue}`
  }
}

/**
 * Error of a payload that is larger than 4 MiB when encoded, or larger than the stores take. Nothing was enqueued.
 *
 * @category errors
 * @since 0.1.0
 */
export class PayloadTooLarge extends Schema.TaggedError<PayloadTooLarge>("chicory/PayloadTooLarge")(
  "PayloadTooLarge",
  {
    taskId: Schema.String,
    taskName: Schema.String,
    /** The size of the encoded payload, in bytes. */
    bytes: Schema.Number,
    /** The largest size that is allowed, in bytes. */
    limit: Schema.Number
  }
) {
  override get message(): string {
    return `the payload of ${this.taskName} has ${this.bytes} bytes, and at most ${this.limit} are allowed: store it elsewhere and send its address`
  }
}

/**
 * Error of an enqueue that asks for more than the store, or the pairing of stores, can do. Nothing was enqueued.
 *
 * **Details**
 *
 * Causes are a priority or a delay beyond what the broker supports, and an enqueue inside a SQL transaction that
 * does not include the stores.
 *
 * @category errors
 * @since 0.1.0
 */
export class Unsupported extends Schema.TaggedError<Unsupported>("chicory/Unsupported")("Unsupported", {
  taskId: Schema.String,
  /** What was asked for. */
  feature: Schema.String,
  /** The name of the broker's store. */
  store: Schema.String
}) {
  override get message(): string {
    return `the ${this.store} broker does not support ${this.feature}`
  }
}

/**
 * The errors of `delay` and `send`.
 *
 * **Details**
 *
 * After `EncodeError`, `PayloadTooLarge`, `IdempotencyConflict`, `Unsupported` and `BackendNotConfigured` nothing was
 * enqueued. After `BrokerError` and `BackendError` the task may have been enqueued; with an `id` the call is safe to
 * repeat.
 *
 * @category errors
 * @since 0.1.0
 */
export type EnqueueError =
  | EncodeError
  | PayloadTooLarge
  | IdempotencyConflict
  | Unsupported
  | BrokerError
  | BackendError
  | BackendNotConfigured

/**
 * Error of a `delayAll` that stopped before its end.
 *
 * **Details**
 *
 * `accepted` has the ids of the tasks that were enqueued, in the order of their payloads. Tasks of the same batch that
 * come after the one that failed may be among them. `error` says why it stopped.
 *
 * @category errors
 * @since 0.1.0
 */
export class PartialEnqueue extends Data.TaggedError("PartialEnqueue")<{
  readonly accepted: ReadonlyArray<string>
  readonly error: EnqueueError
}> {
  override get message(): string {
    return `${this.accepted.length} tasks were enqueued, then: ${this.error.message}`
  }

  override get cause(): unknown {
    return "cause" in this.error ? this.error.cause : undefined
  }
}
