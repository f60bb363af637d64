/** JSON texts, on the way to the Schema that decodes what is in them. */

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
