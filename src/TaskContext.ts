/** What a handler knows of the attempt that it is. */
import { Context, type Duration, type Effect } from "effect"

/** The attempt that is running: a service inside every handler, given by the worker. */
export class TaskContext extends Context.Service<
  TaskContext,
  {
    readonly taskId: string
    readonly taskName: string
    /** 1 in the first run; counts every start that was not released. */
    readonly attempt: number
    /** Retries that the task's policy granted so far. */
    readonly retries: number
    readonly maxRetries: number
    /** No retry is left: `retries === maxRetries`. */
    readonly isLastRetry: boolean
    readonly remainingRetries: number
    /** An integer that grows with every run of the task: fences the handler's own writes against older runs. */
    readonly fence: number
    /**
     * Ends this attempt. With a retry left the task runs again after `countdown` (default: the policy's delay);
     * with none it fails with `error`, or as `RetriesExhausted`.
     */
    readonly retry: <E = never>(options?: {
      readonly countdown?: Duration.Input | undefined
      readonly error?: E
    }) => Effect.Effect<never, E>
  }
>()("chicory/TaskContext") {}
