/** What the fiber of a handler knows of its own run, beside the `TaskContext` that users see. */
import { Context, Data, type Duration, type Effect } from "effect"
import type { ReadError } from "../../StoreError.ts"

/** The run that a fiber belongs to. */
export interface RunControl {
  /** Gives the worker's slot free while the effect runs. */
  withoutSlot<A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R>
  /** Writes progress, already encoded; a write that is lost is logged. */
  writeProgress(progress: string): Effect.Effect<void>
  /**
   * Ends the run with a success, in the transaction that the fiber is in. What it answers is to be called after the
   * commit. A run that was superseded is interrupted; a value that does not encode ends the handler, and the task.
   */
  complete(value: unknown): Effect.Effect<() => void, ReadError>
}

/** Set for the fibers of handlers. */
export const CurrentRun = Context.Reference<RunControl | undefined>("chicory/CurrentRun", {
  defaultValue: () => undefined
})

/** How `TaskContext.retry` leaves a handler: as a defect that the worker knows, so that no error channel shows it. */
export class RetryRequest extends Data.Error<{
  readonly countdown: Duration.Duration | undefined
  /** `hasError` tells an error of `undefined` from none. */
  readonly hasError: boolean
  readonly error: unknown
}> {
  override readonly name = "chicory/RetryRequest"
}
