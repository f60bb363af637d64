/** Any text as a field of a line: without white space, not empty, and not `-`, which stands for none. */

/** Encodes a text. */
export const encode = (text: string): string => {
  if (!/[%\s]|^-?$/.test(text)) return text
  if (text === "") return "%"
  if (text === "-") return "%2D"
  return text.replace(/[%\s]/g, encodeURIComponent)
}

/** Decodes a field; returns `undefined` for one that this store did not encode. */
export const decode = (field: string): string | undefined => {
  if (field === "%") return ""
  if (!field.includes("%")) return field
  try {
    return decodeURIComponent(field)
  } catch {
    return undefined
  }
}
