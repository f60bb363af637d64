/**
 * Workers, as a backend driver registers them. `BackendDriver` exports these types.
 *
 * @since 0.1.0
 */

/**
 * A worker, as its last heartbeat described it.
 *
 * @category models
 * @since 0.1.0
 */
export interface WorkerInfo {
  readonly id: string
  readonly hostname: string
  readonly pid: number
  /** The queues that it claims from. */
  readonly queues: ReadonlyArray<string>
  /** The names of the tasks that it runs. */
  readonly tasks: ReadonlyArray<string>
  /** How many tasks it runs at once at most. */
  readonly concurrency: number
  /** How many tasks it was running. */
  readonly running: number
  /** Epoch milliseconds of the store's clock at the first heartbeat. */
  readonly startedAt: number
  /** Epoch milliseconds of the store's clock at the last heartbeat. */
  readonly seenAt: number
}

/**
 * How a worker describes itself. The store adds the times.
 *
 * @category models
 * @since 0.1.0
 */
export type Heartbeat = Omit<WorkerInfo, "startedAt" | "seenAt">
