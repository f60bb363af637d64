/** The context of a trace in a message, as W3C Trace Context defines it, and the attributes that spans of messages share. */
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

/** What a span of one or more messages is about. */
export interface MessagingSpan {
  readonly operation: "send" | "process"
  /** The name of the broker. */
  readonly system: string
  /** `undefined`: not one for all messages, or not known yet. */
  readonly queue: string | undefined
  readonly task: string
}

/** The attribute with the queue of a message. */
export const DESTINATION = "messaging.destination.name"

/** Returns the name of a span and its attributes, by OpenTelemetry's messaging conventions. */
export const messagingSpan = ({ operation, queue, system, task }: MessagingSpan) => ({
  name: queue === undefined ? operation : `${operation} ${queue}`,
  attributes: {
    "messaging.system": system,
    "messaging.operation.name": operation,
    "messaging.operation.type": operation,
    ...(queue === undefined ? {} : { [DESTINATION]: queue }),
    "chicory.task.name": task
  }
})

/** The attribute with the id of a message's task. */
export const MESSAGE_ID = "messaging.message.id"
