/**
 * The states of a task.
 *
 * ```text
 * PENDING --start--> STARTED --success--> SUCCESS
 *                       |---failure, retries left--> RETRY --start--> STARTED
 *                       |---failure, no retry--> FAILURE
 *                       |---release--> PENDING or RETRY, nothing counted
 *                       `---lapsed lease, next start--> STARTED, crashes + 1
 * PENDING | RETRY --expiry--> FAILURE          PENDING | RETRY | STARTED --cancel--> FAILURE
 * ```
 *
 * @since 0.1.0
 * @module
 */
import { Schema } from "effect"

/**
 * Schema of the states, by the names under which they are stored.
 *
 * @category schemas
 * @since 0.1.0
 */
export const TaskState: Schema.Literals<readonly ["PENDING", "STARTED", "RETRY", "SUCCESS", "FAILURE"]> =
  Schema.Literals(["PENDING", "STARTED", "RETRY", "SUCCESS", "FAILURE"])

/**
 * The state of a task.
 *
 * **Details**
 *
 * - `PENDING`: it waits for its first run.
 * - `STARTED`: it runs, or its worker vanished and its lease is not taken over yet.
 * - `RETRY`: it waits for its next run.
 * - `SUCCESS`, `FAILURE`: it has ended. These never change, until a dead letter is replayed. Why a task failed is the
 *   `reason` of its `TaskFailed`, not a state.
 *
 * @category models
 * @since 0.1.0
 */
export type TaskState = "PENDING" | "STARTED" | "RETRY" | "SUCCESS" | "FAILURE"

/**
 * Returns whether a state is final: `SUCCESS` or `FAILURE`.
 *
 * @category predicates
 * @since 0.1.0
 */
export const isTerminal = (state: TaskState): boolean => state === "SUCCESS" || state === "FAILURE"
