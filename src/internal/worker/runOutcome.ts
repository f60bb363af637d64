/**
 * What a run's exit means for its task: its one outcome, ready to be stored, or another attempt.
 *
 * An outcome that does not encode is itself an outcome (`ResultInvalid`): the work is done, and is not done again.
 */
import { Cause, Data, Duration, Effect, Exit, Option } from "effect"
import { decide, type Decision, decideUntyped } from "../../RetryPolicy.ts"
import * as TaskFailed from "../../TaskFailed.ts"
import * as defaults from "../defaults.ts"
import { formatError } from "../formatError.ts"
import { wholeMillis } from "../millis.ts"
import { RetryRequest } from "../task/CurrentRun.ts"
import type { TaskExit } from "../task/TaskCodec.ts"
import * as TaskCodec from "../task/TaskCodec.ts"
import type { TaskDefinition } from "../task/TaskDefinition.ts"

/** What becomes of a run. */
export type RunOutcome =
  | { readonly _tag: "Success"; readonly exit: string }
  | { readonly _tag: "Failure"; readonly exit: string; readonly reason: TaskFailed.Reason<unknown>["_tag"] }
  | { readonly _tag: "Retry"; readonly afterMillis: number }
  /** Put back, nothing counted; under a cancel request the store ends the task. */
  | { readonly _tag: "Release" }

/** How a handler whose outcome is known ends: as a defect that the worker knows. */
export class DecidedOutcome extends Data.Error<{ readonly outcome: RunOutcome }> {
  override readonly name = "chicory/Decided"
}

/** Why a worker stopped a handler. */
export type InterruptReason = "Lost" | "Cancelled" | "Drained"

/** What the failure of an attempt that took too long is known by. */
export const timedOut: unique symbol = Symbol.for("chicory/timedOut")

/** The reasons that leave a dead letter. */
const withLetter = new Set<string>([
  "Failed",
  "RetriesExhausted",
  "Died",
  "TimedOut",
  "WorkerLost",
  "UnknownTask",
  "PayloadInvalid",
  "ResultInvalid"
])

/** Whether a task that failed so leaves a dead letter. */
export const isDeadLettered = (reason: string): boolean => withLetter.has(reason)

/** The outcome of a failure for which no handler is needed. */
export const failureOutcome = (
  reason: TaskFailed.Reason<never>
): Effect.Effect<Extract<RunOutcome, { readonly _tag: "Failure" }>> =>
  Effect.map(Effect.orDie(TaskCodec.untyped.encodeExit({ _tag: "Failure", reason })), (exit) => ({
    _tag: "Failure",
    exit,
    reason: reason._tag
  }))

/** The run whose exit is judged. */
export interface RunFacts {
  readonly definition: TaskDefinition
  readonly retries: number
  readonly stop: InterruptReason | undefined
  readonly worker: string
}

/** Judges the exit of a handler; needs what encoding the task's result needs. */
export const classifyExit = (
  run: RunFacts,
  exit: Exit.Exit<unknown, unknown>
): Effect.Effect<RunOutcome, never, unknown> => {
  if (Exit.isSuccess(exit)) return encode(run.definition, { _tag: "Success", value: exit.value })
  return Effect.suspend(() => classifyCause(run, exit.cause)).pipe(
    // a policy whose functions throw is a bug of the task, and so is an error that cannot be looked at
    Effect.catchDefect((defect) => fail(run.definition, new TaskFailed.Died({ defect })))
  )
}

const classifyCause = (
  run: RunFacts,
  cause: Cause.Cause<unknown>
): Effect.Effect<RunOutcome, never, unknown> => {
  const { definition, retries } = run
  const { retry } = definition
  const retryOr = (
    decision: Effect.Effect<Decision>,
    reason: (exhausted: boolean) => TaskFailed.Reason<unknown>
  ) =>
    Effect.flatMap(decision, (decided) =>
      decided._tag === "Retry"
        ? Effect.succeed<RunOutcome>({
            _tag: "Retry",
            afterMillis: wholeMillis(Duration.toMillis(decided.after))
          })
        : fail(definition, reason(decided.exhausted))
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
  if (defects.length > 0) {
    const [defect] = defects
    const died = new TaskFailed.Died({ defect })
    return definition.retryDefects
      ? retryOr(decideUntyped(retry, retries), () => died)
      : fail(definition, died)
  }
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
  if (run.stop === "Drained" && definition.delivery === "at-most-once") {
    return fail(definition, new TaskFailed.WorkerLost({ worker: run.worker }))
  }
  if (run.stop !== undefined) return Effect.succeed({ _tag: "Release" })
  return fail(definition, new TaskFailed.Died({ defect: new Error("the handler interrupted itself") }))
}

const fail = (definition: TaskDefinition, reason: TaskFailed.Reason<unknown>) =>
  encode(definition, { _tag: "Failure", reason })

const encode = (
  definition: TaskDefinition,
  outcome: TaskExit<unknown, unknown>
): Effect.Effect<RunOutcome, never, unknown> =>
  Effect.matchCauseEffectEager(definition.result.encodeExit(outcome), {
    onFailure: (cause) => instead(outcome, formatError(Cause.squash(cause))),
    onSuccess: (exit) => {
      const bytes = defaults.bytesOf(exit)
      if (bytes > defaults.maxBytes) {
        return instead(
          outcome,
          `${bytes} bytes, of at most ${defaults.maxBytes}: store it elsewhere and give its address`
        )
      }
      return Effect.succeed<RunOutcome>(
        outcome._tag === "Success"
          ? { _tag: "Success", exit }
          : { _tag: "Failure", exit, reason: outcome.reason._tag }
      )
    }
  })

/** An outcome that can be stored in place of one that cannot. */
const instead = (outcome: TaskExit<unknown, unknown>, issue: string): Effect.Effect<RunOutcome> =>
  failureOutcome(
    outcome._tag === "Failure" && outcome.reason._tag === "Died"
      ? new TaskFailed.Died({ defect: new Error(formatError(outcome.reason.defect).slice(0, 10_000)) })
      : new TaskFailed.ResultInvalid({ side: "worker", issue: issue.slice(0, 10_000) })
  )
