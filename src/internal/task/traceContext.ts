/** W3C trace context, by which a worker's span becomes the child of its producer's. */
import { Option, type Tracer } from "effect"
import * as Headers from "effect/http/Headers"
import * as HttpTraceContext from "effect/http/HttpTraceContext"

/** The `traceparent` of a span. */
export const toTraceparent = (span: Tracer.AnySpan): string =>
  `00-${span.traceId.padStart(32, "0")}-${span.spanId}-${span.sampled ? "01" : "00"}`

/** The span that a `traceparent` names, if it names one. */
export const fromTraceparent = (traceparent: string | undefined): Tracer.AnySpan | undefined =>
  traceparent === undefined
    ? undefined
    : Option.getOrUndefined(HttpTraceContext.fromHeaders(Headers.fromRecordUnsafe({ traceparent })))
