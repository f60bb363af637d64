/**
 * A task as one read shows it.
 *
 * @since 0.1.0
 * @module
 */
import type { DateTime, Exit, Option } from "effect"
import type { TaskFailed } from "./TaskFailed.ts"
import type { TaskState } from "./TaskState.ts"

/**
 * A task as one read shows it. `A`, `E` and `P` are the task's success, error and progress. Times are those of the
 * store's clock.
 *
 * @see `AsyncResult.poll` and `AsyncResult.changes`
 *
 * @category models
 * @since 0.1.0
 */
export interface TaskResult<out A, out E = never, out P = unknown> {
  readonly taskId: string
  readonly taskName: string
  readonly state: TaskState
  /** Starts of the task's current generation, without those that were released. */
  readonly attempts: number
  /** The outcome: `Some` exactly in `SUCCESS` and `FAILURE`. */
  readonly exit: Option.Option<Exit.Exit<A, TaskFailed<E>>>
  /** The last progress that the handler wrote; `None` also where it does not decode. */
  readonly progress: Option.Option<P>
  /** The id of the worker of the last run. */
  readonly worker: Option.Option<string>
  readonly enqueuedAt: Option.Option<DateTime.Utc>
  /** When the task started for the first time, whatever became of that run. Not before `enqueuedAt`. */
  readonly startedAt: Option.Option<DateTime.Utc>
  readonly finishedAt: Option.Option<DateTime.Utc>
}
