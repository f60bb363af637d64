/** The body of a message as a field of a hash: `t` and its text, or `b` and its bytes in base64. */

/** Encodes a body. */
export const encode = (body: string | Uint8Array): string =>
  typeof body === "string" ? `t${body}` : `b${Buffer.from(body).toString("base64")}`

/** Decodes a field. */
export const decode = (field: string): string | Uint8Array =>
  field.startsWith("b") ? Uint8Array.from(Buffer.from(field.slice(1), "base64")) : field.slice(1)
