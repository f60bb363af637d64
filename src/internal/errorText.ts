/**
 * Texts of any value that a handler failed with, or threw. No function here throws, whatever the value.
 *
 * A tag names a class, and may stand in any text. A message, a stack and fields are the user's: they belong into records,
 * dead letters and causes, and into no message, log text, span name or metric of this library.
 */
import { Formatter } from "effect"

/** Characters of a tag, at most. */
const MAX_TAG = 255
/** Characters of a stack that are read for its frames, at most. */
const MAX_STACK_READ = 256 * 1024
/** The frames of Effect's runtime, at which `Cause.pretty` cuts a stack. */
const RUNTIME_FRAME = /Generator\.next|~effect\/(?:Effect|Utils)/
/** Matches within a line: over line breaks the search would take the square of their number. */
const FIRST_FRAME = /^[ \t]+at /m

const encoder = new TextEncoder()

/** Returns what `read` returns, or the fallback where a getter, a proxy or a `toJSON` throws. */
const attempt = <A, B>(read: () => A, fallback: B): A | B => {
  try {
    return read()
  } catch {
    return fallback
  }
}

type Fields = { readonly [key: string]: unknown }

const isObject = (u: unknown): u is Fields => typeof u === "object" && u !== null

/** Whether a value is an `Error`, also of another realm. */
export const isError = (u: unknown): u is Error =>
  attempt(() => u instanceof Error || Object.prototype.toString.call(u) === "[object Error]", false)

const textOr = (u: unknown, not: string): string | undefined =>
  typeof u === "string" && u !== "" && u !== not ? u : undefined

const tagOf = (u: unknown): string => {
  if (!isObject(u)) return u === null ? "null" : typeof u
  const tag = textOr(u["_tag"], "")
  if (tag !== undefined) return tag
  const className = textOr((u.constructor as { readonly name?: unknown } | undefined)?.name, "Object")
  return isError(u) ? (textOr(u.name, "Error") ?? className ?? "Error") : (className ?? "object")
}

/** Returns the `_tag` of an error, or else its name or its class; the type of any other value. */
export const errorTag = (u: unknown): string => attempt(() => tagOf(u), typeof u).slice(0, MAX_TAG)

/** Returns the name of an error, or else its tag or its class. */
export const errorName = (error: Error): string =>
  (attempt(() => textOr(error.name, "Error"), undefined) ?? errorTag(error)).slice(0, MAX_TAG)

/** Names a value in a sentence: by its tag, or with an article by its type. Never by what it holds. */
export const nameOf = (u: unknown): string => {
  const tag = errorTag(u)
  if (tag === "object") return "an object"
  return tag === "undefined" || tag !== typeof u ? tag : `a ${tag}`
}

/** Describes a value by its type and size. Never by what it holds. */
export const shapeOf = (u: unknown): string =>
  typeof u === "string" ? `a text of ${u.length} characters` : nameOf(u)

/** Returns the enumerable fields of an error, as JSON. Redacted values stay redacted, and cycles are dropped. */
const fieldsOf = ({ _tag, cause: _, message: _m, name: _n, stack: _s, ...fields }: Fields): string =>
  Object.keys(fields).length === 0 ? "" : Formatter.formatJson(fields)

const messageOf = (u: unknown): string => {
  if (typeof u === "string") return u
  if (isError(u)) return textOr(u.message, "") ?? fieldsOf(u as unknown as Fields)
  return isObject(u) ? Formatter.formatJson(u) : typeof u === "bigint" ? `${u}n` : String(u)
}

/**
 * Returns the message of an error, within a number of bytes. An error without a message has its fields as JSON, and so has
 * an object that is no error; any other value is written as text. What cannot be written is named.
 */
export const errorMessage = (u: unknown, maxBytes: number): string =>
  truncate(
    attempt(() => messageOf(u), isError(u) ? "" : nameOf(u)),
    maxBytes
  )

const stackOf = (u: unknown, maxBytes: number): string | undefined => {
  if (!isObject(u) || typeof u["stack"] !== "string") return undefined
  const head = `${String(u["name"])}: ${String(u["message"])}`
  const stack = u["stack"].startsWith(head) ? u["stack"].slice(head.length) : u["stack"]
  const start = stack.search(FIRST_FRAME)
  if (start < 0) return undefined
  const frames = stack
    .slice(start, start + MAX_STACK_READ)
    .replace(/^\n+/, "")
    .split("\n")
  const runtime = frames.findIndex((frame) => RUNTIME_FRAME.test(frame))
  let left = maxBytes
  const kept = (runtime > 0 ? frames.slice(0, runtime) : frames).map((frame) => frame.trim())
  const fitting = kept.findIndex((frame) => (left -= encoder.encode(frame).length + "    \n".length) < 0)
  const lines = fitting < 0 ? kept : kept.slice(0, fitting)
  return lines.length === 0 ? undefined : lines.map((frame) => `    ${frame}`).join("\n")
}

/**
 * Returns the frames of an error's stack without its first line, from the innermost, one a line, within a number of bytes.
 * They end where the frames of Effect's runtime begin, as in `Cause.pretty`. `undefined`: it has no frames.
 */
export const errorStack = (u: unknown, maxBytes: number): string | undefined =>
  attempt(() => stackOf(u, maxBytes), undefined)

/** Returns the error that an error wraps: its `cause`, or the first of an `AggregateError`. */
export const errorCause = (u: unknown): unknown =>
  attempt(() => {
    if (!isObject(u)) return undefined
    return u["cause"] ?? (isError(u) && Array.isArray(u["errors"]) ? u["errors"][0] : undefined)
  }, undefined)

/** Returns a text, cut to a number of bytes between two characters, with `…` at the end where it was cut. */
export const truncate = (text: string, maxBytes: number): string => {
  if (text.length * 3 <= maxBytes) return text
  const buffer = new Uint8Array(maxBytes)
  if (encoder.encodeInto(text, buffer).read === text.length) return text
  const { read } = encoder.encodeInto(text, buffer.subarray(0, Math.max(0, maxBytes - 3)))
  return `${text.slice(0, read)}…`
}
