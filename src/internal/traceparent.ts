/**
 * The text form of a span, as W3C Trace Context defines it: version, trace id, parent id and flags, 55 characters in all.
 *
 * A later version may be longer. Its first 55 characters have the same meaning, and a dash follows them. The `tracestate`
 * of the specification is not carried.
 */
const LENGTH = 55
const VALID = /^(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$/

/** Returns the `traceparent` that a value has, at most 55 characters; `undefined` if it is not valid. */
export const readTraceparent = (value: unknown): string | undefined => {
  if (typeof value !== "string" || value.length < LENGTH) return undefined
  const text = value.slice(0, LENGTH)
  if (!VALID.test(text)) return undefined
  return value.length === LENGTH || (value[LENGTH] === "-" && !text.startsWith("00")) ? text : undefined
}
