/** The run of a handler, as the library's own functions find it in the handler's fibers. */
import { Context, Data, type Duration, Effect, type Fiber } from "effect"
import type { ReadError } from "../../StoreError.ts"
import type { TaskContext } from "../../TaskContext.ts"
import { durationOrZero } from "../options.ts"

/** What the library does with the run of the calling fiber. */
export interface RunControl {
  /** The most bytes of encoded progress. */
  readonly maxBytes: number
  /**
   * Frees the worker's slot while the effect runs and every other fiber of the run waits like this or ends. After a
   * success it waits for a slot, until `deadline` at the latest: monotonic nanoseconds of the clock. A wait that fails
   * or is interrupted goes on at once.
   */
  withoutSlot<A, E, R>(effect: Effect.Effect<A, E, R>, deadline?: bigint): Effect.Effect<A, E, R>
  /** Counts a fiber that was made in the context of the run, by `parent` if that is one of its fibers. */
  onFiberStart(parent: Fiber.Fiber<unknown, unknown> | undefined): void
  /** Counts the end of such a fiber. */
  onFiberEnd(): void
  /** Writes encoded progress. A failed write is logged. */
  writeProgress(progress: string): Effect.Effect<void>
  /**
   * Ends the run with a success in the transaction of the fiber. Returns what has to be called after the commit. A
   * superseded run is interrupted; a value that does not encode ends the handler and the task.
   */
  complete(value: unknown): Effect.Effect<() => void, ReadError>
}

/** The run of a handler's fibers; `undefined` in other fibers. */
export const CurrentRun = Context.Reference<RunControl | undefined>("chicory/CurrentRun", {
  defaultValue: () => undefined
})

/** The defect by which `TaskContext.retry` leaves a handler, so that no error type shows it. */
export class RetryRequest extends Data.Error<{
  readonly countdown: Duration.Duration | undefined
  /** Distinguishes an error of `undefined` from no error. */
  readonly hasError: boolean
  readonly error: unknown
}> {
  override readonly name = "chicory/RetryRequest"
}

/** Leaves a handler with a `RetryRequest`. */
export const requestRetry: TaskContext["Service"]["retry"] = (options) =>
  Effect.suspend(() =>
    Effect.die(
      new RetryRequest({
        countdown:
          options?.countdown === undefined
            ? undefined
            : durationOrZero("TaskContext.retry: countdown", options.countdown),
        hasError: options !== undefined && "error" in options,
        error: options?.error
      })
    )
  )
