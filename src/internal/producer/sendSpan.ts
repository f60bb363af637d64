/** The span of an enqueue. */
import { Cause, Effect, type Tracer } from "effect"
import type * as TaskMessage from "../../TaskMessage.ts"
import { errorTag } from "../errorText.ts"
import { type MessagingSpan, messagingSpan, toTraceparent } from "../task/traceContext.ts"

/** What a message has of the span of its enqueue. */
export type TraceFields = Pick<TaskMessage.Head, "traceparent" | "enqueuedAt">

/** Returns the fields of a message that is enqueued in a span; none if the ids of the span are not those of W3C. */
export const traceFieldsOf = (span: Tracer.Span, enqueuedAt: number): TraceFields | undefined => {
  const traceparent = toTraceparent(span)
  return traceparent === undefined ? undefined : { traceparent, enqueuedAt }
}

/** Runs an enqueue in a span, which ends with it. */
export const inSendSpan = <A, E, R>(
  destination: Omit<MessagingSpan, "operation">,
  enqueue: (span: Tracer.Span) => Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> => {
  const { attributes, name } = messagingSpan({ operation: "send", ...destination })
  return Effect.useSpan(name, { kind: "producer", attributes }, (span) =>
    enqueue(span).pipe(
      Effect.onError((cause) =>
        Effect.sync(() => {
          if (!Cause.hasInterruptsOnly(cause)) span.attribute("error.type", errorTag(Cause.squash(cause)))
        })
      ),
      Effect.withParentSpan(span, { captureStackTrace: false })
    )
  )
}
