/** W3C trace context: it makes the worker's span a child of the producer's. */
import { Tracer } from "effect"
import { readTraceparent } from "../traceparent.ts"

/** Returns the `traceparent` of a span; `undefined` for ids that it cannot hold. */
export const toTraceparent = (span: Tracer.AnySpan): string | undefined =>
  readTraceparent(`00-${span.traceId.padStart(32, "0")}-${span.spanId}-${span.sampled ? "01" : "00"}`)

/** Returns the span of a `traceparent`, if it is valid. */
export const fromTraceparent = (traceparent: string | undefined): Tracer.AnySpan | undefined => {
  const valid = readTraceparent(traceparent)
  if (valid === undefined) return undefined
  const [, traceId = "", spanId = "", flags = ""] = valid.split("-")
  return Tracer.externalSpan({ traceId, spanId, sampled: (Number.parseInt(flags, 16) & 1) === 1 })
}
