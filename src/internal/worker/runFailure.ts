/** What made a run fail, as log lines, error reports and events show it. */
import { Cause } from "effect"
import { TimedOut } from "../../TaskFailed.ts"
import { RetryRequest } from "../task/CurrentRun.ts"
import type { Run } from "./Run.ts"
import { DecidedOutcome, type RunOutcome, timedOut, withoutStack } from "./runOutcome.ts"

/** What made a run fail. */
export interface RunFailure {
  /** The handler's own errors and defects, and the library's where it failed. Empty: the handler asked for a retry. */
  readonly cause: Cause.Cause<unknown>
  /** Whether a bug made it fail, and not an error that the task declares. */
  readonly isDefect: boolean
}

/** Returns what made a run fail; `outcome` is a failure or a retry. */
export const runFailure = (run: Run, outcome: RunOutcome): RunFailure => {
  const reasons = run.exitCause === undefined ? [] : run.exitCause.reasons.flatMap(shown(run))
  const died = reasons.some(Cause.isDieReason)
  const isDeath = reasonOf(outcome) === "Died"
  // a death that does not encode is stored in another form, which says no more
  const all = isDeath && died ? reasons : [...reasons, ...ownReasons(outcome)]
  return { cause: Cause.fromReasons(all), isDefect: isDeath || (died && outcome._tag !== "Failure") }
}

/** Returns the tag of the reason of a failure or a retry. */
const reasonOf = (outcome: RunOutcome): string | undefined => {
  if (outcome._tag === "Failure") return outcome.reason
  return outcome._tag === "Retry" ? outcome.failure.reason._tag : undefined
}

/** Returns what the library itself says of a failure. */
const ownReasons = (outcome: RunOutcome): ReadonlyArray<Cause.Reason<unknown>> => {
  if (outcome._tag === "Failure") return outcome.cause?.reasons ?? []
  if (outcome._tag !== "Retry") return []
  const { reason } = outcome.failure
  // of a handler that interrupted itself
  return reason._tag === "Died" ? [Cause.makeDieReason(reason.defect)] : []
}

/** Replaces what the library's own functions leave a handler with by what they stand for. */
const shown =
  ({ task: { definition } }: Run) =>
  (reason: Cause.Reason<unknown>): ReadonlyArray<Cause.Reason<unknown>> => {
    if (Cause.isFailReason(reason) && reason.error === timedOut) {
      return definition.timeout === undefined
        ? []
        : [Cause.makeFailReason(withoutStack(new TimedOut({ timeout: definition.timeout })))]
    }
    if (!Cause.isDieReason(reason)) return [reason]
    const { defect } = reason
    // the cause of a decided outcome is the outcome's
    if (defect instanceof DecidedOutcome) return []
    if (defect instanceof RetryRequest) return defect.hasError ? [Cause.makeFailReason(defect.error)] : []
    return [reason]
  }
