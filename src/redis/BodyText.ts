/** A message's body as a field of a hash: `t` and its text, or `b` and, in base64, bytes that are no text. */

/** To the field. */
export const encode = (body: string | Uint8Array): string =>
  typeof body === "string" ? `t${body}` : `b${Buffer.from(body).toString("base64")}`

/** From the field. */
export const decode = (field: string): string | Uint8Array =>
  field.startsWith("b") ? Uint8Array.from(Buffer.from(field.slice(1), "base64")) : field.slice(1)
