/**
 * Reads and writes documents by compare-and-set.
 */
import { Array as Arr, Effect, Order } from "effect"
import type { Document, DocumentKey, DocumentQuery, Documents, DocumentWrite } from "../../BackendDriver.ts"
import type { Batch } from "../../BrokerDriver.ts"
import type { Database, StoreError } from "../Database.ts"
import * as Row from "../Row.ts"

/** The documents of one database. The operations may be part of a caller's transaction. */
export const makeDocuments = (db: Database): Documents<StoreError> => {
  const { dialect, inCallerTransaction, inTransaction, readsInCallerTransaction, reader, run, table } = db
  const documents = table("documents")
  const read = reader<Document>("documents", {
    kind: Row.text,
    key: Row.text,
    version: Row.text,
    value: Row.text
  })
  const columns = `kind, id AS ${dialect.identifier("key")}, version, value`
  const readVersion = reader<{ readonly version: string }>("documents", { version: Row.text })

  const selectMany = `SELECT ${columns} FROM ${documents} WHERE kind = ? AND ${dialect.inList("id", "text")}`
  const selectPage = `SELECT ${columns} FROM ${documents} WHERE kind = ? AND id >= ? AND id <> ? ORDER BY id LIMIT ?`
  const selectVersion = `SELECT version FROM ${documents} WHERE kind = ? AND id = ?`
  const insert = `${dialect.insertIgnore} ${documents} (kind, id, version, value) VALUES (?, ?, ?, ?)
    ${dialect.onConflictDoNothing}`
  const update = `UPDATE ${documents} SET version = ?, value = ? WHERE kind = ? AND id = ? AND version = ?`
  const remove = `DELETE FROM ${documents} WHERE kind = ? AND id = ? AND version = ?`

  const get = Effect.fnUntraced(function* (
    keys: Batch<DocumentKey>
  ): Effect.fn.Return<ReadonlyArray<Document | undefined>, StoreError> {
    const found = new Map<string, Document>()
    for (const [kind, some] of Map.groupBy(keys, ({ kind }) => kind)) {
      const ids = dialect.list(some.map(({ key }) => key))
      for (const one of yield* read(yield* run(selectMany, [kind, ids]))) {
        found.set(`${one.kind} ${one.key}`, one)
      }
    }
    return keys.map(({ key, kind }) => found.get(`${kind} ${key}`))
  })

  const change = ({ expected, key, kind, value, version }: DocumentWrite) => {
    if (value === undefined) {
      return expected === undefined ? Effect.void : run(remove, [kind, key, expected])
    }
    return expected === undefined
      ? run(insert, [kind, key, version, value])
      : run(update, [version, value, kind, key, expected])
  }
  /** What was written is locked, so that the version which is read after it tells whether it was. */
  const writeOne = Effect.fnUntraced(function* (write: DocumentWrite): Effect.fn.Return<boolean, StoreError> {
    yield* change(write)
    const [found] = yield* readVersion(yield* run(selectVersion, [write.kind, write.key]))
    return found === undefined ? write.value === undefined : found.version === write.version
  })

  /** Writes in the order of the keys, so that two calls do not lock the same keys in opposite orders. */
  const writeAll = Effect.fnUntraced(function* (
    writes: Batch<DocumentWrite>
  ): Effect.fn.Return<ReadonlyArray<boolean>, StoreError> {
    const answers: Array<boolean> = []
    const placed = writes.map((write, index) => ({ write, index, place: `${write.kind} ${write.key}` }))
    for (const { index, write } of Arr.sortWith(placed, ({ place }) => place, Order.String)) {
      answers[index] = yield* writeOne(write)
    }
    return answers
  })

  /** The keys with the prefix follow each other, and the first that can be one of them is the prefix itself. */
  const list = Effect.fnUntraced(function* ({
    after = "",
    kind,
    limit,
    prefix = ""
  }: DocumentQuery): Effect.fn.Return<ReadonlyArray<Document>, StoreError> {
    const page = yield* read(yield* run(selectPage, [kind, after === "" ? prefix : after, after, limit]))
    return page.filter(({ key }) => key.startsWith(prefix))
  })

  return {
    get: (keys) => readsInCallerTransaction(get(keys)),
    write: (writes) => inCallerTransaction(inTransaction(writeAll(writes))),
    list: (query) => readsInCallerTransaction(list(query))
  }
}
