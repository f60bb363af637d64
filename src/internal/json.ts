/** Parses and writes JSON around the Schemas that decode and encode its values. */
import { Exit, Schema, SchemaIssue } from "effect"

/**
 * How deep a value may be nested. Encoders and decoders recurse for each level: a deeper value would block the event
 * loop or overflow the stack.
 */
export const MAX_DEPTH = 1000
/** Levels that a message or an outcome adds to its value. */
const ENVELOPE_DEPTH = 8

const invalid = (expected: string): Exit.Exit<never, Schema.SchemaError> =>
  Exit.fail(new Schema.SchemaError(new SchemaIssue.InvalidValue({ expected })))

const QUOTE = 34
const BACKSLASH = 92
const isOpening = (code: number) => code === 91 || code === 123
const isClosing = (code: number) => code === 93 || code === 125

/** Whether a JSON text nests more than `max` brackets. The answer for other texts is arbitrary. */
const isDeeper = (text: string, max: number): boolean => {
  if (text.length <= 2 * max) return false
  let depth = 0
  let quoted = false
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i)
    if (quoted) {
      if (code === BACKSLASH) i++
      else if (code === QUOTE) quoted = false
    } else if (code === QUOTE) quoted = true
    else if (isOpening(code)) {
      if (++depth > max) return true
    } else if (isClosing(code)) depth--
  }
  return false
}

const tooDeep = invalid(`at most ${MAX_DEPTH} levels of nesting`)

/** Parses a text synchronously: `Schema.fromJsonString` makes a fiber, which costs more than the parsing. */
export const parse = (text: unknown): Exit.Exit<unknown, Schema.SchemaError> => {
  if (typeof text !== "string") return invalid("a text")
  if (isDeeper(text, MAX_DEPTH + ENVELOPE_DEPTH)) return tooDeep
  try {
    return Exit.succeed(JSON.parse(text))
  } catch {
    // the thrown error quotes the text, which may hold secrets
    return invalid("JSON")
  }
}

/** Writes a text synchronously. */
export const stringify = (json: unknown): Exit.Exit<string, Schema.SchemaError> => {
  try {
    const text = JSON.stringify(json ?? null)
    return isDeeper(text, MAX_DEPTH) ? tooDeep : Exit.succeed(text)
  } catch (cause) {
    const expected = "a value that JSON can represent"
    const error = new Schema.SchemaError(new SchemaIssue.InvalidValue({ expected }))
    return Exit.fail(Object.assign(error, { cause }))
  }
}
