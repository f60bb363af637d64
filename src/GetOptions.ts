/**
 * The options of the waiting functions of `AsyncResult`, which exports them.
 *
 * @since 0.1.0
 */
import type { Duration } from "effect"

/**
 * Options of waiting for a result.
 *
 * @category options
 * @since 0.1.0
 */
export interface GetOptions {
  /** How long to wait. Zero, or less, reads once. Default: unlimited. */
  readonly timeout?: Duration.Input | undefined
  /**
   * How often to read. Default: every 100 millis where the backend gives no hints. Where it does, a hint wakes the waiter,
   * and all awaited tasks are read every `sweepInterval` of the backend's layer, by default 5 seconds; with an interval
   * here the task is read at that interval as well. The shortest is a millisecond.
   */
  readonly pollInterval?: Duration.Input | undefined
}
