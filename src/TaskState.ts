/**
 * The states of a task.
 *
 * ```
 * PENDING --start--> STARTED --success--> SUCCESS
 *                       |---failure, retries left--> RETRY --start--> STARTED
 *                       |---failure, none left / not retryable--> FAILURE
 *                       |---released (drain)--> PENDING or RETRY, nothing counted
 *                       `---lease ran out--> started again elsewhere (crashes + 1)
 * PENDING | RETRY --expiry--> FAILURE          PENDING | RETRY | STARTED --cancel--> FAILURE
 * ```
 */
import { Schema } from "effect"

/** The wire names of the states, as they are stored. */
export const TaskState: Schema.Literals<readonly ["PENDING", "STARTED", "RETRY", "SUCCESS", "FAILURE"]> =
  Schema.Literals(["PENDING", "STARTED", "RETRY", "SUCCESS", "FAILURE"])

/** Where a task is in its life. *Why* it failed is the `reason` of `TaskFailed`, not a state. */
export type TaskState = "PENDING" | "STARTED" | "RETRY" | "SUCCESS" | "FAILURE"

/** Whether a state is final: `SUCCESS` or `FAILURE`. A final state never changes. */
export const isTerminal = (state: TaskState): boolean => state === "SUCCESS" || state === "FAILURE"
