/** Bounds the documents of a driver: refuses what is out of the port's bounds, and splits what is more than one call takes. */
import { Array as Arr, Effect } from "effect"
import type { DocumentKey, DocumentQuery, Documents, DocumentWrite } from "../../BackendDriver.ts"
import { bytesOf } from "../defaults.ts"
import { matchingText, text, wholeNumber } from "../options.ts"

/** Keys or writes of a call, and documents of a page, at most. */
const MAX_DOCUMENTS = 32
/** Bytes of a value in UTF-8, at most. */
const MAX_VALUE_BYTES = 64 * 1024

/** PostgreSQL keeps no NUL. */
const checkNul = (what: string, value: string) => matchingText(what, value, /^[^\0]*$/, "a text without NUL")

const checkKind = (kind: string) =>
  matchingText("The kind of a document", kind, /^[a-z-]{1,32}$/, "1 to 32 of a to z and -")

const checkKey = (key: string) => checkNul("The key of a document", text("The key of a document", key))

const checkVersion = (version: string) =>
  matchingText("The version of a document", version, /^[!-~]{1,36}$/, "1 to 36 visible ASCII characters")

/** Names the size of a value, and does not show it. */
const checkValue = (key: string, value: string) => {
  const bytes = bytesOf(value, MAX_VALUE_BYTES)
  if (bytes > MAX_VALUE_BYTES) {
    throw new RangeError(
      `The value of the document ${key} has ${bytes} bytes, and may have ${MAX_VALUE_BYTES}`
    )
  }
  if (!value.isWellFormed() || value.includes("\0")) {
    throw new RangeError(`The value of the document ${key} has a NUL or a lone surrogate`)
  }
}

const checkPlace = ({ key, kind }: DocumentKey) => {
  checkKind(kind)
  checkKey(key)
}

const checkWrite = (write: DocumentWrite) => {
  checkPlace(write)
  checkVersion(write.version)
  if (write.expected !== undefined) checkVersion(write.expected)
  // it would count as written already
  if (write.expected === write.version) {
    throw new RangeError(
      `The version ${write.version} of the document ${write.key} is the one that it replaces`
    )
  }
  if (write.value !== undefined) checkValue(write.key, write.value)
}

const checkQuery = ({ after, kind, limit, prefix }: DocumentQuery) => {
  checkKind(kind)
  wholeNumber("The limit of a page of documents", limit, 1, MAX_DOCUMENTS)
  if (after !== undefined) checkKey(after)
  if (prefix !== undefined && prefix !== "") checkKey(prefix)
}

/** Returns documents whose calls fail with `toError` where an argument is out of bounds; the driver is not called then. */
export const boundedDocuments = <E>(
  documents: Documents<E>,
  toError: (operation: string) => (cause: unknown) => E
): Documents<E> => {
  const check = <A>(operation: string, items: ReadonlyArray<A>, checkOne: (item: A) => void) =>
    Effect.try({ try: () => items.forEach((item) => checkOne(item)), catch: toError(operation) })
  const inCalls = <In, Out>(
    items: Arr.NonEmptyReadonlyArray<In>,
    run: (some: Arr.NonEmptyReadonlyArray<In>) => Effect.Effect<ReadonlyArray<Out>, E>
  ) => Effect.map(Effect.forEach(Arr.chunksOf(items, MAX_DOCUMENTS), run), Arr.flatten)
  return {
    get: (keys) => Effect.andThen(check("documents.get", keys, checkPlace), inCalls(keys, documents.get)),
    write: (writes) =>
      Effect.andThen(check("documents.write", writes, checkWrite), inCalls(writes, documents.write)),
    list: (query) => Effect.andThen(check("documents.list", [query], checkQuery), documents.list(query))
  }
}
