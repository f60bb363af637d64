/**
 * Documents in Redis, all in one shard. Those of a kind lie in a hash, `:documents:<kind>`, by key as `<version> <value>`, and
 * their keys in a sorted set of one score, `:documents-order:<kind>`, in the order of bytes.
 */
import type { Document } from "../../../BackendDriver.ts"

/** The shard of all documents: they are few, and are listed in order. */
export const DOCUMENTS_SHARD = 0

/** Decodes a document; `undefined`: there is none. */
export const decodeDocument = (
  kind: string,
  key: string,
  text: string | null | undefined
): Document | undefined => {
  if (text === null || text === undefined) return undefined
  const end = text.indexOf(" ")
  return { kind, key, version: text.slice(0, end), value: text.slice(end + 1) }
}
