/** Reports failures of tasks to the `ErrorReporter`s of a program. */
import { Cause, Context, Effect, ErrorReporter, type LogLevel } from "effect"
import type { RunFailure } from "./runFailure.ts"
import * as workerLog from "./workerLog.ts"

/** What a report says beside its errors. */
export interface ReportAttributes {
  readonly taskId?: string
  readonly taskName?: string
  readonly queue: string
  readonly attempt?: number
  readonly worker: string
  /** The tag of the reason with which the task ends, or `Died` for one that is retried. */
  readonly reason: string
}

/** Returns the report of a failure; `undefined` where the context has no reporter. */
export const reportError = (
  context: Context.Context<never>,
  { cause, isDefect }: RunFailure,
  attributes: ReportAttributes
): Effect.Effect<void> | undefined => {
  const reporters = Context.get(context, ErrorReporter.CurrentErrorReporters)
  if (reporters.size === 0) return undefined
  return Effect.suspend(() =>
    ErrorReporter.report(withAttributes(cause, attributes, isDefect ? "Error" : "Warn"))
  ).pipe(
    Effect.provideService(ErrorReporter.CurrentErrorReporters, reporters),
    Effect.annotateLogs({ ...attributes }),
    Effect.catchCause(workerLog.errorNotReported)
  )
}

/**
 * Replaces each error by a copy that has the attributes. The errors belong to the program, and may be the same object in
 * many runs, of which a reporter would report the first.
 */
const withAttributes = (
  cause: Cause.Cause<unknown>,
  attributes: ReportAttributes,
  severity: LogLevel.Severity
): Cause.Cause<unknown> =>
  Cause.fromReasons(
    cause.reasons.flatMap((reason): ReadonlyArray<Cause.Reason<unknown>> => {
      if (Cause.isInterruptReason(reason)) return [reason]
      const isFail = Cause.isFailReason(reason)
      const error = isFail ? reason.error : reason.defect
      if (ErrorReporter.isIgnored(error)) return []
      const [copy = new Error("unknown error")] = Cause.prettyErrors(Cause.fromReasons([reason]))
      const own = typeof error === "object" && error !== null ? error : {}
      define(copy, ErrorReporter.attributes, { ...ErrorReporter.getAttributes(own), ...attributes })
      define(
        copy,
        ErrorReporter.severity,
        ErrorReporter.severity in own ? ErrorReporter.getSeverity(own) : severity
      )
      return [isFail ? Cause.makeFailReason(copy) : Cause.makeDieReason(copy)]
    })
  )

const define = (error: Error, key: string, value: unknown): void => {
  Object.defineProperty(error, key, { value, enumerable: false, configurable: true })
}
