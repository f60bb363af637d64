/**
 * Writes `PENDING`, and reserves keys.
 */
import { Effect } from "effect"
import type { Batch, Created, NewRecord } from "../BackendDriver.ts"
import { type Database, millis, type Numbered, rounds, type StoreError } from "./Database.ts"
import type * as Records from "./Records.ts"
import * as Row from "./Row.ts"

/** The operations. */
export interface Enqueuing {
  readonly create: (batch: Batch<NewRecord>) => Effect.Effect<ReadonlyArray<Created>, StoreError>
  readonly markPublished: (ids: Batch<string>) => Effect.Effect<void, StoreError>
}

/** Over one database. */
export const make = (db: Database, records: Records.Records): Enqueuing => {
  const tasks = db.table("tasks")
  const { dialect } = db

  const insert = db.batched(
    ["id", "task", "key", "payload_hash", "published", "expires", "retention"],
    (batch) =>
      `INSERT INTO ${tasks} (id, task, key, payload_hash, published, state, enqueued_at, expires_at, retention, remove_at)
      SELECT batch.id, batch.task, batch.key, batch.payload_hash, batch.published, 'PENDING',
        ${dialect.now}, ${dialect.now} + batch.expires, batch.retention,
        CASE WHEN batch.published = 0 THEN ${dialect.now} + batch.retention END
      FROM ${batch} WHERE batch.id IS NOT NULL
      ON CONFLICT DO NOTHING
      RETURNING id`
  )
  const readIds = db.reader<{ readonly id: string }>("tasks", { id: Row.text })
  const toRow = (record: NewRecord): ReadonlyArray<unknown> => [
    record.id,
    record.task,
    record.key,
    record.payloadHash,
    record.published,
    millis(record.expiresMillis),
    millis(record.retentionMillis)
  ]

  const idOfKey = `SELECT id FROM ${tasks} WHERE task = ? AND key = ?`
  // a run came first, and made the record
  const adopt = `UPDATE ${tasks} SET payload_hash = ?, key = COALESCE(key, ?),
    enqueued_at = COALESCE(enqueued_at, ${dialect.now}) WHERE pk = ?`
  const markRows = `UPDATE ${tasks} SET published = 1, remove_at = NULL WHERE ${dialect.among("id")} AND published = 0`

  // An id or a key was taken. Reading removes a record whose retention ran out, and then there is room after all.
  const createTaken = (record: NewRecord): Effect.Effect<Created, StoreError> =>
    Effect.gen(function* () {
      const byKey =
        record.key === undefined ? [] : yield* readIds(yield* db.run(idOfKey, [record.task, record.key]))
      const { records: found } = yield* records.lock([record.id, ...byKey.map(({ id }) => id)])
      const existing = (byKey[0] === undefined ? undefined : found.get(byKey[0].id)) ?? found.get(record.id)
      if (existing === undefined) {
        yield* insert([toRow(record)])
        return { _tag: "Created" }
      }
      const unknown = existing.payload_hash === ""
      const same =
        existing.task === record.task &&
        (unknown || record.payloadHash === "" || existing.payload_hash === record.payloadHash)
      if (same && unknown && existing.ended !== "Forgotten") {
        yield* db.run(adopt, [record.payloadHash, record.key, existing.pk])
      }
      return { _tag: "Existing", id: existing.id, same, published: existing.published === 1 }
    })

  const createRound = (items: ReadonlyArray<Numbered<NewRecord>>) =>
    Effect.gen(function* () {
      const inserted = yield* readIds(yield* insert(items.map(({ item }) => toRow(item))))
      const answers = new Map<number, Created>()
      if (inserted.length === items.length) {
        for (const { index } of items) answers.set(index, { _tag: "Created" })
        return answers
      }
      const created = new Set(inserted.map(({ id }) => id))
      const taken = items.filter(({ item }) => !created.has(item.id))
      for (const { index, item } of items) if (created.has(item.id)) answers.set(index, { _tag: "Created" })
      yield* db.transaction(
        Effect.forEach(taken, ({ index, item }) =>
          Effect.map(createTaken(item), (answer) => answers.set(index, answer))
        )
      )
      return answers
    })

  return {
    create: (batch) =>
      Effect.map(
        Effect.forEach(
          rounds(batch, (record) => record.id),
          createRound
        ),
        (parts) => {
          const answers = new Map(parts.flatMap((part) => [...part]))
          return batch.map((_, index) => answers.get(index)!)
        }
      ),
    markPublished: (ids) => Effect.asVoid(db.run(markRows, [dialect.list(ids)]))
  }
}
