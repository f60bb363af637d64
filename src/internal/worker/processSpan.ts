/** The span of a run. */
import { Cause, Clock, Context, Data, Duration, Effect, Exit, References, Tracer } from "effect"
import { nonNegativeOrInfinite } from "../options.ts"
import { fromTraceparent, MESSAGE_ID, messagingSpan } from "../task/traceContext.ts"
import { isTraced, linkAfter } from "../tracing.ts"
import { errorTypeOfOutcome, type RunOutcome } from "./runOutcome.ts"
import type { StartCandidate } from "./RunStore.ts"

/** How the runs of a task are traced. */
export interface ProcessTracing {
  /** The name of the broker. */
  readonly system: string
  /** Milliseconds from the enqueue after which a run is linked to the producer's span, in place of being its child. */
  readonly linkAfterMillis: number
  readonly clock: Clock.Clock
  /** Whether spans have times. */
  readonly isTimed: boolean
}

/** Returns how runs in a context are traced; `undefined` where no span reaches a tracer. */
export const processTracingOf = (
  context: Context.Context<unknown>,
  system: string
): ProcessTracing | undefined => {
  const after = nonNegativeOrInfinite("Tracing.linkAfter", Context.get(context, linkAfter))
  const tracer = Context.get(context, Tracer.Tracer)
  const tracerEnabled = Context.get(context, References.TracerEnabled)
  return isTraced({ tracer, tracerEnabled })
    ? {
        system,
        linkAfterMillis: Duration.toMillis(after),
        clock: Context.get(context, Clock.Clock),
        isTimed: Context.get(context, References.TracerTimingEnabled)
      }
    : undefined
}

/** Runs the handler of a worker without a tracer, whose own calls continue the producer's trace all the same. */
export const withProducerSpan = <A, E, R>(
  { message }: StartCandidate,
  execute: Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> => {
  const sent = fromTraceparent(message.traceparent)
  return sent === undefined ? execute : Effect.withParentSpan(execute, sent)
}

/** Returns how a span belongs to that of the producer. */
const relationTo = (sent: Tracer.AnySpan | undefined, isLate: boolean): Tracer.SpanOptionsNoTrace => {
  if (sent === undefined) return { root: true }
  return isLate ? { root: true, links: [{ span: sent, attributes: {} }] } : { parent: sent }
}

/** Makes the span of a run, which `endProcessSpan` ends. */
export const makeProcessSpan = (
  { clock, linkAfterMillis, system }: ProcessTracing,
  { delivery, message }: StartCandidate,
  attempt: number
): Effect.Effect<Tracer.Span> => {
  const { enqueuedAt, id, queue, task, traceparent } = message
  const { attributes, name } = messagingSpan({ operation: "process", system, queue, task })
  // another program may send a traceparent alone
  const age = enqueuedAt === undefined ? delivery.ageMillis : clock.currentTimeMillisUnsafe() - enqueuedAt
  return Effect.makeSpan(name, {
    kind: "consumer",
    ...relationTo(fromTraceparent(traceparent), age >= linkAfterMillis),
    attributes: { ...attributes, [MESSAGE_ID]: id, "chicory.task.attempt": attempt }
  })
}

/** The end of a task that no error of its handler caused. */
class EndedAs extends Data.Error<{ readonly name: string }> {
  override readonly stack = this.name
  override get message(): string {
    return `the task ended as ${this.name}`
  }
}

/** Ends the span of a run, by its outcome and by what that came of. */
export const endProcessSpan = (
  { clock, isTimed }: ProcessTracing,
  span: Tracer.Span,
  outcome: RunOutcome,
  cause: Cause.Cause<unknown>
): void => {
  const hasError = cause.reasons.some((reason) => !Cause.isInterruptReason(reason))
  const shown =
    hasError || outcome._tag !== "Failure" ? cause : Cause.fail(new EndedAs({ name: outcome.reason }))
  if (hasError || shown !== cause) span.attribute("error.type", errorTypeOfOutcome(outcome))
  const now = isTimed ? clock.currentTimeNanosUnsafe() : 0n
  span.end(now, shown.reasons.length === 0 ? Exit.void : Exit.failCause(shown))
}
