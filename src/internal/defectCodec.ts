/**
 * The codec of defects, and of errors that the task's schema does not know: the name, the message, the stack and the causes
 * of an error, and anything else as JSON. Encoding takes any value and cuts it; it never fails.
 *
 * A decoded error has the stack of the encoded one, and never that of the decoder.
 */
import { Formatter, Predicate, Schema, SchemaTransformation } from "effect"
import { errorCause, errorMessage, errorName, errorStack, isError } from "./errorText.ts"

/** Bytes that are kept of a defect. */
export interface DefectLimits {
  /** Of each message, and of a defect that is no error. */
  readonly message: number
  /** Of each stack. */
  readonly stack: number
  /** Of an error with its causes. A cause has at most a third of what is left for its message, and for its stack. */
  readonly total: number
}

export const DEFECT_LIMITS: DefectLimits = { message: 8 * 1024, stack: 8 * 1024, total: 32 * 1024 }
/** What is kept where a store does not take more. */
export const BRIEF_LIMITS: DefectLimits = { message: 1024, stack: 1024, total: 4 * 1024 }

/** Causes that are kept, at most. */
const MAX_CAUSES = 8
/** Bytes below which a cause is not kept. */
const MIN_CAUSE = 256

interface EncodedError {
  readonly name: string
  readonly message: string
  /** The frames alone, one a line. */
  readonly stack?: string
  readonly cause?: Schema.Json
}

/** Whether an encoded defect is an error. An object with a name and a message is one, too. */
const isEncodedError = (u: unknown): u is EncodedError =>
  Predicate.isObject(u) && typeof u["name"] === "string" && typeof u["message"] === "string"

const encodeValue = (u: unknown, { message }: DefectLimits): Schema.Json => {
  const text = errorMessage(u, message)
  if (typeof u !== "object") return text
  // a `toJSON` or a getter of the user's value may throw
  try {
    const json = Formatter.formatJson(u)
    return json === text ? (JSON.parse(json) as Schema.Json) : text
  } catch {
    return text
  }
}

/** Returns what is kept of a cause, where `left` bytes are left. */
const limitsOf = ({ message, stack, total }: DefectLimits, left: number): DefectLimits => ({
  message: Math.min(message, Math.floor(left / 3)),
  stack: Math.min(stack, Math.floor(left / 3)),
  total
})

const sizeOf = (json: Schema.Json): number => new TextEncoder().encode(JSON.stringify(json)).length

/** Encodes a defect. */
export const encodeDefect = (
  defect: unknown,
  limits: DefectLimits = DEFECT_LIMITS,
  left = limits.total,
  seen: ReadonlyArray<unknown> = []
): Schema.Json => {
  if (!isError(defect)) return encodeValue(defect, limits)
  const stack = errorStack(defect, limits.stack)
  const encoded = {
    name: errorName(defect),
    message: errorMessage(defect, limits.message),
    ...(stack === undefined ? {} : { stack })
  }
  const cause = errorCause(defect)
  const before = [...seen, defect]
  const rest = left - sizeOf(encoded)
  if (cause === undefined || before.includes(cause) || before.length > MAX_CAUSES || rest < MIN_CAUSE) {
    return encoded
  }
  const inner = encodeDefect(cause, limitsOf(limits, rest), rest, before)
  return sizeOf(inner) > rest ? encoded : { ...encoded, cause: inner }
}

/** Decodes a defect: an error, if it was one. */
export const decodeDefect = (json: Schema.Json): unknown => {
  if (!isEncodedError(json)) return json
  const error = new Error(
    json.message,
    json.cause === undefined ? undefined : { cause: decodeDefect(json.cause) }
  )
  if (json.name !== "Error") setHidden(error, "name", json.name)
  setStack(error, json.stack)
  return error
}

const setHidden = (object: object, key: string, value: unknown): void =>
  void Reflect.defineProperty(object, key, { value, configurable: true, enumerable: false, writable: true })

/** Gives an error a stack of the frames, or of none. */
export const setStack = (error: Error, frames: unknown): void =>
  setHidden(
    error,
    "stack",
    `${headOf(error)}${typeof frames === "string" && frames !== "" ? `\n${frames}` : ""}`
  )

/** Returns the first line of a stack. The getters of a user's error may throw. */
const headOf = (error: Error): string => {
  const message = errorMessage(error, DEFECT_LIMITS.message)
  return message === "" ? errorName(error) : `${errorName(error)}: ${message}`
}

/** Schema of defects. */
export const Defect: Schema.Codec<unknown, Schema.Json> = Schema.Json.pipe(
  Schema.decodeTo(
    Schema.Unknown,
    SchemaTransformation.transform<unknown, Schema.Json>({
      decode: decodeDefect,
      encode: (defect) => encodeDefect(defect)
    })
  )
)

/** Returns the frames of an error and of the errors that it wraps, within the limits; no text for one without frames. */
export const stacksOf = (error: unknown, { stack }: DefectLimits = DEFECT_LIMITS): ReadonlyArray<string> => {
  const stacks: Array<string> = []
  let left = stack
  for (let next = error; isError(next) && stacks.length <= MAX_CAUSES; next = errorCause(next)) {
    const frames = errorStack(next, left) ?? ""
    stacks.push(frames)
    left -= frames.length
  }
  return stacks
}

/** Gives a decoded error, and the errors that it wraps, the frames of `stacksOf` in place of the decoder's. */
export const restoreStacks = (error: unknown, stacks: ReadonlyArray<string>): void => {
  let next = error
  for (let i = 0; isError(next) && i <= MAX_CAUSES; i++, next = errorCause(next)) setStack(next, stacks[i])
}
