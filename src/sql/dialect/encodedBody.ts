/**
 * Bodies in a column of text, for databases whose text cannot hold everything: bytes that are no text, and texts with
 * a NUL in them, are kept as base64, and say so.
 */

const BYTES = "base64:"
const TEXT = "base64-text:"

/** What is stored. */
export const toBody = (body: string | Uint8Array | null | undefined): string | null => {
  if (body === null || body === undefined) return null
  if (typeof body !== "string") return BYTES + Buffer.from(body).toString("base64")
  return body.includes("\0") || body.startsWith(BYTES) || body.startsWith(TEXT)
    ? TEXT + Buffer.from(body).toString("base64")
    : body
}

/** What it was made of. */
export const fromBody = (stored: string | Uint8Array): string | Uint8Array => {
  if (typeof stored !== "string") return stored
  if (stored.startsWith(BYTES)) return new Uint8Array(Buffer.from(stored.slice(BYTES.length), "base64"))
  return stored.startsWith(TEXT) ? Buffer.from(stored.slice(TEXT.length), "base64").toString("utf8") : stored
}
