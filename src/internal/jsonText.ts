/** JSON texts, on the way to the Schema that decodes what is in them, and from the one that encoded it. */
import { Exit, Schema, SchemaIssue } from "effect"
import { describe } from "./describe.ts"

/**
 * Parses a text; `undefined` where it is none, or no JSON. `Schema.fromJsonString` makes a fiber to parse in, which
 * costs more than parsing does: it is asked for the errors only.
 */
export const parse = (text: unknown): unknown => {
  if (typeof text !== "string") return undefined
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** Writes a text, at once. What is nested deeper than the stack has none, although a text of it can be parsed. */
export const stringify = (json: unknown): Exit.Exit<string, Schema.SchemaError> => {
  try {
    return Exit.succeed(JSON.stringify(json ?? null))
  } catch (cause) {
    return Exit.fail(
      new Schema.SchemaError(
        new SchemaIssue.InvalidValue({ message: `it makes no JSON: ${describe(cause)}` })
      )
    )
  }
}
