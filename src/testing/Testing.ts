/**
 * What tests of programs and of their handlers need. It depends on no test framework.
 *
 * ```ts
 * import { AsyncResult, Task, Worker } from "chicory"
 * import { Testing } from "chicory/testing"
 * import { Effect, Layer } from "effect"
 *
 * const Greet = Task.make("greet")
 * const GreetLive = Greet.toLayer(() => Effect.log("hello"))
 * const WorkerLive = Layer.provide(Worker.layer([Greet], { drainTimeout: 0 }), GreetLive)
 *
 * const test = Effect.flatMap(Greet.delay(), (result) => AsyncResult.get(result)).pipe(
 *   Effect.provide(WorkerLive),
 *   Effect.provide(Testing.layer)
 * )
 * ```
 *
 * @since 0.1.0
 * @module
 */
import { Layer } from "effect"
import type { Backend } from "../Backend.ts"
import type { Broker } from "../Broker.ts"
import { requestRetry } from "../internal/task/CurrentRun.ts"
import * as MemoryStore from "../memory/MemoryStore.ts"
import { TaskContext } from "../TaskContext.ts"

/**
 * The `Backend` and the `Broker` of a new store in memory.
 *
 * **Details**
 *
 * Each build of the layer has its own store. Every time comes from Effect's `Clock`, so leases, delays, retries and
 * retention follow `TestClock`.
 *
 * **Gotchas**
 *
 * A worker drains for 20 seconds by default when its scope closes, which under `TestClock` never pass: give workers in
 * tests `drainTimeout: 0`.
 *
 * @see {@link MemoryStore.layer}
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<Backend | Broker> = Layer.fresh(MemoryStore.layer)

/**
 * Options of `context`.
 *
 * @category options
 * @since 0.1.0
 */
export interface ContextOptions {
  /** Default: `test`. */
  readonly taskId?: string | undefined
  /** Default: `test`. */
  readonly taskName?: string | undefined
  /** Default: one more than `retries`. */
  readonly attempt?: number | undefined
  /** Retries so far. Default: 0. */
  readonly retries?: number | undefined
  /** Default: 0. */
  readonly maxRetries?: number | undefined
  /** Default: the attempt. */
  readonly fence?: number | undefined
}

/**
 * The `TaskContext` of an attempt, for the unit test of a handler without a worker.
 *
 * **Details**
 *
 * `TaskContext.retry` ends the handler with a defect, as it does under a worker.
 *
 * **Gotchas**
 *
 * `progress` of a task writes nothing outside of a worker.
 *
 * @category layers
 * @since 0.1.0
 */
export const context = (options: ContextOptions = {}): Layer.Layer<TaskContext> => {
  const { maxRetries = 0, retries = 0, taskId = "test", taskName = "test" } = options
  const attempt = options.attempt ?? retries + 1
  return Layer.succeed(TaskContext, {
    taskId,
    taskName,
    attempt,
    retries,
    maxRetries,
    isLastRetry: retries >= maxRetries,
    remainingRetries: Math.max(0, maxRetries - retries),
    fence: options.fence ?? attempt,
    retry: requestRetry
  })
}
