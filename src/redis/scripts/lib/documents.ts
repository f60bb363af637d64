/**
 * Documents in Redis, all in one shard. Those of a kind lie in a hash, `:documents:<kind>`, by key as `<version> <value>`, and
 * their keys in a sorted set of one score, `:documents-order:<kind>`, in the order of bytes.
 */
import type { Document } from "../../../BackendDriver.ts"
import { shapeOf } from "../../../internal/errorText.ts"
import { CorruptKey } from "../../RedisStoreError.ts"
import type { ScriptRunner } from "../../ScriptRunner.ts"

/** The shard of all documents: they are few, and are listed in order. */
export const DOCUMENTS_SHARD = 0

/** Decodes a document; `undefined`: there is none. Throws `CorruptKey` for a text without a version. */
export const decodeDocument =
  ({ keyspace }: ScriptRunner, kind: string) =>
  (key: string, text: string | null | undefined): Document | undefined => {
    if (text === null || text === undefined || text === "") return undefined
    const end = text.indexOf(" ")
    if (end > 0) return { kind, key, version: text.slice(0, end), value: text.slice(end + 1) }
    const hash = `${keyspace.base(DOCUMENTS_SHARD)}:documents:${kind}`
    throw new CorruptKey({ key: hash, field: key, holds: shapeOf(text) })
  }
