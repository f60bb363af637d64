/** One read of a task. */
import type { DateTime, Exit, Option } from "effect"
import type { TaskFailed } from "./TaskFailed.ts"
import type { TaskState } from "./TaskState.ts"

/** One read of a task: its state, its outcome if there is one, and how it came to it. */
export interface TaskResult<out A, out E = never, out P = unknown> {
  readonly taskId: string
  readonly taskName: string
  readonly state: TaskState
  /** Starts that were not released. */
  readonly attempts: number
  /** `Some` exactly in `SUCCESS` and `FAILURE`. */
  readonly exit: Option.Option<Exit.Exit<A, TaskFailed<E>>>
  /** The last progress that the handler wrote. */
  readonly progress: Option.Option<P>
  /** The worker of the last run. */
  readonly worker: Option.Option<string>
  readonly enqueuedAt: Option.Option<DateTime.Utc>
  /** The first start, whatever became of that run. */
  readonly startedAt: Option.Option<DateTime.Utc>
  readonly finishedAt: Option.Option<DateTime.Utc>
}
