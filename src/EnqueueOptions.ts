/**
 * The options of `delay`, `delayAll` and `send`. `Task` exports them.
 *
 * @since 0.1.0
 * @module
 */
import type { DateTime, Duration } from "effect"

/**
 * Options of one call of `delay`, `delayAll` or `send`.
 *
 * **Gotchas**
 *
 * An option out of range is a defect, and so are `delay` and `at` together.
 *
 * @category options
 * @since 0.1.0
 */
export interface EnqueueOptions {
  /**
   * The id of the task: 1 to 255 characters. A call with the id of an existing task of the same name and payload returns
   * that task, so a call that failed is safe to repeat; with another name or payload it fails with
   * `IdempotencyConflict`. Default: a new id.
   */
  readonly id?: string | undefined
  /** The queue. Default: that of the task. */
  readonly queue?: string | undefined
  /** 0 to 255; a higher one runs first. Default: that of the task, or else 100. */
  readonly priority?: number | undefined
  /** How long the task waits before it may run; below zero, not at all. Default: not at all. */
  readonly delay?: Duration.Input | undefined
  /** When the task may run, by the clock of this process; a time in the past is now. Instead of `delay`. */
  readonly at?: DateTime.DateTime.Input | undefined
  /**
   * How long the task may wait, counted from now; then it ends with the reason `Expired`. Default: that of the task.
   */
  readonly expires?: Duration.Input | undefined
}
