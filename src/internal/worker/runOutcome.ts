/**
 * Classifies the exit of a handler: a final outcome, encoded for the store, or another attempt.
 *
 * An outcome that does not encode becomes the outcome `ResultInvalid`: the work is done, and is not done again.
 */
import { Cause, Data, Duration, Effect, Exit, Option } from "effect"
import { decide, type Decision, decideUntyped } from "../../RetryPolicy.ts"
import * as TaskFailed from "../../TaskFailed.ts"
import { bytesOf } from "../defaults.ts"
import { BRIEF_LIMITS, decodeDefect, encodeDefect } from "../defectCodec.ts"
import { errorTag, nameOf } from "../errorText.ts"
import { wholeMillis } from "../millis.ts"
import type { AttemptFailure, RetryReason } from "../task/attemptHistory.ts"
import { RetryRequest } from "../task/CurrentRun.ts"
import type { TaskExit } from "../task/TaskCodec.ts"
import * as TaskCodec from "../task/TaskCodec.ts"
import type { TaskDefinition } from "../task/TaskDefinition.ts"

/** The outcome of a run. */
export type RunOutcome =
  | { readonly _tag: "Success"; readonly exit: string }
  | {
      readonly _tag: "Failure"
      readonly exit: string
      readonly reason: TaskFailed.Reason<unknown>["_tag"]
      /** What failed where that is not the handler. */
      readonly cause?: Cause.Cause<unknown>
      /** Whether the task, or the rule of its error, asks for no dead letter. */
      readonly discarded?: true
      /** See `errorTypeOf`. */
      readonly errorType: string
    }
  | { readonly _tag: "Retry"; readonly afterMillis: number; readonly failure: AttemptFailure }
  /** Released, with nothing counted. Under a cancel request the store ends the task. */
  | { readonly _tag: "Release" }

/** The outcome of a run that failed for good. */
export type FailureOutcome = Extract<RunOutcome, { readonly _tag: "Failure" }>

/** The defect by which a handler ends whose outcome is decided already. */
export class DecidedOutcome extends Data.Error<{ readonly outcome: RunOutcome }> {
  override readonly name = "chicory/Decided"
}

/** Why a worker interrupted a handler. */
export type InterruptReason = "Lost" | "Cancelled" | "Drained"

/** The error of an attempt that took longer than the task's timeout. */
export const timedOut: unique symbol = Symbol.for("chicory/timedOut")

/** Characters of an issue, at most. */
const MAX_ISSUE = 10_000

/** The reasons that leave a dead letter. */
const DEAD_LETTERED = new Set<string>([
  "Failed",
  "RetriesExhausted",
  "Died",
  "TimedOut",
  "WorkerLost",
  "UnknownTask",
  "PayloadInvalid",
  "ResultInvalid"
])

/** Whether a failure leaves a dead letter. */
export const isDeadLettered = ({ discarded, reason }: FailureOutcome): boolean =>
  discarded !== true && DEAD_LETTERED.has(reason)

/** Removes the stack of a reason that the library made: it shows the library alone. */
export const withoutStack = <R extends Error>(reason: R): R => {
  reason.stack = `${reason.name}: ${reason.message}`
  return reason
}

/** Returns the tag or the class of the task's own error, or else the tag of the reason. */
const errorTypeOf = (reason: TaskFailed.Reason<unknown>): string =>
  reason._tag === "Failed" && typeof reason.error === "object" && reason.error !== null
    ? errorTag(reason.error)
    : reason._tag

/** Returns what metrics and spans call the error of an outcome; empty for a success and a release. */
export const errorTypeOfOutcome = (outcome: RunOutcome): string => {
  if (outcome._tag === "Failure") return outcome.errorType
  if (outcome._tag !== "Retry") return ""
  const { reason } = outcome.failure
  // the handler asked for it, without an error
  return reason._tag === "RetriesExhausted" ? "RetryRequested" : errorTypeOf(reason)
}

/** Returns the outcome of a failure that no handler caused. */
export const failureOutcome = (reason: TaskFailed.Reason<never>): Effect.Effect<FailureOutcome> =>
  Effect.map(Effect.orDie(TaskCodec.untyped.encodeExit({ _tag: "Failure", reason })), (exit) => ({
    _tag: "Failure",
    exit,
    reason: reason._tag,
    errorType: reason._tag,
    cause: Cause.fail(withoutStack(reason))
  }))

/** What the classification depends on. */
export interface RunFacts {
  readonly definition: TaskDefinition
  /** The most bytes of the encoded outcome. */
  readonly maxBytes: number
  readonly retries: number
  readonly attempt: number
  /** When the handler began, in monotonic nanoseconds. */
  readonly begunAt: bigint
  readonly interruptReason: InterruptReason | undefined
  readonly worker: string
}

/** Classifies the exit of a handler. Requires the services that encode the task's result. */
export const classifyExit = (
  run: RunFacts,
  exit: Exit.Exit<unknown, unknown>
): Effect.Effect<RunOutcome, never, unknown> => {
  if (Exit.isSuccess(exit)) return encode(run, { _tag: "Success", value: exit.value })
  return Effect.suspend(() => classifyCause(run, exit.cause)).pipe(
    // a retry policy that throws is a bug of the task, and so is an error whose properties throw
    Effect.catchCause((cause) =>
      Effect.map(fail(run, new TaskFailed.Died({ defect: Cause.squash(cause) })), (outcome) => ({
        ...outcome,
        cause
      }))
    )
  )
}

const classifyCause = (
  run: RunFacts,
  cause: Cause.Cause<unknown>
): Effect.Effect<RunOutcome, never, unknown> => {
  const { definition, retries } = run
  const { retry } = definition
  const retryOr = (decision: Effect.Effect<Decision>, reason: (exhausted: boolean) => RetryReason) =>
    Effect.flatMap(decision, (decided) =>
      decided._tag === "Retry"
        ? Effect.map(attemptFailure(run, reason(false)), (failure): RunOutcome => ({
            _tag: "Retry",
            afterMillis: wholeMillis(Duration.toMillis(decided.after)),
            failure
          }))
        : Effect.map(fail(run, reason(decided.exhausted)), (outcome) =>
            decided.discard || definition.discardsFailures ? withoutDeadLetter(outcome) : outcome
          )
    )

  const defects = cause.reasons.filter(Cause.isDieReason).map(({ defect }) => defect)
  const decided = defects.find((defect) => defect instanceof DecidedOutcome)
  if (decided !== undefined) return Effect.succeed(decided.outcome)
  const request = defects.find((defect) => defect instanceof RetryRequest)
  if (request !== undefined) {
    return retryOr(decideUntyped(retry, retries, request.countdown), () =>
      request.hasError
        ? new TaskFailed.Failed({ error: request.error, retriesExhausted: true })
        : new TaskFailed.RetriesExhausted()
    )
  }
  const die = (defect: unknown) => {
    const died = new TaskFailed.Died({ defect })
    return definition.retryDefects ? retryOr(decideUntyped(retry, retries), () => died) : fail(run, died)
  }
  if (defects.length > 0) return die(defects[0])
  const error = Cause.findErrorOption(cause)
  if (Option.isSome(error)) {
    if (error.value === timedOut) {
      return retryOr(
        decideUntyped(retry, retries),
        () => new TaskFailed.TimedOut({ timeout: definition.timeout ?? Duration.zero })
      )
    }
    return retryOr(
      decide(retry, error.value, retries),
      (retriesExhausted) => new TaskFailed.Failed({ error: error.value, retriesExhausted })
    )
  }
  if (run.interruptReason === "Drained" && definition.delivery === "at-most-once") {
    return fail(run, new TaskFailed.WorkerLost({ worker: run.worker }))
  }
  if (run.interruptReason !== undefined) return Effect.succeed({ _tag: "Release" })
  const defect = withoutStack(
    new Error("the handler interrupted itself, as it does where it joins a fiber that was interrupted")
  )
  // its exit does not say so
  return Effect.map(die(defect), (outcome) =>
    outcome._tag === "Failure" ? { ...outcome, cause: Cause.die(defect) } : outcome
  )
}

const attemptFailure = ({ attempt, begunAt }: RunFacts, reason: RetryReason): Effect.Effect<AttemptFailure> =>
  Effect.clockWith((clock) => {
    const failedAt = clock.currentTimeMillisUnsafe()
    const millis = Number(clock.monotonicTimeNanosUnsafe() - begunAt) / 1e6
    return Effect.succeed({ reason, attempt, startedAt: failedAt - Math.round(millis), failedAt })
  })

/** Leaves out the dead letter of a failure that the handler declares. */
const withoutDeadLetter = (outcome: RunOutcome): RunOutcome =>
  outcome._tag === "Failure" && (outcome.reason === "Failed" || outcome.reason === "RetriesExhausted")
    ? { ...outcome, discarded: true }
    : outcome

const fail = (run: RunFacts, reason: TaskFailed.Reason<unknown>) => encode(run, { _tag: "Failure", reason })

const encode = (
  { definition, maxBytes }: RunFacts,
  outcome: TaskExit<unknown, unknown>
): Effect.Effect<RunOutcome, never, unknown> =>
  Effect.matchCauseEffectEager(definition.result.encodeExit(outcome), {
    onFailure: (cause) => replacement(outcome, TaskCodec.issueOf(Cause.squash(cause))),
    onSuccess: (exit) => {
      const bytes = bytesOf(exit, maxBytes)
      if (bytes > maxBytes) {
        return replacement(outcome, {
          issue: `${bytes} bytes, of at most ${maxBytes}: store it elsewhere and give its address`
        })
      }
      return Effect.succeed<RunOutcome>(
        outcome._tag === "Success"
          ? { _tag: "Success", exit }
          : {
              _tag: "Failure",
              exit,
              reason: outcome.reason._tag,
              errorType: errorTypeOf(outcome.reason)
            }
      )
    }
  })

/** Returns the outcome that is stored in place of one that does not encode or is too large. It keeps less of the error. */
const replacement = (
  outcome: TaskExit<unknown, unknown>,
  { cause, issue }: { readonly issue: string; readonly cause?: unknown }
): Effect.Effect<RunOutcome> => {
  const brief = (error: unknown) => decodeDefect(encodeDefect(error, BRIEF_LIMITS))
  const invalid = (issue: string, cause: unknown) =>
    new TaskFailed.ResultInvalid({
      side: "worker",
      issue: issue.slice(0, MAX_ISSUE),
      ...(cause === undefined ? {} : { cause: brief(cause) })
    })
  const reason = outcome._tag === "Failure" ? outcome.reason : undefined
  if (reason?._tag === "Died") return failureOutcome(new TaskFailed.Died({ defect: brief(reason.defect) }))
  if (reason?._tag !== "Failed") return failureOutcome(invalid(issue, cause))
  const failed = `the error is ${nameOf(reason.error)}: ${issue}`
  return Effect.map(failureOutcome(invalid(failed, reason.error)), (outcome) => ({
    ...outcome,
    // the error itself is the handler's exit
    cause: Cause.fail(withoutStack(invalid(failed, undefined)))
  }))
}
