/**
 * Creates records in `PENDING` and reserves their keys.
 */
import { createHash } from "node:crypto"
import { Effect } from "effect"
import type { Created, NewRecord, PublishedRecord } from "../../BackendDriver.ts"
import type { Batch } from "../../BrokerDriver.ts"
import { decideCreate } from "../../internal/task/transitions.ts"
import type { Database, StoreError } from "../Database.ts"
import type { BatchRow } from "../dialect/Dialect.ts"
import { distinctBatches, type Indexed } from "../distinctBatches.ts"
import * as Row from "../Row.ts"
import { toMillis } from "../toMillis.ts"
import { isFinal, type TaskRow } from "./TaskRow.ts"
import type { Snapshot, TaskRows } from "./TaskRows.ts"
import { earliest } from "./times.ts"

/** Creates records. The operations may be part of a caller's transaction. */
export interface CreateOperations {
  readonly create: (batch: Batch<NewRecord>) => Effect.Effect<ReadonlyArray<Created>, StoreError>
  /** Creates records whose ids or keys were found to be taken; returns the answers by index. */
  readonly createTaken: (
    items: ReadonlyArray<Indexed<NewRecord>>
  ) => Effect.Effect<ReadonlyMap<number, Created>, StoreError>
  /** Returns whether there is a record of each id and incarnation. */
  readonly markPublished: (
    records: Batch<PublishedRecord>
  ) => Effect.Effect<ReadonlyArray<boolean>, StoreError>
}

/** The columns of a batch of new records. */
export const newRecordColumns = {
  id: "text",
  task: "text",
  incarnation: "text",
  queue: "text",
  idempotency_key: "text",
  payload_hash: "text",
  reserved: "integer",
  delay: "integer",
  expires: "integer",
  retention: "integer",
  check_in: "integer"
} as const

/** The longest key that is stored as it is, in characters. Of a longer one, which may not fit an index, the hash is. */
const MAX_KEY_LENGTH = 200

const storedKey = ({ key }: NewRecord): string | null =>
  key === undefined || key.length <= MAX_KEY_LENGTH
    ? (key ?? null)
    : `sha256:${createHash("sha256").update(key).digest("base64url")}`

/** Returns the row of such a batch. */
export const toNewRecordRow = (record: NewRecord): BatchRow<typeof newRecordColumns> => {
  const expires = toMillis(record.expiresMillis)
  const retention = toMillis(record.retentionMillis)
  const reserved = toMillis(record.reservedMillis)
  return {
    id: record.id,
    task: record.task,
    incarnation: record.incarnation,
    queue: record.queue,
    idempotency_key: storedKey(record),
    payload_hash: record.payloadHash,
    reserved,
    delay: toMillis(record.delayMillis),
    expires,
    retention,
    check_in: earliest(earliest(expires, retention), reserved)
  }
}

/** Whether the message of a task that waits is not known to be published. */
export const isReservation = (row: TaskRow): boolean => row.published === 0 && !isFinal(row)

/** Creates one record after the other, where an id or a key is taken. */
const makeCreateOne = (
  { dialect: { now }, reader, run, table }: Database,
  taskRows: TaskRows,
  insert: (record: NewRecord) => Effect.Effect<boolean, StoreError>
) => {
  const tasks = table("tasks")
  const readIds = reader<{ readonly id: string }>("tasks", { id: Row.text })
  const selectByKey = `SELECT id FROM ${tasks} WHERE task = ? AND idempotency_key = ?`
  // E3
  const adopt = `UPDATE ${tasks} SET payload_hash = ?, idempotency_key = COALESCE(idempotency_key, ?) WHERE id = ?`
  // E4
  const renew = `UPDATE ${tasks} SET remove_at = ${now} + ? WHERE id = ? AND remove_at < ${now} + ?`

  /**
   * Reads the record that holds the key or the id. It is locked only if it may be changed, since a caller's transaction
   * may stay open for long. Locking removes a record whose retention is over.
   */
  const findHolder = (record: NewRecord, key: string | null) =>
    Effect.gen(function* () {
      const [holdsKey] = key === null ? [] : yield* readIds(yield* run(selectByKey, [record.task, key]))
      const ids = holdsKey === undefined ? [record.id] : [record.id, holdsKey.id]
      const holder = ({ rows }: Snapshot): TaskRow | undefined =>
        (holdsKey === undefined ? undefined : rows.get(holdsKey.id)) ?? rows.get(record.id)
      const seen = holder(yield* taskRows.select(ids))
      return seen === undefined || seen.payload_hash === "" || isReservation(seen)
        ? holder(yield* taskRows.selectForUpdate(ids))
        : seen
    })

  const createOne = (record: NewRecord): Effect.Effect<Created, StoreError> =>
    Effect.gen(function* () {
      const key = storedKey(record)
      const existing = yield* findHolder(record, key)
      if (existing === undefined) {
        // again, if the id or the key was taken in the meantime
        return (yield* insert(record)) ? { _tag: "Created" } : yield* createOne(record)
      }
      const { adopts, same } = decideCreate(
        { task: existing.task, payloadHash: existing.payload_hash, ended: existing.ended },
        record
      )
      if (adopts) yield* run(adopt, [record.payloadHash, key, existing.id])
      const reserved = toMillis(record.reservedMillis)
      if (same && isReservation(existing) && reserved !== null) {
        yield* run(renew, [reserved, existing.id, reserved])
      }
      const { generation, id, incarnation, published } = existing
      return { _tag: "Existing", id, incarnation, generation, same, published: published === 1 }
    })
  return createOne
}

/** Marks reservations as published. It waits for no record that is marked already, or of another generation. */
const makeMarkPublished = ({
  dialect,
  reader,
  retryOnDeadlock,
  run,
  table
}: Database): CreateOperations["markPublished"] => {
  const tasks = table("tasks")
  type Found = Omit<PublishedRecord, "generation">
  const read = reader<Found>("tasks", { id: Row.text, incarnation: Row.text })
  // the ids find the rows by their index
  const isAsked = (...names: ReadonlyArray<string>) => `${dialect.inList("id", "text")}
    AND ${dialect.inList(dialect.concat(...names), "text")}
    AND (remove_at IS NULL OR remove_at > ${dialect.now})`
  const { returnsRows } = dialect.update
  // the record of a task that has ended stays for as long as its retention says
  const mark = `UPDATE ${tasks}
    SET published = 1, remove_at = CASE WHEN finished_at IS NOT NULL THEN remove_at END
    WHERE ${isAsked("id", "' '", "incarnation", "' '", "generation")} AND published = 0 ${returnsRows ? "RETURNING id, incarnation" : ""}`
  const select = `SELECT id, incarnation FROM ${tasks} WHERE ${isAsked("id", "' '", "incarnation")}`
  const textOf = ({ id, incarnation }: Found) => `${id} ${incarnation}`
  const params = (
    records: ReadonlyArray<PublishedRecord>,
    text: (record: PublishedRecord) => string = textOf
  ) => [dialect.list(records.map(({ id }) => id)), dialect.list(records.map(text))]
  const textOfGeneration = (record: PublishedRecord) => `${textOf(record)} ${record.generation}`

  return Effect.fnUntraced(function* (
    records: Batch<PublishedRecord>
  ): Effect.fn.Return<ReadonlyArray<boolean>, StoreError> {
    const marked = yield* retryOnDeadlock(run(mark, params(records, textOfGeneration)))
    const found = new Set((yield* read(returnsRows ? marked : [])).map(textOf))
    const rest = records.filter((record) => !found.has(textOf(record)))
    if (rest.length > 0) {
      for (const record of yield* read(yield* run(select, params(rest)))) found.add(textOf(record))
    }
    return records.map((record) => found.has(textOf(record)))
  })
}

/** Creates records over one database. */
export const makeCreate = (db: Database, taskRows: TaskRows): CreateOperations => {
  const tasks = db.table("tasks")
  const { dialect } = db
  const { now } = dialect
  const readIds = db.reader<{ readonly id: string }>("tasks", { id: Row.text })

  const insert = db.batched(
    newRecordColumns,
    (batch) =>
      `${dialect.insertIgnore} ${tasks} (
        id, task, incarnation, queue, idempotency_key, payload_hash, published, state, enqueued_at, due_at, expires_at,
        retention, remove_at, check_at
      )
      SELECT batch.id, batch.task, batch.incarnation, batch.queue, batch.idempotency_key, batch.payload_hash,
        CASE WHEN batch.reserved IS NULL THEN 1 ELSE 0 END, 'PENDING', ${now},
        CASE WHEN batch.delay > 0 THEN ${now} + batch.delay END, ${now} + batch.expires, batch.retention,
        ${now} + batch.reserved, ${now} + batch.check_in
      FROM ${batch} WHERE batch.id IS NOT NULL
      ${dialect.onConflictDoNothing} RETURNING id`
  )

  const createOne = makeCreateOne(db, taskRows, (record) =>
    Effect.map(insert([toNewRecordRow(record)]), (inserted) => inserted.length > 0)
  )
  const createTaken: CreateOperations["createTaken"] = (items) =>
    db.inTransaction(
      Effect.map(
        Effect.forEach(items, ({ index, item }) =>
          Effect.map(createOne(item), (answer) => [index, answer] as const)
        ),
        (answers) => new Map(answers)
      )
    )

  const createDistinct = (items: ReadonlyArray<Indexed<NewRecord>>) =>
    Effect.gen(function* () {
      const inserted = yield* readIds(yield* insert(items.map(({ item }) => toNewRecordRow(item))))
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
          (items) => db.retryOnDeadlock(createDistinct(items))
        ),
        (parts) => {
          const answers = new Map(parts.flatMap((part) => [...part]))
          return batch.map((_, index) => answers.get(index)!)
        }
      ),
    createTaken,
    markPublished: makeMarkPublished(db)
  }
}
