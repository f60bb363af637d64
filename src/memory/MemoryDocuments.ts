/** The documents of the memory store. */
import type { Document, DocumentKey, DocumentQuery, DocumentWrite } from "../BackendDriver.ts"

/** Compares texts by the bytes of their UTF-8, which have the order of code points. */
const compareTexts = (one: string, other: string): number => {
  const [a, b] = [Array.from(one), Array.from(other)]
  for (let i = 0; i < a.length && i < b.length; i++) {
    const difference = a[i]!.codePointAt(0)! - b[i]!.codePointAt(0)!
    if (difference !== 0) return difference
  }
  return a.length - b.length
}

export class MemoryDocuments {
  /** The documents by their kinds and keys. */
  private readonly kinds = new Map<string, Map<string, Document>>()

  get({ key, kind }: DocumentKey): Document | undefined {
    return this.kinds.get(kind)?.get(key)
  }

  write({ expected, key, kind, value, version }: DocumentWrite): boolean {
    const found = this.get({ kind, key })
    if (found?.version === version) return true
    if (found === undefined && value === undefined) return true
    if (found?.version !== expected) return false
    let documents = this.kinds.get(kind)
    if (documents === undefined) this.kinds.set(kind, (documents = new Map()))
    if (value === undefined) documents.delete(key)
    else documents.set(key, { kind, key, version, value })
    return true
  }

  list({ after, kind, limit, prefix = "" }: DocumentQuery): ReadonlyArray<Document> {
    const documents = this.kinds.get(kind) ?? new Map<string, Document>()
    return [...documents.values()]
      .filter(({ key }) => key.startsWith(prefix) && (after === undefined || compareTexts(key, after) > 0))
      .sort((one, other) => compareTexts(one.key, other.key))
      .slice(0, limit)
  }
}
