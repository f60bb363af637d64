/**
 * Writes `PENDING`, and reserves keys.
 */
import { createHash } from "node:crypto"
import { Effect } from "effect"
import type { Created, NewRecord } from "../../BackendDriver.ts"
import type { Batch } from "../../BrokerDriver.ts"
import { type Database, toMillis, type Indexed, distinctBatches, type StoreError } from "../Database.ts"
import type { Dialect } from "../dialect/Dialect.ts"
import * as Row from "../Row.ts"
import * as TaskRows from "./TaskRows.ts"

/** The operations. They may be part of a caller's transaction. */
export interface CreateOperations {
  readonly create: (batch: Batch<NewRecord>) => Effect.Effect<ReadonlyArray<Created>, StoreError>
  /** The same, of ids and keys that were found to be taken. */
  readonly createTaken: (
    items: ReadonlyArray<Indexed<NewRecord>>
  ) => Effect.Effect<ReadonlyMap<number, Created>, StoreError>
  readonly markPublished: (ids: Batch<string>) => Effect.Effect<void, StoreError>
}

/** The columns of a batch of new records. */
export const columns = {
  id: "text",
  task: "text",
  idempotency_key: "text",
  payload_hash: "text",
  published: "integer",
  expires: "integer",
  retention: "integer",
  check_in: "integer"
} as const

/** A longer key would not fit an index; of such a one its hash is kept. */
const LONGEST_KEY = 200

const keyOf = ({ key }: NewRecord): string | null =>
  key === undefined || key.length <= LONGEST_KEY
    ? (key ?? null)
    : `sha256:${createHash("sha256").update(key).digest("base64url")}`

/** A row of that batch. */
export const toRow = (record: NewRecord): ReadonlyArray<unknown> => [
  record.id,
  record.task,
  keyOf(record),
  record.payloadHash,
  record.published ? 1 : 0,
  toMillis(record.expiresMillis),
  toMillis(record.retentionMillis),
  TaskRows.earliest(toMillis(record.expiresMillis), toMillis(record.retentionMillis))
]

const inserted = [
  "id",
  "task",
  "idempotency_key",
  "payload_hash",
  "published",
  "state",
  "enqueued_at",
  "expires_at",
  "retention",
  "remove_at",
  "check_at"
] as const

const selectText = ({ now }: Dialect, batch: string): string =>
  `SELECT batch.id, batch.task, batch.idempotency_key, batch.payload_hash, batch.published, 'PENDING',
    ${now}, ${now} + batch.expires, batch.retention,
    CASE WHEN batch.published = 0 THEN ${now} + batch.retention END, ${now} + batch.check_in
    FROM ${batch} WHERE batch.id IS NOT NULL`

/** Inserts the rows of a batch that are new, and answers their ids. */
export const insertText = (dialect: Dialect, tasks: string, batch: string): string =>
  dialect.insertNew({
    table: tasks,
    columns: inserted,
    select: selectText(dialect, batch),
    returning: "id"
  })

/** Inserts the rows of a batch, all of which have to be new. */
export const insertAllText = (dialect: Dialect, tasks: string, batch: string): string =>
  `INSERT INTO ${tasks} (${inserted.join(", ")}) ${selectText(dialect, batch)}`

/** Over one database. */
export const make = (db: Database, records: TaskRows.TaskRows): CreateOperations => {
  const tasks = db.table("tasks")
  const { dialect } = db

  const insert = db.batched(columns, (batch) => insertText(dialect, tasks, batch))
  const readIds = db.reader<{ readonly id: string }>("tasks", { id: Row.text })
  const idOfKey = `SELECT id FROM ${tasks} WHERE task = ? AND idempotency_key = ?`
  // a run came first, and made the record
  const adopt = `UPDATE ${tasks} SET payload_hash = ?, idempotency_key = COALESCE(idempotency_key, ?),
    enqueued_at = COALESCE(enqueued_at, ${dialect.now}) WHERE id = ?`
  // what ended meanwhile is kept for as long as its retention says
  const markRows = `UPDATE ${tasks} SET published = 1, remove_at = CASE WHEN finished_at IS NOT NULL THEN remove_at END
    WHERE ${dialect.inList("id", "text")} AND published = 0`

  // Nobody is kept from a record that is only looked at: a caller's transaction may go on for long. Reading it for a
  // change removes one whose retention ran out, and then there is room after all.
  const createOne = (record: NewRecord): Effect.Effect<Created, StoreError> =>
    Effect.gen(function* () {
      const key = keyOf(record)
      const byKey = key === null ? [] : yield* readIds(yield* db.run(idOfKey, [record.task, key]))
      const ids = [record.id, ...byKey.map(({ id }) => id)]
      const holder = ({ rows: found }: TaskRows.Snapshot) =>
        (byKey[0] === undefined ? undefined : found.get(byKey[0].id)) ?? found.get(record.id)
      let existing = holder(yield* records.select(ids))
      if (existing === undefined || existing.payload_hash === "")
        existing = holder(yield* records.selectForUpdate(ids))
      if (existing === undefined) {
        const inserted = yield* insert([toRow(record)])
        // it was taken again in the meantime
        return inserted.length === 0 ? yield* createOne(record) : { _tag: "Created" }
      }
      const unknown = existing.payload_hash === ""
      const same =
        existing.task === record.task &&
        (unknown || record.payloadHash === "" || existing.payload_hash === record.payloadHash)
      if (same && unknown && existing.ended !== "Forgotten") {
        yield* db.run(adopt, [record.payloadHash, key, existing.id])
      }
      return { _tag: "Existing", id: existing.id, same, published: existing.published === 1 }
    })

  const createTaken: CreateOperations["createTaken"] = (items) =>
    db.inTransaction(
      Effect.map(
        Effect.forEach(items, ({ index, item }) =>
          Effect.map(createOne(item), (answer) => [index, answer] as const)
        ),
        (answers) => new Map(answers)
      )
    )

  const createRound = (items: ReadonlyArray<Indexed<NewRecord>>) =>
    Effect.gen(function* () {
      const inserted = yield* readIds(yield* insert(items.map(({ item }) => toRow(item))))
      const created = new Set(inserted.map(({ id }) => id))
      const answers = new Map<number, Created>()
      const taken = items.filter(({ index, item }) => {
        if (!created.has(item.id)) return true
        answers.set(index, { _tag: "Created" })
        return false
      })
      if (taken.length === 0) return answers
      for (const [index, answer] of yield* createTaken(taken)) answers.set(index, answer)
      return answers
    })

  return {
    create: (batch) =>
      Effect.map(
        Effect.forEach(
          distinctBatches(batch, (record) => record.id),
          (items) => db.retryOnDeadlock(createRound(items))
        ),
        (parts) => {
          const answers = new Map(parts.flatMap((part) => [...part]))
          return batch.map((_, index) => answers.get(index)!)
        }
      ),
    createTaken,
    markPublished: (ids) => Effect.asVoid(db.retryOnDeadlock(db.run(markRows, [dialect.list(ids)])))
  }
}
