/** JSON texts, on the way to the Schema that decodes what is in them, and from the one that encoded it. */
import { Exit, Schema, SchemaIssue } from "effect"
import { formatError } from "./formatError.ts"

/**
 * How deep a value may be nested. What writes and reads values calls itself for each level, so that a deep one
 * would hold up all else, or find no room on the stack.
 */
export const MAX_DEPTH = 1000
/** What a message or an outcome adds to the value that is in it. */
const ENVELOPE = 8

const refused = (message: string): Exit.Exit<never, Schema.SchemaError> =>
  Exit.fail(new Schema.SchemaError(new SchemaIssue.InvalidValue({ message })))

const QUOTE = 34
const BACKSLASH = 92
const isOpening = (code: number) => code === 91 || code === 123
const isClosing = (code: number) => code === 93 || code === 125

/** Whether a text opens more brackets than that within each other. What is no JSON may have any answer. */
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

const tooDeep = refused(`it is nested deeper than ${MAX_DEPTH} levels`)

/** Parses a text, at once: `Schema.fromJsonString` makes a fiber to parse in, which costs more than parsing does. */
export const parse = (text: unknown): Exit.Exit<unknown, Schema.SchemaError> => {
  if (typeof text !== "string") return refused(`it is no text, but of type ${typeof text}`)
  if (isDeeper(text, MAX_DEPTH + ENVELOPE)) return tooDeep
  try {
    return Exit.succeed(JSON.parse(text))
  } catch {
    // what is thrown quotes the text
    return refused("it is no JSON")
  }
}

/** Writes a text, at once. */
export const stringify = (json: unknown): Exit.Exit<string, Schema.SchemaError> => {
  try {
    const text = JSON.stringify(json ?? null)
    return isDeeper(text, MAX_DEPTH) ? tooDeep : Exit.succeed(text)
  } catch (cause) {
    return refused(`it makes no JSON: ${formatError(cause)}`)
  }
}
