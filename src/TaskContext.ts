/**
 * Describes the running attempt to its handler.
 *
 * @since 0.1.0
 * @module
 */
import { Context, type Duration, type Effect } from "effect"

/**
 * Service of the running attempt, which the worker provides to every handler.
 *
 * **Example** (Retrying by hand)
 *
 * ```ts
 * import { Task, TaskContext } from "chicory"
 * import { Effect, Schema } from "effect"
 *
 * const Fetch = Task.make("page.fetch", { payload: { url: Schema.String } })
 *
 * const FetchLive = Fetch.toLayer(({ url }) =>
 *   Effect.gen(function* () {
 *     const { attempt, retry } = yield* TaskContext.TaskContext
 *     yield* Effect.log(`attempt ${attempt}: ${url}`)
 *     if (url === "") return yield* retry({ countdown: "10 seconds" })
 *   })
 * )
 * ```
 *
 * @category services
 * @since 0.1.0
 */
export class TaskContext extends Context.Service<
  TaskContext,
  {
    readonly taskId: string
    readonly taskName: string
    /** 1 in the first run; counts every start of the task's current generation that was not released. */
    readonly attempt: number
    /** How many retries the task's policy has granted so far. */
    readonly retries: number
    /** The `maxRetries` of the task's policy. */
    readonly maxRetries: number
    /** Whether no retry is left, so that a failure of this attempt ends the task: `remainingRetries === 0`. */
    readonly isLastRetry: boolean
    /**
     * How many retries are left at most: those that `maxRetries` allows and the schedule of the policy still grants. It
     * is computed when it is read.
     *
     * A failure that the policy does not retry ends the task before: by `while`, by a rule `"never"` of `byTag`, or a
     * defect. The schedule is followed without an input, synchronously, and for 100 retries; one that goes on counts
     * as endless.
     */
    readonly remainingRetries: number
    /**
     * An integer that grows with every run of the task. Compare it in the handler's own writes to fence them against
     * those of an older run that is still running.
     */
    readonly fence: number
    /**
     * Ends this attempt. If a retry is left, the task runs again after `countdown`, by default the delay of its policy;
     * a countdown below zero counts as zero. Otherwise it fails with `error`, or without one with the reason
     * `RetriesExhausted`.
     */
    readonly retry: <E = never>(options?: {
      readonly countdown?: Duration.Input | undefined
      readonly error?: E
    }) => Effect.Effect<never, E>
  }
>()("chicory/TaskContext") {}
