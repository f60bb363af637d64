/** Tells the failures of calls that belong to an outage of a store, which is logged as one, from all others. */
import { Cause, Effect, Option } from "effect"
import { BackendError, BrokerError } from "../../StoreError.ts"
import type { Outages } from "../driver/Outages.ts"
import type { WorkerState } from "./WorkerState.ts"

/** Returns the outages of the store that an error is of. */
export const outagesOfError = ({ settings: { backend, broker } }: WorkerState, error: unknown): Outages =>
  (error instanceof BrokerError ? broker : backend).outages

/** Returns the error of a call that may succeed later; `undefined` for any other cause, such as a defect. */
const retryableError = (cause: Cause.Cause<unknown>): BackendError | BrokerError | undefined => {
  const error = Option.getOrUndefined(Cause.findErrorOption(cause))
  if (!(error instanceof BackendError || error instanceof BrokerError)) return undefined
  return error.retryable ? error : undefined
}

/** Notes the failure of a call that nothing repeats at once: an outage begins or goes on. */
export const noteFailure = (worker: WorkerState, cause: Cause.Cause<unknown>): Effect.Effect<void> => {
  const error = retryableError(cause)
  return error === undefined ? Effect.void : outagesOfError(worker, error).failed(cause)
}

/** Whether a call failed because its store is away. */
export const isStoreAway = (worker: WorkerState, cause: Cause.Cause<unknown>): boolean => {
  const error = retryableError(cause)
  return error !== undefined && outagesOfError(worker, error).isOngoing
}
