/** The `TaskContext` of a run. */
import { Cause, type Context, Effect, Exit } from "effect"
import { retriesLeft } from "../../RetryPolicy.ts"
import type { TaskContext } from "../../TaskContext.ts"
import { requestRetry } from "../task/CurrentRun.ts"
import type { TaskDefinition } from "../task/TaskDefinition.ts"

type Service = TaskContext["Service"]

/** How many retries ahead a schedule is followed for `remainingRetries`. */
const LOOKAHEAD = 100

/** The counters of a run. */
export interface RunCounters {
  readonly attempt: number
  readonly retries: number
  readonly fence: number
}

/** What a handler sees of its run. A class, since an object with accessors takes microseconds to make for each run. */
export class RunContext implements Service {
  readonly taskId: string
  readonly attempt: number
  readonly retries: number
  readonly fence: number
  readonly retry = requestRetry
  private readonly definition: TaskDefinition
  private readonly context: Context.Context<unknown>

  constructor(
    taskId: string,
    definition: TaskDefinition,
    { attempt, fence, retries }: RunCounters,
    context: Context.Context<unknown>
  ) {
    this.taskId = taskId
    this.definition = definition
    this.attempt = attempt
    this.fence = fence
    this.retries = retries
    this.context = context
  }

  get taskName(): string {
    return this.definition.name
  }

  get maxRetries(): number {
    return this.definition.retry.maxRetries
  }

  get isLastRetry(): boolean {
    return this.retriesLeft(1) === 0
  }

  get remainingRetries(): number {
    return this.retriesLeft(LOOKAHEAD)
  }

  /** Follows the policy's schedule; one that dies ends the task, and leaves no retry. */
  private retriesLeft(limit: number): number {
    const left = retriesLeft(this.definition.retry, this.retries, limit)
    const exit = Effect.runSyncExitWith(this.context)(left)
    if (Exit.isSuccess(exit)) return exit.value
    const error = Cause.squash(exit.cause)
    if (!Cause.isAsyncFiberError(error)) return 0
    error.fiber.interruptUnsafe()
    return this.maxRetries - this.retries
  }
}
