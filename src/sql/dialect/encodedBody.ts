/**
 * Encodes bodies for a text column that cannot hold all of them: bytes that are not text, and texts with a NUL, are
 * stored as base64 with a prefix.
 */

const BYTES = "base64:"
const TEXT = "base64-text:"

/** Encodes a body as text. */
export const toBody = (body: string | Uint8Array | null | undefined): string | null => {
  if (body === null || body === undefined) return null
  if (typeof body !== "string") return BYTES + Buffer.from(body).toString("base64")
  return body.includes("\0") || body.startsWith(BYTES) || body.startsWith(TEXT)
    ? TEXT + Buffer.from(body).toString("base64")
    : body
}

/** Decodes what `toBody` returned. */
export const fromBody = (stored: string | Uint8Array): string | Uint8Array => {
  if (typeof stored !== "string") return stored
  if (stored.startsWith(BYTES)) return new Uint8Array(Buffer.from(stored.slice(BYTES.length), "base64"))
  return stored.startsWith(TEXT) ? Buffer.from(stored.slice(TEXT.length), "base64").toString("utf8") : stored
}
